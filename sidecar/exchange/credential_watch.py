"""Watches static credentials: a changed file drops the tokens obtained with the old one.

An exchange reads its file each time. A kept token would outlive its credential by minutes, but an operator who
replaces a stolen secret expects that nothing of the old one is used any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Final

from sidecar.exchange.client import TokenExchange
from sidecar.exchange.exchanges import Exchanges
from sidecar.identity.file_reader import facts_of

LOOK_S: Final = 0.25


class CredentialWatch:
    """Watches the credential files of the exchanges returned by ``exchanges``."""

    def __init__(self, exchanges: Callable[[], Exchanges]) -> None:
        self._exchanges = exchanges
        self._seen: dict[TokenExchange, Hashable] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Check once; drop the tokens of each exchange with a file changed since the last check."""
        seen: dict[TokenExchange, Hashable] = {}
        for one in self._exchanges().values():
            if not one.credential_files:
                continue
            found = seen[one] = await asyncio.to_thread(_facts, one.credential_files)  # a disk may not answer
            if self._seen.get(one, found) != found:
                one.invalidate()
        self._seen = seen


def _facts(files: tuple[str, ...]) -> Hashable:
    return tuple(facts_of(Path(file)) for file in files)
