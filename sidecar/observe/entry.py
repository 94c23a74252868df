"""One request's record while the request lives: filled in by the journey, written once when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from sidecar.delegation.act import parse_act
from sidecar.delegation.scope import sorted_scope
from sidecar.errors import Denied, SidecarError
from sidecar.observe.record import FIELDS, MAX_ITEMS, OK, Decision, Direction, Record

if TYPE_CHECKING:
    from sidecar.delegation.bearer import Bearer
    from sidecar.delegation.decide import IssuedPermit, Permit
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
    wrong on the way. ``began_at`` (seconds since the epoch) and ``started_at`` (monotonic) are both when the request's
    head had arrived, which ``ts`` tells.
    """

    # Whatever is set on an entry and stands not here is a key of its record.
    __slots__ = ("__dict__", "_exchange_at", "_forwarded_at", "_log", "_token", "began_at", "started_at")

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

    def __init__(self, log: AccessLog, record: Record, began_at: float, started_at: float) -> None:
        self.__dict__ = record
        self._log = log
        self._token: VerifiedToken | None = None
        self.began_at = began_at
        self.started_at = started_at

    def attribute(self, permit: Permit) -> None:
        """An inbound request was permitted: whose it is, and under which route."""
        self.peer = permit.peer
        self.route = permit.route.name
        self.scope_needed = sorted_scope(permit.route.scopes)
        self.attribute_token(permit.token)
        self._permit()

    def attribute_issued(self, permit: IssuedPermit) -> None:
        """An outbound call was permitted: the issued token takes the place of the one that came in."""
        plan = permit.plan
        issued = permit.token
        jti_in = plan.delegation.token.jti
        self.peer = plan.route.peer
        self.route = plan.route.name
        self.scope_needed = sorted_scope(plan.scope)
        self.attribute_token(issued)
        self.jti_in = jti_in
        self.jti_out = issued.jti
        if self.parent_jti is None:
            self.parent_jti = jti_in
        self._permit()

    def attribute_token(self, token: VerifiedToken) -> None:
        """A token verified: its claims are facts from here on, permitted or not."""
        if token is self._token:
            return
        self._token = token
        self.verified = True
        self.subject = token.subject
        self.subject_iss = token.issuer
        chain = token.chain
        if chain is not None:
            self.chain = chain.subjects
            self.chain_depth = chain.depth
            self.actor = token.actor_id or chain.current.subject
        self.client_id = token.client_id
        self.audience = token.audience
        self.scope = sorted_scope(token.scope)
        self.jti_in = token.jti
        self.parent_jti = token.parent_jti
        self.txn = token.txn
        self.fp = token.fingerprint

    def attribute_login(self, token: VerifiedToken) -> None:
        """A user's login was traded for a handle: nothing is forwarded, and no hop comes of it."""
        self.attribute_token(token)
        self.op = LOGIN
        self._permit()

    def claim_unverified(self, bearer: Bearer) -> None:
        """What a token says that did not verify, for whoever investigates; ``verified`` is false."""
        claims = bearer.claims
        self.verified = False
        self._token = None
        self.subject = _text(claims, "sub")
        self.subject_iss = bearer.issuer
        self.client_id = _text(claims, "client_id")
        self.audience = _text(claims, "aud")
        self.jti_in = _text(claims, "jti")
        self.txn = _text(claims, "txn")
        scope = _text(claims, "scope")
        self.scope = None if scope is None else scope.split(" ", MAX_ITEMS)
        self.fp = bearer.fingerprint
        try:
            chain = parse_act(claims)
        except Denied:
            return
        if chain is not None:
            self.chain = chain.subjects
            self.chain_depth = chain.depth
            self.actor = chain.current.subject

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
        self.exchange_ms = self._ms_since(self._exchange_at)

    def forwarded(self) -> None:
        """The request's head goes upstream now."""
        self._forwarded_at = self._log.monotonic()

    def responded(self, upstream_status: int) -> None:
        """The head of the upstream's answer is here."""
        self.upstream_status = upstream_status
        self.upstream_ms = self._ms_since(self._forwarded_at)

    def opened(self) -> None:
        """Leave ``request.opened`` ahead of the record, once: the request lasts, streams or was upgraded.

        Both keys of the decision are null while nobody has decided yet.
        """
        undecided = {} if self.decision == "allow" else {"decision": None, "reason": None}
        self._log.opened(self, self.__dict__ | undecided | {"event": "request.opened"})

    def close(self) -> None:
        """Write the record and count the request, once; every further call does nothing."""
        self._log.finish(self, self.__dict__)

    def _permit(self) -> None:
        self.decision = "allow"
        self.reason = OK
        self.decide_ms = self._ms_since(self.started_at)

    def _ms_since(self, start: float) -> float:
        return int((self._log.monotonic() - start) * 1_000_000 + 0.5) / 1000  # whole microseconds


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) else None
