"""One request's record while the request lives: filled in by the journey, written once when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from sidecar.delegation.act import parse_act
from sidecar.delegation.scope import sorted_scope
from sidecar.errors import Denied, SidecarError
from sidecar.observe.metrics import OK
from sidecar.observe.record import MAX_ITEMS, Decision, Direction, RecordFields
from sidecar.observe.tracing import new_id

if TYPE_CHECKING:
    from sidecar.delegation.bearer import Bearer
    from sidecar.delegation.decide import IssuedPermit, Permit
    from sidecar.delegation.verify import VerifiedToken
    from sidecar.observe.access_log import AccessLog

LOGIN: Final = "login"  # the op of a request that traded a user's login token for a handle


class Entry:
    """The one record of one request. Its attributes are the record's keys.

    It starts as a refusal for an internal error: a request about which nobody decided is none that was allowed.
    ``decision`` becomes ``allow`` with a permit and stays so; ``reason`` then says how it ended, ``ok`` or what went
    wrong on the way. ``ts`` is when the request's head had arrived.
    """

    # What is set on an entry lands in __dict__, which therefore holds exactly the keys that differ from the defaults
    # here; everything that is no record key lives in slots.
    __slots__ = (
        "__dict__",
        "_at",
        "_closed",
        "_exchange_at",
        "_forwarded_at",
        "_log",
        "_permitted",
        "_token",
        "started_at",
    )

    decision: Decision
    reason: str
    direction: Direction
    request_id: str
    verified: bool
    after_request: bool
    peer: str | None = None
    subject: str | None = None
    subject_iss: str | None = None
    actor: str | None = None
    chain: Sequence[str] | None = None
    chain_depth: int | None = None
    client_id: str | None = None
    audience: str | None = None
    scope: Sequence[str] | None = None
    scope_needed: Sequence[str] | None = None
    route: str | None = None
    op: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    upstream_status: int | None = None
    jti_in: str | None = None
    jti_out: str | None = None
    parent_jti: str | None = None
    txn: str | None = None
    fp: str | None = None
    call_in: str | None = None
    call_out: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    tls_ms: float | None = None
    decide_ms: float | None = None
    exchange_ms: float | None = None
    upstream_ms: float | None = None
    total_ms: float | None = None
    source: str | None = None
    detail: str | None = None

    def __init__(self, log: AccessLog, direction: Direction, at: float, started_at: float) -> None:
        self._log = log
        self._at = at
        self.started_at = started_at
        self._exchange_at = self._forwarded_at = 0.0
        self._permitted = False
        self._token: VerifiedToken | None = None
        self._closed = False
        self.direction = direction
        self.decision = "deny"
        self.reason = "internal"
        self.verified = False
        self.after_request = False
        self.request_id = new_id()

    @property
    def began_at(self) -> float:
        """When the request's head had arrived, in seconds since the epoch."""
        return self._at

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
        self.exchange_ms = self._since(self._exchange_at)

    def forwarded(self) -> None:
        """The request's head goes upstream now."""
        self._forwarded_at = self._log.monotonic()

    def responded(self, upstream_status: int) -> None:
        """The head of the upstream's answer is here."""
        self.upstream_status = upstream_status
        self.upstream_ms = self._since(self._forwarded_at)

    def opened(self) -> None:
        """Leave ``request.opened`` ahead of the record, once: the request lasts, streams or was upgraded.

        Both keys of the decision are null while nobody has decided yet.
        """
        fields = self._fields()
        if not self._permitted:
            fields = {**fields, "decision": None, "reason": None}
        self._log.opened(self, fields, self._at)

    def close(self) -> None:
        """Write the record and count the request, once; every further call does nothing."""
        if self._closed:
            return
        self._closed = True
        total_ms = self.total_ms = self._since(self.started_at)
        log = self._log
        log.finish(self, self._fields(), self._at)
        metrics = log.metrics
        metrics.request(self.direction, self.route, self.decision, self.reason, total_ms / 1000)
        if self.decide_ms is not None:
            metrics.decision_seconds[self.direction].observe(self.decide_ms / 1000)
        if self._permitted and self.chain_depth is not None:
            metrics.chain_depth.observe(self.chain_depth)

    def _permit(self) -> None:
        self._permitted = True
        self.decision = "allow"
        self.reason = OK
        self.decide_ms = self._since(self.started_at)

    def _since(self, start: float) -> float:
        return round((self._log.monotonic() - start) * 1000, 3)

    def _fields(self) -> RecordFields:
        path = self.path
        if path is not None and "?" in path:
            self.path = path.partition("?")[0]  # a query may hold secrets and is never recorded
        return cast("RecordFields", self.__dict__)


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) else None
