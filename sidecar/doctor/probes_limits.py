"""Probes of what an issued token may be used for: scope, audience, resource, requester, life."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sidecar.doctor.attempts import Attempt, Draft, Examination
from sidecar.doctor.messages import Script, Wait
from sidecar.doctor.names import Probe

# OpenID Connect's scopes ask for claims of the user, not for access.
STANDARD: Final = frozenset({"openid", "profile", "email", "address", "phone", "offline_access"})
_MOST_WIDER: Final = 2


def limit_probes(found: Examination) -> Script[None]:
    """Send the lawful exchange with other scopes and targets, and after a pause."""
    lawful = found.lawful
    if lawful is None:
        return
    yield from _scopes(found, lawful)
    yield from _targets(found, lawful)
    yield from _requester(found, lawful)
    yield from _life(found, lawful)


def scopes_of_subject(found: Examination) -> frozenset[str] | None:
    """Return the subject token's scopes; None if it cannot be read or has no such claim."""
    return found.subject.scopes


def narrow_of(found: Examination) -> str | None:
    """Return one of several scopes of the subject token, or of ``--scope`` if it names none; None without several."""
    held = scopes_of_subject(found) or frozenset((found.case.scope or "").split())
    if len(held) < 2:
        return None
    asked = [scope for scope in (found.case.scope or "").split() if scope in held]
    ranked = sorted(held, key=lambda scope: (scope not in asked, scope in STANDARD, scope))
    return ranked[0]


def wider_of(found: Examination) -> tuple[str, ...]:
    """Return scopes that the subject token lacks: from the options, else from the server's list."""
    held = scopes_of_subject(found) or frozenset((found.case.scope or "").split())
    if found.case.wider:
        return tuple(scope for scope in found.case.wider if scope not in held)
    listed = [scope for scope in found.case.server.supported if scope not in held | STANDARD]
    return tuple(listed[:_MOST_WIDER])


def _scopes(found: Examination, lawful: Draft) -> Script[None]:
    yield from found.exchange(Probe.NO_SCOPE, replace(lawful, scope=None))
    narrow = narrow_of(found)
    if narrow is not None:
        yield from found.exchange(Probe.NARROW, replace(lawful, scope=narrow))
    own = found.case.scope or narrow or " ".join(sorted(scopes_of_subject(found) or ()))
    for number, wider in enumerate(wider_of(found), 1):
        yield from found.exchange(number_probe(Probe.WIDER, number), replace(lawful, scope=wider))
        if own:
            beside = replace(lawful, scope=f"{own} {wider}")
            yield from found.exchange(number_probe(Probe.WIDER_BESIDE, number), beside)
        plain = found[Probe.PLAIN]
        if lawful.actor is not None and plain is not None and plain.accepted and plain.draft is not None:
            alone = replace(plain.draft, scope=f"{own} {wider}".strip())
            yield from found.exchange(number_probe(Probe.WIDER_PLAIN, number), alone)
    yield from found.exchange(Probe.INVENTED_SCOPE, replace(lawful, scope=found.case.invented_scope))


def number_probe(name: Probe, number: int) -> str:
    """Return the name of a probe, numbered among several of its kind."""
    return name.value if number == 1 else f"{name.value} ({number})"


def _targets(found: Examination, lawful: Draft) -> Script[None]:
    known, invented = found.case.audiences, found.case.invented_audience
    base = lawful
    if known:
        base = yield from _for_audience(found, Probe.AUDIENCE, lawful)
    yield from found.exchange(Probe.INVENTED_AUDIENCE, replace(base, audience=(invented,)))
    if len(known) > 1:
        yield from found.exchange(Probe.TWO_AUDIENCES, replace(base, audience=known[:2]))
    if found.case.resource is not None:
        yield from found.exchange(Probe.RESOURCE, replace(lawful, resource=(found.case.resource,)))
    yield from found.exchange(Probe.INVENTED_RESOURCE, replace(lawful, resource=(invented,)))
    yield from found.exchange(Probe.BROKEN_RESOURCE, replace(lawful, resource=("no-uri",)))


def _for_audience(found: Examination, name: Probe, lawful: Draft) -> Script[Draft]:
    """Ask for the first known audience; where that alone is refused, with the scope: some servers derive one from it.

    Return the exchange without its audience.
    """
    drafts = dict.fromkeys((lawful.scope, found.case.scope))
    for scope in drafts:
        attempt = yield from found.exchange(name, replace(lawful, scope=scope, audience=found.case.audiences[:1]))
        if attempt.accepted:
            return replace(lawful, scope=scope)
    return lawful


def _requester(found: Examination, lawful: Draft) -> Script[None]:
    """Let client 2 exchange tokens that do not name it in ``aud``. Client 1 does so by the lawful exchange."""
    hop_2 = found[Probe.HOP_2]
    if hop_2 is None or hop_2.draft is None:
        return
    yield from found.exchange(Probe.OUTSIDER, replace(hop_2.draft, subject=found.case.subject))
    if found.case.audiences:
        yield from _for_audience(found, Probe.FOR_TOOL, lawful)
        tool = found.attempts[Probe.FOR_TOOL]
        if tool.accepted:
            yield from found.exchange(Probe.OUTSIDER_TOOL, replace(hop_2.draft, subject=tool.issued))


def _life(found: Examination, lawful: Draft) -> Script[None]:
    """Repeat the exchanges of hops 1 and 2 some seconds later: their expiry shows whether each starts a new life."""
    yield Wait(found.case.wait_s)
    yield from found.exchange(Probe.LATER_FIRST, lawful)
    hop_2 = found[Probe.HOP_2]
    if hop_2 is not None and hop_2.accepted and hop_2.draft is not None:
        yield from found.exchange(Probe.LATER, hop_2.draft)


def life_of(attempt: Attempt | None) -> float | None:
    """Return the life of an issued token by its claims, in seconds; None if they do not say."""
    reading = None if attempt is None else attempt.reading
    if reading is None or reading.expires_at is None or reading.issued_at is None:
        return None
    return reading.expires_at - reading.issued_at
