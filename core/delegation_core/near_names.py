"""Spelling suggestions for error messages; never used for decisions. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import unquote


def reads_like(one: str, other: str) -> bool:
    """True if two names differ only in percent-encoding, Unicode form, case and trailing slash, or in one swapped pair
    of adjacent letters. Swapped digits do not count: worker-12 and worker-21 are different workloads.
    """
    left, right = _plain(one), _plain(other)
    if left == right:
        return True
    if len(left) != len(right):
        return False
    differing = [place for place, (here, there) in enumerate(zip(left, right, strict=True)) if here != there]
    if len(differing) != 2 or differing[1] != differing[0] + 1:
        return False
    first, second = differing
    swapped = left[first] == right[second] and left[second] == right[first]
    return swapped and (left[first] + left[second]).isalpha()


def nearest_name(named: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the known name that is most similar to ``named``; None if none is similar.

    ``cutoff``: minimal similarity, 0 to 1. Names with a common beginning, such as SPIFFE IDs, need a high one.
    """
    there = sorted(known)
    alike = [one for one in there if reads_like(one, named)]
    return next(iter(alike or get_close_matches(named, there, n=1, cutoff=cutoff)), None)


def meant(named: str, known: Iterable[str], otherwise: str) -> str:
    """Return a fix for an unknown long name: a suggestion of a similar known name, or ``otherwise``."""
    near = nearest_name(named, known, cutoff=0.9)
    return otherwise if near is None else f"did you mean {near}? If not, {otherwise}"


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", unquote(name)).casefold().rstrip("/")
