from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.injector.serving import Running, running_injector


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_injector(tmp_path) as found:
        yield found
