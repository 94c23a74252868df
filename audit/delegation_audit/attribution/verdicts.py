"""Judges one request: does an agent impersonate the user, delegate, or act on its own authority? Pure.

RFC 8693 section 1.1: to others, an impersonator *is* the user; a delegate is named beside the user. The verdicts depend
on the order of the checks: a request is a delegation only if a field that is evidence names an agent as the actor,
beside another party as the user, and nothing in the line contradicts it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from delegation_audit.attribution.readings import Party, Reading, same_party
from delegation_audit.attribution.roster import Roster, address_of, alike
from delegation_audit.rules import Confidence

UNNAMED: Final = "(not named)"
# Prefixes of workload identities, on the platforms that the mappings cover.
_WORKLOAD: Final = re.compile(r"spiffe://|system:serviceaccount:|service-account-")


class Kind(StrEnum):
    """Outcome of one request, and verdict over all requests of an agent."""

    IMPERSONATES = "impersonates"
    DELEGATES = "delegates"
    OWN_AUTHORITY = "own_authority"
    CANNOT_TELL = "cannot_tell"
    NO_AGENT = "no_agent"
    MIXED = "mixed"


MEANINGS: Final[dict[Kind, str]] = {
    Kind.IMPERSONATES: "the user is named, the agent is not named as the actor",
    Kind.DELEGATES: "the agent is named as the actor beside the user",
    Kind.OWN_AUTHORITY: "the agent is the only principal",
    Kind.CANNOT_TELL: "the log does not show enough",
    Kind.NO_AGENT: "no agent takes part, as far as the log shows",
    Kind.MIXED: "requests of more than one kind",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """Outcome of one request. ``fields`` are the evidence; ``reason`` is one of a small fixed set of phrases."""

    kind: Kind
    agent: str
    fields: tuple[str, ...]
    reason: str
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class _Sender:
    """The agent that sent the request, the kind of the field that identifies it, and the field."""

    agent: str
    by: str
    field: str


_CONFIDENCE: Final = {
    "peer": Confidence.HIGH,
    "user": Confidence.HIGH,
    "client": Confidence.MEDIUM,
    "address": Confidence.MEDIUM,
    "declared": Confidence.LOW,
    "user-agent": Confidence.LOW,
}
_FORGEABLE: Final = frozenset({"declared", "user-agent"})


def judge(reading: Reading, roster: Roster | None) -> Judged:
    """Judge one request. Without a roster, a party is an agent only if the log itself says so."""
    if roster is None:
        return _judge_unlisted(reading)
    sender = _sender(reading, roster)
    agents = [(user, agent) for user in reading.users if (agent := _identity(user, roster))]
    humans = [user for user in reading.users if not _identity(user, roster)]
    if not reading.users:
        return _judge_userless(reading, roster, sender)
    if reading.actors:
        return _judge_with_actor(reading, roster, sender, humans[0] if humans else agents[0][0])
    if not humans:
        return _judge_own(agents[0], sender)
    if sender is None:
        return _no_agent(reading)
    if sender.by != "peer" and not agents and (reading.own or all(map(_is_workload, humans))):
        return _decide(Kind.CANNOT_TELL, sender, humans, "a workload is named that is not on the list of agents")
    return _decide(Kind.IMPERSONATES, sender, humans, "only the user is named")


def _judge_with_actor(reading: Reading, roster: Roster, sender: _Sender | None, user: Party) -> Judged:
    """Judge a request with a user and an actor that is another party."""
    named = [(actor, agent) for actor in reading.actors if (agent := _identity(actor, roster))]
    if len(named) < len(reading.actors) and (named or _differ(reading.actors)):
        return _contradict(reading, named, sender)
    if not named:
        if sender is None:
            return _no_agent(reading)
        if _identity(user, roster) == sender.agent and not any(_identity(one, roster) for one in reading.declared):
            return _decide(Kind.CANNOT_TELL, sender, reading.actors, "the agent is named as the user of another party")
        return _decide(Kind.IMPERSONATES, sender, [user, *reading.actors], "the actor named is not this agent")
    actor, agent = named[0]
    if any(not alike(other, agent) for _, other in named):
        return _contradict(reading, named, sender)
    if sender is not None and sender.agent != agent and sender.by != "user" and sender.agent not in roster.broad:
        return _judge_another(sender, agent, [user, actor])
    if reading.doubtful:
        return Judged(Kind.CANNOT_TELL, agent, actor.fields, "the field of the actor can be forged", Confidence.LOW)
    confidence = Confidence.HIGH if sender is not None and sender.by == "peer" else _rate_field(actor)
    return Judged(Kind.DELEGATES, agent, (*user.fields[:1], *actor.fields[:1]), "actor and user are named", confidence)


def _judge_another(sender: _Sender, agent: str, parties: Sequence[Party]) -> Judged:
    """Judge a request whose actor and sender are different entries of the list. Impersonation, unless the names are
    alike, or only a forgeable field or an address without a name identifies the sender.
    """
    doubt = sender.by in _FORGEABLE or alike(sender.agent, agent)
    if sender.by == "address" and address_of(sender.agent) is not None:
        doubt = True  # an address without a name may be of the agent that is the actor
    kind = Kind.CANNOT_TELL if doubt else Kind.IMPERSONATES
    confidence = Confidence.HIGH if sender.by == "peer" and not doubt else Confidence.LOW
    return replace(_decide(kind, sender, parties, "the actor named is another agent"), confidence=confidence)


def _contradict(reading: Reading, named: Sequence[tuple[Party, str]], sender: _Sender | None) -> Judged:
    agent = sender.agent if sender else named[0][1] if named else None
    if agent is None:
        return _no_agent(reading)
    fields = tuple(field for actor in reading.actors for field in actor.fields[:1])
    return Judged(Kind.CANNOT_TELL, agent, fields, "two fields name different actors", Confidence.LOW)


def _judge_own(principal: tuple[Party, str], sender: _Sender | None) -> Judged:
    """Judge a request whose only principal is an agent: own authority, unless the peer is another agent."""
    user, agent = principal
    if sender is not None and sender.by == "peer" and not alike(sender.agent, agent):
        return _decide(Kind.IMPERSONATES, sender, [user], "only another agent is named")
    return Judged(Kind.OWN_AUTHORITY, agent, user.fields[:1], "the agent is the only principal", Confidence.HIGH)


def _judge_userless(reading: Reading, roster: Roster, sender: _Sender | None) -> Judged:
    """Judge a request without a user: an actor alone acts for itself; any other sender cannot be judged."""
    for actor in reading.actors:
        if (agent := _identity(actor, roster)) and (sender is None or sender.agent == agent):
            return Judged(Kind.OWN_AUTHORITY, agent, actor.fields[:1], "no user is named", Confidence.LOW)
    if sender is None:
        return _no_agent(reading)
    return _decide(Kind.CANNOT_TELL, sender, [], "the format shows no user" if reading.silent else "no user is named")


def _judge_unlisted(reading: Reading) -> Judged:
    """Judge without a list of agents. A peer, a client or a caller may then be an agent, an app or a person."""
    user, actor = next(iter(reading.users), None), next(iter(reading.actors), None)
    other = next(iter((*reading.peers, *reading.clients, *reading.declared)), None)
    workload = user is not None and (reading.own or _is_workload(user))
    if user is None or (actor is None and not workload):
        name = (actor or other).shown if actor or other else UNNAMED  # type: ignore[union-attr]
        reason = "without --agents nobody is known as an agent" if user else "no user is named"
        return Judged(Kind.CANNOT_TELL, name, () if user is None else user.fields[:1], reason, Confidence.LOW)
    if actor is None:
        if reading.peers and _WORKLOAD.match(reading.peers[0].shown) and not same_party(reading.peers[0], user):
            return Judged(
                Kind.CANNOT_TELL, reading.peers[0].shown, user.fields[:1], "the peer is somebody else", Confidence.LOW
            )
        return Judged(
            Kind.OWN_AUTHORITY, user.shown, user.fields[:1], "the agent is the only principal", Confidence.MEDIUM
        )
    fields = (*user.fields[:1], *actor.fields[:1])
    if reading.inferred and not _is_workload(actor):  # a person may use another person's rights as well
        return Judged(
            Kind.CANNOT_TELL, actor.shown, fields, "without --agents nobody is known as an agent", Confidence.LOW
        )
    if _differ(reading.actors) or reading.doubtful:
        reason = "the field of the actor can be forged" if reading.doubtful else "two fields name different actors"
        return Judged(Kind.CANNOT_TELL, actor.shown, fields, reason, Confidence.LOW)
    if reading.peers and not any(same_party(peer, actor) for peer in reading.peers):
        return Judged(
            Kind.CANNOT_TELL, reading.peers[0].shown, fields, "the actor named is another party", Confidence.LOW
        )
    return Judged(Kind.DELEGATES, actor.shown, fields, "actor and user are named", Confidence.MEDIUM)


def _sender(reading: Reading, roster: Roster) -> _Sender | None:
    """Return the agent that sent the request, by the strongest field that identifies one; None without one."""
    return next(_senders(reading, roster), None)


def _senders(reading: Reading, roster: Roster) -> Iterator[_Sender]:
    kinds: tuple[tuple[str, tuple[Party, ...], Callable[[str], str | None]], ...] = (
        ("peer", reading.peers, roster.identity),
        ("user", reading.users, roster.identity),
        ("client", reading.clients, roster.identity),
        ("address", reading.addresses, roster.address),
        ("declared", reading.declared, roster.identity),
        ("user-agent", reading.user_agents, roster.user_agent),
    )
    for by, parties, match in kinds:
        for party in parties:
            for field, value in zip(party.fields, party.values, strict=True):
                if agent := match(value):
                    yield _Sender(agent, by, field)


def _is_workload(party: Party) -> bool:
    return any(map(_WORKLOAD.match, party.values))


def _identity(party: Party, roster: Roster) -> str | None:
    return next((agent for value in party.values if (agent := roster.identity(value))), None)


def _differ(parties: Sequence[Party]) -> bool:
    return any(not same_party(parties[0], other) for other in parties[1:])


def _rate_field(actor: Party) -> Confidence:
    """Rate an actor's field: high for a token's ``act`` claim, which the logger probably verified, else medium."""
    return Confidence.HIGH if any("act." in f"{field}." for field in actor.fields) else Confidence.MEDIUM


def _decide(kind: Kind, sender: _Sender, others: Sequence[Party], reason: str) -> Judged:
    fields = (sender.field, *(party.fields[0] for party in others))
    confidence = Confidence.LOW if kind is Kind.CANNOT_TELL else _CONFIDENCE[sender.by]
    return Judged(kind, sender.agent, tuple(dict.fromkeys(fields)), reason, confidence)


def _no_agent(reading: Reading) -> Judged:
    fields = reading.users[0].fields[:1] if reading.users else ()
    return Judged(Kind.NO_AGENT, UNNAMED, fields, "no agent of the list takes part", Confidence.HIGH)
