"""Crossings: configured exchanges of one issuer's tokens for another's.

The other issuer prefixes the subject, so subjects of two issuers cannot collide. Scopes are mapped; a scope without a
mapping grants nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Final

from delegation_core.scope import ScopeSet

_WORKLOADS: Final = "spiffe:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Exchange of tokens of ``issuer`` for those of another issuer, which writes ``subject_prefix`` before ``sub``.

    ``scopes`` maps each scope of ``issuer`` to scopes of the other.

    Raises:
        ValueError: an empty issuer or prefix, or a prefix that could make a subject look like a workload.
    """

    issuer: str
    subject_prefix: str
    scopes: Mapping[str, ScopeSet] = field(hash=False)

    def __post_init__(self) -> None:
        if not self.issuer or not self.subject_prefix:
            raise ValueError("a crossing needs issuer and subject_prefix")
        if makes_workloads(self.subject_prefix):
            raise ValueError("subject_prefix: could make subjects look like workloads")

    def worth(self, scope: ScopeSet) -> ScopeSet:
        """Return the scopes at the other issuer for a token with ``scope``."""
        return frozenset().union(*(self.scopes.get(one, frozenset()) for one in scope))

    def subject(self, sub: str) -> str:
        """Return the ``sub`` at the other issuer."""
        return self.subject_prefix + sub


def makes_workloads(prefix: str) -> bool:
    """True if a subject with this prefix could look like a workload's name (``spiffe:``, in any case)."""
    folded = prefix.lower()
    return bool(folded) and (folded.startswith(_WORKLOADS) or _WORKLOADS.startswith(folded))


def collide(prefixes: Iterable[str]) -> bool:
    """True if one prefix is the beginning of another, so that prefixed subjects could be equal."""
    return any(second.startswith(first) for first, second in permutations(prefixes, 2))
