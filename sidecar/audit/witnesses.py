"""Checks the joined records of a hop: missing witnesses, and contradictions between the present ones. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sidecar.audit.findings import Finding, Kind
from sidecar.audit.hops import Hop
from sidecar.audit.records import Record
from sidecar.audit.tokens import Tokens


def hop_findings(hop: Hop, tokens: Tokens) -> Iterator[Finding]:
    """Return every fault of one hop."""
    if not hop.records:
        yield Finding(Kind.MISSING_HOP, f"{hop}: it has no record", hop.chain, _names_of(hop.children))
        return
    if hop.refusal is not None:
        yield _refused(hop, hop.refusal)
    for witness in missing_witnesses(hop):
        yield Finding(Kind.MISSING_WITNESS, f"{hop}: the {witness} has no record of it", hop.chain, hop.names)
    yield from _ends(hop)
    yield from _served(hop, tokens)
    yield from _peer(hop)


def missing_witnesses(hop: Hop) -> list[str]:
    """Return the missing witnesses of a hop: of ``caller``, ``token service`` and ``callee``."""
    caller, callee = hop.caller, hop.callee
    let_in = callee is not None and callee.allowed
    let_out = caller is not None and caller.allowed
    unused = caller is None and callee is None
    missing = []
    if (let_in and caller is None) or (unused and hop.exchanged is None):
        missing.append("caller")
    if (let_in or let_out or unused) and hop.issued is None:
        missing.append("token service")
    # A callee in the mesh has a record (the route names its SPIFFE ID), and so has a callee that called on.
    answered = caller is not None and caller.upstream_status is not None and caller.peer is not None
    if callee is None and (answered or hop.children):
        missing.append("callee")
    return missing


def missing_histories(tokens: Tokens, hops: Sequence[Hop]) -> Iterator[Finding]:
    """Find hops that only an actor chain remembers: each of its ends must be the chain of some token of the same
    ``txn``.
    """
    told: set[tuple[str, tuple[str, ...]]] = {(tokens.chain_of(t), t.chain) for t in tokens if t.chain is not None}
    for hop in hops:
        if not hop.records:  # a hop without records is reported already
            told |= {(hop.chain or "", chain[1:]) for chain in _chains_of(hop.children, tokens)}
    for token in list(tokens):
        chain, name = token.chain or (), tokens.chain_of(token)
        for start in range(1, len(chain)):
            if (name, chain[start:]) not in told:
                told.add((name, chain[start:]))
                text = f"{chain[start]} → {chain[start - 1]}: it has no record"
                yield Finding(Kind.MISSING_HOP, text, name, (token.told_by,))


def _chains_of(hops: Sequence[Hop], tokens: Tokens) -> Iterator[tuple[str, ...]]:
    for hop in hops:
        token = tokens.get(hop.token)
        if token is not None and token.chain is not None:
            yield token.chain


def _refused(hop: Hop, record: Record) -> Finding:
    who = "its own sidecar" if record.direction == "outbound" else record.workload
    return Finding(Kind.REFUSED_HOP, f"{hop}: refused by {who}: {record.reason}", hop.chain, (record.name,))


def _ends(hop: Hop) -> Iterator[Finding]:
    """Compare the two ends of one call: one token, one caller, one callee."""
    caller, callee = hop.caller, hop.callee
    if caller is None or callee is None:
        return
    records = (caller.name, callee.name)
    if callee.verified and (caller.subject_iss, caller.jti_out) != (callee.subject_iss, callee.jti_in):
        text = f"call {hop.call} left with token {caller.jti_out} and came in with token {callee.jti_in}"
        if caller.txn != callee.txn:
            text += f", of chain {callee.txn}"
        yield Finding(Kind.SPLICE, text, hop.chain, records)
    if caller.workload != callee.peer:
        text = f"call {hop.call} was made by {caller.workload} and came from {callee.peer}"
        yield Finding(Kind.WITNESSES_DISAGREE, text, hop.chain, records)
    if caller.peer is not None and caller.peer != callee.workload:
        text = f"call {hop.call} was sent to {caller.peer} and arrived at {callee.workload}"
        yield Finding(Kind.WITNESSES_DISAGREE, text, hop.chain, records)
    if None not in {caller.method, callee.method} and caller.method != callee.method:
        text = f"call {hop.call} left as {caller.method} and came in as {callee.method}"
        yield Finding(Kind.WITNESSES_DISAGREE, text, hop.chain, records)


def _served(hop: Hop, tokens: Tokens) -> Iterator[Finding]:
    """Check that a call belongs to a request served at the same workload."""
    caller, parent = hop.caller, hop.parent
    if caller is None or parent is None:
        return
    records = tuple(dict.fromkeys((*parent.names, caller.name)))
    if parent.chain != hop.chain:
        text = f"{hop} belongs to a request of chain {parent.chain}"
        yield Finding(Kind.SPLICE, text, hop.chain, records)
    elif parent.token is not None and caller.jti_in != parent.token[1]:
        text = f"{hop} was made with token {caller.jti_in} for a request with token {parent.token[1]}"
        yield Finding(Kind.SPLICE, text, hop.chain, records)
    served_at = parent.callee.workload if parent.callee is not None else None
    if served_at is not None and served_at != caller.workload:
        text = f"{hop} belongs to a request that {served_at} served"
        yield Finding(Kind.SPLICE, text, hop.chain, records)
    token = tokens.get(hop.token)
    if token is not None and token.parent_jti not in {None, caller.jti_in}:
        text = f"{hop}: token {token.jti} came from {token.parent_jti}, not from {caller.jti_in}"
        yield Finding(Kind.SPLICE, text, hop.chain, hop.names)


def _peer(hop: Hop) -> Iterator[Finding]:
    """Check that an admitted peer is the current actor of its token, or an agent acting for itself."""
    callee = hop.callee
    if callee is None or callee.decision != "allow":
        return
    shown = callee.subject if callee.chain is None else callee.actor
    if shown != callee.peer:
        text = f"{callee.workload} let {callee.peer} in with a token that names {shown if callee.chain else 'no actor'}"
        yield Finding(Kind.ACTOR_NOT_PEER, text, hop.chain, (callee.name,))


def _names_of(hops: Sequence[Hop]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for hop in hops for name in hop.names))
