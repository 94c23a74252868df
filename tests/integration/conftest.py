from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.hops import Hops, open_hops
from tests.integration.world import World, open_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:  # a socket's path is short, pytest's folders are not
        async with open_world(Path(folder)) as opened:
            yield opened


@pytest.fixture
async def hops() -> AsyncIterator[Hops]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_hops(Path(folder)) as opened:
            yield opened
