"""Hops and chains as the audit returns them: a hop is one call between workloads, with its witnesses' records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from delegation_core.records.reading import Record

TokenId = tuple[str, str]  # issuer, jti


@dataclass(slots=True, kw_only=True, eq=False)
class Hop:
    """One hop. ``issued``: the token service's record of the hop's token. ``exchanged``: the caller's record of it.

    ``actor`` called ``audience``; None if unknown. A hop without records is inferred from hops that refer to it.
    """

    call: str | None = None
    token: TokenId | None = None
    caller: Record | None = None
    issued: Record | None = None
    exchanged: Record | None = None
    callee: Record | None = None
    actor: str | None = None
    audience: str | None = None
    chain: str | None = None
    ts: str = ""
    token_depth: int = 0
    missing: list[str] = field(default_factory=list)  # witnesses that should have a record and have none
    parent: Hop | None = field(default=None, repr=False)
    children: list[Hop] = field(default_factory=list, repr=False)

    @property
    def records(self) -> tuple[Record, ...]:
        """The records of this hop that exist: caller, issued, exchanged, callee, in this order."""
        return tuple(r for r in (self.caller, self.issued, self.exchanged, self.callee) if r is not None)

    def __str__(self) -> str:
        return f"{self.actor or 'somebody'} → {self.audience or 'somebody'}"


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain: the calls made for one subject on one login. ``hops``: (depth from 0, hop), in call order."""

    name: str
    subjects: tuple[tuple[str, str], ...]
    hops: tuple[tuple[int, Hop], ...]


def chain_of(name: str, members: list[Hop]) -> Chain:
    """Build a chain from its hops, in call order, and the subjects of its verified records."""
    subjects = {(record.subject_iss, record.subject) for hop in members for record in hop.records if record.verified}
    known = sorted((issuer, subject) for issuer, subject in subjects if issuer is not None and subject is not None)
    return Chain(name, tuple(known), tuple(_sort_hops(name, members)))


def _sort_hops(name: str, members: list[Hop]) -> Iterator[tuple[int, Hop]]:
    """Yield each hop once, after its parent; siblings by time. Forged calls may form a cycle: its hops come last."""
    seen: set[int] = set()
    roots = sorted((hop for hop in members if hop.parent is None or hop.parent.chain != name), key=lambda hop: hop.ts)
    for root in [*roots, *members]:
        walk = [(max(root.token_depth - 1, 0), root)]
        while walk:
            depth, hop = walk.pop()
            if id(hop) in seen or hop.chain != name:
                continue
            seen.add(id(hop))
            yield depth, hop
            walk += [(depth + 1, child) for child in sorted(hop.children, key=lambda one: one.ts, reverse=True)]
