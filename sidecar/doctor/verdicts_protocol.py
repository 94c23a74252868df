"""Verdicts on the protocol: subject tokens, repeated parameters, credentials, sender-bound tokens, revocation."""

from __future__ import annotations

from typing import Final

from sidecar.doctor.attempts import Attempt, Examination
from sidecar.doctor.cells import Cell, Question, Value
from sidecar.doctor.clients import Method
from sidecar.doctor.names import Probe
from sidecar.doctor.probes_protocol import is_bound

SUBJECT: Final = Question("verifies-subject", "accepts a worthless subject token")
DUPLICATES: Final = Question("refuses-duplicates", "refuses a repeated subject_token")
SCOPE_TWICE: Final = Question("refuses-repeated-scope", "refuses a repeated scope")
BOUND: Final = Question("sender-bound", "protects a sender-bound subject")
SECRET: Final = Question("wrong-secret", "accepts a wrong credential")
NO_SECRET: Final = Question("no-secret", "accepts a client without its credential")
REVOKED: Final = Question("ends-with-subject", "chain ends with a revoked subject")


def protocol_verdicts(found: Examination) -> list[Cell]:
    """Return the cells about the protocol."""
    return [
        _subject(found),
        _twice(DUPLICATES, found[Probe.TWICE_SUBJECT], "no exchange was accepted"),
        _twice(SCOPE_TWICE, found[Probe.TWICE_SCOPE], "name a scope by --scope" if found.lawful else "no exchange"),
        _judge_bound_token(found),
        _credential(SECRET, found, found[Probe.WRONG_SECRET]),
        _credential(NO_SECRET, found, found[Probe.NO_SECRET]),
        _judge_revocation(found),
    ]


def _subject(found: Examination) -> Cell:
    attempts = [found[name] for name in (Probe.GARBAGE_SUBJECT, Probe.SPOILED_SUBJECT, Probe.FORGED_SUBJECT)]
    sent = [one for one in attempts if one is not None]
    passed = [one for one in sent if one.accepted]
    refused = [one for one in sent if one.refused]
    if passed:
        return SUBJECT.answer(Value.YES, f"accepted: {passed[0].name}", sent, bad=True)
    if not refused:
        return SUBJECT.untested("no exchange was accepted", *sent)
    return SUBJECT.answer(Value.REFUSED, " / ".join(dict.fromkeys(one.answer.told for one in refused)), sent)


def _twice(question: Question, attempt: Attempt | None, why: str) -> Cell:
    if attempt is None or attempt.answer.busy:
        return question.untested(why if attempt is None else "no answer", attempt)
    if attempt.accepted:
        return question.answer(Value.NO, attempt.answer.told, [attempt], bad=True)
    crashed = ": an exception" if attempt.answer.status >= 500 else ""
    return question.answer(Value.YES, f"{attempt.answer.told}{crashed}", [attempt])


def _judge_bound_token(found: Examination) -> Cell:
    bound, without = found[Probe.BOUND], found[Probe.BOUND_WITHOUT]
    if bound is None or not bound.accepted or not is_bound(bound):
        return BOUND.untested("the server issues no token bound by DPoP", bound)
    hop_2 = found[Probe.HOP_2]
    if without is None or without.answer.busy:
        return BOUND.untested("no answer", bound, without)
    if without.accepted:
        freed = not is_bound(without)
        detail = "exchanged without a proof, into an unbound token" if freed else "exchanged without a proof"
        return BOUND.answer(Value.NO, detail, [bound, without], bad=True)
    if hop_2 is None or not hop_2.accepted:
        return BOUND.unseen("hop 2 is refused with an unbound token, too", bound, without, hop_2)
    return BOUND.answer(Value.YES, without.answer.told, [bound, without])


def _credential(question: Question, found: Examination, attempt: Attempt | None) -> Cell:
    if attempt is None:
        why = "client 1 has no credential" if found.first.method is Method.NONE else "no exchange was accepted"
        return question.untested(why)
    if attempt.answer.busy:
        return question.untested("no answer", attempt)
    if attempt.accepted:
        return question.answer(Value.YES, attempt.answer.told, [attempt], bad=True)
    return question.answer(Value.REFUSED, attempt.answer.told, [attempt])


def _judge_revocation(found: Examination) -> Cell:
    revoke, after = found[Probe.REVOKE], found[Probe.AFTER_REVOCATION]
    before, still = found[Probe.LIVES], found[Probe.STILL_LIVES]
    evidence = [revoke, after]
    if revoke is None:
        return REVOKED.untested("it needs hop 2 and a revocation endpoint (RFC 7009)")
    if revoke.answer.busy or revoke.answer.status >= 400 or after is None or after.answer.busy:
        return REVOKED.untested(f"the revocation failed: {revoke.answer.told}", *evidence)
    if after.accepted:
        return REVOKED.answer(Value.NO, "the revoked token is still exchanged", evidence, bad=True)
    if before is None or still is None or before.answer.members.get("active") is not True:
        return REVOKED.unseen("new exchanges are refused; introspection does not tell of the earlier token", *evidence)
    if still.answer.members.get("active") is True:
        return REVOKED.answer(Value.NO, "only new exchanges are refused; the earlier token lives on", evidence)
    return REVOKED.answer(Value.YES, "by introspection", evidence)
