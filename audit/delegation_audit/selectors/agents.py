"""Decides by patterns if a SPIFFE ID is an agent's, and by selectors if an entry is a sidecar's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from typing import Final

from delegation_audit.selectors.entries import SCHEME, Entry, Selector, path_of
from delegation_audit.selectors.kinds import repository_of

MAX_PATTERNS: Final = 10_000
_MAX_FILE_BYTES: Final = 4 << 20
_SEGMENTS: Final = frozenset({"agent", "agents"})
_NODES: Final = "/spire/"
_SIDECAR: Final = re.compile(r"(?:^|[-_./])sidecar(?:$|[-_.])")


class Agents:
    """Decides if a SPIFFE ID is an agent's.

    By default, an agent's path has the segment ``agent`` or ``agents``, such as ``/agent/writer`` and
    ``/ns/agents/sa/writer``, and does not begin with ``/spire/``. Patterns replace the default: ``*`` matches any text.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._exact = frozenset(one for one in patterns if not re.search(r"[*?\[]", one))
        globs = [one for one in patterns if one not in self._exact]
        self._globs = re.compile("|".join(map(translate, globs))) if globs else None
        self._by_path = not patterns

    def includes(self, spiffe_id: str) -> bool:
        """Return True if the ID is an agent's. A pattern may omit ``spiffe://``, or scheme and trust domain."""
        path = path_of(spiffe_id)
        if self._by_path:
            return not path.startswith(_NODES) and not _SEGMENTS.isdisjoint(path.split("/"))
        forms = (spiffe_id, spiffe_id.removeprefix(SCHEME), path)
        if not self._exact.isdisjoint(forms):
            return True
        return self._globs is not None and any(map(self._globs.match, forms))


def agents_of(given: Iterable[str]) -> Agents:
    """Parse the values of ``--agents``: each is a file with one agent per line, or a pattern.

    A line is a pattern, or a name and several identifiers (``writer = spiffe://…, ip:10.0.3.0/24``), as for the other
    audits; identifiers that are no SPIFFE IDs are ignored.

    Raises:
        ValueError: a value is no pattern, or a file is not text, too long, or holds no SPIFFE ID; the text names it.
        OSError: a file cannot be read.
    """
    patterns: list[str] = []
    for word in given:
        if not Path(word).is_file():
            if "/" not in word:
                raise ValueError(f"--agents {word}: neither a file nor a pattern; write /agent/* or spiffe://…/agent/*")
            patterns.append(word)
            continue
        with Path(word).open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
        try:
            lines = [line.partition("#")[0] for line in raw.decode().splitlines()]
        except UnicodeDecodeError:
            raise ValueError(f"--agents {word}: not UTF-8; save it as UTF-8") from None
        found = [part for line in lines for part in map(str.strip, re.split(r"\s=\s|,", line)) if _is_pattern(part)]
        if not found or len(found) > MAX_PATTERNS or len(raw) > _MAX_FILE_BYTES:
            raise ValueError(f"--agents {word}: holds {len(found)} SPIFFE IDs; 1 to {MAX_PATTERNS} are allowed")
        patterns += found
    return Agents(patterns)


def _is_pattern(text: str) -> bool:
    """Return True for a SPIFFE ID or a pattern for such IDs, False for identifiers such as ``user-agent:writer/*``."""
    return "/" in text and ":" not in text.removeprefix(SCHEME)


def is_of_sidecar(entry: Entry) -> bool:
    """Return True if a selector names a sidecar: its container, image, user or program, or a socket of its own."""
    return _name_sidecar(entry.selectors)


@lru_cache(maxsize=65536)
def _name_sidecar(selectors: frozenset[Selector]) -> bool:
    for one in selectors:
        read = _NAMES.get((one.type, one.kind))
        if (read is not None and _SIDECAR.search(read(one.value))) or (one.type, one.kind) == ("dev", "socket"):
            return True
    return False


def _last(value: str) -> str:
    return value.rpartition("/")[2]


def _image(value: str) -> str:
    return _last(repository_of(value))


_NAMES: Final[dict[tuple[str, str], Callable[[str], str]]] = {
    ("k8s", "container-name"): str,
    ("k8s", "container-image"): _image,
    ("unix", "user"): str,
    ("unix", "path"): _last,
    ("docker", "label"): lambda value: value.rpartition(":")[2],
    ("docker", "image_id"): _image,
}
