"""Detector of secrets: MongoDB's Kingfisher library, in this process, offline."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Protocol

from delegation_core.console.extras import needs

MISSING: Final = f"this {needs('audit')}"
_TIMEOUT_S: Final = 30.0  # of one piece of a text


class DetectorError(Exception):
    """The library is not installed, or failed on a text. The message has the fix."""


class Hit(NamedTuple):
    """A secret in a text. Lines and columns begin with 1. ``secret`` never leaves this package."""

    rule: str
    secret: str
    line: int
    column: int


class Detector(Protocol):
    """Finder of secrets in texts."""

    def find(self, text: str) -> Iterator[Hit]:
        """Yield each secret of a text. May raise DetectorError."""
        ...


class Kingfisher:
    """Detector with Kingfisher's own rules, which are compiled once and cached in the user's cache folder."""

    def __init__(self, cache: str | None = None) -> None:
        """Load the rules. ``cache``: another folder for the compiled rules.

        Raises:
            DetectorError: the library is not installed.
        """
        try:
            library: Any = importlib.import_module("kingfisher_sdk")
        except ImportError:
            raise DetectorError(MISSING) from None
        self._scanner: Any = library.Scanner(library.Rules(cache_dir=cache), base64=False)

    def find(self, text: str) -> Iterator[Hit]:
        """Yield each visible finding as a hit.

        Raises:
            DetectorError: the library failed or timed out.
        """
        try:
            findings = self._scanner.scan(text.encode("utf-8", "replace"), timeout=_TIMEOUT_S)
        except (TimeoutError, RuntimeError, ValueError):  # its texts may quote the input
            raise DetectorError("the detector gave up; split the file") from None
        for finding in findings:
            if finding.visible:
                where = finding.location
                yield Hit(finding.rule_id, finding.secret, where["line"], where["column"] + 1)
