"""Hops as they are shown: one call from a workload to the next, with the records of its witnesses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.audit.records import Record

TokenId = tuple[str, str]  # issuer, jti


@dataclass(slots=True, kw_only=True, eq=False)
class Hop:
    """One hop. ``issued`` is the token service's record of its token, ``exchanged`` the caller's own of that exchange.

    ``actor`` called ``audience``, as far as known. A hop without any record is one that others refer to.
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
    missing: list[str] = field(default_factory=list)  # witnesses without a record, by the verdict
    parent: Hop | None = field(default=None, repr=False)
    children: list[Hop] = field(default_factory=list, repr=False)

    @property
    def records(self) -> tuple[Record, ...]:
        """All records of this hop."""
        return tuple(r for r in (self.caller, self.issued, self.exchanged, self.callee) if r is not None)

    def __str__(self) -> str:
        return f"{self.actor or 'somebody'} → {self.audience or 'somebody'}"


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain: the calls made for one subject on one login. ``hops`` are in order, each with its depth from 0."""

    name: str
    subjects: tuple[tuple[str, str], ...]
    hops: tuple[tuple[int, Hop], ...]


def chain_of(name: str, members: list[Hop]) -> Chain:
    """Put the hops of one chain in call order."""
    subjects = {(record.subject_iss, record.subject) for hop in members for record in hop.records if record.verified}
    known = sorted((issuer, subject) for issuer, subject in subjects if issuer is not None and subject is not None)
    return Chain(name, tuple(known), tuple(_in_order(name, members)))


def _in_order(name: str, members: list[Hop]) -> Iterator[tuple[int, Hop]]:
    """Yield each hop after its parent, by time among those of one parent; a circle of forged calls is included once."""
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
