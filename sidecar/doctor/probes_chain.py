"""Probes of the chain: a second hop, with and without an actor, and subject tokens with ``may_act``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sidecar.doctor.attempts import Draft, Examination
from sidecar.doctor.messages import Held, Script
from sidecar.doctor.names import Probe
from sidecar.doctor.reading import Reading


def chain_probes(found: Examination) -> Script[None]:
    """Build a chain of two hops, and try to lose its first actor."""
    lawful = found.lawful
    if lawful is None:
        return
    for first in _drafts_of_hop_1(found, lawful):
        hop = yield from found.exchange(Probe.HOP_1, first)
        if not hop.accepted:
            continue
        for second in drafts_of_hop_2(found, lawful, hop.issued):
            after = yield from found.exchange(Probe.HOP_2, second)
            if after.accepted:
                break
        if found.attempts[Probe.HOP_2].accepted:
            break
    hop_1, hop_2 = found[Probe.HOP_1], found[Probe.HOP_2]
    if hop_1 is not None and hop_1.accepted:
        if hop_2 is not None and hop_2.draft is not None and hop_2.draft.actor is not None:
            yield from found.exchange(Probe.HOP_2_BARE, replace(hop_2.draft, actor=None))
        yield from found.exchange(Probe.DELEGATED_ACTOR, replace(lawful, actor=_as_actor(found, hop_1.issued)))
    if hop_2 is not None and hop_2.accepted and hop_2.draft is not None:
        yield from _third_hop(found, lawful, hop_2.draft)
    yield from _may_act(found, lawful)


def _third_hop(found: Examination, lawful: Draft, second: Draft) -> Script[None]:
    """Let client 1 exchange a token of hop 2, also to compare the lives of both clients' tokens."""
    for audience in dict.fromkeys(((found.first.client_id,), second.audience)):
        for scope in dict.fromkeys((second.scope, found.case.scope)):
            attempt = yield from found.exchange(Probe.FOR_FIRST, replace(second, audience=audience, scope=scope))
            if not attempt.accepted:
                continue
            third = yield from found.exchange(Probe.HOP_3, replace(lawful, subject=attempt.issued))
            if third.accepted:
                return


def drafts_of_hop_2(found: Examination, lawful: Draft, token: Held) -> Iterator[Draft]:
    """Vary hop 2, the lawful exchange of client 2, by the extras that a server may insist on.

    Without an actor token of its own, client 2 sends client 1's: a server that binds actors to clients refuses it.
    """
    actor = found.own[1] or found.actor
    if actor is not None and lawful.actor is not None:
        actor = replace(actor, type=lawful.actor.type)
    draft = replace(lawful, client=found.second, subject=token, actor=actor)
    yield draft
    if lawful.audience:
        yield replace(draft, audience=())
    elif found.case.audiences:
        yield replace(draft, audience=found.case.audiences[:1])
    if lawful.scope is None and found.case.scope is not None:
        yield replace(draft, scope=found.case.scope)


def _drafts_of_hop_1(found: Examination, lawful: Draft) -> Iterator[Draft]:
    """Vary hop 1: a token that client 2 may exchange. Some servers want its audience, some its scope, some neither."""
    scopes = dict.fromkeys((found.case.hop_scope or lawful.scope, lawful.scope, found.case.scope))
    for audience in ((found.second.client_id,), lawful.audience):
        for scope in scopes:
            yield replace(lawful, audience=audience, scope=scope)


def _as_actor(found: Examination, token: Held) -> Held:
    return replace(token, type=found.actor.type) if found.actor is not None else token


def _may_act(found: Examination, lawful: Draft) -> Script[None]:
    """Exchange a subject token that has ``may_act``: with the actor named there, with another actor, and without."""
    held = found.case.may_act or found.case.subject
    named = may_act_names(found.may_act)
    if named is None:
        return
    right = next((index for index in (0, 1) if found.names_of(index) & named), None)
    wrong = 0 if right is None else 1 - right
    for name, index in ((Probe.MAY_ACT_NAMED, right), (Probe.MAY_ACT_OTHER, wrong)):
        actor = None if index is None else found.own[index]
        if index is None or actor is None:
            continue
        kind = lawful.actor.type if lawful.actor is not None else actor.type
        draft = replace(lawful, client=found.case.clients[index], subject=held, actor=replace(actor, type=kind))
        yield from found.exchange(name, draft)
    yield from found.exchange(Probe.MAY_ACT_NOBODY, replace(lawful, subject=held, actor=None))


def may_act_names(reading: Reading) -> frozenset[str] | None:
    """Return the names in the claim ``may_act`` (RFC 8693 section 4.4); None without one."""
    may_act = reading.claim("may_act")
    if not isinstance(may_act, dict):
        return None
    return frozenset(value for name in ("sub", "client_id") if isinstance(value := may_act.get(name), str))
