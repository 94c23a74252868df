"""Reason codes with their answers, and the exceptions. This is the only place where a reason meets HTTP.

Three exceptions, many codes: no code catches "wrong audience", all code counts it, so the variety is data.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the caller for a reason.

    ``status`` is the HTTP status, 0 where no HTTP answer is possible. ``error`` is the OAuth error code of RFC 6750
    section 3.1 (or RFC 6749 section 5.2 at our STS), None where the standards want none. ``text`` is fixed: nothing of
    the request is ever reflected. ``close`` ends the connection, because its framing is in doubt.
    """

    status: int
    error: str | None
    text: str
    close: bool = False
    retry_after_s: int | None = None


def _no_http(text: str) -> Answer:
    return Answer(0, None, text, close=True)


def _bad_request(text: str) -> Answer:
    return Answer(400, "invalid_request", text, close=True)


def _invalid_token(text: str) -> Answer:
    return Answer(401, "invalid_token", text)


def _forbidden(text: str) -> Answer:
    return Answer(403, None, text)


def _bad_gateway(text: str) -> Answer:
    return Answer(502, None, text)


def _unavailable(text: str, retry_after_s: int = 1) -> Answer:
    return Answer(503, None, text, retry_after_s=retry_after_s)


def _sts(error: str, text: str) -> Answer:
    return Answer(400, error, text)


class Reason(StrEnum):
    """Stable codes, each with its answer: logged, counted and returned. Renaming one is a breaking change.

    A new one: docs/contributing/reason.md.
    """

    answer: Answer

    def __new__(cls, code: str, answer: Answer | None = None) -> Self:
        """Make a member from its code and its answer; `Reason(code)` looks one up."""
        if answer is None:
            raise TypeError(f'{code} has no answer in errors.py: write `{code.upper()} = "{code}", _forbidden("text")`')
        reason = str.__new__(cls, code)
        reason._value_ = code
        reason.answer = answer
        return reason

    # The TLS handshake fails: no HTTP at all.
    NO_CLIENT_CERT = "no_client_cert", _no_http("the peer sent no certificate")
    BAD_SVID = "bad_svid", _no_http("the peer's certificate is not an X.509-SVID")
    UNTRUSTED_CHAIN = "untrusted_chain", _no_http("the peer's certificate chain is not trusted")
    UNKNOWN_TRUST_DOMAIN = "unknown_trust_domain", _no_http("no bundle is known for the peer's trust domain")
    WRONG_BUNDLE = "wrong_bundle", _no_http("the peer's chain does not end in its own trust domain's bundle")
    SVID_EXPIRED = "svid_expired", _no_http("the peer's SVID is outside its validity time")
    TLS_VERSION = "tls_version", _no_http("the peer does not speak TLS 1.3")
    # The exchange ended before an answer was complete: no answer can be sent.
    PEER_GONE = "peer_gone", _no_http("the caller went away before the answer was complete")
    PEER_SLOW = "peer_slow", _no_http("the caller read its answer too slowly")
    UPSTREAM_ABORTED = "upstream_aborted", _no_http("the upstream ended its answer early")
    FRAME_FLOOD = "frame_flood", _no_http("the caller sent more frames of HTTP/2 than a connection may")
    # The next hop's sidecar refused a call, by an error in an answer whose status does not say so.
    NEXT_HOP_REFUSED = "next_hop_refused", _no_http("the next hop refused the call, by the answer that was passed on")
    # 400, and the connection closes.
    BAD_REQUEST = "bad_request", _bad_request("the request is not valid HTTP")
    AMBIGUOUS_FRAMING = "ambiguous_framing", _bad_request("the length of the request body is ambiguous")
    HEADER_MALFORMED = "header_malformed", _bad_request("a header is malformed or repeated")
    # 401
    NO_TOKEN = "no_token", Answer(401, None, "a bearer token is required")
    MALFORMED_TOKEN = "malformed_token", _invalid_token("the token is malformed")
    DUPLICATE_CLAIM = "duplicate_claim", _invalid_token("the token is ambiguous")
    TOKEN_TYPE = "token_type", _invalid_token("the token is of another type")
    ALG_NOT_ALLOWED = "alg_not_allowed", _invalid_token("the token's algorithm is not allowed")
    UNKNOWN_KEY = "unknown_key", _invalid_token("the token's key is not known")
    BAD_SIGNATURE = "bad_signature", _invalid_token("the token's signature is wrong")
    WRONG_ISSUER = "wrong_issuer", _invalid_token("the token's issuer is not trusted")
    WRONG_AUDIENCE = "wrong_audience", _invalid_token("the token is for another audience")
    TOKEN_EXPIRED = "token_expired", _invalid_token("the token has expired")
    TOKEN_NOT_YET_VALID = "token_not_yet_valid", _invalid_token("the token is not valid yet")
    TOKEN_TOO_LARGE = "token_too_large", _invalid_token("the token is too large")
    CNF_MISMATCH = "cnf_mismatch", _invalid_token("the token is bound to another key")
    ACT_MISSING = "act_missing", _invalid_token("delegation required: the token names no actor")
    ACT_MALFORMED = "act_malformed", _invalid_token("the token's actor is malformed")
    ACT_TOO_DEEP = "act_too_deep", _invalid_token("the token's actor chain is too long")
    STEP_UP_REQUIRED = (
        "step_up_required",
        Answer(401, "insufficient_user_authentication", "a more recent or stronger login of the user is required"),
    )
    # 403
    INSUFFICIENT_SCOPE = (
        "insufficient_scope",
        Answer(403, "insufficient_scope", "the token's scope does not cover this call"),
    )
    ACTOR_MISMATCH = "actor_mismatch", _forbidden("the token's actor is not the peer that presents it")
    POLICY_DENIED = "policy_denied", _forbidden("the policy does not allow this call")
    REVOKED = "revoked", _forbidden("an operator has stopped what this call is made with")
    ISSUER_NOT_FOR_ROUTE = "issuer_not_for_route", _forbidden("the token's issuer is not accepted on this route")
    SCOPE_ABOVE_CEILING = "scope_above_ceiling", _forbidden("the token claims more than its issuer may grant")
    TXN_TOKEN_REFUSED = (
        "txn_token_refused",
        _forbidden("the transaction token is not valid here, or is not of this call"),
    )
    ORIGIN_REFUSED = "origin_refused", _forbidden("pages of this origin may not call")
    # 404, 405, 400
    NO_ROUTE = "no_route", Answer(404, None, "there is no such route")
    METHOD_REFUSED = "method_refused", Answer(405, None, "the route does not accept this method")
    PATH_REFUSED = "path_refused", Answer(400, "invalid_request", "the request target has no single safe meaning")
    # Routes of MCP and A2A: 400, 400, 403, 404.
    OPERATION_MALFORMED = "operation_malformed", Answer(400, None, "the message does not name one operation")
    PROTOCOL_VERSION = "protocol_version", Answer(400, None, "this version of the protocol is not known")
    OPERATION_REFUSED = "operation_refused", _forbidden("the route does not allow this operation")
    SESSION_UNKNOWN = "session_unknown", Answer(404, None, "there is no such session")
    # Of A2A alone: 403, 404, 404, 502.
    PUSH_URL_REFUSED = "push_url_refused", _forbidden("the route does not allow notifications to this URL")
    TASK_UNKNOWN = "task_unknown", Answer(404, None, "task not found")
    CONTEXT_UNKNOWN = "context_unknown", Answer(404, None, "context not found")
    CARD_REFUSED = "card_refused", _bad_gateway("the agent's card cannot be passed on")
    UPGRADE_REFUSED = (
        "upgrade_refused",
        Answer(400, "invalid_request", "only a valid WebSocket handshake is served as an upgrade", close=True),
    )
    # 505, said in HTTP/2.
    HTTP_VERSION = "http_version", Answer(505, None, "HTTP/2 is not spoken at this address", close=True)
    # Limits and waits of the request itself.
    TOO_LARGE = "too_large", Answer(413, None, "the request body is too large", close=True)
    URI_TOO_LONG = "uri_too_long", Answer(414, None, "the request target is too long", close=True)
    HEAD_TOO_LARGE = "head_too_large", Answer(431, None, "the request head is too large", close=True)
    EXPECTATION_REFUSED = (
        "expectation_refused",
        Answer(417, None, "only the expectation 100-continue is supported", close=True),
    )
    TIMEOUT = "timeout", Answer(408, None, "the request did not arrive in time", close=True)
    # 403, outbound
    NO_REQUEST_CONTEXT = "no_request_context", _forbidden("the call has no handle of a request in progress")
    CALL_NOT_ALLOWED = "call_not_allowed", _forbidden("the request in progress may not make this call")
    CALLS_EXHAUSTED = "calls_exhausted", _forbidden("the request in progress has made all its calls")
    TARGET_DENIED = "target_denied", _forbidden("there is no route to this target")
    NOT_AN_ENTRY = "not_an_entry", _forbidden("this workload is not an entry for user tokens")
    OWN_AUTHORITY_REFUSED = (
        "own_authority_refused",
        _forbidden("this call cannot be made on the workload's own authority"),
    )
    EXCHANGE_DENIED = "exchange_denied", _forbidden("the token service refused this delegation")
    # A user's login at a token service, by the front app: 400, 404, 403.
    LOGIN_MALFORMED = "login_malformed", Answer(400, "invalid_request", "this is not a valid request about a login")
    LOGIN_UNKNOWN = "login_unknown", Answer(404, None, "no such login was begun here, or it is long over")
    LOGIN_SESSION_MISMATCH = "login_session_mismatch", _forbidden("the login was begun in another browser session")
    LOGIN_STATE_MISMATCH = "login_state_mismatch", _forbidden("the answer belongs to another login")
    LOGIN_ISSUER_MISMATCH = "login_issuer_mismatch", _forbidden("the answer is another token service's")
    LOGIN_EXPIRED = "login_expired", _forbidden("the login has taken too long; begin another")
    LOGIN_USED = "login_used", _forbidden("the login has ended already; begin another")
    LOGIN_DENIED = "login_denied", _forbidden("the user or the token service refused the login")
    # 502, outbound: an answer of the STS or the next hop cannot be trusted.
    STS_ERROR = "sts_error", _bad_gateway("the token service refused this sidecar")
    STS_BAD_RESPONSE = "sts_bad_response", _bad_gateway("the token service gave an unusable answer")
    STS_NO_ACT = "sts_no_act", _bad_gateway("the token service issued an impersonation token")
    STS_ACTOR_MISMATCH = "sts_actor_mismatch", _bad_gateway("the issued token names another actor")
    STS_SUBJECT_MISMATCH = "sts_subject_mismatch", _bad_gateway("the issued token names another subject")
    STS_CHAIN_BROKEN = "sts_chain_broken", _bad_gateway("the issued token changes the actor chain")
    STS_SCOPE_WIDENED = "sts_scope_widened", _bad_gateway("the issued token is wider than asked")
    STS_AUDIENCE_MISMATCH = "sts_audience_mismatch", _bad_gateway("the issued token is for another audience")
    STS_LIFETIME = "sts_lifetime", _bad_gateway("the issued token lives too long")
    STS_ISSUER = "sts_issuer", _bad_gateway("the issued token has another issuer")
    STS_SIGNATURE = "sts_signature", _bad_gateway("the issued token's signature is wrong")
    STS_TOKEN_TYPE = "sts_token_type", _bad_gateway("the issued token is of another type")
    STS_REDIRECT = "sts_redirect", _bad_gateway("the token service answered with a redirect")
    STS_TOO_LARGE = "sts_too_large", _bad_gateway("the token service's answer is too large")
    STS_IDENTITY = "sts_identity", _bad_gateway("the token service could not prove its identity")
    UPSTREAM_BAD_RESPONSE = "upstream_bad_response", _bad_gateway("the upstream's answer is not valid HTTP")
    LIST_UNREADABLE = "list_unreadable", _bad_gateway("the agent's list cannot be cut to what the caller may use")
    CREDENTIAL_EXPOSED = "credential_exposed", _bad_gateway("the upstream's answer contains the credential of the call")
    UPSTREAM_IDENTITY = "upstream_identity", _bad_gateway("the upstream could not prove its identity")
    # 503 with Retry-After
    STS_UNAVAILABLE = "sts_unavailable", _unavailable("the token service is unavailable")
    CREDENTIAL_UNAVAILABLE = "credential_unavailable", _unavailable("the credential of this route is unavailable")
    REVOCATIONS_STALE = "revocations_stale", _unavailable("the issuer's list of revocations is too old")
    KEYS_UNAVAILABLE = "keys_unavailable", _unavailable("the issuer's keys are not known yet")
    NOT_READY = "not_ready", _unavailable("this sidecar is not ready")
    OVERLOADED = "overloaded", _unavailable("too many concurrent requests; retry later")
    SUBJECT_BUSY = "subject_busy", _unavailable("the agent is serving another subject; retry later")
    DRAINING = "draining", Answer(503, None, "this sidecar is stopping", close=True, retry_after_s=1)
    AUDIT_UNAVAILABLE = "audit_unavailable", _unavailable("the call could not be recorded")
    UPSTREAM_UNREACHABLE = "upstream_unreachable", _unavailable("the upstream cannot be reached")
    # 504
    STS_TIMEOUT = "sts_timeout", Answer(504, None, "the token service did not answer in time")
    UPSTREAM_TIMEOUT = "upstream_timeout", Answer(504, None, "the upstream did not answer in time")
    # 502: a bug of ours.
    INTERNAL = "internal", Answer(502, None, "an internal error, recorded under this request id", close=True)
    # Our own STS refuses an exchange (RFC 8693 section 2.2.2, RFC 6749 section 5.2).
    EXCHANGE_MALFORMED = "exchange_malformed", _sts("invalid_request", "the exchange request is malformed")
    GRANT_NOT_SUPPORTED = "grant_not_supported", _sts("unsupported_grant_type", "the grant type is not supported")
    CLIENT_NOT_AUTHENTICATED = (
        "client_not_authenticated",
        Answer(401, "invalid_client", "the client did not authenticate by X.509-SVID"),
    )
    ACTOR_REQUIRED = (
        "actor_required",
        _sts("invalid_request", "an actor token is required: this service only delegates"),
    )
    ACTOR_NOT_CLIENT = "actor_not_client", _sts("invalid_request", "the actor token is not the authenticated client's")
    ACTOR_TOKEN_INVALID = "actor_token_invalid", _sts("invalid_request", "the actor token is not valid")
    NOT_YOUR_TOKEN = "not_your_token", _sts("invalid_request", "the subject token was not issued to this client")
    MAY_ACT_REFUSED = "may_act_refused", _sts("invalid_request", "the subject token names another actor in may_act")
    DELEGATION_NOT_ALLOWED = (
        "delegation_not_allowed",
        _sts("invalid_request", "no rule lets this actor act for this subject"),
    )
    SELF_DELEGATION = (
        "self_delegation",
        _sts("invalid_request", "the actor is already the current actor of the subject token"),
    )
    TARGET_UNKNOWN = "target_unknown", _sts("invalid_target", "the target is not known for this actor")
    SCOPE_REFUSED = "scope_refused", _sts("invalid_scope", "none of the requested scopes may be granted")
    ORDER_REFUSED = "order_refused", _forbidden("the order to revoke is not accepted")


class SidecarError(Exception):
    """A call that will not be made: the caller learns the reason's answer, the detail goes to the record only."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    @property
    def answer(self) -> Answer:
        """The answer to the caller."""
        return self.reason.answer

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class Denied(SidecarError):
    """A request that was understood and refused."""


OF_HANDSHAKES: Final = (
    Reason.NO_CLIENT_CERT,
    Reason.BAD_SVID,
    Reason.UNTRUSTED_CHAIN,
    Reason.UNKNOWN_TRUST_DOMAIN,
    Reason.WRONG_BUNDLE,
    Reason.SVID_EXPIRED,
    Reason.TLS_VERSION,
)


class TrustEnded(Denied):
    """Trust in a peer ended while a call of the agent was in flight: a reason of handshakes, which the agent is told.

    Towards the peer such a reason has no HTTP answer.
    """

    @property
    def answer(self) -> Answer:
        """The answer to the agent."""
        return _forbidden(self.reason.answer.text)


class ActorUnauthorized(Denied):
    """Refusal of an actor whose issuer follows the actor profile (draft-mcguinness-oauth-actor-profile-01).

    The draft defines an error code for it; RFC 6750 does not.
    """

    @property
    def answer(self) -> Answer:
        """The reason's answer, with the error code of the profile."""
        return replace(self.reason.answer, error="actor_unauthorized")


class Unavailable(SidecarError):
    """Cannot be decided now: keys, identity, sink, STS or upstream are missing. The same call may succeed later."""


class DeadlinePassed(Unavailable):
    """A deadline of the call has passed: that of its caller or of its route. ``whose`` names it, for the caller.

    ``begun``: the answer had begun, and was ended. General limits have the same reason, and are no deadline of gRPC.
    """

    def __init__(self, whose: str, *, begun: bool) -> None:
        detail = "the answer was ended by" if begun else "no answer within"
        super().__init__(Reason.UPSTREAM_TIMEOUT, f"{detail} {whose}")

    @property
    def answer(self) -> Answer:
        """The answer to the caller."""
        return replace(self.reason.answer, text=self.detail)


@dataclass(frozen=True, slots=True)
class Problem:
    """One error of the settings: the ``field`` (dotted path), what is wrong, and the ``fix``."""

    field: str
    wrong: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: {self.wrong}; {self.fix}"


class ConfigError(Exception):
    """Settings that cannot be used. Lists every problem, not only the first.

    ``transient``: the cause is temporary, such as a lack of memory; the same settings may be usable later.
    ``followed``: files that the settings include, each with its fingerprint; a change of one may fix them.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        *,
        transient: bool = False,
        followed: Sequence[tuple[Path, Hashable]] = (),
    ) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)
        self.transient = transient
        self.followed = tuple(followed)
