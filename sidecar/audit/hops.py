"""Hops: one call from a workload to the next, with the records of its witnesses.

The two ends of a call are joined by its call id (``call_out`` at the caller, ``call_in`` at the callee), the token
service's record by the token's ``jti``. A hop's parent is the request that its caller was serving: by the ``call_in``
of the caller's record, or, where that is missing, by the token alone if it is unambiguous. A trace id only separates
hops that these keys have joined already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sidecar.audit.records import Record
from sidecar.audit.tokens import Token, TokenId, Tokens


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
    parent: Hop | None = field(default=None, repr=False)
    children: list[Hop] = field(default_factory=list, repr=False)

    @property
    def records(self) -> tuple[Record, ...]:
        """All records of this hop."""
        return tuple(r for r in (self.caller, self.issued, self.exchanged, self.callee) if r is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of these records."""
        return tuple(record.name for record in self.records)

    @property
    def traces(self) -> set[str]:
        """The trace ids in these records."""
        return {record.trace_id for record in self.records if record.trace_id is not None}

    @property
    def ts(self) -> str:
        """Earliest time in any of its records."""
        told = [record.ts for record in (self.caller, self.callee) if record is not None]
        return min(told or [record.ts for record in self.records], default="")

    @property
    def refusal(self) -> Record | None:
        """The record of a refusal: the callee's, else the caller's own."""
        record = self.callee or self.caller
        return record if record is not None and record.decision == "deny" else None

    def __str__(self) -> str:
        return f"{self.actor or 'somebody'} → {self.audience or 'somebody'}"


@dataclass(slots=True)
class Calls:
    """Requests and issued tokens, gathered while reading. ``repeated`` are calls that share an id."""

    by_id: dict[str, Hop] = field(default_factory=dict)
    nameless: list[Hop] = field(default_factory=list)
    issued: dict[TokenId, Record] = field(default_factory=dict)
    exchanged: dict[TokenId, Record] = field(default_factory=dict)
    repeated: list[tuple[str, Record, Record]] = field(default_factory=list)

    def add_request(self, record: Record, token: Token | None) -> None:
        """Add one end of a call. A refused outbound call has no id: nothing was sent."""
        outbound = record.direction == "outbound"
        hop = self._hop_of(record, record.call_out if outbound else record.call_in, outbound=outbound)
        if outbound:
            hop.caller = record
            hop.actor = record.workload
            hop.audience = record.peer or record.audience if record.allowed else f"route {record.route}"
        else:
            hop.callee = record
            hop.actor, hop.audience = hop.actor or record.peer, record.workload
        if token is not None and (record.allowed or not outbound):
            hop.token = hop.token or token.id

    def add_issue(self, record: Record, token: Token) -> Record:
        """Add one issued token, reported by its caller or by the token service; return the first such record of it."""
        told = self.exchanged if record.direction == "outbound" else self.issued
        return told.setdefault(token.id, record)

    def hops(self, tokens: Tokens) -> list[Hop]:
        """Return all hops in time order; ``chain`` is None where the records name none."""
        hops = [*self.by_id.values(), *self.nameless]
        for hop in hops:
            if hop.token is not None:
                hop.issued, hop.exchanged = self.issued.get(hop.token), self.exchanged.get(hop.token)
        hops += self._unused({hop.token for hop in hops})
        for hop in hops:
            hop.chain = _chain_of(hop, tokens)
        return sorted(hops, key=lambda hop: hop.ts)

    def _hop_of(self, record: Record, call: str | None, *, outbound: bool) -> Hop:
        if call is None:
            self.nameless.append(Hop())
            return self.nameless[-1]
        hop = self.by_id.setdefault(call, Hop(call=call))
        taken = hop.caller if outbound else hop.callee
        if taken is None:
            return hop
        self.repeated.append((call, taken, record))
        self.nameless.append(Hop(call=call))
        return self.nameless[-1]

    def _unused(self, used: set[TokenId | None]) -> Iterator[Hop]:
        """Return issued tokens that no known call has carried."""
        for token_id, record in {**self.exchanged, **self.issued}.items():
            if token_id not in used:
                yield Hop(
                    token=token_id,
                    issued=self.issued.get(token_id),
                    exchanged=self.exchanged.get(token_id),
                    actor=record.workload if record.direction == "outbound" else record.peer,
                    audience=record.audience,
                )


def link(hops: Sequence[Hop], tokens: Tokens) -> list[Hop]:
    """Give each hop its parent and children. Hops that no record describes are created and returned with the rest."""
    served = _Served(hops, tokens)
    for hop in hops:
        hop.parent = served.parent_of(hop)
    for hop in served.all:
        if hop.parent is not None:
            hop.parent.children.append(hop)
    return served.all


class _Served:
    """Finds the hop whose request a caller was serving, and creates one that must have existed without a record."""

    def __init__(self, hops: Sequence[Hop], tokens: Tokens) -> None:
        self.all = list(hops)
        self._tokens = tokens
        self._by_call = {hop.call: hop for hop in reversed(hops) if hop.call is not None}
        self._by_jti: dict[str, list[Hop]] = {}
        self._nameless_by_jti: dict[str, list[Hop]] = {}
        self._by_trace: dict[tuple[str, str], list[Hop]] = {}
        self._made: dict[str, Hop] = {}
        for hop in hops:
            if hop.token is not None and (hop.callee is None or hop.callee.allowed):
                self._by_jti.setdefault(hop.token[1], []).append(hop)
                if hop.call is None:
                    self._nameless_by_jti.setdefault(hop.token[1], []).append(hop)
                for trace in hop.traces:
                    self._by_trace.setdefault((hop.token[1], trace), []).append(hop)

    def parent_of(self, hop: Hop) -> Hop | None:
        call = None if hop.caller is None else hop.caller.call_in
        if call is not None:
            return self._by_call.get(call) or self._make(call, hop)
        jti, token = _subject_jti(hop), self._tokens.get(hop.token)
        if jti is None or (token is not None and token.depth < 2):  # the first hop of its chain
            return None
        actor = token.chain[0] if token is not None and token.chain else hop.actor
        # The caller's request had no call id, or the caller's record would name it.
        by_jti = self._by_jti if hop.caller is None else self._nameless_by_jti
        candidates = _up_to_two(by_jti.get(jti, ()), hop, actor)
        if len(candidates) > 1:  # among requests with one token, prefer those with the hop's own trace
            traced = (one for trace in hop.traces for one in self._by_trace.get((jti, trace), ()))
            candidates = _up_to_two(traced, hop, actor) or candidates
        if len(candidates) == 1:
            return candidates[0]
        refused = hop.caller is None and hop.refusal is not None
        return None if candidates or refused else self._make(jti, hop)

    def _make(self, key: str, hop: Hop) -> Hop:
        """Create a hop without records, named by its call or its token."""
        if key not in self._made:
            token, jti = self._tokens.get(hop.token), _subject_jti(hop)
            chain = () if token is None or token.chain is None else token.chain
            made = Hop(
                token=None if token is None or jti is None else (token.issuer, jti),
                actor=chain[1] if len(chain) > 1 else None,
                audience=hop.actor,
                chain=hop.chain,
            )
            self._made[key] = made
            self.all.append(made)
        return self._made[key]


def _chain_of(hop: Hop, tokens: Tokens) -> str | None:
    token = tokens.get(hop.token)
    if token is not None:
        return tokens.chain_of(token)
    return next((record.txn for record in hop.records if record.verified and record.txn is not None), None)


def _subject_jti(hop: Hop) -> str | None:
    """Return the ``jti`` of the token that authorised the hop's caller."""
    if hop.caller is not None:
        return hop.caller.jti_in
    issued = hop.issued or hop.exchanged
    if issued is not None:
        return issued.jti_in
    return None if hop.callee is None else hop.callee.parent_jti


def _is_at(hop: Hop, workload: str | None) -> bool:
    """Tell if the hop may have led to this workload."""
    return hop.callee is None or workload is None or hop.callee.workload == workload


def _up_to_two(hops: Iterable[Hop], hop: Hop, actor: str | None) -> list[Hop]:
    """Return up to two possible parents of ``hop``; two are ambiguous already, and a token may have made thousands."""
    found: list[Hop] = []
    for one in hops:
        if one is hop or one in found or not _is_at(one, actor) or not (hop.caller is None or one.call is None):
            continue
        found.append(one)
        if len(found) == 2:
            break
    return found
