"""Probes of the protocol: repeated parameters, credentials, sender-bound and spoil subject tokens, revocation."""

from __future__ import annotations

from dataclasses import replace

from delegation_core.jws import MAX_TOKEN_BYTES
from sidecar.doctor.attempts import Attempt, Draft, Examination
from sidecar.doctor.clients import Method, TestClient, spoil
from sidecar.doctor.messages import Held, Place, Request, Script
from sidecar.doctor.names import Probe


def protocol_probes(found: Examination) -> Script[None]:
    """Send the lawful exchange against the rules of OAuth."""
    lawful = found.lawful
    if lawful is None:
        return
    yield from found.exchange(Probe.TWICE_SUBJECT, replace(lawful, more=(("subject_token", lawful.subject),)))
    scope = lawful.scope or found.case.scope
    if scope is not None:
        twice = replace(lawful, scope=scope, more=(("scope", scope),))
        yield from found.exchange(Probe.TWICE_SCOPE, twice)
    yield from _probe_bound_token(found)
    yield from _worthless_subjects(found, lawful)
    yield from _credentials(found, lawful)


def revocation_probes(found: Examination) -> Script[None]:
    """Revoke the token of hop 1 (RFC 7009), then test earlier and new exchanges of it."""
    hop_1, hop_2 = found[Probe.HOP_1], found[Probe.HOP_2]
    if hop_1 is None or hop_2 is None or not hop_2.accepted or hop_2.draft is None:
        return
    server = found.case.server
    if server.revocation is None:
        return
    if server.introspection is not None:
        yield from _lives(found, Probe.LIVES, hop_2)
    form = (("token", hop_1.issued), ("token_type_hint", "access_token"))
    answer = yield Request(name=Probe.REVOKE, place=Place.REVOCATION, client=found.first, form=form)
    found.attempts[Probe.REVOKE] = Attempt(name=Probe.REVOKE, draft=None, answer=answer)
    yield from found.exchange(Probe.AFTER_REVOCATION, hop_2.draft)
    if server.introspection is not None:
        yield from _lives(found, Probe.STILL_LIVES, hop_2)


def _lives(found: Examination, name: Probe, hop: Attempt) -> Script[None]:
    answer = yield from found.introspect(hop.issued, found.second)
    found.attempts[name] = Attempt(name=name, draft=None, answer=answer)


def _probe_bound_token(found: Examination) -> Script[None]:
    """Ask for a token bound to a key (RFC 9449), and exchange it without that key."""
    hop_1, hop_2 = found[Probe.HOP_1], found[Probe.HOP_2]
    if hop_1 is None or hop_1.draft is None or not hop_1.accepted or hop_2 is None or hop_2.draft is None:
        return
    bound = yield from found.exchange(Probe.BOUND, replace(hop_1.draft, proof=found.case.own_key))
    if bound.accepted and is_bound(bound):
        yield from found.exchange(Probe.BOUND_WITHOUT, replace(hop_2.draft, subject=bound.issued))


def is_bound(attempt: Attempt) -> bool:
    """Tell if an issued token is bound to a key."""
    kind = attempt.answer.members.get("token_type")
    return isinstance(attempt.reading.claim("cnf"), dict) or (isinstance(kind, str) and kind.lower() == "dpop")


def _worthless_subjects(found: Examination, lawful: Draft) -> Script[None]:
    subject = lawful.subject
    values = [(Probe.GARBAGE_SUBJECT, found.case.noise), (Probe.SPOILED_SUBJECT, spoil(subject.value))]
    if found.subject.kind == "JWT" and found.subject.claims is not None and len(subject.value) <= MAX_TOKEN_BYTES:
        values.append((Probe.FORGED_SUBJECT, found.case.own_key.forge(found.subject.claims, found.subject.header)))
    for name, value in values:
        yield from found.exchange(name, replace(lawful, subject=Held(value, name.value, subject.type)))


def _credentials(found: Examination, lawful: Draft) -> Script[None]:
    if lawful.client.method is not Method.NONE:
        yield from found.exchange(Probe.WRONG_SECRET, replace(lawful, wrong=True))
        yield from found.exchange(Probe.NO_SECRET, replace(lawful, bare=True))
    for client in found.case.more_clients:
        attempt = yield from found.exchange(more_name(client), replace(lawful, client=client))
        if attempt.refused and client.method is Method.NONE:  # some servers know a public client by Basic alone
            empty = replace(client, method=Method.BASIC)
            yield from found.exchange(more_name(empty), replace(lawful, client=empty))


def more_name(client: TestClient) -> str:
    """Return the name of the probe of one more client."""
    empty = " with an empty secret" if client.method is Method.BASIC and not client.secret else ""
    return f"client {client.client_id} by {client.method}{empty}"
