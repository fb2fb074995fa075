"""A small drawn dataset that many tests train on, the object store and the Slurm cluster that some need."""

import pytest

from shards.building.build import build
from shards.sources.drawn.rooms import Rooms
from tests.cluster.fixtures import (  # noqa: F401
    fault_proxy,
    faulty_folder,
    object_store,
    s3_folder,
    shared_proxy,
    slurm,
)


@pytest.fixture(scope="session")
def rooms16(tmp_path_factory: pytest.TempPathFactory) -> str:
    """600 drawn rooms of 16x16."""
    out = str(tmp_path_factory.mktemp("rooms16") / "set")
    build(Rooms(600, size=16), out, size=16, shard_images=250, workers=1)
    return out


SERVERS = {"object_store", "slurm"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist a file's tests stay together, and so do all that need the same servers."""
    for item in items:
        shared = SERVERS.intersection(getattr(item, "fixturenames", ()))
        item.add_marker(pytest.mark.xdist_group("servers" if shared else str(item.path)))
