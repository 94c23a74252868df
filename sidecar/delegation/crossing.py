"""Crossings: the listed ways from the tokens of one issuer to those of another.

The other issuer writes its own prefix before the subject, so no two subjects become one. A scope of the first issuer
says nothing at the other: it is worth what a map says, and nothing without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Final

from sidecar.delegation.scope import ScopeSet

_WORKLOADS: Final = "spiffe:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Exchange of tokens of ``issuer`` for those of another issuer, which writes ``subject_prefix`` before ``sub``.

    ``scopes`` says what each scope of ``issuer`` is worth at the other.

    Raises:
        ValueError: no issuer, or a prefix that is empty or could make a subject look like a workload.
    """

    issuer: str
    subject_prefix: str
    scopes: Mapping[str, ScopeSet] = field(hash=False)

    def __post_init__(self) -> None:
        if not self.issuer or not self.subject_prefix:
            raise ValueError("a crossing names an issuer, and a prefix for its subjects")
        if makes_workloads(self.subject_prefix):
            raise ValueError("subject_prefix: could make subjects look like workloads")

    def worth(self, scope: ScopeSet) -> ScopeSet:
        """Return the scopes that a token with these scopes has beyond the crossing."""
        return frozenset().union(*(self.scopes.get(one, frozenset()) for one in scope))

    def subject(self, sub: str) -> str:
        """Return the ``sub`` that a subject has beyond the crossing."""
        return self.subject_prefix + sub


def makes_workloads(prefix: str) -> bool:
    """True if this prefix of a subject could yield the name of a workload."""
    folded = prefix.lower()
    return bool(folded) and (folded.startswith(_WORKLOADS) or _WORKLOADS.startswith(folded))


def collide(prefixes: Iterable[str]) -> bool:
    """True if one of these prefixes is the start of another, so that two subjects could become one."""
    return any(second.startswith(first) for first, second in permutations(prefixes, 2))
