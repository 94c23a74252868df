"""Login API for the front app: begin a user's login, send the user to its URL, get a handle. The app sees no token.

``POST /.sidecar/logins`` begins a login for an outbound route and returns the URL for the user's browser, if the flow
has one. ``POST /.sidecar/logins/NAME`` completes the login with the query of the redirect, or polls for the user's
answer. Both requests name the app's browser session. If the two differ, the request is refused, so that a user cannot
be lured into completing another person's login (docs/front-apps.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import orjson

from delegation_core.authorization_response import code_of
from delegation_core.errors import Denied, Reason
from delegation_core.form import media_type
from delegation_core.login import LoginPlan, plan_login
from delegation_core.policy import Policy
from delegation_core.records.record import OK
from delegation_core.strict_json import StrictJsonError, parse_object
from delegation_core.target import CanonicalTarget
from sidecar.exchange.adapters.login import StillPending
from sidecar.exchange.cache import Issued
from sidecar.exchange.failover import Unsent
from sidecar.features import Features
from sidecar.features.logins.pending_logins import PendingLogin, PendingLogins, Phase
from sidecar.observe.access_log import Entry
from sidecar.observe.entry import LOGIN
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from sidecar.proxy.journeys.journey import Async, Journey, Tasks
from sidecar.proxy.journeys.outbound import LOGINS_PATH, Outbound
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.journeys.whole_body import BodyUpTo
from sidecar.wire.message import Field, Request
from sidecar.wire.stream import Stream

MAX_BODY_BYTES: Final = 16_384
MIN_SESSION_CHARS: Final = 16  # a value that can be guessed binds nothing
MAX_SESSION_CHARS: Final = 512
MAX_REASON_CHARS: Final = 200
_ANSWER_FIELDS: Final[tuple[Field, ...]] = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_BEGIN: Final = frozenset({"route", "session", "redirect_uri", "reason"})
_CONTINUE: Final = frozenset({"session", "callback"})
_NEVER_AGAIN: Final = frozenset({Reason.LOGIN_DENIED, Reason.LOGIN_ISSUER_MISMATCH})  # raised after the state matched


@dataclass(frozen=True, slots=True)
class _Asked:
    """JSON members of a front app's request, all of them strings."""

    members: dict[str, str]

    def __getitem__(self, name: str) -> str:
        value = self.members.get(name)
        if value is None:
            raise Denied(Reason.LOGIN_MALFORMED, f"{name} is missing")
        return value

    @property
    def session(self) -> str:
        session = self["session"]
        if not MIN_SESSION_CHARS <= len(session) <= MAX_SESSION_CHARS:
            raise Denied(Reason.LOGIN_MALFORMED, "session: it is an unguessable value of 16 to 512 characters")
        return session


class Feature:
    """User logins, each for one outbound route. ``pending``: the logins of this process."""

    def __init__(self, features: Features) -> None:
        self.pending = PendingLogins(monotonic=features.monotonic)

    def outbound(self, side: Outbound) -> UserLogins:
        """Return the login API of an outbound side."""
        return UserLogins(
            handles=side.handles,
            tasks=side.tasks,
            pending=self.pending,
            clock=side.clock,
            alone=side.remote_handles is None,
        )


class UserLogins:
    """Serves the front app's requests about logins. ``clock`` returns wall time in seconds.

    ``alone``: there is one worker. With more, requests are refused: another worker could get the login's next one.
    """

    def __init__(
        self, *, handles: Handles, tasks: Tasks, pending: PendingLogins, clock: Callable[[], float], alone: bool
    ) -> None:
        self._handles = handles
        self._tasks = tasks
        self.pending = pending
        self._clock = clock
        self._alone = alone

    def serve(
        self, stream: Stream, head: Request, target: CanonicalTarget, snapshot: Snapshot, entry: Entry
    ) -> Journey[None]:
        """Serve one request below ``LOGINS_PATH``.

        Raises:
            SidecarError: NOT_AN_ENTRY, METHOD_REFUSED, PATH_REFUSED (a query), NO_REQUEST_CONTEXT (a credential is
                sent), CALL_NOT_ALLOWED (several workers), NO_ROUTE, LOGIN_MALFORMED; or as ``_begin``, ``_continue``.
        """
        entry.op = LOGIN
        _require_form(head, target, snapshot.policy)
        if not self._alone:
            raise Denied(Reason.CALL_NOT_ALLOWED, "logins need one process: start with --workers 1")
        name = target.path.removeprefix(LOGINS_PATH)
        if name and not name.startswith("/"):
            raise Denied(Reason.NO_ROUTE)
        body: bytes = yield BodyUpTo(stream, MAX_BODY_BYTES)
        if name:
            status, answer = yield from self._continue(name[1:], _parse_request(body, _CONTINUE), snapshot, entry)
        else:
            status, answer = yield from self._begin(_parse_request(body, _BEGIN), snapshot, entry)
        stream.answer(status, _ANSWER_FIELDS, orjson.dumps(answer))

    def _begin(self, asked: _Asked, snapshot: Snapshot, entry: Entry) -> Journey[tuple[int, dict[str, object]]]:
        """Begin a login; return status 201 and the members of the JSON answer.

        Raises:
            SidecarError: as ``plan_login``, ``Sts.begin_login`` and ``PendingLogins.reserve``; LOGIN_MALFORMED.
        """
        session, policy = asked.session, snapshot.policy
        plan = plan_login(asked["route"], policy=policy)
        entry.route = plan.route.name
        redirect_uri = _redirect_uri(asked.members.get("redirect_uri"), policy)
        reason = _reason(asked.members.get("reason"), plan)
        logins = snapshot.exchange(plan.sts_issuer).logins
        login = self.pending.reserve(session, plan, logins.settings)
        try:
            begun = yield Async(self._tasks, partial(logins.begin, plan, redirect_uri=redirect_uri, reason=reason))
        except BaseException:
            self.pending.drop(login)
            raise
        self.pending.open(login, begun)
        entry.permitted({"decision": "allow", "reason": OK, "op": LOGIN, "route": plan.route.name})
        return 201, self._still(login)

    def _continue(
        self, name: str, asked: _Asked, snapshot: Snapshot, entry: Entry
    ) -> Journey[tuple[int, dict[str, object]]]:
        """Complete a login, or report it as pending; return status 200 and the members of the JSON answer.

        Raises:
            SidecarError: as ``PendingLogins.find``, ``_plan_again``, ``_code``, ``Sts.complete_login`` and
                ``Handles.keep``.
        """
        login = self.pending.find(name, asked.session)
        entry.route = login.plan.route.name
        plan = self._plan_again(login, snapshot)
        code = self._code(login, asked.members.get("callback"))
        if code is None and (_uses_browser(login) or not self.pending.may_ask(login)):
            entry.permitted({"decision": "allow", "reason": OK, "op": LOGIN, "route": plan.route.name})
            return 200, self._still(login)
        issued = yield from self._ask(login, code, plan, snapshot)
        if isinstance(issued, StillPending):
            entry.permitted({"decision": "allow", "reason": OK, "op": LOGIN, "route": plan.route.name})
            return 200, self._still(login)
        return 200, self._complete(login, issued, entry)

    def _code(self, login: PendingLogin, callback: str | None) -> str | None:
        """Return the authorization code in ``callback``, the redirect's query; None without one. Raises Denied."""
        begun = login.begun
        if callback is None or begun is None:
            return None
        if not _uses_browser(login):
            raise Denied(Reason.LOGIN_MALFORMED, "callback: nothing comes back through the browser from this login")
        try:
            return code_of(
                callback, state=begun.wanted.state, issuer=login.plan.sts_issuer, names_issuer=begun.names_issuer
            )
        except Denied as error:
            if error.reason in _NEVER_AGAIN:
                login.end()
            raise

    def _ask(
        self, login: PendingLogin, code: str | None, plan: LoginPlan, snapshot: Snapshot
    ) -> Journey[Issued | StillPending]:
        """Redeem ``code``, or poll without one. A code that may have been sent ends the login (RFC 6749, 4.1.2)."""
        begun = login.begun
        if begun is None:  # the login ended meanwhile
            raise Denied(Reason.LOGIN_USED)
        logins = snapshot.exchange(plan.sts_issuer).logins
        asking = partial(logins.complete, begun, code, plan=plan, policy=snapshot.policy)
        login.phase = Phase.ASKING if code is None else Phase.REDEEMING
        may_ask_again = code is None
        try:
            issued: Issued | StillPending = yield Async(self._tasks, asking)
        except Unsent:
            may_ask_again = True
            raise
        except Denied:
            may_ask_again = False
            raise
        finally:
            if may_ask_again:
                self.pending.wait_longer(login)
            else:
                login.end()
        if not isinstance(issued, StillPending):
            login.end()
        elif login.phase is Phase.OVER:  # a new login of the session has begun meanwhile
            raise Denied(Reason.LOGIN_USED)
        else:
            self.pending.wait_longer(login, issued.slower_s)
        return issued

    def _plan_again(self, login: PendingLogin, snapshot: Snapshot) -> LoginPlan:
        """Plan the login under the current settings. Ends it and raises Denied if they differ or refuse it."""
        try:
            plan = plan_login(login.plan.route.name, policy=snapshot.policy)
            same = snapshot.exchange(plan.sts_issuer).logins.settings == login.settings
        except Denied:
            login.end()
            raise
        if not same or (plan.audience, plan.actor) != (login.plan.audience, login.plan.actor):
            login.end()
            raise Denied(Reason.LOGIN_EXPIRED, "the settings of its token service, or of its route, have changed")
        return plan

    def _complete(self, login: PendingLogin, issued: Issued, entry: Entry) -> dict[str, object]:
        delegation, token = issued.permit.plan.delegation, issued.permit.token
        assert delegation is not None  # noqa: S101 - for the type only: a grant has a user
        handle = self._handles.keep(ServedRequest(delegation, max_calls=None, linger_s=0.0, call_in=None))
        entry.attribute_login(token)
        return {
            "login": login.name,
            "status": "complete",
            "handle": handle,
            "expires_in": token.expires_at - int(self._clock()),
            "subject": token.subject,
            "subject_issuer": token.issuer,
            "scope": " ".join(sorted(token.scope)),
        }

    def _still(self, login: PendingLogin) -> dict[str, object]:
        answer: dict[str, object] = {
            "login": login.name,
            "status": "pending",
            "expires_in": self.pending.rest_s(login),
        }
        started = None if login.begun is None else login.begun.started
        if started is not None and started.url is not None:
            answer["url"] = started.url
        else:
            answer["poll_after_s"] = self.pending.poll_after_s(login)
        return answer


def _uses_browser(login: PendingLogin) -> bool:
    return login.begun is not None and login.begun.started.url is not None


def _require_form(head: Request, target: CanonicalTarget, policy: Policy) -> None:
    """Check the form of a request. Requires JSON, which a web page cannot send here without a CORS preflight."""
    if policy.entry is None:
        raise Denied(Reason.NOT_AN_ENTRY)
    if head.method != "POST":
        raise Denied(Reason.METHOD_REFUSED)
    if target.query:
        raise Denied(Reason.PATH_REFUSED, "no query is allowed here")
    if head.all(b"delegation-handle") or head.all(b"authorization"):
        raise Denied(Reason.NO_REQUEST_CONTEXT, "a request about a login shows no credential")
    types = head.all(b"content-type")
    if len(types) != 1 or media_type(types[0].decode("latin-1")) != "application/json":
        raise Denied(Reason.LOGIN_MALFORMED, "content-type is not application/json")


def _parse_request(body: bytes, known: frozenset[str]) -> _Asked:
    try:
        members = parse_object(body, max_bytes=MAX_BODY_BYTES, max_depth=1)
    except StrictJsonError as error:
        raise Denied(Reason.LOGIN_MALFORMED, str(error)) from error
    texts = {name: value for name, value in members.items() if isinstance(value, str)}
    if len(texts) != len(members) or not texts.keys() <= known:
        raise Denied(Reason.LOGIN_MALFORMED, f"it has other members than {', '.join(sorted(known))}, or no strings")
    return _Asked(texts)


def _redirect_uri(wanted: str | None, policy: Policy) -> str | None:
    """Return ``wanted`` if the entry lists it; without ``wanted`` the only listed URI, or None. Raises Denied."""
    listed = frozenset() if policy.entry is None else policy.entry.redirect_uris
    if wanted is None:
        return next(iter(listed)) if len(listed) == 1 else None
    if wanted not in listed:
        raise Denied(Reason.LOGIN_MALFORMED, "redirect_uri: it is not one of entry.redirect_uris")
    return wanted


def _reason(wanted: str | None, plan: LoginPlan) -> str:
    """Return the reason to show to the user: ``wanted``, or a default. Raises Denied, LOGIN_MALFORMED."""
    if wanted is None:
        return f"{plan.actor} asks for access to {plan.audience}"
    if len(wanted) > MAX_REASON_CHARS or not wanted.isprintable():
        raise Denied(Reason.LOGIN_MALFORMED, f"reason: it is one line of at most {MAX_REASON_CHARS} characters")
    return wanted
