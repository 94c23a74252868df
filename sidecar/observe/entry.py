"""One request's record while the request is in flight: filled in by the journey, written once at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from delegation_core.errors import Reason, SidecarError
from delegation_core.records.record import FIELDS, OK, Decision, Direction, Record, RecordFields
from sidecar.observe.attribution import claims_of, facts_of, facts_of_token
from sidecar.observe.tracing import TraceContext, next_traceparent

if TYPE_CHECKING:
    from delegation_core.bearer import Bearer
    from delegation_core.permit import Permit
    from delegation_core.verify import VerifiedToken
    from sidecar.observe.record_rate import UnprovenRecords

LOGIN: Final = "login"  # the op of a request that traded a user's login token for a handle
METADATA: Final = "metadata"  # the op of a request that the sidecar answered itself, with a route's metadata
PREFLIGHT: Final = "preflight"  # the op of a browser's question before a call (CORS)
OWN: Final = "own"  # the op of a call that showed the workload handle: no request, no user
_ANYBODYS: Final = frozenset({METADATA, PREFLIGHT})
NO_FACTS: Final[RecordFields] = {}


def request_record(direction: Direction, run: str) -> Record:
    """Create the record of a request that has just arrived.

    It starts as a refusal for an internal error: a request without a decision was not allowed.
    """
    record: Record = dict.fromkeys(FIELDS)
    record.update(event="request", run=run, direction=direction, decision="deny", reason="internal")
    record.update(verified=False, after_request=False)
    return record


class Head(Protocol):
    """The part of a request head that its trace needs."""

    def all(self, name: bytes) -> Sequence[bytes]:
        """Return the values of the fields of that name."""


class EntryLog(Protocol):
    """The part of the access log that an entry needs."""

    def monotonic(self) -> float:
        """Return monotonic seconds."""

    def opened(self, entry: Entry, record: Record) -> None:
        """Write the record of a request that has been permitted and lasts."""

    def open_first(self, entry: Entry, record: Record, done: Callable[[str | None], object]) -> None:
        """Write the first record of a request, and call ``done`` as ``AccessLog.open_first`` does."""

    def finish(self, entry: Entry, record: Record) -> None:
        """Write the closing record."""

    def leave_out(self, entry: Entry, record: Record) -> None:
        """Count the request without its record."""


class Entry:
    """The one record of one request. Its attributes are the record's keys: ``record`` becomes its ``__dict__``.

    ``decision`` becomes ``allow`` with a permit; ``reason`` then tells how the request ended: ``ok``, or the later
    failure. A later re-evaluation that refuses the request makes it ``deny``. With ``observed_deny`` both stay, and
    ``detail`` names a later failure. Times are milliseconds with microsecond precision. ``ts`` and
    ``started_at`` (monotonic) are the time at which the request's head was complete.
    """

    # Every attribute of an entry except these is a key of its record.
    __slots__ = (
        *("__dict__", "_exchange_at", "_log", "_withdrawn"),
        *("event_stream", "forwarded_at", "operation", "started_at"),
        "warm",
    )

    # Unset in most requests: read by ``getattr``.
    operation: str  # the key of the operation that was judged, which may hold text of the caller's
    event_stream: bool  # the answer is a stream of events, which its caller may end at any time
    _withdrawn: SidecarError  # the error that withdrew the permit

    ts: str
    decision: Decision
    reason: str
    direction: Direction
    request_id: str
    verified: bool
    after_request: bool
    peer: str | None
    subject: str | None
    subject_iss: str | None
    actor: str | None
    chain: Sequence[str] | None
    chain_depth: int | None
    client_id: str | None
    audience: str | None
    scope: Sequence[str] | None
    scope_needed: Sequence[str] | None
    route: str | None
    op: str | None
    method: str | None
    path: str | None
    status: int | None
    upstream_status: int | None
    jti_in: str | None
    jti_out: str | None
    parent_jti: str | None
    txn: str | None
    fp: str | None
    host: str | None
    candidates: Sequence[str] | None
    credential: str | None
    crossed_from: str | None
    call_in: str | None
    call_out: str | None
    trace_id: str | None
    span_id: str | None
    bytes_in: int | None
    bytes_out: int | None
    decide_ms: float | None
    exchange_ms: float | None
    upstream_ms: float | None
    source: str | None
    detail: str | None

    def __init__(self, log: EntryLog, record: Record, started_at: float) -> None:
        self.__dict__ = record
        self._log = log
        self.started_at = started_at

    # Of the fields ``traceparent`` and ``tracestate`` to the context that goes on. Where traces are exported, entries
    # are of a kind that overrides it: then it also knows the parent, and decides if the span is recorded.
    next_trace = staticmethod(next_traceparent)

    def attribute(self, permit: Permit) -> None:
        """Note a permitted inbound request: its subject, its actors, its route."""
        self.permitted(facts_of(permit))

    def attribute_token(self, token: VerifiedToken) -> None:
        """Note a verified token: its claims are facts from here on, permitted or not."""
        self.__dict__.update(facts_of_token(token))

    def attribute_served(self, facts: RecordFields) -> None:
        """Note the handle of a call. ``facts``: the ``facts_of_token`` of the handle's inbound request."""
        self.__dict__.update(facts)

    def attribute_login(self, token: VerifiedToken) -> None:
        """Note a user's login exchanged for a handle: nothing is forwarded, so it is no hop."""
        self.permitted({**facts_of_token(token), "decision": "allow", "reason": OK, "op": LOGIN})

    def permitted(self, facts: RecordFields, of_token: RecordFields = NO_FACTS) -> None:
        """Note that the request is now permitted. ``facts``: its permit's, from ``attribution``.

        ``of_token``: the facts of its token, if ``facts`` lacks them.
        """
        record = self.__dict__
        record.update(of_token)
        record.update(facts)
        record["decide_ms"] = int((self._log.monotonic() - self.started_at) * 1_000_000 + 0.5) / 1000

    def tell_metadata(self) -> None:
        """Note that the sidecar answers with public metadata. Without a token the call is no hop."""
        self.permitted({"decision": "allow", "reason": OK, "op": METADATA})
        if self.fp is None:
            self.call_in = None

    def answer_preflight(self) -> None:
        """Note that the sidecar answers a CORS preflight, which is no hop."""
        self.permitted({"decision": "allow", "reason": OK, "op": PREFLIGHT})

    def claim_unverified(self, bearer: Bearer) -> None:
        """Note the claims of a token that did not verify, for investigation; ``verified`` is false."""
        self.__dict__.update(claims_of(bearer))

    def withdraw(self, error: SidecarError, *, begun: bool) -> None:
        """Note that a re-evaluation refuses the request: if ``error`` ends it, the decision is ``deny``.

        Not ``begun``: nothing was forwarded, so ``decide_ms`` becomes null, as for any refusal.
        """
        self._withdrawn = error
        if not begun:
            self.decide_ms = None

    def refuse(self, error: SidecarError) -> None:
        """Note a failure in ``reason`` or ``detail``. A permit's ``decision`` stays unless it was withdrawn."""
        withdrawn = getattr(self, "_withdrawn", None)
        if withdrawn is not None and withdrawn in (error, error.__cause__) and self.decision == "allow":
            self.decision = "deny"
        if getattr(self, "event_stream", False) and error.reason is Reason.PEER_GONE:
            self.detail = "its caller ended the stream"
        elif self.decision == "observed_deny":
            self.detail = f"then {error}"
        else:
            self.reason = error.reason
            self.detail = error.detail or None
        if self.status is None:
            self.status = error.answer.status or None

    def exchanging(self) -> None:
        """Note that the call to the token service begins."""
        self._exchange_at = self._log.monotonic()

    def exchanged(self) -> None:
        """Note that the token service has answered, or failed to."""
        self.exchange_ms = int((self._log.monotonic() - self._exchange_at) * 1_000_000 + 0.5) / 1000

    def forwarded(self) -> None:
        """Note that the request's head goes upstream."""
        self.forwarded_at = self._log.monotonic()

    def responded(self, upstream_status: int) -> None:
        """Note that the head of the upstream's answer has arrived."""
        self.upstream_status = upstream_status
        self.upstream_ms = int((self._log.monotonic() - self.forwarded_at) * 1_000_000 + 0.5) / 1000

    def opened(self) -> None:
        """Write ``request.opened`` before the closing record, once, for a request that lasts, streams or was upgraded.

        Both keys of the decision are null while there is none.
        """
        undecided = {"decision": None, "reason": None} if self.decision == "deny" else {}
        self._log.opened(self, self.__dict__ | undecided | {"event": "request.opened"})

    def open_first(self, done: Callable[[str | None], object]) -> None:
        """Write ``request.opened`` of a permitted request, which goes on once ``done`` is called with None.

        Raises:
            Unavailable: AUDIT_UNAVAILABLE.
        """
        self._log.open_first(self, self.__dict__ | {"event": "request.opened"}, done)

    def close(self, head: Head | None = None) -> None:  # noqa: ARG002 - for entries whose traces are exported
        """Write the record and count the request, once; further calls do nothing. ``head`` is the request's."""
        self._log.finish(self, self.__dict__)


class UnprovenEntry(Entry):
    """The record of a request whose caller proved no identity.

    Records of served requests, and of verified users, are always written. Records of other refusals and of public
    answers are limited by the listener's rate; their requests are always counted.
    """

    __slots__ = ("_closed", "_proven", "_unproven")

    suppressed: int | None

    def __init__(self, log: EntryLog, record: Record, started_at: float, unproven: UnprovenRecords) -> None:
        super().__init__(log, record, started_at)
        self._unproven = unproven
        self._proven = False
        self._closed = False

    def next_trace(self, _parents: Sequence[bytes], _states: Sequence[bytes]) -> TraceContext:
        """Start a new trace, because a caller without a proven identity cannot continue one."""
        return next_traceparent((), ())

    def prove(self) -> None:
        """Note that the user is now verified: the record is always written."""
        self._proven = True

    def opened(self) -> None:
        """Write ``request.opened`` only for a verified user or a permitted request: it has no rate limit."""
        if self._proven or self._passed:
            super().opened()

    @property
    def _passed(self) -> bool:
        """True if the request was permitted, even if it failed later."""
        return self.decision != "deny" or self.decide_ms is not None

    def close(self, head: Head | None = None) -> None:
        """Write the record, or leave it out, and count the request, once; further calls do nothing."""
        if self._closed:
            return
        self._closed = True
        if self._proven or (self._passed and self.op not in _ANYBODYS):
            super().close(head)
        elif self._unproven.take():
            self.suppressed = self._unproven.suppressed()
            super().close(head)
        else:
            self._log.leave_out(self, self.__dict__)
