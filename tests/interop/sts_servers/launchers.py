"""All token-exchange servers that we did not write, by name. STS_SERVERS selects some, separated by spaces."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.interop.sts_servers import launch_idpyoidc, launch_keycloak, launch_spring, launch_zitadel
from tests.interop.sts_servers.server import Launcher, Server

_ALL: Final = (
    launch_idpyoidc.LAUNCHER,
    launch_zitadel.EXAMPLE,
    launch_zitadel.OWN,
    launch_zitadel.LOOSE,
    launch_spring.STOCK,
    launch_spring.CUSTOMIZED,
    launch_keycloak.LAUNCHER,
)
LAUNCHERS: Final[dict[str, Launcher]] = {launcher.name: launcher for launcher in _ALL}


Foreign = Callable[[str], Awaitable[Server]]
"""Starts a server by name, or returns the one that runs; skips the test where it cannot run."""


@asynccontextmanager
async def started_once(folder: Path) -> AsyncIterator[Foreign]:
    """Run servers until the end of the block, each from the first time that a test asks for it."""
    began: dict[str, Server] = {}
    async with AsyncExitStack() as stack:

        async def start(name: str) -> Server:
            if reason := reason_to_skip(LAUNCHERS[name]):
                pytest.skip(reason)
            if name not in began:
                began[name] = await stack.enter_async_context(LAUNCHERS[name].start(folder))
            return began[name]

        yield start


def reason_to_skip(launcher: Launcher) -> str | None:
    """Return the reason to skip a server here; None: it can run.

    Raises:
        AssertionError: it was selected, under CI=true, and this machine lacks something.
    """
    chosen = os.environ.get("STS_SERVERS", "").split()
    if chosen and launcher.name not in chosen:
        return f"{launcher.name}: not chosen by STS_SERVERS"
    lacking = launcher.lacking()
    if lacking is None:
        return None
    assert not chosen or "CI" not in os.environ, lacking
    return f"{launcher.name}: {lacking}"
