"""Static keys that the sidecar holds for its agent, each from a file that is read again when it changes.

One thread per file checks it every quarter of a second. A file on a network volume may block; then no call and no other
file waits for it. A key is not used once its thread could not confirm it for ten seconds. Logs, records, errors and
status never contain a key: they have its fingerprint (``secret_names.py``), or say that the key is too short for one.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from delegation_core.errors import Reason, Unavailable
from sidecar.identity.file_reader import Present, Seen, Watched, look_at
from sidecar.observe.secret_names import UNNAMED, secret_fingerprint

MIN_BYTES: Final = 8  # a shorter key would match ordinary content of answers
LOOK_S: Final = 0.25  # between two looks at a file
MAX_AGE_S: Final = 10.0
FIRST_S: Final = 1.0  # the longest wait of a start, or of the first call, for the first look
_ASKED: Final = 200  # polls in ``FIRST_S``
_KEY: Final = re.compile(rb"[!-~]{8,4096}")


@dataclass(frozen=True, slots=True)
class StaticKey:
    """A key and its fingerprint."""

    value: bytes = field(repr=False)
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Look:
    """Result of a look that began ``at`` (monotonic): the key, or ``why`` there is none."""

    at: float
    seen: Seen
    key: StaticKey | None
    why: str


class StaticKeys:
    """Keys of all routes, by file. ``look`` reads a file; it may block for ever."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        look: Callable[[Watched, Seen | None], Seen] = look_at,
    ) -> None:
        self._monotonic = monotonic
        self._look = look
        self._looks: dict[str, _Look | None] = {}  # None: the first one has not ended

    def of(self, file: str) -> StaticKey:
        """Return the key in ``file`` by the last look, at most ``MAX_AGE_S`` old. Never blocks.

        Raises:
            Unavailable: CREDENTIAL_UNAVAILABLE, the file is missing, readable by others, or has no valid key; it was
                not read yet, or not for ten seconds; or its thread could not be started.
        """
        look = self._looks.get(file)
        if look is None:
            self._follow(file)
            raise Unavailable(Reason.CREDENTIAL_UNAVAILABLE, f"{file} has not been read yet")
        if self._monotonic() - look.at > MAX_AGE_S:
            raise Unavailable(Reason.CREDENTIAL_UNAVAILABLE, f"{file} does not answer: is its file system reachable?")
        if look.key is None:
            raise Unavailable(Reason.CREDENTIAL_UNAVAILABLE, look.why)
        return look.key

    def has_looked(self, file: str) -> bool:
        """Tell if the file was read at least once."""
        return self._looks.get(file) is not None

    async def first_look(self, file: str) -> None:
        """Wait, for a second at most, until the file was read.

        Raises:
            Unavailable: CREDENTIAL_UNAVAILABLE, no thread could be started for it. The next call tries again.
        """
        self._follow(file)
        for _ in range(_ASKED):
            if self.has_looked(file):
                break
            await asyncio.sleep(FIRST_S / _ASKED)

    def first_look_at_start(self, file: str) -> None:
        """Wait as ``first_look``, but block: no event loop runs yet. Raises as ``first_look``."""
        self._follow(file)
        for _ in range(_ASKED):
            if self.has_looked(file):
                break
            time.sleep(FIRST_S / _ASKED)

    def _follow(self, file: str) -> None:
        if file not in self._looks:
            self._looks[file] = None
            thread = threading.Thread(
                target=_look_periodically, args=(weakref.ref(self), file), name="static key", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # no more threads: the next call tries again
                del self._looks[file]
                raise Unavailable(Reason.CREDENTIAL_UNAVAILABLE, f"{file} cannot be followed: {error}") from error

    def _look_again(self, file: str) -> None:
        at, before = self._monotonic(), self._looks[file]
        seen = self._look(Watched(Path(file), private=True), None if before is None else before.seen)
        if before is not None and seen is before.seen:
            self._looks[file] = _Look(at, seen, before.key, before.why)
        else:
            self._looks[file] = _parse(at, seen, file)


def _look_periodically(owner: weakref.ref[StaticKeys], file: str) -> None:
    """Look at one file periodically while its ``StaticKeys`` exists. Runs in a daemon thread, to not delay an exit."""
    while (keys := owner()) is not None:
        keys._look_again(file)
        del keys
        time.sleep(LOOK_S)


def _parse(at: float, seen: Seen, file: str) -> _Look:
    if not isinstance(seen, Present):
        return _Look(at, seen, None, seen.why)
    value = seen.content.removesuffix(b"\n").removesuffix(b"\r")
    if not _KEY.fullmatch(value):
        return _Look(at, seen, None, f"{file} does not hold one key of 8 to 4096 characters")
    return _Look(at, seen, StaticKey(value, secret_fingerprint(value) or UNNAMED), "")
