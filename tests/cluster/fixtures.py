"""Fixtures for any test that wants a real object store, `object_store`, `s3_folder` and `fault_proxy`, or a
real Slurm cluster, `slurm`.
"""

import os
from collections.abc import Iterator

import pytest

from shards.storage import store
from tests.cluster import objectstore
from tests.cluster.faultproxy import FaultProxy
from tests.cluster.objectstore import ObjectStore
from tests.cluster.slurm import Cluster, slurm_cluster


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """One server for the whole session; skips where none is installed."""
    pytest.importorskip("s3fs", reason="pip install -e '.[s3]'")
    try:
        with objectstore.object_store() as running:
            yield running
    except objectstore.NotInstalledError as error:
        pytest.skip(str(error))


@pytest.fixture
def s3_folder(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The URL of an empty folder in the store; the environment, which children inherit, leads there."""
    yield from _reached(object_store, monkeypatch, request)


@pytest.fixture(scope="session")
def shared_proxy(object_store: ObjectStore) -> Iterator[FaultProxy]:
    """A proxy in front of the store."""
    with FaultProxy(object_store.endpoint) as proxy:
        yield proxy


@pytest.fixture
def fault_proxy(shared_proxy: FaultProxy) -> FaultProxy:
    """The proxy, without faults yet and with an empty log."""
    shared_proxy.rules()
    return shared_proxy


@pytest.fixture
def faulty_folder(
    object_store: ObjectStore,
    fault_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[str]:
    """As `s3_folder`, but every request goes through `fault_proxy`."""
    yield from _reached(object_store.through(fault_proxy.endpoint), monkeypatch, request)


_connected_to: list[dict[str, str]] = []
"""The environment that this process's connections were made in: making them anew takes 0.3 s."""


def _reached(
    store_to_reach: ObjectStore, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[str]:
    environment = store_to_reach.environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if _connected_to != [environment]:
        store.forget_connections()
        _connected_to[:] = [environment]
    yield f"{store_to_reach.url}/{request.node.name}"
    if any(os.environ.get(name) != value for name, value in environment.items()):
        _connected_to.clear()


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """One cluster of four nodes for the whole session; skips where Slurm is not installed."""
    pytest.importorskip("submitit", reason="pip install -e '.[slurm]'")
    try:
        with slurm_cluster() as running:
            yield running
    except objectstore.NotInstalledError as error:
        pytest.skip(str(error))
