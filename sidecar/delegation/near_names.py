"""Names that a misspelled one may stand for: hints for people, which decide nothing. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import unquote


def reads_like(one: str, other: str) -> bool:
    """Return True if two names differ in percent-encoding, Unicode form, case and last slash alone, or in one swapped
    pair of neighbouring letters. Swapped digits make another name: worker-12 and worker-21 are two workloads.
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
    """Return the known name that is most like ``named``; None if none is.

    ``cutoff`` is from 0 to 1: names that begin alike, such as SPIFFE IDs of one trust domain, need a high one.
    """
    there = sorted(known)
    alike = [one for one in there if reads_like(one, named)]
    return next(iter(alike or get_close_matches(named, there, n=1, cutoff=cutoff)), None)


def meant(named: str, known: Iterable[str], otherwise: str) -> str:
    """Return the fix of a long name that is unknown: the known one that was probably meant, or ``otherwise``."""
    near = nearest_name(named, known, cutoff=0.9)
    return otherwise if near is None else f"did you mean {near}? If not, {otherwise}"


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", unquote(name)).casefold().rstrip("/")
