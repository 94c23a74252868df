"""Verdicts on scope, audience, resource, requester and life, from the evidence alone."""

from __future__ import annotations

from typing import Final

from sidecar.doctor.attempts import Attempt, Examination
from sidecar.doctor.cells import Cell, Question, Value, some
from sidecar.doctor.names import Probe
from sidecar.doctor.probes_limits import STANDARD, life_of, narrow_of, number_probe, scopes_of_subject, wider_of
from sidecar.doctor.verdicts_actor import with_actor

_ROUNDING_S: Final = 1.0  # NumericDates of two tokens may be rounded differently

ABSENT: Final = Question("scope-absent", "keeps to the subject's scopes without scope")
NARROWS: Final = Question("narrows-scope", "narrows scope on request")
WIDENS: Final = Question("widens-scope", "can widen scope")
AUDIENCE: Final = Question("audience", "puts the audience into aud")
UNKNOWN: Final = Question("unknown-audience", "accepts an unknown audience")
TWO: Final = Question("two-audiences", "accepts two audiences")
RESOURCE: Final = Question("resource", "checks resource")
REQUESTER: Final = Question("requester-in-audience", "requester must be in aud")
LIFE: Final = Question("caps-life", "caps exp to the subject's")


def limit_verdicts(found: Examination) -> list[Cell]:
    """Return the cells about the limits of an issued token."""
    return [
        _absent(found),
        _narrows(found),
        _widens(found),
        _audience(found),
        _unknown(found),
        _two(found),
        _resource(found),
        _requester(found),
        _life(found),
    ]


def _cell_without_answer(
    question: Question, attempt: Attempt | None, why: str = "no exchange was accepted"
) -> Cell | None:
    """Return the cell of an attempt that was not made, not answered or refused; None if it was accepted."""
    if attempt is None:
        return question.untested(why)
    if attempt.answer.busy:
        return question.untested("no answer", attempt)
    return question.answer(Value.REFUSED, attempt.answer.told, [attempt]) if attempt.refused else None


def _absent(found: Examination) -> Cell:
    attempt = found[Probe.NO_SCOPE]
    gone = _cell_without_answer(ABSENT, attempt)
    if gone is not None or attempt is None:
        return gone or ABSENT.untested("")
    held = scopes_of_subject(found)
    if attempt.scopes is None:
        return ABSENT.unseen("neither token nor answer names a scope", attempt)
    if held is None:
        return ABSENT.unseen(f"it gives: {some(sorted(attempt.scopes))}; the subject's scopes cannot be read", attempt)
    more = attempt.scopes - held
    if more:
        return ABSENT.answer(Value.NO, f"others: {some(sorted(more))}", [attempt], bad=True)
    if attempt.scopes == held:
        return ABSENT.answer(Value.YES, "the subject's scopes", [attempt])
    return ABSENT.answer(Value.NARROWED, some(sorted(attempt.scopes)), [attempt])


def _narrows(found: Examination) -> Cell:
    narrow, attempt = narrow_of(found), found[Probe.NARROW]
    if narrow is None:
        return NARROWS.untested("the subject token has no two scopes", attempt)
    gone = _cell_without_answer(NARROWS, attempt)
    if gone is not None or attempt is None:
        return gone or NARROWS.untested("")
    if attempt.scopes is None:
        return NARROWS.unseen("neither token nor answer names a scope", attempt)
    held = scopes_of_subject(found) or frozenset((found.case.scope or "").split())
    left = attempt.scopes & (held - {narrow}) - STANDARD
    if left or narrow not in attempt.scopes:
        return NARROWS.answer(Value.NO, f"asked {narrow}, got {some(sorted(attempt.scopes))}", [attempt], bad=True)
    return NARROWS.answer(Value.YES, f"to {some(sorted(attempt.scopes))}", [attempt])


def _widens(found: Examination) -> Cell:
    invented = found[Probe.INVENTED_SCOPE]
    attempts: list[Attempt] = [] if invented is None else [invented]
    gained: list[tuple[str, Attempt]] = []
    if invented is not None and invented.scopes is not None and found.case.invented_scope in invented.scopes:
        gained.append(("even an invented scope", invented))
    wider = wider_of(found)
    for number, scope in enumerate(wider, 1):
        for name in (Probe.WIDER, Probe.WIDER_BESIDE, Probe.WIDER_PLAIN):
            attempt = found[number_probe(name, number)]
            if attempt is None:
                continue
            attempts.append(attempt)
            if attempt.accepted and attempt.scopes is not None and scope in attempt.scopes:
                gained.insert(0, (f"to {scope}", attempt))
    if gained:
        details = dict.fromkeys(detail for detail, _ in gained)
        return WIDENS.answer(Value.YES, "; ".join(details), [one for _, one in gained], bad=True)
    if not attempts or all(one.answer.busy for one in attempts):
        return WIDENS.untested("no exchange was accepted" if not attempts else "no answer", *attempts)
    accepted = [one for one in attempts if one.accepted]
    if any(one.scopes is None for one in accepted):
        return WIDENS.unseen("it is accepted; neither token nor answer names a scope", *accepted)
    if accepted:
        refused = next((one for one in attempts if one.refused), None)
        alone = "" if refused is None else f"; alone: {refused.answer.told}"
        return WIDENS.answer(Value.NARROWED, f"cut without an error{alone}", attempts)
    if not wider:
        why = "an invented scope is refused; name one that the subject lacks by --wider-scope"
        return WIDENS.untested(why, *attempts)
    return WIDENS.answer(Value.REFUSED, next(one for one in attempts if one.refused).answer.told, attempts)


def _audience(found: Examination) -> Cell:
    attempt = found[Probe.AUDIENCE]
    gone = _cell_without_answer(AUDIENCE, attempt, "name one that the server knows by --audience")
    if gone is not None or attempt is None:
        return gone or AUDIENCE.untested("")
    if attempt.reading.claims is None:
        return AUDIENCE.unseen("the issued token cannot be read", attempt)
    asked, got = found.case.audiences[0], attempt.reading.audiences
    if got is None:
        unknown = found[Probe.INVENTED_AUDIENCE]
        checked = "checked, but " if unknown is not None and unknown.refused else ""
        return AUDIENCE.answer(Value.NO, f"{checked}the token has no aud", [attempt, unknown], bad=True)
    if asked not in got:
        return AUDIENCE.answer(Value.NO, f"ignored: aud is {some(got)}", [attempt], bad=True)
    if found.opaque is not None and set(got) == {asked, found.first.client_id}:  # OpenID Connect Core section 2
        return AUDIENCE.answer(Value.YES, "of an ID token, beside the client", [attempt])
    if len(got) > 1:
        return AUDIENCE.answer(Value.NO, f"beside others: {some(got)}", [attempt], bad=True)
    return AUDIENCE.answer(Value.YES, "", [attempt])


def _unknown(found: Examination) -> Cell:
    attempt = found[Probe.INVENTED_AUDIENCE]
    gone = _cell_without_answer(UNKNOWN, attempt)
    if gone is not None or attempt is None:
        return gone or UNKNOWN.untested("")
    got = attempt.reading.audiences
    if attempt.reading.claims is None:
        return UNKNOWN.answer(Value.YES, "accepted; the issued token cannot be read", [attempt], bad=True)
    copied = got is not None and found.case.invented_audience in got
    return UNKNOWN.answer(Value.YES, "copied, unchecked" if copied else "ignored", [attempt], bad=True)


def _two(found: Examination) -> Cell:
    attempt = found[Probe.TWO_AUDIENCES]
    gone = _cell_without_answer(TWO, attempt, "name two that the server knows by --audience")
    if gone is not None or attempt is None:
        return gone or TWO.untested("")
    got = attempt.reading.audiences
    if attempt.reading.claims is None:
        return TWO.unseen("it is accepted; the issued token cannot be read", attempt)
    asked = set(found.case.audiences[:2])
    both = asked <= set(got or ())
    if both:
        return TWO.answer(Value.YES, some(got or ()), [attempt])
    if asked & set(got or ()):
        return TWO.answer(Value.NARROWED, f"to {some(got or ())}", [attempt])
    return TWO.answer(Value.NO, "ignored", [attempt])


def _resource(found: Examination) -> Cell:
    known, invented, broken = (found[name] for name in (Probe.RESOURCE, Probe.INVENTED_RESOURCE, Probe.BROKEN_RESOURCE))
    evidence = [known, invented, broken]
    if invented is None or invented.answer.busy:
        return RESOURCE.untested("no exchange was accepted" if invented is None else "no answer", *evidence)
    if invented.refused:
        return RESOURCE.answer(Value.YES, invented.answer.told, evidence)
    got = invented.reading.audiences or ()
    copied = found.case.invented_audience in got
    syntax = "; only its syntax is checked" if broken is not None and broken.refused else ""
    return RESOURCE.answer(Value.NO, f"{'copied into aud' if copied else 'ignored'}{syntax}", evidence)


def _requester(found: Examination) -> Cell:
    lawful = with_actor(found) or found[Probe.PLAIN]
    if lawful is None or not lawful.accepted:
        return REQUESTER.untested("no exchange was accepted")
    hop_2 = found[Probe.HOP_2]
    control = hop_2 is not None and hop_2.accepted
    refused: list[Attempt] = []
    seen: list[Attempt] = []
    for attempt in (lawful, found[Probe.OUTSIDER], found[Probe.OUTSIDER_TOOL]):
        if attempt is None or attempt.answer.busy or not _outside(found, attempt):
            continue
        seen.append(attempt)
        if attempt.accepted:
            return REQUESTER.answer(Value.NO, "a client outside aud exchanges the token", [attempt], bad=True)
        refused.append(attempt)
    if not seen:
        return REQUESTER.unseen("no token at hand names an audience without one of the clients", lawful)
    if not control:
        return REQUESTER.unseen("client 2 is refused everything", *refused, hop_2)
    return REQUESTER.answer(Value.YES, refused[0].answer.told, [*refused, hop_2])


def _outside(found: Examination, attempt: Attempt) -> bool:
    """Return True if the subject token of an attempt names audiences, and the client is not one of them."""
    if attempt.draft is None:
        return False
    client, subject = attempt.draft.client.client_id, found.subject
    if attempt.draft.subject != found.case.subject:
        before = found[Probe.FOR_TOOL]
        if before is None:
            return False
        subject = before.reading
    audiences = subject.audiences
    return bool(audiences) and client not in (audiences or ()) and client not in subject.clients.values()


def _life(found: Examination) -> Cell:
    lawful = with_actor(found) or found[Probe.PLAIN]
    if lawful is None or not lawful.accepted:
        return LIFE.untested("no exchange was accepted")
    hop_1, later, again = found[Probe.HOP_1], found[Probe.LATER], found[Probe.LATER_FIRST]
    pairs = [(found.subject.expires_at, one) for one in (again, lawful) if one is not None]
    if hop_1 is not None and later is not None:
        pairs.append((hop_1.reading.expires_at, later))
    for_first, third = found[Probe.FOR_FIRST], found[Probe.HOP_3]
    if for_first is not None and third is not None:
        pairs.append((for_first.reading.expires_at, third))
    capped: Attempt | None = None
    for parent, attempt in pairs:
        ends, begins = attempt.reading.expires_at, attempt.reading.issued_at
        if parent is None or ends is None:
            continue
        if ends > parent + _ROUNDING_S:
            told = (
                f"it outlives the token that it was exchanged for by {ends - parent:.0f} s{_note_disagreement(attempt)}"
            )
            return LIFE.answer(Value.NO, told, [attempt], bad=True)
        life = _natural_life(found, attempt)
        born = begins if begins is not None else attempt.answer.at
        if life is not None and born + life > parent + _ROUNDING_S:
            capped = attempt
    if capped is not None:
        return LIFE.answer(Value.YES, f"by the claims{_note_disagreement(capped)}", [capped])
    if all(parent is None or one.reading.expires_at is None for parent, one in pairs):
        return LIFE.unseen("the tokens tell no exp", lawful)
    return LIFE.unseen("every issued token ends before the one it was exchanged for anyway", lawful, later)


def _natural_life(found: Examination, attempt: Attempt) -> float | None:
    """Return the longest life of an exchanged token of the same client: its tokens without a cap.

    Lives may differ by client, so tokens of other clients do not count.
    """
    return max((life for one in _of_client(found, attempt) if (life := life_of(one)) is not None), default=None)


def _of_client(found: Examination, attempt: Attempt) -> list[Attempt]:
    client = None if attempt.draft is None else attempt.draft.client
    return [
        one for one in found.attempts.values() if one.accepted and one.draft is not None and one.draft.client == client
    ]


def _note_disagreement(attempt: Attempt) -> str:
    """Return a note if ``expires_in`` and the claim disagree."""
    told, ends = attempt.answer.members.get("expires_in"), attempt.reading.expires_at
    if isinstance(told, bool) or not isinstance(told, int) or ends is None:
        return ""
    rest = ends - attempt.answer.at
    return "" if abs(rest - told) <= 2 * _ROUNDING_S else f"; expires_in says {told} s, the token {rest:.0f} s"
