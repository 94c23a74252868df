"""Explains one record: the deciding check, its input, and the people who must act. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from delegation_core.errors import Reason
from delegation_core.policy import ON_DENY_LIST, Policy
from delegation_core.records.reading import Record, is_card, is_login
from delegation_core.scope import format_scope
from sidecar.explain.judge_door import ANSWERED_BY_ITSELF, is_at_door, judge_door
from sidecar.explain.judge_exchange import UNPROVABLE as EXCHANGES_UNPROVABLE
from sidecar.explain.judge_exchange import judge_exchange
from sidecar.explain.judge_inbound import judge_inbound
from sidecar.explain.judge_outbound import judge_outbound
from sidecar.explain.judgement import DENY_LIST, OK, Judgement, Outcome
from sidecar.explain.recorded_token import UNPROVABLE, CannotJudgeError
from sidecar.reasons.advice import GUIDANCE, Guidance, seen
from sidecar.sts.mint import Grant
from sidecar.sts.policy import StsPolicy

EXCHANGES: Final = frozenset({"token.exchanged", "token.exchange_refused"})
_REASONS: Final = frozenset(Reason)
_NO_SETTINGS: Final = "there are no settings to judge by; --config names those of the workload that wrote the record"
_DIFFERS: Final = "The settings have changed since, or are not this workload's, or the record is false"
_JUDGES: Final = {"inbound": judge_inbound, "outbound": judge_outbound}

_ASK_STS: Final = "ask the token service: `sidecar sts revoke --list --to URL --peer SPIFFE-ID`"
_DENY_FILE: Final = "is the deny file of these settings, and is not here; copy it from the sidecar, as of that time"
REVOCATIONS: Final = {
    Reason.REVOKED: f"the order is in no settings (reason revoked); {_ASK_STS}",
    Reason.REVOCATIONS_STALE: "the age of a list of revocations is in no settings (reason revocations_stale); look for"
    " `revocations.changed` in this sidecar's records of that time",
}  # checked just before the deny list
NOT_IN_SETTINGS: Final = {
    **REVOCATIONS,
    Reason.CREDENTIAL_UNAVAILABLE: "the credential's file is not part of the settings; see the record's detail",
    Reason.AUDIT_UNAVAILABLE: "the state of the sink of records is in no settings; see the record's detail",
}  # reasons of refusals alone: of what goes wrong after a permit, the record's decision is allow


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The result for one record. ``judgement`` is None if judging is impossible, for the reason in ``not_judged``.

    ``reason`` is None for an event without a refusal, and for a code that this version does not know. ``change``
    describes a difference in the grant. ``unprovable`` lists facts that a judgement cannot prove.
    """

    record: Record
    reason: Reason | None
    judgement: Judgement | None
    not_judged: str | None
    change: str | None = None
    unprovable: tuple[str, ...] = UNPROVABLE

    @property
    def agrees(self) -> bool:
        """True if the explanation does not contradict the record."""
        return self.judgement is None or (self.judgement.agrees and self.change is None)

    @property
    def guidance(self) -> Guidance | None:
        """Advice on the reason."""
        return None if self.reason is None else GUIDANCE[self.reason]

    def verdict(self) -> str:
        """The outcome in a sentence."""
        recorded = f"recorded: {self.record.decision} {self.record.reason}"
        judgement = self.judgement
        if judgement is None:
            return f"{recorded}; not judged again: {self.not_judged}"
        if judgement.judged is None:
            return f"{recorded}; decided by: {judgement.decided_by}, as the record says"
        said = "allow" if judgement.judged == OK else f"deny {judgement.judged}"
        if judgement.agrees and self.change is not None:
            return f"{recorded}; judged again: {said}, but {self.change}"
        by = "" if judgement.decided_by is None else f", decided by: {judgement.decided_by}"
        if judgement.agrees:
            return f"{recorded}; judged again: the same{by}"
        return f"{recorded}; judged again: {said}{by}. {_DIFFERS}"

    def document(self) -> dict[str, object]:
        """Return the explanation for machines."""
        judgement, guidance, record = self.judgement, self.guidance, self.record
        return {
            "record": record.name,
            "event": record.event,
            "recorded": {"decision": record.decision, "reason": record.reason, "detail": record.detail},
            "judged": None if judgement is None else judgement.judged,
            "agrees": self.agrees,
            "decided_by": None if judgement is None else judgement.decided_by,
            "not_judged": self.not_judged,
            "change": self.change,
            "checks": [
                {"check": step.check, "saw": step.saw, "outcome": step.outcome}
                for step in (() if judgement is None else judgement.steps)
            ],
            "guidance": None
            if guidance is None or self.reason is None
            else {
                "answer": self.reason.answer.text,
                "means": guidance.means,
                "who": list(guidance.who),
                "do": guidance.do,
                "agent_developer_sees": seen(self.reason),
            },
            "unprovable": list(self.unprovable),
        }


def explain(record: Record, policy: Policy | None, *, missing_deny_file: Path | None = None) -> Explanation:
    """Judge a record again by ``policy``; without one, explain only its reason.

    ``missing_deny_file`` is the deny file that the settings name, if it is not on this machine.
    """
    judgement, not_judged = None, None
    if record.event not in {"request", "request.opened"}:
        not_judged = f"{record.event} is not a request of an agent; its decision depends on facts that no record holds"
    elif is_at_door(record) and record.allowed and record.op in ANSWERED_BY_ITSELF:
        not_judged = "the sidecar answered it by itself, to anybody: no user is behind it"
    elif not is_at_door(record) and is_login(record.direction, record.op, record.path):
        not_judged = "a login was shown here, and a record does not hold its claims"
    elif is_card(record.op):
        not_judged = "an agent's card was asked for, which the sidecar serves from a copy, by nobody's authority"
    elif record.decision is None:
        not_judged = "there was no decision yet"
    elif policy is None:
        not_judged = _NO_SETTINGS
    elif record.direction not in _JUDGES:
        not_judged = "the record does not say whether the request was inbound or outbound"
    else:
        try:
            judge = judge_door if is_at_door(record) else _JUDGES[record.direction]
            judgement = judge(record, policy)
        except CannotJudgeError as error:
            not_judged = str(error)
        else:
            not_judged = _fact_outside(record, judgement, missing_deny_file)
            judgement = judgement if not_judged is None else None
    return Explanation(record=record, reason=reason_of(record), judgement=judgement, not_judged=not_judged)


def _fact_outside(record: Record, judgement: Judgement, missing_deny_file: Path | None) -> str | None:
    """Return the fact outside the settings that refused the request. None: the judgement is valid.

    None too if an earlier check, or the deny list of the settings, refuses the request now.
    """
    reason = reason_of(record)
    if record.decision != "deny" or reason is None:
        return None
    passes_deny_list = any(step.check == DENY_LIST and step.outcome is Outcome.HELD for step in judgement.steps)
    if reason in REVOCATIONS:
        return REVOCATIONS[reason] if passes_deny_list else None
    if reason is Reason.POLICY_DENIED and ON_DENY_LIST in (record.detail or "") and missing_deny_file is not None:
        return f"{missing_deny_file} {_DENY_FILE}" if passes_deny_list else None
    return NOT_IN_SETTINGS.get(reason) if judgement.judged == OK else None


def explain_exchange(record: Record, policy: StsPolicy | None) -> Explanation:
    """Judge a token service's record of an exchange again by ``policy``; without one, explain only its reason."""
    judgement, not_judged, change = None, None, None
    if record.event not in EXCHANGES:
        not_judged = f"{record.event} is no exchange"
    elif policy is None:
        not_judged = _NO_SETTINGS
    else:
        try:
            judgement, grant = judge_exchange(record, policy)
        except CannotJudgeError as error:
            not_judged = str(error)
        else:
            change = _change(record, grant)
    reason = reason_of(record)
    return Explanation(
        record=record,
        reason=reason,
        judgement=judgement,
        not_judged=not_judged,
        change=change,
        unprovable=EXCHANGES_UNPROVABLE,
    )


def _change(record: Record, grant: Grant | None) -> str | None:
    """Describe a difference between the recorded and the new scopes; None if they are equal, or one is unknown."""
    if grant is None or not record.allowed or record.scope is None or record.scope_cut or grant.scope == record.scope:
        return None
    return f"with the scopes {format_scope(grant.scope)} in place of {format_scope(record.scope)}"


def reason_of(record: Record) -> Reason | None:
    """Return the record's reason code; None if it has none, or one that this version does not know."""
    return Reason(record.reason) if record.reason in _REASONS else None
