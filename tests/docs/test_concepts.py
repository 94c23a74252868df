"""The page of concepts explains each word where it first stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

PAGE: Final = (Path(__file__).parents[2] / "docs" / "concepts.md").read_text(encoding="utf-8")
# The words that other pages take for known.
WORDS: Final = frozenset(
    {
        *("actor", "agent", "api key", "audience", "chain", "delegation", "door", "entry", "handle", "impersonation"),
        *("mesh", "mtls", "peer", "reason", "record", "routes", "scope", "sidecar", "spiffe id", "subject", "svid"),
        *("token", "token exchange", "token service", "trust domain", "workload", "workload api", "workload handle"),
    }
)
# Used before in another sense, or as part of the title of the project.
ALLOWED: Final = frozenset({"sidecar"})


def prose(page: str) -> str:
    """Return the text that is read from top to bottom: no heading, no table, no picture, no address of a link."""
    text = re.sub(r"^#.*$|^\|.*$", "", re.sub(r"(?s)```.*?```", "", page), flags=re.MULTILINE)
    return re.sub(r"\]\([^)]*\)|`[^`]*`", "", text)


def explained(text: str) -> list[str]:
    return [word.lower() for word in re.findall(r"\*\*([\w -]+)\*\*", text)]


def too_early(text: str) -> list[str]:
    """Return the words that are used before they are explained."""
    found = []
    for word in explained(text):
        before = text[: re.search(rf"\*\*{word}\*\*", text, re.IGNORECASE).start()]  # type: ignore[union-attr]
        if word not in ALLOWED and re.search(rf"\b{word}s?\b", before, re.IGNORECASE):
            found.append(word)
    return found


def test_each_word_is_explained_before_it_is_used() -> None:
    text = prose(PAGE)
    assert too_early(text) == []
    assert sorted(WORDS - set(explained(text))) == []
    assert len(explained(text)) == len(set(explained(text)))


def test_a_word_that_is_used_too_early_is_noticed() -> None:
    assert too_early("A handle comes first.\n\nA **handle** is a number.") == ["handle"]
