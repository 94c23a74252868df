"""Owners of files by CODEOWNERS, in the form that GitHub and GitLab share: the last pattern that matches decides."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Final

NAME: Final = "CODEOWNERS"
MAX_RULES: Final = 2_000  # a file with more names nobody: its last rule would decide
_MAX_PATTERN: Final = 512  # characters
_FOLDERS: Final = frozenset((".github", ".gitlab", "docs"))  # of a repository that may hold the file
_OWNER: Final = re.compile(r"@[\w.-]{1,64}(?:/[\w.-]{1,64}){0,8}|[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,8}")

_Rule = tuple[tuple[str, ...], frozenset[str]]


class CodeOwners:
    """Rules of every CODEOWNERS file of a run, by the folder of the repository."""

    def __init__(self) -> None:
        self._rules: dict[PurePath, list[_Rule]] = {}
        self._found: dict[PurePath, frozenset[str]] = {}

    def add(self, path: PurePath, text: str) -> None:
        """Read a CODEOWNERS file. Skips sections, negations and patterns that are too long."""
        root = path.parent.parent if path.parent.name in _FOLDERS else path.parent
        rules: list[_Rule] = []
        for line in text.split("\n"):
            pattern, *owners = line.partition("#")[0].split() or [""]
            if pattern and len(pattern) <= _MAX_PATTERN and pattern[0] not in "[^!" and len(rules) <= MAX_RULES:
                rules.append((_split(pattern), frozenset(filter(_OWNER.fullmatch, owners))))
        self._rules[root] = rules[::-1] if len(rules) <= MAX_RULES else []
        self._found.clear()

    def find(self, path: PurePath) -> frozenset[str]:
        """Return the owners of a file by the nearest CODEOWNERS file; none if no rule names one."""
        root = next((one for one in path.parents if one in self._rules), None)
        if root is None:
            return frozenset()
        if path not in self._found:  # a file may hold thousands of credentials
            parts = path.relative_to(root).parts
            self._found[path] = next((who for rule, who in self._rules[root] if _matches(rule, parts)), frozenset())
        return self._found[path]


def _split(pattern: str) -> tuple[str, ...]:
    """Return the segments of a pattern, with ``**`` first if it matches in any folder."""
    segments = [one.replace("[", "[[]") for one in pattern.split("/") if one]
    anchored = "/" in pattern.rstrip("/")
    return (*(() if anchored else ("**",)), *segments, *(("**", "*") if pattern.endswith("/") else ()))


def _matches(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Return True if a pattern matches a path or a folder above it; a last ``*`` below a folder matches files alone."""
    ends = {0}
    for segment in pattern:
        if segment == "**":
            ends = set(range(min(ends, default=len(parts)), len(parts) + 1))
        else:
            ends = {end + 1 for end in ends if end < len(parts) and fnmatchcase(parts[end], segment)}
        if not ends:
            return False
    return len(parts) in ends or pattern[-1] != "*"
