"""Verdicts on the chain of actors and on the subject, from the evidence alone."""

from __future__ import annotations

from typing import Final

from sidecar.doctor.attempts import Attempt, Examination
from sidecar.doctor.cells import Cell, Question, Value
from sidecar.doctor.names import Probe
from sidecar.doctor.probes_chain import may_act_names
from sidecar.doctor.verdicts_actor import act_counts, act_of, looks_away, with_actor

_NO_ACT: Final = "there is no act"
_CONSTANT: Final = "act is constant"
_UNREADABLE: Final = "the issued token cannot be read"

NESTS: Final = Question("nests-act", "nests act at the second hop")
UNCHANGED: Final = Question("inherited-act", "keeps the inherited act unchanged")
THIRD: Final = Question("third-hop", "keeps the chain at a third hop")
BARE: Final = Question("chain-without-actor", "keeps the chain without an actor_token")
DELEGATED: Final = Question("delegated-actor", "accepts a delegated token as actor")
MAY_ACT: Final = Question("checks-may-act", "checks may_act")
SUBJECT: Final = Question("keeps-sub", "keeps sub")


def chain_verdicts(found: Examination) -> list[Cell]:
    """Return the cells about the chain."""
    nests, unchanged = _nests(found)
    return [nests, unchanged, _third(found), _bare(found), _judge_delegation(found), _may_act(found), _subject(found)]


def _nests(found: Examination) -> tuple[Cell, Cell]:
    hop_1, hop_2 = found[Probe.HOP_1], found[Probe.HOP_2]
    evidence = [hop_1, hop_2]
    why = _no_chain(found)
    if why in (_NO_ACT, _CONSTANT):
        return NESTS.answer(Value.NO, why, evidence, bad=True), UNCHANGED.untested(why)
    if why is not None:
        cell = NESTS.unseen(why, *evidence) if why == _UNREADABLE else NESTS.untested(why, *evidence)
        return cell, UNCHANGED.untested(why)
    inherited, act = act_of(hop_1), act_of(hop_2)
    if hop_2 is None or not hop_2.accepted:
        told = "no answer" if hop_2 is None or hop_2.answer.busy else hop_2.answer.told
        if hop_2 is not None and hop_2.refused:
            return NESTS.answer(Value.REFUSED, f"hop 2: {told}", evidence, bad=True), UNCHANGED.untested("no hop 2")
        return NESTS.untested("no hop 2", *evidence), UNCHANGED.untested("no hop 2")
    if hop_2.reading.claims is None:
        unseen = "the token of hop 2 cannot be read"
        return NESTS.unseen(unseen, *evidence), UNCHANGED.unseen(unseen)
    if act is None:
        return NESTS.answer(Value.NO, "hop 2 has no act", evidence, bad=True), UNCHANGED.untested("nothing is nested")
    nested = act.get("act")
    if nested is None:
        lost = "unchanged from hop 1" if act == inherited else "the first actor is dropped"
        return NESTS.answer(Value.NO, lost, evidence, bad=True), UNCHANGED.untested("nothing is nested")
    if _is_reversed(found, act, nested):
        wrong = "in the wrong order: the first actor is outermost"
        return NESTS.answer(Value.NO, wrong, evidence, bad=True), UNCHANGED.untested("the order is wrong")
    same = nested == inherited
    detail = "" if same else "rewritten"
    kept = UNCHANGED.answer(Value.YES if same else Value.NO, detail, evidence, bad=not same)
    return NESTS.answer(Value.YES, "", evidence), kept


def _is_reversed(found: Examination, act: dict[str, object], nested: object) -> bool:
    """Return True if hop 2's actor is nested in hop 1's."""
    first, second = found.names_of(0) - found.names_of(1), found.names_of(1) - found.names_of(0)
    outer, inner = act.get("sub"), nested.get("sub") if isinstance(nested, dict) else None
    return isinstance(outer, str) and isinstance(inner, str) and outer in first and inner in second


def _no_chain(found: Examination) -> str | None:
    """Return the reason why there is no chain to judge; None if hop 1 has an act."""
    hop_1 = found[Probe.HOP_1]
    if hop_1 is None or not hop_1.accepted:
        return "no token for client 2: see --hop-scope and --audience" if found.lawful else "no exchange was accepted"
    if hop_1.reading.claims is None:
        return _UNREADABLE
    if act_of(hop_1) is None:
        return _NO_ACT
    return None if act_counts(found) else _CONSTANT


def _third(found: Examination) -> Cell:
    before, third = found[Probe.FOR_FIRST], found[Probe.HOP_3]
    inherited = act_of(before)
    why = _no_chain(found)
    if why is not None or inherited is None or "act" not in inherited:
        return THIRD.untested(why or "nothing is nested")
    if third is None or third.answer.busy:
        return THIRD.untested("no answer" if third is not None else "hop 2 gives no token for client 1", before, third)
    if third.refused:
        return THIRD.answer(Value.REFUSED, f"{third.answer.told}: a loop, or a limit", [before, third])
    if third.reading.claims is None:
        return THIRD.unseen("the token of hop 3 cannot be read", third)
    act = act_of(third) or {}
    if act.get("act") == inherited:
        return THIRD.answer(Value.YES, "", [before, third])
    return THIRD.answer(Value.NO, "an earlier actor is dropped or rewritten", [before, third], bad=True)


def _bare(found: Examination) -> Cell:
    hop_1, bare = found[Probe.HOP_1], found[Probe.HOP_2_BARE]
    why = _no_chain(found)
    if why is not None or bare is None:
        return BARE.untested(why or "no hop 2", bare)
    if bare.answer.busy:
        return BARE.untested("no answer", bare)
    if bare.refused:
        hop_2 = found[Probe.HOP_2]
        if hop_2 is None or not hop_2.accepted:
            return BARE.untested("hop 2 is refused with an actor token, too", hop_2, bare)
        return BARE.answer(Value.REFUSED, bare.answer.told, [hop_1, bare])
    if bare.reading.claims is None:
        return BARE.unseen("it is accepted; the issued token cannot be read", bare)
    act, inherited = act_of(bare), act_of(hop_1)
    if act is None:
        return BARE.answer(Value.NO, "accepted: the chain is dropped", [hop_1, bare], bad=True)
    if act == inherited:
        return BARE.answer(Value.YES, "accepted: the chain stays as it was", [hop_1, bare])
    if act.get("act") == inherited:
        return BARE.answer(Value.YES, "accepted: the client became the actor", [hop_1, bare])
    return BARE.answer(Value.NO, "accepted: the chain is rewritten", [hop_1, bare], bad=True)


def _judge_delegation(found: Examination) -> Cell:
    attempt, hop_1 = found[Probe.DELEGATED_ACTOR], found[Probe.HOP_1]
    if with_actor(found) is None or looks_away(found):
        return DELEGATED.untested("actor tokens are refused or ignored")
    why = _no_chain(found)
    if why is not None or attempt is None or attempt.answer.busy:
        return DELEGATED.untested(why or "no answer", attempt)
    if attempt.refused:
        return DELEGATED.answer(Value.REFUSED, attempt.answer.told, [hop_1, attempt])
    act = act_of(attempt)
    subject = None if hop_1 is None else hop_1.reading.subject
    wrong = act is not None and act.get("sub") == subject
    detail = "wrong act: it names the subject" if wrong else attempt.answer.told
    return DELEGATED.answer(Value.YES, detail, [hop_1, attempt], bad=True)


def _may_act(found: Examination) -> Cell:
    named, other, nobody = (found[name] for name in (Probe.MAY_ACT_NAMED, Probe.MAY_ACT_OTHER, Probe.MAY_ACT_NOBODY))
    evidence = [named, other, nobody]
    if may_act_names(found.may_act) is None:
        return MAY_ACT.untested("the subject token has no may_act: give one that has by --may-act-subject")
    if found.lawful is None:
        return MAY_ACT.untested("no exchange was accepted")
    passed = [one for one in (other, nobody) if one is not None and one.accepted]
    if passed:
        return MAY_ACT.answer(Value.NO, f"accepted: {passed[0].name}", evidence, bad=True)
    if other is None or other.answer.busy:
        return MAY_ACT.untested("no other actor to try", *evidence)
    if named is None or named.answer.busy:
        return MAY_ACT.unseen(
            "neither client is the one that may act: both may be refused for another reason", *evidence
        )
    if named.refused:
        return MAY_ACT.answer(Value.REFUSED, "the named actor too", evidence)
    return MAY_ACT.answer(Value.YES, other.answer.told, evidence)


def _subject(found: Examination) -> Cell:
    shown = _readable(found)
    if not shown:
        return SUBJECT.unseen("no issued token can be read") if found.lawful else SUBJECT.untested("no exchange")
    before = found.subject.subject
    hop_1, hop_2 = found[Probe.HOP_1], found[Probe.HOP_2]
    if before is None:
        pair = [one for one in (hop_1, hop_2) if one is not None and one.reading.subject is not None]
        if len(pair) < 2:
            return SUBJECT.unseen("the subject token cannot be read", *shown[:1])
        same = pair[0].reading.subject == pair[1].reading.subject
        return SUBJECT.answer(Value.YES if same else Value.NO, "over two hops", pair, bad=not same)
    named = [one for one in shown if one.reading.subject is not None]
    missing = [one for one in shown if one.reading.subject is None]
    changed = [one for one in named if one.reading.subject != before]
    if not named:
        return SUBJECT.answer(Value.NO, "its tokens have no sub", shown[:1], bad=True)
    if not changed:
        detail = f"but none by: {missing[0].name}" if missing else ""
        return SUBJECT.answer(Value.YES, detail, named[:1] + missing[:1])
    every = len(changed) == len(named)
    detail = "another sub" if every else f"another sub by: {changed[0].name}"
    return SUBJECT.answer(Value.NO, detail, changed[:2], bad=True)


def _readable(found: Examination) -> list[Attempt]:
    """Return the exchanges of the given subject token whose result can be read."""
    return [
        one
        for one in found.attempts.values()
        if one.draft is not None
        and one.draft.subject == found.case.subject
        and one.accepted
        and one.reading.claims is not None
    ]
