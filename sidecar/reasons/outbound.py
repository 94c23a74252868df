"""Advice on outbound refusals: the agent's call, the token service's answer, its own refusals, outages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delegation_core.errors import Reason
from sidecar.reasons.guidance import Guidance, Role, Stage

_CALLER, _DEVELOPER, _OPERATOR, _SECURITY = Role.CALLER, Role.DEVELOPER, Role.OPERATOR, Role.SECURITY


def _out(means: str, *who: Role, do: str) -> Guidance:
    return Guidance(Stage.OUTBOUND, means, who, do)


def _either(means: str, *who: Role, do: str) -> Guidance:
    return Guidance(Stage.EITHER, means, who, do)


def _service(means: str, *who: Role, do: str) -> Guidance:
    return Guidance(Stage.SERVICE, means, who, do)


_CALL: Final = {
    Reason.NO_REQUEST_CONTEXT: _out(
        "the call has no handle, or one that is unknown here, whose request has ended or whose peer is no longer"
        " trusted",
        _DEVELOPER,
        do="send the Authorization header of the request in progress, and call before answering it (or set linger_s)",
    ),
    Reason.CALL_NOT_ALLOWED: _out(
        "the request in progress does not open this target: may_call of its route does not name it",
        _DEVELOPER,
        _SECURITY,
        do="if the call is legitimate, add it to may_call; if not, find out why the agent tried",
    ),
    Reason.CALLS_EXHAUSTED: _out(
        "the request has made max_calls calls", _DEVELOPER, _OPERATOR, do="look for a loop, or raise max_calls"
    ),
    Reason.TARGET_DENIED: _out(
        "no outbound route leads there",
        _DEVELOPER,
        _OPERATOR,
        do="correct the address (by gRPC the channel's authority, which is `match.host` of a route), or add a route",
    ),
    Reason.ORIGIN_REFUSED: _out(
        "a page in a browser called the door of an entry, and origins of the door does not list its origin",
        _OPERATOR,
        do="if the page is one of yours, list its origin; if not, nothing: the page got no answer",
    ),
    Reason.NOT_AN_ENTRY: _out(
        "a user's token was used where no chain may start",
        _DEVELOPER,
        _SECURITY,
        do="send the handle instead; only a workload configured as entry takes login tokens",
    ),
    Reason.OWN_AUTHORITY_REFUSED: _out(
        "a request's handle was used on a route of the workload's own authority, the workload handle on an exchange"
        " route, or a user that is not the agent's asked for it",
        _DEVELOPER,
        do="send the handle that fits: the request's own, or outside of requests the workload handle",
    ),
    Reason.LOGIN_MALFORMED: _out(
        "a request about a login has another form, or the answer of the token service is ambiguous: see the detail",
        _DEVELOPER,
        do="send JSON with the documented members, and the query of the redirect as it came",
    ),
    Reason.LOGIN_UNKNOWN: _out(
        "no login of this name was begun at this sidecar, or it ended long ago, or the sidecar was restarted",
        _DEVELOPER,
        do="begin another login; ask the sidecar that began it",
    ),
    Reason.LOGIN_SESSION_MISMATCH: _out(
        "a login was continued in another browser session than it was begun in: a forged link, or an app that changed"
        " the session in between",
        _DEVELOPER,
        _SECURITY,
        do="begin another login; if users meet it often, find out who sends them such links",
    ),
    Reason.LOGIN_STATE_MISMATCH: _out(
        "the state of the answer is not the login's: a forged link, or a second login in the same session",
        _DEVELOPER,
        _SECURITY,
        do="begin another login; if users meet it often, find out who sends them such links",
    ),
    Reason.LOGIN_ISSUER_MISMATCH: _out(
        "the iss of the answer is missing or another token service's: perhaps a code meant for another was sent here",
        _SECURITY,
        _OPERATOR,
        do="compare exchange.issuer with the server's metadata; if they agree, find out where the link came from",
    ),
    Reason.LOGIN_EXPIRED: _out(
        "the user took too long, or the settings of the token service changed meanwhile",
        _CALLER,
        do="begin another login",
    ),
    Reason.LOGIN_USED: _out(
        "a login was completed a second time, or continued after its end", _DEVELOPER, do="begin another login"
    ),
    Reason.LOGIN_DENIED: _out(
        "the user refused, or the token service did: see the detail", _CALLER, _OPERATOR, do="see the detail"
    ),
    Reason.EXCHANGE_DENIED: _out(
        "the token service refused this delegation",
        _OPERATOR,
        do="find its token.exchange_refused record by jti_in: the reason there says which rule",
    ),
}

_ANSWER: Final = {
    Reason.STS_ERROR: _out(
        "the token service refused the sidecar itself, not the user",
        _OPERATOR,
        do="check that it knows this workload, and that the exchange settings fit it",
    ),
    Reason.STS_BAD_RESPONSE: _out(
        "the answer is not one of RFC 8693", _OPERATOR, do="see the detail; check its address"
    ),
    Reason.STS_NO_ACT: _out(
        "it answered 200 without the actor: an impersonation token",
        _OPERATOR,
        do="this token service cannot delegate, or is configured not to; use one that does",
    ),
    Reason.STS_ACTOR_MISMATCH: _out(
        "the issued token names another actor than this workload", _SECURITY, _OPERATOR, do="compare its actor mapping"
    ),
    Reason.STS_SUBJECT_MISMATCH: _out(
        "the issued token is for another user",
        _OPERATOR,
        _SECURITY,
        do="at an entry, compare subject_prefix and subject_claim with the token service's; else stop using it: it"
        " confuses users, or lies",
    ),
    Reason.STS_CHAIN_BROKEN: _out(
        "earlier actors, txn or parent_jti were changed", _SECURITY, do="find out who rewrites the history there"
    ),
    Reason.STS_SCOPE_WIDENED: _out(
        "the issued token holds more than requested", _OPERATOR, _SECURITY, do="narrow its default grant"
    ),
    Reason.STS_AUDIENCE_MISMATCH: _out(
        "the issued token is for another target, or for several",
        _OPERATOR,
        do="register the target there as an audience",
    ),
    Reason.STS_LIFETIME: _out(
        "the issued token outlives its subject token, or has expired already",
        _OPERATOR,
        do="shorten its lifetime there",
    ),
    Reason.STS_ISSUER: _out("the issued token has another issuer", _OPERATOR, do="correct exchange.issuer"),
    Reason.STS_SIGNATURE: _out(
        "the issued token's signature is wrong",
        _SECURITY,
        _OPERATOR,
        do="check that its key set is the right one",
    ),
    Reason.STS_TOKEN_TYPE: _out("it issued another kind of token", _OPERATOR, do="set it to issue JWT access tokens"),
    Reason.STS_REDIRECT: _out("it answered with a redirect", _OPERATOR, do="configure the final token endpoint"),
    Reason.STS_TOO_LARGE: _out("its answer is over the limit", _OPERATOR, do="check what answers at that address"),
    Reason.STS_IDENTITY: _out(
        "the server is not the workload that the settings name, or did not prove it: see the detail",
        _OPERATOR,
        _SECURITY,
        do="see the detail: renew an expired SVID there; compare exchange.peer with the ID, the bundles with the CA",
    ),
    Reason.NEXT_HOP_REFUSED: Guidance(
        Stage.PASSED_ON,
        "on a route of A2A: the call was allowed here, and the next hop's sidecar refused it by an error of JSON-RPC, "
        "whose HTTP status is 200: see the detail",
        (_DEVELOPER, _OPERATOR),
        "act on the reason in the detail; the record of the next hop's sidecar has more",
    ),
    Reason.UPSTREAM_BAD_RESPONSE: _either(
        "the answer of the agent or next hop is not valid HTTP", _DEVELOPER, do="see the detail; fix that server"
    ),
    Reason.CREDENTIAL_EXPOSED: _out(
        "the answer of a host outside the mesh contains the key of the call; it was cut before the key",
        _SECURITY,
        do="revoke that key at the provider (a static one: put another into the file), and ask why it is sent back",
    ),
    Reason.UPSTREAM_IDENTITY: _out(
        "the next hop is not the workload that the route names, or could not prove it: see the detail",
        _OPERATOR,
        _SECURITY,
        do="see the detail: renew an expired SVID there; compare the route's peer with the ID, the bundles with the CA",
    ),
}

_OUTAGE: Final = {
    Reason.STS_UNAVAILABLE: _out(
        "the token service cannot be reached, or answers with 429 or 5xx: see the detail",
        _OPERATOR,
        do="start it; if it answers, read its log and records for the same time; the call may be retried",
    ),
    Reason.CREDENTIAL_UNAVAILABLE: _either(
        "a static key of the sidecar cannot be read, or a provider gave no token for our identity: see the detail",
        _OPERATOR,
        do="see the detail: mount inject.file, or inbound.agent_key.file, for the sidecar alone; or compare federate"
        " with the provider's trust",
    ),
    Reason.REVOCATIONS_STALE: _either(
        "the issuer's list of revocations could not be confirmed for max_stale_s, so the call may be a revoked one",
        _OPERATOR,
        do="check that revocations.url is reachable and its replicas are ready",
    ),
    Reason.KEYS_UNAVAILABLE: _either(
        "the sidecar has no keys of the issuer yet, or they are older than max_age_s",
        _OPERATOR,
        do="check that its JWKS is reachable",
    ),
    Reason.NOT_READY: _either(
        "the sidecar has no identity, or a listener bypasses it and refuse_other_listeners is set; if the request"
        " was allowed, it was ended for lack of an identity",
        _OPERATOR,
        do="check that the workload is registered and the Workload API answers",
    ),
    Reason.OVERLOADED: _either(
        "a limit on concurrent work is reached", _OPERATOR, do="add replicas, or raise the limit"
    ),
    Reason.DRAINING: _either("the sidecar is stopping", _CALLER, do="retry the call: another replica serves it"),
    Reason.AUDIT_UNAVAILABLE: _either(
        "the call could not be recorded, so it was not made",
        _OPERATOR,
        do="check disk space and the reader of the record sink",
    ),
    Reason.UPSTREAM_UNREACHABLE: _either(
        "no connection to agent or next hop; its sidecar may have refused the handshake",
        _OPERATOR,
        _DEVELOPER,
        do="check that it is up; its sidecar's connection.refused has more",
    ),
    Reason.STS_TIMEOUT: _out(
        "the token service took too long", _OPERATOR, do="check its load; the call may be retried"
    ),
    Reason.UPSTREAM_TIMEOUT: _either(
        "agent or next hop took too long: longer than a limit, the caller's grpc-timeout or the route's deadline_s",
        _DEVELOPER,
        do="make it answer sooner, raise the limit, or declare the route a stream",
    ),
    Reason.INTERNAL: _either(
        "a bug of the sidecar", _OPERATOR, do="report it, with the operations log of that time and the request id"
    ),
}

_EXCHANGE: Final = {
    Reason.EXCHANGE_MALFORMED: _service(
        "the exchange request breaks RFC 8693 or names an unsupported token type", _OPERATOR, do="see the detail"
    ),
    Reason.GRANT_NOT_SUPPORTED: _service("another grant type was requested", _OPERATOR, do="use token exchange"),
    Reason.CLIENT_NOT_AUTHENTICATED: _service(
        "the client showed no X.509-SVID", _OPERATOR, do="reach the token service directly, with nothing that ends TLS"
    ),
    Reason.ACTOR_REQUIRED: _service(
        "an exchange without an actor token: it would be impersonation",
        _SECURITY,
        do="find out who wants such tokens, and why",
    ),
    Reason.ACTOR_NOT_CLIENT: _service(
        "the actor token names another workload",
        _SECURITY,
        do="treat that JWT-SVID as stolen: the peer in the record has it",
    ),
    Reason.ACTOR_TOKEN_INVALID: _service(
        "the client's JWT-SVID does not verify", _OPERATOR, do="see the detail; compare clocks and JWT bundles"
    ),
    Reason.NOT_YOUR_TOKEN: _service(
        "the subject token was issued to another workload",
        _SECURITY,
        do="treat the token as stolen: the peer in the record has it; put its txn on the deny list",
    ),
    Reason.MAY_ACT_REFUSED: _service(
        "the subject token names who may act, and it is not this client", _SECURITY, do="as for not_your_token"
    ),
    Reason.DELEGATION_NOT_ALLOWED: _service(
        "no rule lets this actor act for this user there", _OPERATOR, do="add a rule, if it may"
    ),
    Reason.SELF_DELEGATION: _service(
        "the client is already the current actor", _DEVELOPER, do="use the present token, or find the circle"
    ),
    Reason.TARGET_UNKNOWN: _service(
        "no rule names this actor and the target", _OPERATOR, do="add target and rule, or correct the route's audience"
    ),
    Reason.ORDER_REFUSED: _service(
        "an order to revoke is not from a listed operator, not signed with the operator's SVID, or not consistent",
        _SECURITY,
        do="see the detail; list the operator under revocation.operators with what it may revoke",
    ),
    Reason.SCOPE_REFUSED: _service(
        "none of the requested scopes may be granted",
        _OPERATOR,
        _DEVELOPER,
        do="compare scope_needed with the rule and with the subject token's scope",
    ),
}

OUTBOUND: Final[Mapping[Reason, Guidance]] = {**_CALL, **_ANSWER, **_OUTAGE, **_EXCHANGE}
