"""Properties of every parser of foreign bytes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Final
from zlib import crc32

from delegation_core.errors import Reason, SidecarError
from sidecar.wire import framing, websocket
from tests.sources import python_files

MAX_DETAIL: Final = 400


def chance(data: bytes) -> Random:
    """Return random choices that depend only on the input, so that the same input always does the same."""
    return Random(crc32(data))


def pieces(data: bytes, random: Random | None = None) -> list[bytes]:
    """Cut the input at random places; sometimes into single bytes."""
    random = random or chance(data)
    if random.random() < (0.1 if len(data) < 500 else 0.01):
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(random.randint(0, len(data)) for _ in range(random.randint(1, 4)))
    bounds = [0, *cuts, len(data)]
    return [data[start:end] for start, end in pairwise(bounds) if start < end]


@contextmanager
def little_at_a_time(data: bytes) -> Iterator[None]:
    """Now and then so little of a body, or so few frames, are read at a time that short ones take many turns."""
    limits = ((vars(framing), "MAX_LINES"), (vars(websocket), "MAX_STEPS"))
    usual = [module[name] for module, name in limits]
    random = chance(data + b"at a time")
    for (module, name), most in zip(limits, usual, strict=True):
        module[name] = random.choice((1, 2, 5, most, most))
    try:
        yield
    finally:
        for (module, name), most in zip(limits, usual, strict=True):
            module[name] = most


def quiet(error: Exception) -> None:
    """An error uses only our own words: so it quotes no input, and leaks no token into a log."""
    detail = error.detail if isinstance(error, SidecarError) else str(error)
    assert len(detail) <= MAX_DETAIL, "an error's detail has no bound"
    assert is_ours(detail), f"not our own words: {detail!r}"


@lru_cache(maxsize=4096)
def is_ours(text: str, depth: int = 3) -> bool:
    """Tell if a text is a sentence of the source, its gaps filled by plain names, numbers or such sentences."""
    reason, separator, detail = text.partition(": ")
    if separator and reason in set(Reason):  # a nested error
        return is_ours(detail, depth)
    if text in own_words().sentences or re.fullmatch(r"[a-z_.]{0,32}|[0-9]{1,10}", text):
        return True
    matches = (pattern.fullmatch(text) for pattern in own_words().open) if depth else ()
    return any(all(is_ours(group, depth - 1) for group in match.groups()) for match in matches if match is not None)


class _Words:
    """The string literals of the product, and the patterns of its f-strings."""

    def __init__(self) -> None:
        self.sentences: set[str] = set()
        self.open: list[re.Pattern[str]] = []
        for path in python_files():
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    self.sentences.add(node.value)
                elif (
                    isinstance(node, ast.JoinedStr) and len(re.findall("[a-z]", pattern := "".join(_pattern(node)))) > 5
                ):
                    self.open.append(re.compile(pattern, re.DOTALL))


def _pattern(node: ast.JoinedStr) -> Iterator[str]:
    for part in node.values:
        yield re.escape(part.value) if isinstance(part, ast.Constant) and isinstance(part.value, str) else "(.*)"


@lru_cache(maxsize=1)
def own_words() -> _Words:
    """Read the whole source, once: seconds of an instrumented process."""
    return _Words()


def printable(text: str) -> None:
    """Check that a text is printable, and inactive in a terminal or a log."""
    assert text.isprintable(), f"text that acts: {text!r}"
