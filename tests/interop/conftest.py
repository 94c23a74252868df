from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.integration.conftest import hops as hops
from tests.integration.conftest import world as world
from tests.interop import browser as chromium
from tests.interop.cluster_mesh import ClusterMesh, missing
from tests.interop.engine import require
from tests.interop.sts_servers.launchers import Foreign, started_once

if TYPE_CHECKING:
    from playwright.async_api import Browser


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


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Start one Chromium for all tests; each page has a context of its own."""
    require(chromium.missing())
    async with chromium.started() as browser:
        yield browser


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def foreign(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Foreign]:
    """Start token-exchange servers by name, each once for all tests."""
    async with started_once(tmp_path_factory.mktemp("sts")) as start:
        yield start
