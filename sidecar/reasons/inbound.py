"""Advice on inbound refusals: the handshake, the request, its token, its permission."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delegation_core.errors import Reason
from sidecar.reasons.guidance import Guidance, Role, Stage

_CALLER, _DEVELOPER, _OPERATOR, _SECURITY = Role.CALLER, Role.DEVELOPER, Role.OPERATOR, Role.SECURITY


def _handshake(means: str, *who: Role, do: str) -> Guidance:
    return Guidance(Stage.HANDSHAKE, means, who, do)


def _in(means: str, *who: Role, do: str) -> Guidance:
    return Guidance(Stage.INBOUND, means, who, do)


def _either(means: str, *who: Role, do: str) -> Guidance:
    return Guidance(Stage.EITHER, means, who, do)


_PEER: Final = {
    Reason.NO_CLIENT_CERT: _handshake(
        "a client without a workload identity called the mesh port",
        _CALLER,
        do="call through a sidecar; for probes use the probe listener",
    ),
    Reason.BAD_SVID: _handshake(
        "the peer's certificate breaks a rule of X.509-SVIDs: its names, key usage, key or form",
        _OPERATOR,
        do="see the detail for which; issue workload certificates from SPIRE or to the X509-SVID standard",
    ),
    Reason.UNTRUSTED_CHAIN: _handshake(
        "the peer's chain does not lead to its trust domain's bundle",
        _OPERATOR,
        _SECURITY,
        do="compare both ends' bundles; after a CA rotation the newer one has not arrived here yet",
    ),
    Reason.UNKNOWN_TRUST_DOMAIN: _handshake(
        "this workload has no bundle of the peer's trust domain",
        _OPERATOR,
        do="federate with that trust domain if its workloads may call here",
    ),
    Reason.WRONG_BUNDLE: _handshake(
        "a CA of another trust domain signed this SPIFFE ID: it vouched for a name that is not its own",
        _SECURITY,
        do="treat it as forgery: find out who holds that CA and what else it signed",
    ),
    Reason.SVID_EXPIRED: _handshake(
        "the peer's SVID has expired or is not yet valid",
        _OPERATOR,
        do="check that the peer's SVID is renewed, and compare clocks",
    ),
    Reason.TLS_VERSION: _handshake(
        "the peer does not speak TLS 1.3, sends an ffdhe key share, or many records without data",
        _CALLER,
        do="update it, or call through a sidecar",
    ),
    Reason.PEER_GONE: Guidance(
        Stage.CUT,
        "the caller hung up, or closed its half of the connection, before the answer was complete",
        (_CALLER,),
        "compare its timeout with the agent's response time",
    ),
    Reason.PEER_SLOW: Guidance(
        Stage.CUT,
        "the caller read less than limits.min_rate of its answer for limits.write_timeout_s, and was cut off",
        (_CALLER,),
        "find out why it stopped reading; if callers may be slow, raise write_timeout_s in that side's limits",
    ),
    Reason.FRAME_FLOOD: Guidance(
        Stage.CUT,
        "a caller's connection of HTTP/2 had too many resets, frames without content, or frames of one head; it was "
        "ended, and every request on it with this reason",
        (_CALLER, _SECURITY),
        "fix the client; if none of your clients does this, treat it as an attack; docs/http2.md has the limits",
    ),
    Reason.UPSTREAM_ABORTED: Guidance(
        Stage.CUT,
        "agent or next hop ended its answer early",
        (_DEVELOPER,),
        "look for a crash or a timeout there, at the time of the record",
    ),
}

_REQUEST: Final = {
    Reason.BAD_REQUEST: _either("the request is not valid HTTP", _CALLER, do="see the detail; fix the HTTP client"),
    Reason.AMBIGUOUS_FRAMING: _either(
        "the length of the body is ambiguous, as in request smuggling",
        _CALLER,
        _SECURITY,
        do="fix the client; if none of your clients does this, treat it as an attack",
    ),
    Reason.HEADER_MALFORMED: _either(
        "Authorization or an identity header is malformed or repeated",
        _DEVELOPER,
        do="send one Authorization header, exactly as it was received",
    ),
    Reason.PATH_REFUSED: _either(
        "the path is ambiguous: dot segments, hidden separators, double escapes",
        _CALLER,
        do="send the path in its plain form",
    ),
    Reason.OPERATION_MALFORMED: _either(
        "on a route of MCP or A2A: the message is not one strict JSON object, could be read in two ways, or its header "
        "fields say otherwise",
        _CALLER,
        do="see the detail; send one message in a POST, with the fields that its SDK sets",
    ),
    Reason.PROTOCOL_VERSION: _either(
        "the request states a version of MCP or A2A that this release does not know",
        _CALLER,
        do="use a version that the page of the protocol lists, or update the sidecar",
    ),
    Reason.OPERATION_REFUSED: _either(
        "the route does not list the operation (a method, or a tool or resource by its name), or the protocol has none "
        "such; or it is a call of gRPC, and the agent is called by HTTP/1.1, as the detail says",
        _OPERATOR,
        _DEVELOPER,
        do="add it to the route's `operations` if the caller should have it; `op` in the record names it where the "
        "settings do. For gRPC set `inbound.agent_grpc`, or `protocols.agent` to `h2c`",
    ),
    Reason.SESSION_UNKNOWN: _in(
        "on a route of MCP: the `Mcp-Session-Id` names no session that this caller has here: it is another caller's or "
        "user's, or from before a restart of the sidecar; or a session is needed, and none is named",
        _CALLER,
        do="open a new session by `initialize`, and use it for the user for whom it was opened",
    ),
    Reason.LIST_UNREADABLE: _in(
        "on a route of MCP with `filter_lists`, or by `ListTasks` of A2A: the agent's answer is encoded, too long, or "
        "cannot be read as one message, so it could list what the caller may not use or see",
        _DEVELOPER,
        _OPERATOR,
        do="see the detail; answer with plain JSON or events, in pages, or raise `max_message_bytes`",
    ),
    Reason.PUSH_URL_REFUSED: _either(
        "on a route of A2A: the caller wants notifications sent to a URL that `push_urls` does not list",
        _OPERATOR,
        _DEVELOPER,
        do="add its origin and path to the route's `push_urls` if the agent may send there; no record holds the URL",
    ),
    Reason.TASK_UNKNOWN: _in(
        "on a route of A2A: the request names a task that was made for another subject, or by another peer; with "
        "`tasks: strict` also one that this sidecar did not see made",
        _CALLER,
        do="ask for a task as whoever made it; with `tasks: strict`, tasks from before a restart are made again",
    ),
    Reason.CONTEXT_UNKNOWN: _in(
        "on a route of A2A: the request names a context that was first used for another subject, or by another peer; "
        "with `tasks: strict` also one that this sidecar did not see",
        _CALLER,
        do="begin a context for each user: send the first message without `contextId`, and use the one of the answer",
    ),
    Reason.CARD_REFUSED: _either(
        "the agent's card cannot be read or checked, is signed, or names no interface that a route of A2A serves",
        _DEVELOPER,
        _OPERATOR,
        do="see the detail; for a signed card set `rewrite_signed: true`, which drops the signature",
    ),
    Reason.HTTP_VERSION: _either(
        "a client began with the preface of HTTP/2, as every client of gRPC does; HTTP/2 is off, or this is a listener "
        "that never serves it (the door, `inbound.plain`)",
        _OPERATOR,
        _CALLER,
        do=(
            "turn it on with `protocols: {http2: true}` (docs/http2.md), or have the client speak HTTP/1.1; a client "
            "of gRPC says that it cannot connect, or that it met a server of HTTP/1.x"
        ),
    ),
    Reason.UPGRADE_REFUSED: _either(
        "an upgrade other than a valid WebSocket handshake (RFC 6455 section 4), or a WebSocket to an agent that is "
        "called by HTTP/2 (`protocols.agent: h2c`)",
        _DEVELOPER,
        do=(
            "use WebSocket version 13, or plain HTTP/1.1 requests; if the agent is called by HTTP/2, see "
            "docs/http2.md#websocket"
        ),
    ),
    Reason.TOO_LARGE: _either(
        "the body is larger than max_body_bytes", _CALLER, _OPERATOR, do="send less, or raise the limit"
    ),
    Reason.URI_TOO_LONG: _either("the request target is over its limit", _CALLER, do="move long data into the body"),
    Reason.HEAD_TOO_LARGE: _either("the header fields are over their limit", _CALLER, do="send fewer or shorter ones"),
    Reason.EXPECTATION_REFUSED: _either(
        "the request expects something other than 100-continue", _CALLER, do="leave the Expect field out"
    ),
    Reason.TIMEOUT: _either(
        "the request did not arrive in time; where it was allowed, its token has expired and its body took longer than "
        "max_upload_s, or its answer longer than max_stream_s after its head, or its WebSocket or tunnel was silent "
        "for longer than stream_idle_timeout_s",
        _CALLER,
        do="look for a slow or stalled sender between client and sidecar",
    ),
    Reason.NO_ROUTE: _in(
        "no inbound route has this path, or the token service has no endpoint there",
        _CALLER,
        _OPERATOR,
        do="correct the path, or add a route if it should be served",
    ),
    Reason.METHOD_REFUSED: _in(
        "the route of this path, or the token service, does not accept the method",
        _CALLER,
        _OPERATOR,
        do="use a method of Allow, or add the method",
    ),
}

_TOKEN: Final = {
    Reason.NO_TOKEN: _in(
        "a workload of the mesh called without a token", _CALLER, do="call through the outbound side of its sidecar"
    ),
    Reason.MALFORMED_TOKEN: _either(
        "the token is not a JWT, or a claim has a form that its issuer does not use",
        _OPERATOR,
        do="see the detail; compare the issuer's profile with its tokens",
    ),
    Reason.DUPLICATE_CLAIM: _either(
        "the token has a repeated claim or header, so that two parsers could differ",
        _SECURITY,
        do="no correct issuer does this: find out where the token came from",
    ),
    Reason.TOKEN_TYPE: _either(
        "a token of another kind: an ID token, a login token, a JWT-SVID",
        _CALLER,
        _OPERATOR,
        do="use access tokens in the mesh, and at an entry the one kind that is configured",
    ),
    Reason.ALG_NOT_ALLOWED: _either(
        "the settings do not allow this algorithm for the issuer",
        _SECURITY,
        _OPERATOR,
        do="an unsigned or symmetric token is an attack; add a new algorithm of the issuer to its profile",
    ),
    Reason.UNKNOWN_KEY: _either(
        "the issuer's key set does not have this key, or no longer does: requests with its tokens were ended",
        _OPERATOR,
        do="check that the issuer publishes a key before it signs with it; forged tokens look like this too",
    ),
    Reason.BAD_SIGNATURE: _either(
        "the token was not signed by the key it names",
        _SECURITY,
        do="treat it as forged or altered, and find out who sent it: the peer is in the record",
    ),
    Reason.WRONG_ISSUER: _either(
        "the token's issuer is not trusted here",
        _CALLER,
        _OPERATOR,
        do="get a token from the mesh's token service, or list the issuer",
    ),
    Reason.WRONG_AUDIENCE: _either(
        "the token is for another audience: it was passed on instead of exchanged, or stolen",
        _CALLER,
        _SECURITY,
        do="exchange a token for each target; investigate a peer that does this again",
    ),
    Reason.TOKEN_EXPIRED: _either(
        "the token has expired; an allowed call was a WebSocket or an event stream, which ends with its token",
        _CALLER,
        _OPERATOR,
        do="log in or exchange again; compare clocks if it is fresh",
    ),
    Reason.TOKEN_NOT_YET_VALID: _either(
        "the token is from the future", _OPERATOR, do="compare the clocks of issuer and sidecar"
    ),
    Reason.TOKEN_TOO_LARGE: _either(
        "the token is over 16 KiB", _OPERATOR, do="have the issuer put fewer claims into it"
    ),
    Reason.CNF_MISMATCH: _either(
        "the token is bound to a certificate other than the peer's",
        _SECURITY,
        _CALLER,
        do="a renewed SVID needs a new token; otherwise the token has been passed on or stolen",
    ),
    Reason.ACT_MISSING: _in(
        "the token names a user and no actor: this would be impersonation",
        _CALLER,
        _OPERATOR,
        do="exchange the user's token for a delegated one; check if the issuer drops act",
    ),
    Reason.ACT_MALFORMED: _either(
        "the actor in the token is malformed", _OPERATOR, do="see the detail; correct the issuer's act claim"
    ),
    Reason.ACT_TOO_DEEP: _either(
        "more actors than max_act_depth: perhaps agents calling each other in a circle",
        _DEVELOPER,
        do="look at the chain in the record, and shorten it or break the circle",
    ),
}

_PERMISSION: Final = {
    Reason.TXN_TOKEN_REFUSED: _either(
        "the Txn-Token does not verify, is there twice, or names another user or transaction than the access token",
        _OPERATOR,
        do="see the detail; the transaction token service must keep sub and txn of the access token",
    ),
    Reason.INSUFFICIENT_SCOPE: _either(
        "the token is genuine, but does not cover this call",
        _DEVELOPER,
        _OPERATOR,
        do="compare scope and scope_needed in the record; if the call is due, request the scope at the chain's start",
    ),
    Reason.ACTOR_MISMATCH: _in(
        "a genuine token, presented by a workload other than its owner",
        _SECURITY,
        do="treat the token as stolen: the peer in the record has it; revoke its txn. If the peer is an agent that "
        "forwards its caller's token past its own sidecar, have it call through the sidecar with its handle",
    ),
    Reason.POLICY_DENIED: _either(
        "the deny list, the issuer's trust domains or the route's peers forbid the call, perhaps since a reload",
        _OPERATOR,
        do="see the detail for which; add the peer to the route if it may call",
    ),
    Reason.REVOKED: _either(
        "an operator has revoked the user, the workload, the chain, the token or the login; the detail says which",
        _SECURITY,
        do="see who and why: `sidecar sts revoke --list`; lift it there if it is over",
    ),
    Reason.ISSUER_NOT_FOR_ROUTE: _either(
        "the issuer is trusted, but not on this route, or not by the token service of the exchange",
        _OPERATOR,
        do="add it to the route's issuers, if its tokens should count there; for an outbound call list a crossing",
    ),
    Reason.SCOPE_ABOVE_CEILING: _in(
        "the issuer granted more than its ceiling here",
        _SECURITY,
        _OPERATOR,
        do="find out why, before you raise its ceiling",
    ),
    Reason.STEP_UP_REQUIRED: _in(
        "the route requires a more recent login of the user than the token tells of, or a stronger one",
        _DEVELOPER,
        do="pass the answer on to the front app: it has the user log in with the max_age and acr_values of"
        " WWW-Authenticate",
    ),
    Reason.SUBJECT_BUSY: _in(
        "subjects_at_once is 1, and a request of another subject is in progress or its handle lingers",
        _CALLER,
        _OPERATOR,
        do="retry the call; if that happens often, run a replica of the agent for each user at a time, or shorten"
        " linger_s",
    ),
}

INBOUND: Final[Mapping[Reason, Guidance]] = {**_PEER, **_REQUEST, **_TOKEN, **_PERMISSION}
