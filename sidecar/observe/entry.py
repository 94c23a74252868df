"""One request's record while the request lives: filled in by the journey, written once when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sidecar.errors import SidecarError
from sidecar.observe.attribution import claims_of, facts_of, facts_of_delegation, facts_of_issued, facts_of_token
from sidecar.observe.record import FIELDS, OK, Decision, Direction, Record, RecordFields

if TYPE_CHECKING:
    from sidecar.delegation.bearer import Bearer
    from sidecar.delegation.decide import Delegation, IssuedPermit, Permit
    from sidecar.delegation.verify import VerifiedToken
    from sidecar.observe.access_log import AccessLog

LOGIN: Final = "login"  # the op of a request that traded a user's login token for a handle


def request_record(direction: Direction, run: str) -> Record:
    """The record of a request of which nothing is known yet but that it came.

    It starts as a refusal for an internal error: a request about which nobody decided is none that was allowed.
    """
    record: Record = dict.fromkeys(FIELDS)
    record.update(event="request", run=run, direction=direction, decision="deny", reason="internal")
    record.update(verified=False, after_request=False)
    return record


class Entry:
    """The one record of one request. Its attributes are the record's keys: ``record`` becomes its ``__dict__``.

    ``decision`` becomes ``allow`` with a permit and stays so; ``reason`` then says how it ended, ``ok`` or what went
    wrong on the way. Times are milliseconds to the microsecond. ``ts`` and ``started_at`` (monotonic) are both when the
    request's head had arrived.
    """

    # Whatever is set on an entry and stands not here is a key of its record.
    __slots__ = ("__dict__", "_exchange_at", "_forwarded_at", "_log", "started_at")

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
    call_in: str | None
    call_out: str | None
    trace_id: str | None
    span_id: str | None
    bytes_in: int | None
    bytes_out: int | None
    decide_ms: float | None
    exchange_ms: float | None
    upstream_ms: float | None
    detail: str | None

    def __init__(self, log: AccessLog, record: Record, started_at: float) -> None:
        self.__dict__ = record
        self._log = log
        self.started_at = started_at

    def attribute(self, permit: Permit) -> None:
        """An inbound request was permitted: whose it is, and under which route."""
        self.permitted(facts_of(permit))

    def attribute_issued(self, permit: IssuedPermit) -> None:
        """An outbound call was permitted: the issued token takes the place of the one that came in."""
        self.permitted(facts_of_issued(permit))

    def attribute_token(self, token: VerifiedToken) -> None:
        """A token verified: its claims are facts from here on, permitted or not."""
        self.__dict__.update(facts_of_token(token))

    def attribute_delegation(self, delegation: Delegation) -> None:
        """A handle was shown: its request's claims are facts from here on."""
        self.__dict__.update(facts_of_delegation(delegation))

    def attribute_login(self, token: VerifiedToken) -> None:
        """A user's login was traded for a handle: nothing is forwarded, and no hop comes of it."""
        self.permitted({**facts_of_token(token), "decision": "allow", "reason": OK, "op": LOGIN})

    def permitted(self, facts: RecordFields) -> None:
        """The request was permitted just now. ``facts`` are those of its permit, as ``attribution`` makes them."""
        record = self.__dict__
        record.update(facts)
        record["decide_ms"] = int((self._log.monotonic() - self.started_at) * 1_000_000 + 0.5) / 1000

    def claim_unverified(self, bearer: Bearer) -> None:
        """What a token says that did not verify, for whoever investigates; ``verified`` is false."""
        self.__dict__.update(claims_of(bearer))

    def refuse(self, error: SidecarError) -> None:
        """How the request ended if not well. After a permit the decision stands and ``reason`` tells the failure."""
        self.reason = error.reason
        self.detail = error.detail or None
        if self.status is None:
            self.status = error.answer.status or None

    def exchanging(self) -> None:
        """The token service is asked from now on."""
        self._exchange_at = self._log.monotonic()

    def exchanged(self) -> None:
        """The token service has answered, or failed to."""
        self.exchange_ms = int((self._log.monotonic() - self._exchange_at) * 1_000_000 + 0.5) / 1000

    def forwarded(self) -> None:
        """The request's head goes upstream now."""
        self._forwarded_at = self._log.monotonic()

    def responded(self, upstream_status: int) -> None:
        """The head of the upstream's answer is here."""
        self.upstream_status = upstream_status
        self.upstream_ms = int((self._log.monotonic() - self._forwarded_at) * 1_000_000 + 0.5) / 1000

    def opened(self) -> None:
        """Leave ``request.opened`` ahead of the record, once: the request lasts, streams or was upgraded.

        Both keys of the decision are null while nobody has decided yet.
        """
        undecided = {} if self.decision == "allow" else {"decision": None, "reason": None}
        self._log.opened(self, self.__dict__ | undecided | {"event": "request.opened"})

    def close(self) -> None:
        """Write the record and count the request, once; every further call does nothing."""
        self._log.finish(self, self.__dict__)
