"""The script of the probes, without I/O: it yields requests and pauses, and is resumed with answers.

Theory of operation. First a lawful exchange is found: the extra parameters with which the server accepts the subject
token, and an actor token that it accepts. Every other probe changes one fact of that exchange, so that a refusal is due
to that fact. Without a lawful exchange there is no conclusion.

Order: the destructive probe comes last, and a token that may end soon is used first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_JWT
from sidecar.doctor.attempts import Draft, Examination
from sidecar.doctor.case import Case
from sidecar.doctor.clients import Method
from sidecar.doctor.messages import Held, Script
from sidecar.doctor.names import Probe
from sidecar.doctor.probes_actor import actor_probes
from sidecar.doctor.probes_chain import chain_probes
from sidecar.doctor.probes_limits import limit_probes
from sidecar.doctor.probes_protocol import protocol_probes, revocation_probes

READABLE: Final = (TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_JWT)  # tried where an access token cannot be read
_ROOMS: Final[tuple[Callable[[Examination], Script[None]], ...]] = (
    actor_probes,
    chain_probes,
    limit_probes,
    protocol_probes,
    revocation_probes,
)


def examine(case: Case) -> Script[Examination]:
    """Send every probe that this case allows, and return the evidence."""
    found = Examination(case)
    found.subject = found.may_act = yield from found.read(case.subject, found.first)
    if case.may_act is not None:
        found.may_act = yield from found.read(case.may_act, found.first)
    yield from _own_tokens(found)
    yield from _lawful(found)
    if found.lawful is not None:
        for probes in _ROOMS:
            yield from probes(found)
    return found


def _own_tokens(found: Examination) -> Script[None]:
    """Get the actor token of each client: from the options, by client credentials, else its JWT-SVID if it has one."""
    for index, name in enumerate((Probe.OWN_FIRST, Probe.OWN_SECOND)):
        held = found.case.actors[index]
        client = found.case.clients[index]
        if held is None:
            attempt = yield from found.own_token(name, client, None)
            if attempt.refused and found.case.scope is not None:
                attempt = yield from found.own_token(name, client, found.case.scope)
            if attempt.accepted:
                held = replace(attempt.issued, name=name.value, type=TOKEN_TYPE_ACCESS_TOKEN)
                found.own_readings[index] = attempt.reading
            elif client.method is Method.SPIFFE:
                held = Held(client.secret, f"JWT-SVID of client {index + 1}", TOKEN_TYPE_JWT)
                found.own_readings[index] = yield from found.read(held, client)
        else:
            found.own_readings[index] = yield from found.read(held, client)
        found.own[index] = held


def _lawful(found: Examination) -> Script[None]:
    """Find accepted exchanges without and with an actor token, preferring a token that can be read."""
    base = Draft(client=found.first, subject=found.case.subject)
    plain = None
    for draft in _extras(found.case, base):
        attempt = yield from found.exchange(Probe.PLAIN, draft)
        if attempt.answer.busy:
            return
        if attempt.accepted:
            plain = draft
            break
    found.lawful = (yield from _with_actor(found, base, plain)) or plain
    if found.lawful is not None:
        yield from _readable(found, plain)


def _with_actor(found: Examination, base: Draft, plain: Draft | None) -> Script[Draft | None]:
    """Find an actor token that is accepted."""
    for held, name in _candidates(found):
        drafts = _extras(found.case, base) if plain is None else iter((plain,))
        for draft in drafts:
            for kind in dict.fromkeys((held.type, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT)):
                attempt = yield from found.exchange(name, replace(draft, actor=replace(held, type=kind)))
                if attempt.accepted:
                    found.actor = replace(held, type=kind)
                    return attempt.draft
    return None


def _readable(found: Examination, plain: Draft | None) -> Script[None]:
    """Ask for a readable type of token if the access token is opaque. Changes only the requested type."""
    lawful = found.lawful
    name = next((one.name for one in found.attempts.values() if one.draft == lawful), None)
    if lawful is None or name is None or found.attempts[name].reading.claims is not None:
        return
    opaque = found.attempts[name]
    for kind in READABLE:
        attempt = yield from found.exchange(name, replace(lawful, requested=kind))
        if attempt.accepted and attempt.reading.claims is not None:
            found.opaque, found.lawful = opaque.reading, attempt.draft
            if plain is not None and name != Probe.PLAIN:
                yield from found.exchange(Probe.PLAIN, replace(plain, requested=kind))
            return
    found.attempts[name] = opaque


def _extras(case: Case, base: Draft) -> Iterator[Draft]:
    """Vary parameters that servers may require: a scope, an audience, a resource, no ``requested_token_type``."""
    some = case.audiences[:1]
    tried: list[Draft] = []
    targets: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((), ()), (some, ())]
    if case.resource is not None:
        targets.append(((), (case.resource,)))
    for requested in (TOKEN_TYPE_ACCESS_TOKEN, None):
        for audience, resource in targets:
            for scope in (None, case.scope):
                draft = replace(base, scope=scope, audience=audience, resource=resource, requested=requested)
                if draft not in tried:
                    tried.append(draft)
                    yield draft


def _candidates(found: Examination) -> Iterator[tuple[Held, Probe]]:
    """Yield actor tokens to try in order: client 1's own, then the subject's (also a token of this server)."""
    if found.own[0] is not None:
        yield found.own[0], Probe.ACTOR
    yield found.case.subject, Probe.SUBJECT_AS_ACTOR
