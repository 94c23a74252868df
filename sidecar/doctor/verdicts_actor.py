"""Verdicts on the actor token, from the evidence alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.doctor.attempts import Attempt, Examination
from sidecar.doctor.cells import Cell, Question, Value
from sidecar.doctor.names import Probe

_WORTHLESS: Final = (Probe.GARBAGE_ACTOR, Probe.GARBAGE_ACTOR_JWT)
_FORGED: Final = (Probe.FORGED_ACTOR, Probe.FORGED_ACTOR_JWT, Probe.UNSIGNED_ACTOR, Probe.SPOILED_ACTOR)
_SHORT_TYPE: Final = "urn:ietf:params:oauth:token-type:"

ACCEPTS: Final = Question("accepts-actor", "accepts actor_token")
GARBAGE: Final = Question("garbage-actor", "accepts garbage as actor_token")
FORGED: Final = Question("forged-actor", "accepts a forged actor_token")
FOREIGN: Final = Question("foreign-actor", "accepts the foreign JWT as actor")
IGNORES: Final = Question("ignores-actor", "ignores actor_token silently")
HALVES: Final = Question("half-pairs", "refuses half of the actor pair")
EMITS: Final = Question("emits-act", "emits act")
BINDS: Final = Question("binds-actor", "binds the actor to the client")
USER: Final = Question("user-as-actor", "accepts the user's token as actor")


def actor_verdicts(found: Examination) -> list[Cell]:
    """Return the cells about the actor token."""
    return [
        _accepts(found),
        _worthless(GARBAGE, found, _WORTHLESS),
        _worthless(FORGED, found, _FORGED),
        _foreign(found),
        _ignores(found),
        _halves(found),
        _emits(found),
        _binds(found),
        _user(found),
    ]


def with_actor(found: Examination) -> Attempt | None:
    """Return the lawful exchange with an actor token, if one was accepted."""
    return next((a for name in (Probe.ACTOR, Probe.SUBJECT_AS_ACTOR) if (a := found[name]) and a.accepted), None)


def looks_away(found: Examination) -> bool:
    """Return True if garbage as actor token gives the same ``act`` as a valid one: the server ignores actor tokens."""
    passed = _accepted_garbage(found)
    return passed is not None and act_of(passed) == act_of(with_actor(found))


def _accepted_garbage(found: Examination) -> Attempt | None:
    """Return an exchange that was accepted with garbage as actor token; None if there is none."""
    return next((one for name in _WORTHLESS if (one := found[name]) is not None and one.accepted), None)


def act_of(attempt: Attempt | None) -> dict[str, object] | None:
    """Return the act claim of an issued token if it is an object."""
    act = None if attempt is None or not attempt.accepted else attempt.reading.act
    return act if isinstance(act, dict) else None


def act_counts(found: Examination) -> bool:
    """Return True if ``act`` is evidence: it depends on the actor token, or names the client at both hops."""
    if names_clients(found):
        return True
    act = act_of(with_actor(found))
    return act is not None and act not in (act_of(_plain(found)), act_of(found[Probe.OWN_FIRST]))


def names_clients(found: Examination) -> bool:
    """Return True if ``act`` names the requesting client, regardless of the actor token, at both hops."""
    plain, hop_2 = act_of(_plain(found)), act_of(found[Probe.HOP_2])
    first, second = found.names_of(0) - found.names_of(1), found.names_of(1) - found.names_of(0)
    if plain is None or hop_2 is None:
        return False
    return _names_in(plain) & first != set() and _names_in(hop_2) & second != set() and "act" in hop_2


def _names_in(act: dict[str, object]) -> set[str]:
    """Return the names in the outermost level of an act."""
    return {value for value in act.values() if isinstance(value, str)}


def _plain(found: Examination) -> Attempt | None:
    return found[Probe.PLAIN]


def _accepts(found: Examination) -> Cell:
    tried = [found[Probe.ACTOR], found[Probe.SUBJECT_AS_ACTOR]]
    accepted = with_actor(found)
    if accepted is None or accepted.draft is None or accepted.draft.actor is None:
        plain = _plain(found)
        if plain is None or not plain.accepted:
            return ACCEPTS.untested("no exchange was accepted, with or without an actor token", plain, *tried)
        last = next((one for one in tried if one is not None), None)
        if last is None or last.answer.busy:
            return ACCEPTS.untested("no answer", *tried)
        return ACCEPTS.answer(Value.REFUSED, last.answer.told, [plain, *tried], bad=True)
    if looks_away(found) and accepted.reading.claims is None:
        return ACCEPTS.unseen("garbage passes too; the issued token cannot be read", accepted, _accepted_garbage(found))
    if looks_away(found):
        bad = not names_clients(found)
        return ACCEPTS.answer(Value.NO, "as if absent", [accepted, found[Probe.GARBAGE_ACTOR]], bad=bad)
    kind = accepted.draft.actor.type.removeprefix(_SHORT_TYPE)
    whose = "client 1's token" if accepted.name == Probe.ACTOR else "the user's token"
    return ACCEPTS.answer(Value.YES, f"{whose}, as {kind}", [accepted])


def _worthless(question: Question, found: Examination, names: Sequence[Probe]) -> Cell:
    sent = [one for name in names if (one := found[name]) is not None]
    passed = [one for one in sent if one.accepted]
    refused = [one for one in sent if one.refused]
    if passed:
        act = "act names its holder" if _names_forger(found, passed) else "as if absent"
        detail = f"{len(passed)} of {len(sent)}, {act}"
        return question.answer(Value.YES, detail, sent, bad=not names_clients(found))
    if not refused:
        return question.untested("no lawful exchange to compare with" if not sent else "no answer", *sent)
    return question.answer(Value.REFUSED, refused[0].answer.told, sent)


def _names_forger(found: Examination, passed: Sequence[Attempt]) -> bool:
    """Return True if an invalid actor token changed ``act``. False if ``act`` names the client in any case."""
    if names_clients(found) or looks_away(found):
        return False
    return any(act_of(one) not in (None, act_of(_plain(found))) for one in passed)


def _foreign(found: Examination) -> Cell:
    attempt = found[Probe.FOREIGN_ACTOR]
    if attempt is None or attempt.answer.busy:
        return FOREIGN.untested("give one by --foreign-actor: a JWT-SVID, for instance", attempt)
    if attempt.refused:
        return FOREIGN.answer(Value.REFUSED, attempt.answer.told, [attempt])
    if looks_away(found):
        return FOREIGN.answer(Value.YES, "as is garbage", [attempt], bad=not names_clients(found))
    return FOREIGN.answer(Value.YES, attempt.answer.told, [attempt])


def _ignores(found: Examination) -> Cell:
    accepted = with_actor(found)
    if accepted is None:
        cell = _accepts(found)
        if cell.value is Value.REFUSED:
            return IGNORES.answer(Value.NO, "it refuses them", [found[Probe.ACTOR]])
        return IGNORES.untested("no exchange was accepted")
    if looks_away(found):
        if names_clients(found):
            return IGNORES.answer(Value.YES, "act names the client that asks instead", [accepted, found[Probe.HOP_2]])
        return IGNORES.answer(Value.YES, "never looked at", [accepted, _accepted_garbage(found)], bad=True)
    if _accepted_garbage(found) is not None:
        return IGNORES.answer(
            Value.YES, "a worthless one; a good one counts", [accepted, _accepted_garbage(found)], bad=True
        )
    if accepted.reading.claims is None:
        return IGNORES.unseen("garbage is refused; the issued token cannot be read", accepted)
    if not act_counts(found):
        return IGNORES.answer(Value.YES, "after verifying it", [accepted, found[Probe.GARBAGE_ACTOR]], bad=True)
    return IGNORES.answer(Value.NO, "", [accepted])


def _halves(found: Examination) -> Cell:
    token, kind = found[Probe.HALF_TOKEN], found[Probe.HALF_TYPE]
    if token is None or kind is None or (token.answer.busy and kind.answer.busy):
        return HALVES.untested("no lawful exchange to compare with")
    passed = [one.name for one in (token, kind) if one.accepted]
    if passed:
        return HALVES.answer(Value.NO, f"accepted: {'; '.join(passed)}", [token, kind], bad=True)
    plain = _plain(found)
    if plain is None or not plain.accepted:
        return HALVES.unseen("it refuses an exchange without an actor token anyway", token, kind)
    return HALVES.answer(Value.YES, token.answer.told, [token, kind])


def _emits(found: Examination) -> Cell:
    accepted, plain = with_actor(found), _plain(found)
    shown = accepted or plain
    if shown is None or not shown.accepted:
        return EMITS.untested("no exchange was accepted", shown)
    if shown.reading.claims is None:
        return EMITS.unseen(f"the issued token is {_kind(shown)}, and introspection does not show it", shown)
    elsewhere = _other_acts(found)
    if "act" not in shown.reading.claims:
        detail = "never" if not elsewhere else f"only by: {elsewhere[0].name}"
        told = found[Probe.INTROSPECTED]
        if told is not None and isinstance(told.answer.members.get("act"), dict):
            detail = "only at introspection"
        return EMITS.answer(Value.NO, detail, [shown, *elsewhere, told], bad=True)
    act = act_of(shown)
    if act is None:
        return EMITS.answer(Value.NO, "act is no object", [shown], bad=True)
    own = found[Probe.OWN_FIRST]
    if not act_counts(found) or (looks_away(found) and not names_clients(found)):
        return EMITS.answer(Value.NO, "act is constant: the same without an actor token", [shown, plain, own], bad=True)
    members = "{" + ", ".join(name for name in act if name != "act") + "}"
    if not isinstance(act.get("sub"), str):
        return EMITS.answer(Value.NO, f"{members} without sub", [shown], bad=True)
    if names_clients(found):
        return EMITS.answer(Value.YES, f"{members}: the client that asks", [shown, plain])
    actor = found.own_readings[0] if shown.name == Probe.ACTOR else found.subject
    names = found.names_of(0) if shown.name == Probe.ACTOR else found.subject.names
    if actor.claims is not None and not _names_in(act) & names:
        return EMITS.answer(Value.NO, f"{members}, which names another than the actor token", [shown, own], bad=True)
    return EMITS.answer(Value.YES, members, [shown, plain])


def _other_acts(found: Examination) -> list[Attempt]:
    """Return exchanges whose token has ``act`` although the token of the lawful exchange has none."""
    return [one for one in found.attempts.values() if one.draft is not None and act_of(one) is not None]


def _binds(found: Examination) -> Cell:
    attempt = found[Probe.OTHERS_ACTOR]
    if with_actor(found) is None or (looks_away(found) and not names_clients(found)):
        return BINDS.untested("actor tokens are refused or ignored")
    if attempt is None:
        return BINDS.untested("client 2 has no actor token: give one by --other-actor")
    own = found[Probe.ACTOR]
    if own is None or not own.accepted:
        return BINDS.untested("client 1's own actor token is not accepted", own, attempt)
    if attempt.answer.busy:
        return BINDS.untested("no answer", attempt)
    if attempt.refused:
        hop_2 = found[Probe.HOP_2]
        if hop_2 is None or not hop_2.accepted:
            return BINDS.unseen("client 2's actor token is accepted nowhere", attempt, hop_2)
        return BINDS.answer(Value.YES, attempt.answer.told, [own, attempt])
    if attempt.reading.claims is None:
        return BINDS.unseen("it is accepted; the issued token cannot be read", attempt)
    act = act_of(attempt)
    if act is None or not act_counts(found):
        return BINDS.untested("there is no act to bind", attempt)
    named = _names_in(act)
    first, second = found.names_of(0), found.names_of(1)
    if named & (first - second) and not named & (second - first):
        return BINDS.answer(Value.YES, "act names the client that asked", [own, attempt])
    if named & (second - first):
        return BINDS.answer(Value.NO, "act names client 2", [own, attempt], bad=True)
    return BINDS.answer(Value.NO, "act names neither client", [own, attempt], bad=True)


def _user(found: Examination) -> Cell:
    attempt = found[Probe.SUBJECT_AS_ACTOR]
    if attempt is None or with_actor(found) is None or looks_away(found):
        return USER.untested("actor tokens are refused or ignored", attempt)
    if attempt.answer.busy:
        return USER.untested("no answer", attempt)
    if attempt.refused:
        return USER.answer(Value.REFUSED, attempt.answer.told, [attempt])
    return USER.answer(Value.YES, attempt.answer.told, [attempt], bad=True)


def _kind(attempt: Attempt) -> str:
    return {"JWE": "encrypted"}.get(attempt.reading.kind, "opaque")
