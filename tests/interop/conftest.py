from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.integration.conftest import hops as hops
from tests.integration.conftest import world as world
from tests.interop.cluster_mesh import ClusterMesh, missing
from tests.interop.engine import require


@pytest.fixture(scope="session")
def mesh_on_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterMesh]:
    """Install one example for all its tests."""
    require(missing())
    mesh = ClusterMesh(tmp_path_factory.mktemp("cluster"))
    try:
        mesh.up()
        yield mesh
    finally:
        mesh.down()


@pytest.fixture
def promtool() -> None:
    """Skip without promtool; continuous integration must have it."""
    require(None if shutil.which("promtool") else "promtool is not on PATH")
