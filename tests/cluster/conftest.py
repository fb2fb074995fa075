"""The object store for the tests of this folder."""

import pytest

from tests.cluster.fixtures import (  # noqa: F401
    fault_proxy,
    faulty_folder,
    object_store,
    s3_folder,
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "s3: needs a real object store, which tests/cluster starts")
