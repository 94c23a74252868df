"""Probes of the actor token: is it looked at, is it verified, is it the client's own?"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT
from sidecar.doctor.attempts import Attempt, Draft, Examination
from sidecar.doctor.clients import spoil
from sidecar.doctor.messages import Held, Script
from sidecar.doctor.names import Probe
from sidecar.doctor.proof import make_unsigned

_LIFE_S: Final = 300


def actor_probes(found: Examination) -> Script[None]:
    """Send the lawful exchange with other actor tokens."""
    lawful = found.lawful
    if lawful is None:
        return
    yield from _introspect(found)
    yield from _worthless(found, lawful)
    if found.case.foreign is not None:
        yield from found.exchange(Probe.FOREIGN_ACTOR, replace(lawful, actor=found.case.foreign))
    yield from _halves(found, lawful)
    if found.own[1] is not None:
        kind = lawful.actor.type if lawful.actor is not None else found.own[1].type
        yield from found.exchange(Probe.OTHERS_ACTOR, replace(lawful, actor=replace(found.own[1], type=kind)))
    if Probe.SUBJECT_AS_ACTOR not in found.attempts and found.actor is not None:
        yield from found.exchange(Probe.SUBJECT_AS_ACTOR, replace(lawful, actor=found.case.subject))


def _introspect(found: Examination) -> Script[None]:
    """Introspect an issued token without ``act``: some servers report the actor only there."""
    issued = next((one for one in found.attempts.values() if one.draft == found.lawful and one.accepted), None)
    if issued is None or issued.draft is None or issued.reading.by != "the token" or issued.reading.act is not None:
        return
    if found.case.server.introspection is None:
        return
    answer = yield from found.introspect(issued.issued, issued.draft.client)
    found.attempts[Probe.INTROSPECTED] = Attempt(name=Probe.INTROSPECTED, draft=None, answer=answer)


def _worthless(found: Examination, lawful: Draft) -> Script[None]:
    """Send invalid actor tokens: garbage, forged, unsigned, and one changed."""
    noise = found.case.noise
    claims = _claims(found)
    header = found.own_readings[0].header or found.subject.header
    forged, bare = found.case.own_key.forge(claims, header), make_unsigned(claims)
    for name, value, kind in (
        (Probe.GARBAGE_ACTOR, noise, TOKEN_TYPE_ACCESS_TOKEN),
        (Probe.GARBAGE_ACTOR_JWT, noise, TOKEN_TYPE_JWT),
        (Probe.FORGED_ACTOR, forged, TOKEN_TYPE_ACCESS_TOKEN),
        (Probe.FORGED_ACTOR_JWT, forged, TOKEN_TYPE_JWT),
        (Probe.UNSIGNED_ACTOR, bare, TOKEN_TYPE_JWT),
    ):
        yield from found.exchange(name, replace(lawful, actor=Held(value, name.value, kind)))
    if found.actor is not None:
        changed = Held(spoil(found.actor.value), "own actor token, changed", found.actor.type)
        yield from found.exchange(Probe.SPOILED_ACTOR, replace(lawful, actor=changed))


def _claims(found: Examination) -> dict[str, object]:
    """Return claims for a forged actor token: the names in the real one, if there is one, and invented others."""
    real = found.own_readings[0].claims or {}
    now = int(max((one.answer.at for one in found.attempts.values()), default=0))
    made: dict[str, object] = {
        "iss": found.case.server.issuer or found.subject.claim("iss") or found.case.server.token,
        "sub": found.first.client_id,
        "aud": found.first.client_id,
        "client_id": found.first.client_id,
        "iat": now,
        "exp": now + _LIFE_S,
        "jti": found.case.noise,
    }
    # a claim of PyJWT's must have the right type, or it refuses to sign
    return {**made, **{name: value for name, value in real.items() if name in {"sub", "aud", "azp", "typ", "iss"}}}


def _halves(found: Examination, lawful: Draft) -> Script[None]:
    """Send one half of the pair (RFC 8693 section 2.1: they go together)."""
    none = replace(lawful, actor=None)
    actor = found.actor or found.own[0] or Held(found.case.noise, "garbage", TOKEN_TYPE_ACCESS_TOKEN)
    yield from found.exchange(Probe.HALF_TOKEN, replace(none, more=(("actor_token", actor),)))
    yield from found.exchange(Probe.HALF_TYPE, replace(none, more=(("actor_token_type", actor.type),)))
