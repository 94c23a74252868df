"""Judges every recorded request again under other settings, and groups those that would be decided differently. Pure.

The judgement is ``explain``'s: the sidecar's own core, and the recorded result for checks that cannot run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from delegation_core.errors import Denied, Reason
from delegation_core.policy import Policy
from delegation_core.records.paths import mask_ids
from delegation_core.records.reading import Record
from delegation_core.records.record_text import escape
from delegation_core.target import canonical_target
from sidecar.explain.explanation import explain
from sidecar.explain.judge_observed import passes_observed
from sidecar.explain.judgement import OK
from sidecar.explain.recorded_token import CannotJudgeError

MAX_CHANGES: Final = 10_000
_ALLOW: Final = "allow"
_OBSERVED: Final = "observed_deny"
_SOMEBODY: Final = "somebody"  # subject of a token that no call carried


class Change(NamedTuple):
    """A decision that differs. ``path`` has a star for each id, so that calls of one kind are one change."""

    direction: str
    route: str | None
    peer: str | None
    method: str | None
    path: str
    old: str
    new: str


@dataclass(slots=True)
class Occurrences:
    """Number of a change's records, and the name of the first of them."""

    count: int
    example: str


class Replay:
    """The result so far. ``delegated``: each observed call is judged as if it carried a delegated token.

    ``judged`` counts requests; ``told`` those whose decision is copied from the record; ``beyond`` those with a
    difference beyond the limit of distinct changes.
    """

    def __init__(self, policy: Policy, *, delegated: bool = False, missing_deny_file: Path | None = None) -> None:
        self.changes: dict[Change, Occurrences] = {}
        self.judged = self.told = self.beyond = 0
        self.not_judged: Counter[str] = Counter()
        self._policy = policy
        self._delegated = delegated
        self._missing_deny_file = missing_deny_file

    @property
    def different(self) -> int:
        """Number of requests that would be decided differently."""
        return self.beyond + sum(found.count for found in self.changes.values())

    def add(self, record: Record) -> None:
        """Judge one request."""
        observed = record.decision == _OBSERVED
        judged, why = record, None
        if self._delegated and observed:
            judged, why = _as_delegated(record, self._policy)
        explanation = explain(judged, self._policy, missing_deny_file=self._missing_deny_file)
        judgement = explanation.judgement
        if judgement is None or why is not None:
            self.not_judged[why or explanation.not_judged or ""] += 1
            return
        self.judged += 1
        self.told += judgement.judged is None
        reason = judgement.recorded if judgement.judged is None else judgement.judged
        old = _ALLOW if record.decision == _ALLOW else escape(f"{record.decision} {record.reason}")
        new = _ALLOW if reason == OK else escape(f"{self._refusal(judged, reason)} {reason}")
        if old != new and not (new == _ALLOW and judged is not record):
            self._note(record, old, new)

    def _refusal(self, record: Record, reason: str) -> str:
        return _OBSERVED if passes_observed(record, self._policy, reason) else "deny"

    def _note(self, record: Record, old: str, new: str) -> None:
        change = Change(
            direction=record.direction or "",
            route=_text(record.route),
            peer=_text(record.peer),
            method=_text(record.method),
            path=escape(mask_ids(record.path or "")),
            old=old,
            new=new,
        )
        found = self.changes.get(change)
        if found is not None:
            found.count += 1
        elif len(self.changes) < MAX_CHANGES:
            self.changes[change] = Occurrences(1, escape(record.name))
        else:
            self.beyond += 1

    def sorted(self) -> Iterator[tuple[Change, Occurrences]]:
        """Yield the changes, the most frequent first."""
        yield from sorted(self.changes.items(), key=lambda one: (-one[1].count, tuple(map(str, one[0]))))


def _text(text: str | None) -> str | None:
    """Return a record's text for display: without control characters and tokens, and truncated."""
    return None if text is None else escape(text)


def _as_delegated(record: Record, policy: Policy) -> tuple[Record, str | None]:
    """Return the record of the same call with a delegated token of the scopes that its route needs.

    A call without a route gets no token. The text is the reason why a token is impossible, else None.
    """
    try:
        issuer, scopes = _tokens_of(record, policy)
    except Denied:
        return replace(record, decision=_ALLOW, reason=OK), None
    except CannotJudgeError as error:
        return record, str(error)
    actor = record.peer if record.direction == "inbound" else record.workload
    token = replace(
        record,
        decision=_ALLOW,
        reason=OK,
        verified=True,
        subject=_SOMEBODY,
        subject_iss=issuer,
        actor=actor,
        chain=(actor or "", _SOMEBODY),
        audience=record.workload,
        scope=scopes,
        scope_cut=False,
        scope_needed=scopes,
        jti_in=None,
        parent_jti=None,
        txn=None,
        fp=None,
    )
    return token, None


def _tokens_of(record: Record, policy: Policy) -> tuple[str, frozenset[str]]:
    """Return issuer and scopes of the tokens that a call's route accepts.

    Raises:
        Denied: the call has no route.
        CannotJudgeError: the route accepts no token, or the caller is unverified.
    """
    if record.direction == "inbound":
        if record.peer is None:
            raise CannotJudgeError("the caller has proven no name, so no token could name it")
        route = policy.inbound.find(record.method or "", canonical_target((record.path or "").encode()).path)
        if not route.issuers:
            raise CannotJudgeError("the route takes tokens of no issuer")
        able = [one for one in sorted(route.issuers) if route.scopes <= policy.issuers[one].scopes]
        return able[0] if able else min(route.issuers), route.scopes
    for one in policy.outbound.routes:
        if one.name == record.route:
            return one.issuer, one.scopes
    raise Denied(Reason.TARGET_DENIED)
