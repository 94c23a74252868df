"""The deny list of ``deny_file``: read in this process when its file changes, and in force at once.

Unlike a reload of the settings it needs no child process and waits for no other reload, so a new list is in force
within seconds even on a busy machine. While the file is invalid, the earlier list stays in force. Until the first list
is read, the sidecar refuses all calls.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from delegation_core.policy import Deny

POLL_S: Final = 1.0

_LOG: Final = logging.getLogger("sidecar.deny")


class DenyFile:
    """Follows one file, or none. Calls ``after_change`` for a new list, ``after_refusal`` for an invalid file.

    ``deny`` is the list in force; None: none was read yet. ``sha256`` is the digest of its file, as ``sha256sum``
    prints it. ``error`` says why the current file is not in force; None: it is.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.deny: Deny | None = None
        self.sha256 = ""
        self.rows = 0
        self.in_force_at: int | None = None
        self.error: str | None = "not read yet"
        self.after_change: Callable[[], None] = lambda: None
        self.after_refusal: Callable[[], None] = lambda: None
        self._wall = wall
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._seen: object = None
        self._settled = True
        self._looking = asyncio.Lock()
        # A thread of its own: a hanging disk can block all threads of a shared pool.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="deny")

    def missing(self) -> list[str]:
        """Return the reason why the sidecar is not ready; empty if a list is in force or no file is configured."""
        return [f"deny_file: {self.error}"] if self.path is not None and self.deny is None else []

    async def run(self) -> None:
        """Follow the file until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(POLL_S)
        finally:
            self._reader.shutdown(wait=False, cancel_futures=True)

    async def read(self, path: Path | None) -> Callable[[], None]:
        """Read another file, or none. Return a function that puts its list in force and follows that file.

        Nothing changes until the caller calls that function.

        Raises:
            DenyListError: the file is not readable or invalid.
        """
        if path == self.path:
            return lambda: None
        if path is None:
            return self._follow_none
        from delegation_core.deny_list import parse_deny_list
        from sidecar.steps import in_steps

        seen, document = await self._read(path, None)
        deny = await in_steps(parse_deny_list(document or b""))

        def follow() -> None:
            self.path, self._seen, self._settled = path, seen, False
            self._put_in_force(deny, document or b"")

        return follow

    def _follow_none(self) -> None:
        self.path, self.deny, self.sha256, self.rows, self.in_force_at = None, None, "", 0, None
        self._seen = None
        self.after_change()

    async def look(self) -> None:
        """Read the file if it has changed, and put its list in force or report its error."""
        async with self._looking:
            path = self.path
            if path is None:
                return
            from delegation_core.deny_list import DenyListError, parse_deny_list
            from sidecar.steps import in_steps

            deny: Deny | None = None
            error: str | None = None
            document: bytes | None = None
            seen: object = None
            try:
                seen, document = await self._read(path, self._seen if self._settled else None)
                if document is not None and (self.error is not None or _sha256_of(document) != self.sha256):
                    deny = await in_steps(parse_deny_list(document))
            except DenyListError as found:
                error = str(found)
            if path != self.path:  # a reload named another file meanwhile
                return
            self._looked_at = self._monotonic()
            if document is None and error is not None:
                self._seen = None
            elif document is not None:
                # Two writes within one tick of the file system's clock have the same fingerprint: read again.
                self._settled, self._seen = seen == self._seen, seen
            if error is not None:
                self._refuse(error)
            elif deny is not None and document is not None:
                self._put_in_force(deny, document)

    async def _read(self, path: Path, known: object) -> tuple[object, bytes | None]:
        """Call ``_content_of`` in the reader's thread. Raises DenyListError if it fails."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, _content_of, path, known)
        except (OSError, MemoryError, RuntimeError) as error:  # RuntimeError: cannot start a thread
            why = (isinstance(error, OSError) and error.strerror) or str(error) or "no memory is left"
            from delegation_core.deny_list import DenyListError

            raise DenyListError(f"it cannot be read: {why}") from error

    def _put_in_force(self, deny: Deny, document: bytes) -> None:
        self.deny, self.sha256, self.error = deny, _sha256_of(document), None
        self.rows = sum(map(len, (deny.subjects, deny.actors, deny.jtis, deny.txns)))
        self.in_force_at = int(self._wall())
        _LOG.info("the deny list is in force", extra={"rows": self.rows, "sha256": self.sha256})
        self.after_change()

    def _refuse(self, error: str) -> None:
        if error == self.error:
            return
        self.error = error
        kept = "no call is served" if self.deny is None else f"the list of {self.rows} rows stays in force"
        _LOG.error("the deny file is refused", extra={"file": str(self.path), "why": error, "effect": kept})
        self.after_refusal()

    def row(self) -> dict[str, Any] | None:
        """Return the list's part of the status document; None if no file is followed."""
        if self.path is None:
            return None
        return {
            "file": str(self.path),
            "rows": self.rows,
            "sha256": self.sha256 or None,
            "in_force_at": self.in_force_at,
            "age_s": int(self._monotonic() - self._looked_at),
            "error": self.error,
        }


def _sha256_of(document: bytes) -> str:
    return hashlib.sha256(document).hexdigest()


def _content_of(path: Path, known: object) -> tuple[object, bytes | None]:
    """Return the fingerprint of a file, and its content unless the fingerprint is ``known``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a regular file")
        if (seen := fingerprint_of(found)) == known:
            return seen, None
        from delegation_core.deny_list import MAX_DENY_BYTES

        content = bytearray()
        while len(content) <= MAX_DENY_BYTES and (piece := file.read(65_536)):
            content += piece
        return seen, bytes(content)


def fingerprint_of(found: os.stat_result) -> object:
    """Return a value that changes with every write to the file, except a second one within one tick of the clock."""
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
