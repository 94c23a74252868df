"""Rebuilds every chain from the records of all witnesses and reports contradictions. A pure function of the records.

Theory of operation. Records come in any order, from many sidecars and their token service. The signed ``txn`` names the
chain, ``jti`` and ``parent_jti`` join its tokens, call ids join the two ends of a call; unverified claims join nothing.
First everything is gathered: tokens (``tokens.py``), calls (``hops.py``), the numbers of each run (``continuity.py``).
Then hops get their parents, and each rule below checks the joined evidence. Records can be missing, invented or
changed, so nothing here trusts one record: only agreement between records counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sidecar.audit.continuity import Continuity
from sidecar.audit.findings import Finding, Kind
from sidecar.audit.hops import Calls, Hop, link
from sidecar.audit.records import Record, is_login
from sidecar.audit.tokens import Token, Tokens, issue_findings, token_of
from sidecar.audit.witnesses import hop_findings, missing_histories


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain: the calls made for one subject on one login. ``hops`` are in order, each with its depth from 0."""

    name: str
    subjects: tuple[tuple[str, str], ...]
    hops: tuple[tuple[int, Hop], ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """All chains by start time, all findings, and how many records were read or belong to no chain.

    ``outside`` counts, by reason (``login`` for an accepted login), requests, exchanges and connections without a
    verified claim that names their chain.
    """

    chains: tuple[Chain, ...]
    findings: tuple[Finding, ...]
    records: int
    outside: dict[str, int]


def rebuild(records: Iterable[Record]) -> Audit:
    """Rebuild the chains. Memory grows with the records of requests and tokens, not with the rest."""
    gathered = _Gathered()
    for record in records:
        gathered.add(record)
    return gathered.audit()


class _Gathered:
    def __init__(self) -> None:
        self._count = 0
        self._continuity = Continuity()
        self._tokens = Tokens()
        self._calls = Calls()
        self._opened: dict[tuple[str, str | None], Record] = {}
        self._refused_exchanges: list[Record] = []
        self._outside: dict[str, int] = {}
        self._findings: list[Finding] = []

    def add(self, record: Record) -> None:
        self._count += 1
        if not self._continuity.is_new(record):
            return
        if record.event == "request.opened":
            # the record of its end may have come first
            self._opened.setdefault((record.run, record.request_id), record)
        elif record.event == "request":
            self._opened[record.run, record.request_id] = record
            self._add_request(record)
        elif record.event == "token.exchanged":
            self._add_issue(record)
        elif record.event == "token.exchange_refused":
            self._refused_exchanges.append(record)
        elif record.event == "connection.refused":
            self._count_outside(record)

    def audit(self) -> Audit:
        for record in [opened for opened in self._opened.values() if opened.event == "request.opened"]:
            text = f"{record.workload} began a request ({record.request_id}) and never closed its record"
            self._findings.append(Finding(Kind.UNFINISHED, text, record.txn, (record.name,)))
            self._add_request(record)
        hops = link(self._placed(), self._tokens)
        findings = [
            *self._findings,
            *self._tokens.findings(),
            *(_repeated(*one) for one in self._calls.repeated),
            *missing_histories(self._tokens, hops),
            *(finding for hop in hops for finding in hop_findings(hop, self._tokens)),
            *self._exchange_refusals(hops),
            *self._continuity.findings(),
        ]
        order = {kind: number for number, kind in enumerate(Kind)}
        findings.sort(key=lambda finding: (finding.chain or "", order[finding.kind], finding.text))
        return Audit(_chains(hops, self._tokens), tuple(findings), self._count, self._outside)

    def _add_request(self, record: Record) -> None:
        if is_login(record.direction, record.op, record.path):
            self._count_outside(record)
            return
        token = token_of(record)
        if token is not None:
            self._tokens.add(token)
        if record.verified or record.call_in is not None:
            self._calls.add_request(record, token)
        else:
            self._count_outside(record)

    def _placed(self) -> list[Hop]:
        """Return the hops with a known chain."""
        hops = self._calls.hops(self._tokens)
        for hop in hops:
            if hop.chain is None:
                for record in hop.records:
                    self._count_outside(record)
        return [hop for hop in hops if hop.chain is not None]

    def _add_issue(self, record: Record) -> None:
        token = token_of(record)
        if token is None:
            return
        self._tokens.add(token)
        self._findings.extend(issue_findings(record))
        other = self._calls.add_issue(record, token)
        if other is not record:
            text = f"two records say that token {token.jti} was issued"
            self._findings.append(Finding(Kind.WITNESSES_DISAGREE, text, token.txn, (other.name, record.name)))

    def _count_outside(self, record: Record) -> None:
        reason = record.op if record.allowed and record.op else record.reason or "undecided"
        self._outside[reason] = self._outside.get(reason, 0) + 1

    def _exchange_refusals(self, hops: Sequence[Hop]) -> Iterator[Finding]:
        """Find refused exchanges that no known call of an agent asked for."""
        told = {(hop.caller.workload, hop.caller.jti_in) for hop in hops if hop.caller is not None and hop.refusal}
        by_service = {(one.peer, one.jti_in) for one in self._refused_exchanges if one.direction != "outbound"}
        for record in self._refused_exchanges:
            own_word = record.direction == "outbound"
            asked = (record.workload if own_word else record.peer, record.jti_in)
            if not record.verified:
                self._count_outside(record)
            elif asked not in told and not (own_word and asked in by_service):
                text = f"{asked[0]} was refused a token for {record.audience}: {record.reason}"
                yield Finding(Kind.REFUSED_HOP, text, record.txn, (record.name,))


def _repeated(call: str, first: Record, second: Record) -> Finding:
    who = " and ".join(sorted({str(first.workload), str(second.workload)}))
    text = f"call {call} has more than one record, by {who}"
    return Finding(Kind.REPEATED_CALL, text, second.txn, (first.name, second.name))


def _chains(hops: Sequence[Hop], tokens: Tokens) -> tuple[Chain, ...]:
    by_chain: dict[str, list[Hop]] = {}
    for hop in hops:
        by_chain.setdefault(hop.chain or "", []).append(hop)
    chains = [_chain(name, members, tokens) for name, members in by_chain.items()]
    return tuple(sorted(chains, key=lambda chain: (min(hop.ts for _, hop in chain.hops if hop.ts), chain.name)))


def _chain(name: str, members: Sequence[Hop], tokens: Tokens) -> Chain:
    """Return the hops in call order; a circle of forged calls is included once."""
    ordered: dict[Hop, int] = {}
    roots = sorted((hop for hop in members if hop.parent is None or hop.parent.chain != name), key=lambda hop: hop.ts)
    for root in [*roots, *members]:
        walk = [(_depth(root, tokens), root)]
        while walk:
            depth, hop = walk.pop()
            if hop in ordered or hop.chain != name:
                continue
            ordered[hop] = depth
            walk += [(depth + 1, child) for child in sorted(hop.children, key=lambda one: one.ts, reverse=True)]
    subjects = {(record.subject_iss, record.subject) for hop in members for record in hop.records if record.verified}
    known = sorted((issuer, subject) for issuer, subject in subjects if issuer is not None and subject is not None)
    return Chain(name, tuple(known), tuple((depth, hop) for hop, depth in ordered.items()))


def _depth(hop: Hop, tokens: Tokens) -> int:
    """Return the depth of a hop without a known parent: its token's depth."""
    token: Token | None = tokens.get(hop.token)
    return max(token.depth - 1, 0) if token is not None else 0
