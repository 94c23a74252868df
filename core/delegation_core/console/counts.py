"""Counts in sentences: the noun and the verb agree with the number."""

from __future__ import annotations


def pluralise(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: ``1 file``, ``2 files``, ``0 entries`` (``plural`` if it is not noun and s)."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def part(count: int, whole: int, noun: str, plural: str | None = None) -> str:
    """Return a part of a whole with its verb: ``1 of 3 chains is``, ``0 of 1 chain is``, ``2 of 3 chains are``."""
    return f"{count} of {pluralise(whole, noun, plural)} {'is' if 1 in (count, whole) else 'are'}"
