"""Static keys that the sidecar holds for its agent, each from a file that is read again when it changes.

A thread for each file reads it and looks every quarter of a second for a change: a file on a network volume may not
answer, and then neither a call nor another file waits for it. A key that the thread could not confirm for ten seconds
is used no more. A key is never in a log, a record, an error or a status: only its fingerprint is (``secret_names.py``),
or for a short key that it has none.
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

from sidecar.errors import Reason, Unavailable
from sidecar.identity.file_reader import Present, Seen, Watched, look_at
from sidecar.observe.secret_names import UNNAMED, secret_fingerprint

MIN_BYTES: Final = 8  # less could not be told from ordinary content of an answer
LOOK_S: Final = 0.25  # between two looks at a file
MAX_AGE_S: Final = 10.0
FIRST_S: Final = 1.0  # that a start, or the first call, waits for the first look
_ASKED: Final = 200  # times in that while
_KEY: Final = re.compile(rb"[!-~]{8,4096}")


@dataclass(frozen=True, slots=True)
class StaticKey:
    """One key as it is now."""

    value: bytes = field(repr=False)
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Look:
    """The result of one look that began ``at`` a time: the key, or the reason why there is none."""

    at: float
    seen: Seen
    key: StaticKey | None
    why: str


class StaticKeys:
    """The keys of all routes, by file. ``look`` reads a file and may block for ever."""

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
        """Return the key in ``file``, as it was there a moment ago. Never blocks.

        Raises:
            Unavailable: CREDENTIAL_UNAVAILABLE, the file is missing, open to others, or holds no key; or it was not
                read yet, or not for ten seconds, or no thread could be started for it.
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
        """Wait as ``first_look``, where no loop runs yet. Raises as ``first_look``."""
        self._follow(file)
        for _ in range(_ASKED):
            if self.has_looked(file):
                break
            time.sleep(FIRST_S / _ASKED)

    def _follow(self, file: str) -> None:
        if file not in self._looks:
            self._looks[file] = None
            thread = threading.Thread(target=_looking, args=(weakref.ref(self), file), name="static key", daemon=True)
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
            self._looks[file] = _looked(at, seen, file)


def _looking(owner: weakref.ref[StaticKeys], file: str) -> None:
    """Look at one file for as long as anybody can ask for its key. A daemon's thread: it must not delay an exit."""
    while (keys := owner()) is not None:
        keys._look_again(file)
        del keys
        time.sleep(LOOK_S)


def _looked(at: float, seen: Seen, file: str) -> _Look:
    if not isinstance(seen, Present):
        return _Look(at, seen, None, seen.why)
    value = seen.content.removesuffix(b"\n").removesuffix(b"\r")
    if not _KEY.fullmatch(value):
        return _Look(at, seen, None, f"{file} does not hold one key of 8 to 4096 characters")
    return _Look(at, seen, StaticKey(value, secret_fingerprint(value) or UNNAMED), "")
