"""Reason codes, the table of answers, and the exceptions. This is the only place where a reason meets HTTP.

Three exceptions, many codes: no code catches "wrong audience", all code counts it, so the variety is data.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path


class Reason(StrEnum):
    """Stable codes: logged, counted and returned. Renaming one is a breaking change."""

    # The TLS handshake fails: no HTTP at all.
    NO_CLIENT_CERT = "no_client_cert"
    BAD_SVID = "bad_svid"
    UNTRUSTED_CHAIN = "untrusted_chain"
    UNKNOWN_TRUST_DOMAIN = "unknown_trust_domain"
    WRONG_BUNDLE = "wrong_bundle"
    SVID_EXPIRED = "svid_expired"
    TLS_VERSION = "tls_version"
    # The exchange ended before an answer was complete: no answer can be sent.
    PEER_GONE = "peer_gone"
    PEER_SLOW = "peer_slow"
    UPSTREAM_ABORTED = "upstream_aborted"
    FRAME_FLOOD = "frame_flood"
    # The next hop's sidecar refused a call, by an error in an answer whose status does not say so.
    NEXT_HOP_REFUSED = "next_hop_refused"
    # 400, and the connection closes.
    BAD_REQUEST = "bad_request"
    AMBIGUOUS_FRAMING = "ambiguous_framing"
    HEADER_MALFORMED = "header_malformed"
    # 401
    NO_TOKEN = "no_token"
    MALFORMED_TOKEN = "malformed_token"
    DUPLICATE_CLAIM = "duplicate_claim"
    TOKEN_TYPE = "token_type"
    ALG_NOT_ALLOWED = "alg_not_allowed"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    TOKEN_TOO_LARGE = "token_too_large"
    CNF_MISMATCH = "cnf_mismatch"
    ACT_MISSING = "act_missing"
    ACT_MALFORMED = "act_malformed"
    ACT_TOO_DEEP = "act_too_deep"
    STEP_UP_REQUIRED = "step_up_required"
    # 403
    INSUFFICIENT_SCOPE = "insufficient_scope"
    ACTOR_MISMATCH = "actor_mismatch"
    POLICY_DENIED = "policy_denied"
    REVOKED = "revoked"
    ISSUER_NOT_FOR_ROUTE = "issuer_not_for_route"
    SCOPE_ABOVE_CEILING = "scope_above_ceiling"
    TXN_TOKEN_REFUSED = "txn_token_refused"
    ORIGIN_REFUSED = "origin_refused"
    # 404, 405, 400
    NO_ROUTE = "no_route"
    METHOD_REFUSED = "method_refused"
    PATH_REFUSED = "path_refused"
    # Routes of MCP and A2A: 400, 400, 403, 404.
    OPERATION_MALFORMED = "operation_malformed"
    PROTOCOL_VERSION = "protocol_version"
    OPERATION_REFUSED = "operation_refused"
    SESSION_UNKNOWN = "session_unknown"
    # Of A2A alone: 403, 404, 404, 502.
    PUSH_URL_REFUSED = "push_url_refused"
    TASK_UNKNOWN = "task_unknown"
    CONTEXT_UNKNOWN = "context_unknown"
    CARD_REFUSED = "card_refused"
    UPGRADE_REFUSED = "upgrade_refused"
    # 505, said in HTTP/2.
    HTTP_VERSION = "http_version"
    # Limits and waits of the request itself.
    TOO_LARGE = "too_large"
    URI_TOO_LONG = "uri_too_long"
    HEAD_TOO_LARGE = "head_too_large"
    EXPECTATION_REFUSED = "expectation_refused"
    TIMEOUT = "timeout"
    # 403, outbound
    NO_REQUEST_CONTEXT = "no_request_context"
    CALL_NOT_ALLOWED = "call_not_allowed"
    CALLS_EXHAUSTED = "calls_exhausted"
    TARGET_DENIED = "target_denied"
    NOT_AN_ENTRY = "not_an_entry"
    OWN_AUTHORITY_REFUSED = "own_authority_refused"
    EXCHANGE_DENIED = "exchange_denied"
    # A user's login at a token service, by the front app: 400, 404, 403.
    LOGIN_MALFORMED = "login_malformed"
    LOGIN_UNKNOWN = "login_unknown"
    LOGIN_SESSION_MISMATCH = "login_session_mismatch"
    LOGIN_STATE_MISMATCH = "login_state_mismatch"
    LOGIN_ISSUER_MISMATCH = "login_issuer_mismatch"
    LOGIN_EXPIRED = "login_expired"
    LOGIN_USED = "login_used"
    LOGIN_DENIED = "login_denied"
    # 502, outbound: an answer of the STS or the next hop cannot be trusted.
    STS_ERROR = "sts_error"
    STS_BAD_RESPONSE = "sts_bad_response"
    STS_NO_ACT = "sts_no_act"
    STS_ACTOR_MISMATCH = "sts_actor_mismatch"
    STS_SUBJECT_MISMATCH = "sts_subject_mismatch"
    STS_CHAIN_BROKEN = "sts_chain_broken"
    STS_SCOPE_WIDENED = "sts_scope_widened"
    STS_AUDIENCE_MISMATCH = "sts_audience_mismatch"
    STS_LIFETIME = "sts_lifetime"
    STS_ISSUER = "sts_issuer"
    STS_SIGNATURE = "sts_signature"
    STS_TOKEN_TYPE = "sts_token_type"
    STS_REDIRECT = "sts_redirect"
    STS_TOO_LARGE = "sts_too_large"
    STS_IDENTITY = "sts_identity"
    UPSTREAM_BAD_RESPONSE = "upstream_bad_response"
    LIST_UNREADABLE = "list_unreadable"
    CREDENTIAL_EXPOSED = "credential_exposed"
    UPSTREAM_IDENTITY = "upstream_identity"
    # 503 with Retry-After
    STS_UNAVAILABLE = "sts_unavailable"
    CREDENTIAL_UNAVAILABLE = "credential_unavailable"
    REVOCATIONS_STALE = "revocations_stale"
    KEYS_UNAVAILABLE = "keys_unavailable"
    NOT_READY = "not_ready"
    OVERLOADED = "overloaded"
    SUBJECT_BUSY = "subject_busy"
    DRAINING = "draining"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    # 504
    STS_TIMEOUT = "sts_timeout"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    # 502: a bug of ours.
    INTERNAL = "internal"
    # Our own STS refuses an exchange (RFC 8693 section 2.2.2, RFC 6749 section 5.2).
    EXCHANGE_MALFORMED = "exchange_malformed"
    GRANT_NOT_SUPPORTED = "grant_not_supported"
    CLIENT_NOT_AUTHENTICATED = "client_not_authenticated"
    ACTOR_REQUIRED = "actor_required"
    ACTOR_NOT_CLIENT = "actor_not_client"
    ACTOR_TOKEN_INVALID = "actor_token_invalid"
    NOT_YOUR_TOKEN = "not_your_token"
    MAY_ACT_REFUSED = "may_act_refused"
    DELEGATION_NOT_ALLOWED = "delegation_not_allowed"
    SELF_DELEGATION = "self_delegation"
    TARGET_UNKNOWN = "target_unknown"
    SCOPE_REFUSED = "scope_refused"
    ORDER_REFUSED = "order_refused"


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


ANSWERS: Final[dict[Reason, Answer]] = {
    Reason.NO_CLIENT_CERT: _no_http("the peer sent no certificate"),
    Reason.BAD_SVID: _no_http("the peer's certificate is not an X.509-SVID"),
    Reason.UNTRUSTED_CHAIN: _no_http("the peer's certificate chain is not trusted"),
    Reason.UNKNOWN_TRUST_DOMAIN: _no_http("no bundle is known for the peer's trust domain"),
    Reason.WRONG_BUNDLE: _no_http("the peer's chain does not end in its own trust domain's bundle"),
    Reason.SVID_EXPIRED: _no_http("the peer's SVID is outside its validity time"),
    Reason.TLS_VERSION: _no_http("the peer does not speak TLS 1.3"),
    Reason.PEER_GONE: _no_http("the caller went away before the answer was complete"),
    Reason.PEER_SLOW: _no_http("the caller read its answer too slowly"),
    Reason.FRAME_FLOOD: _no_http("the caller sent more frames of HTTP/2 than a connection may"),
    Reason.UPSTREAM_ABORTED: _no_http("the upstream ended its answer early"),
    Reason.NEXT_HOP_REFUSED: _no_http("the next hop refused the call, by the answer that was passed on"),
    Reason.BAD_REQUEST: _bad_request("the request is not valid HTTP"),
    Reason.AMBIGUOUS_FRAMING: _bad_request("the length of the request body is ambiguous"),
    Reason.HEADER_MALFORMED: _bad_request("a header is malformed or repeated"),
    Reason.NO_TOKEN: Answer(401, None, "a bearer token is required"),
    Reason.MALFORMED_TOKEN: _invalid_token("the token is malformed"),
    Reason.DUPLICATE_CLAIM: _invalid_token("the token is ambiguous"),
    Reason.TOKEN_TYPE: _invalid_token("the token is of another type"),
    Reason.ALG_NOT_ALLOWED: _invalid_token("the token's algorithm is not allowed"),
    Reason.UNKNOWN_KEY: _invalid_token("the token's key is not known"),
    Reason.BAD_SIGNATURE: _invalid_token("the token's signature is wrong"),
    Reason.WRONG_ISSUER: _invalid_token("the token's issuer is not trusted"),
    Reason.WRONG_AUDIENCE: _invalid_token("the token is for another audience"),
    Reason.TOKEN_EXPIRED: _invalid_token("the token has expired"),
    Reason.TOKEN_NOT_YET_VALID: _invalid_token("the token is not valid yet"),
    Reason.TOKEN_TOO_LARGE: _invalid_token("the token is too large"),
    Reason.CNF_MISMATCH: _invalid_token("the token is bound to another key"),
    Reason.ACT_MISSING: _invalid_token("delegation required: the token names no actor"),
    Reason.ACT_MALFORMED: _invalid_token("the token's actor is malformed"),
    Reason.ACT_TOO_DEEP: _invalid_token("the token's actor chain is too long"),
    Reason.STEP_UP_REQUIRED: Answer(
        401, "insufficient_user_authentication", "a more recent or stronger login of the user is required"
    ),
    Reason.INSUFFICIENT_SCOPE: Answer(403, "insufficient_scope", "the token's scope does not cover this call"),
    Reason.ACTOR_MISMATCH: _forbidden("the token's actor is not the peer that presents it"),
    Reason.ORIGIN_REFUSED: _forbidden("pages of this origin may not call"),
    Reason.POLICY_DENIED: _forbidden("the policy does not allow this call"),
    Reason.REVOKED: _forbidden("an operator has stopped what this call is made with"),
    Reason.ISSUER_NOT_FOR_ROUTE: _forbidden("the token's issuer is not accepted on this route"),
    Reason.SCOPE_ABOVE_CEILING: _forbidden("the token claims more than its issuer may grant"),
    Reason.TXN_TOKEN_REFUSED: _forbidden("the transaction token is not valid here, or is not of this call"),
    Reason.NO_ROUTE: Answer(404, None, "there is no such route"),
    Reason.METHOD_REFUSED: Answer(405, None, "the route does not accept this method"),
    Reason.OPERATION_MALFORMED: Answer(400, None, "the message does not name one operation"),
    Reason.PROTOCOL_VERSION: Answer(400, None, "this version of the protocol is not known"),
    Reason.OPERATION_REFUSED: _forbidden("the route does not allow this operation"),
    Reason.SESSION_UNKNOWN: Answer(404, None, "there is no such session"),
    Reason.PUSH_URL_REFUSED: _forbidden("the route does not allow notifications to this URL"),
    Reason.TASK_UNKNOWN: Answer(404, None, "task not found"),
    Reason.CONTEXT_UNKNOWN: Answer(404, None, "context not found"),
    Reason.CARD_REFUSED: _bad_gateway("the agent's card cannot be passed on"),
    Reason.PATH_REFUSED: Answer(400, "invalid_request", "the request target has no single safe meaning"),
    Reason.UPGRADE_REFUSED: Answer(
        400, "invalid_request", "only a valid WebSocket handshake is served as an upgrade", close=True
    ),
    Reason.HTTP_VERSION: Answer(505, None, "HTTP/2 is not spoken at this address", close=True),
    Reason.TOO_LARGE: Answer(413, None, "the request body is too large", close=True),
    Reason.URI_TOO_LONG: Answer(414, None, "the request target is too long", close=True),
    Reason.HEAD_TOO_LARGE: Answer(431, None, "the request head is too large", close=True),
    Reason.EXPECTATION_REFUSED: Answer(417, None, "only the expectation 100-continue is supported", close=True),
    Reason.TIMEOUT: Answer(408, None, "the request did not arrive in time", close=True),
    Reason.NO_REQUEST_CONTEXT: _forbidden("the call has no handle of a request in progress"),
    Reason.CALL_NOT_ALLOWED: _forbidden("the request in progress may not make this call"),
    Reason.CALLS_EXHAUSTED: _forbidden("the request in progress has made all its calls"),
    Reason.TARGET_DENIED: _forbidden("there is no route to this target"),
    Reason.NOT_AN_ENTRY: _forbidden("this workload is not an entry for user tokens"),
    Reason.OWN_AUTHORITY_REFUSED: _forbidden("this call cannot be made on the workload's own authority"),
    Reason.EXCHANGE_DENIED: _forbidden("the token service refused this delegation"),
    Reason.LOGIN_MALFORMED: Answer(400, "invalid_request", "this is not a valid request about a login"),
    Reason.LOGIN_UNKNOWN: Answer(404, None, "no such login was begun here, or it is long over"),
    Reason.LOGIN_SESSION_MISMATCH: _forbidden("the login was begun in another browser session"),
    Reason.LOGIN_STATE_MISMATCH: _forbidden("the answer belongs to another login"),
    Reason.LOGIN_ISSUER_MISMATCH: _forbidden("the answer is another token service's"),
    Reason.LOGIN_EXPIRED: _forbidden("the login has taken too long; begin another"),
    Reason.LOGIN_USED: _forbidden("the login has ended already; begin another"),
    Reason.LOGIN_DENIED: _forbidden("the user or the token service refused the login"),
    Reason.STS_ERROR: _bad_gateway("the token service refused this sidecar"),
    Reason.STS_BAD_RESPONSE: _bad_gateway("the token service gave an unusable answer"),
    Reason.STS_NO_ACT: _bad_gateway("the token service issued an impersonation token"),
    Reason.STS_ACTOR_MISMATCH: _bad_gateway("the issued token names another actor"),
    Reason.STS_SUBJECT_MISMATCH: _bad_gateway("the issued token names another subject"),
    Reason.STS_CHAIN_BROKEN: _bad_gateway("the issued token changes the actor chain"),
    Reason.STS_SCOPE_WIDENED: _bad_gateway("the issued token is wider than asked"),
    Reason.STS_AUDIENCE_MISMATCH: _bad_gateway("the issued token is for another audience"),
    Reason.STS_LIFETIME: _bad_gateway("the issued token lives too long"),
    Reason.STS_ISSUER: _bad_gateway("the issued token has another issuer"),
    Reason.STS_SIGNATURE: _bad_gateway("the issued token's signature is wrong"),
    Reason.STS_TOKEN_TYPE: _bad_gateway("the issued token is of another type"),
    Reason.STS_REDIRECT: _bad_gateway("the token service answered with a redirect"),
    Reason.STS_TOO_LARGE: _bad_gateway("the token service's answer is too large"),
    Reason.STS_IDENTITY: _bad_gateway("the token service could not prove its identity"),
    Reason.UPSTREAM_BAD_RESPONSE: _bad_gateway("the upstream's answer is not valid HTTP"),
    Reason.LIST_UNREADABLE: _bad_gateway("the agent's list cannot be cut to what the caller may use"),
    Reason.CREDENTIAL_EXPOSED: _bad_gateway("the upstream's answer contains the credential of the call"),
    Reason.UPSTREAM_IDENTITY: _bad_gateway("the upstream could not prove its identity"),
    Reason.STS_UNAVAILABLE: _unavailable("the token service is unavailable"),
    Reason.CREDENTIAL_UNAVAILABLE: _unavailable("the credential of this route is unavailable"),
    Reason.REVOCATIONS_STALE: _unavailable("the issuer's list of revocations is too old"),
    Reason.KEYS_UNAVAILABLE: _unavailable("the issuer's keys are not known yet"),
    Reason.NOT_READY: _unavailable("this sidecar is not ready"),
    Reason.OVERLOADED: _unavailable("too many concurrent requests; retry later"),
    Reason.SUBJECT_BUSY: _unavailable("the agent is serving another subject; retry later"),
    Reason.DRAINING: Answer(503, None, "this sidecar is stopping", close=True, retry_after_s=1),
    Reason.AUDIT_UNAVAILABLE: _unavailable("the call could not be recorded"),
    Reason.UPSTREAM_UNREACHABLE: _unavailable("the upstream cannot be reached"),
    Reason.STS_TIMEOUT: Answer(504, None, "the token service did not answer in time"),
    Reason.UPSTREAM_TIMEOUT: Answer(504, None, "the upstream did not answer in time"),
    Reason.INTERNAL: Answer(502, None, "an internal error, recorded under this request id", close=True),
    Reason.EXCHANGE_MALFORMED: _sts("invalid_request", "the exchange request is malformed"),
    Reason.GRANT_NOT_SUPPORTED: _sts("unsupported_grant_type", "the grant type is not supported"),
    Reason.CLIENT_NOT_AUTHENTICATED: Answer(401, "invalid_client", "the client did not authenticate by X.509-SVID"),
    Reason.ACTOR_REQUIRED: _sts("invalid_request", "an actor token is required: this service only delegates"),
    Reason.ACTOR_NOT_CLIENT: _sts("invalid_request", "the actor token is not the authenticated client's"),
    Reason.ACTOR_TOKEN_INVALID: _sts("invalid_request", "the actor token is not valid"),
    Reason.NOT_YOUR_TOKEN: _sts("invalid_request", "the subject token was not issued to this client"),
    Reason.MAY_ACT_REFUSED: _sts("invalid_request", "the subject token names another actor in may_act"),
    Reason.DELEGATION_NOT_ALLOWED: _sts("invalid_request", "no rule lets this actor act for this subject"),
    Reason.SELF_DELEGATION: _sts("invalid_request", "the actor is already the current actor of the subject token"),
    Reason.TARGET_UNKNOWN: _sts("invalid_target", "the target is not known for this actor"),
    Reason.ORDER_REFUSED: _forbidden("the order to revoke is not accepted"),
    Reason.SCOPE_REFUSED: _sts("invalid_scope", "none of the requested scopes may be granted"),
}


class SidecarError(Exception):
    """A call that will not be made: the caller learns the reason's answer, the detail goes to the record only."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    @property
    def answer(self) -> Answer:
        """The answer to the caller."""
        return ANSWERS[self.reason]

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
        return _forbidden(ANSWERS[self.reason].text)


class ActorUnauthorized(Denied):
    """Refusal of an actor whose issuer follows the actor profile (draft-mcguinness-oauth-actor-profile-01).

    The draft defines an error code for it; RFC 6750 does not.
    """

    @property
    def answer(self) -> Answer:
        """The reason's answer, with the error code of the profile."""
        return replace(ANSWERS[self.reason], error="actor_unauthorized")


class UpstreamCancelled(Denied):
    """The upstream cancelled a call. A call of gRPC has a status for that, whatever the reason's own one is."""


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
        return replace(ANSWERS[self.reason], text=self.detail)


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of the settings: the ``field`` (dotted path), what is wrong, and the ``cure``."""

    field: str
    wrong: str
    cure: str

    def __str__(self) -> str:
        return f"{self.field}: {self.wrong}; {self.cure}"


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
