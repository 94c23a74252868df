"""What each key of a record means, and which events set it: the text of the records page, beside the schema's types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

REQUESTS: Final = ("request", "request.opened")
EXCHANGES: Final = ("token.exchanged", "token.exchange_refused")
_REFUSALS: Final = ("connection.refused",)
_LOST: Final = ("identity.lost",)
_PODS: Final = ("pod.injected", "pod.refused")
_ALL: Final = ("every event",)


@dataclass(frozen=True, slots=True)
class Key:
    """A key's meaning. ``events`` may set it; empty: none does yet, it is always null."""

    means: str
    events: tuple[str, ...]


KEYS: Final[Mapping[str, Key]] = {
    "event": Key("what happened", _ALL),
    "ts": Key("time in UTC, to the microsecond; of a request: the arrival of its head", _ALL),
    "run": Key("identifies one run of one process", _ALL),
    "seq": Key("number of the record in its run, from 1 and without gaps: a gap is a lost or removed record", _ALL),
    "decision": Key(
        "`allow`, `deny`, or `observed_deny` (let through by observation; enforcement would refuse it)",
        (*REQUESTS, *EXCHANGES, *_REFUSALS, *_LOST, *_PODS),
    ),
    "reason": Key(
        "`ok` or a [reason code](reasons.md); of an allowed request: the reason of its end",
        (*REQUESTS, *EXCHANGES, *_REFUSALS, *_LOST),
    ),
    "direction": Key(
        "`inbound` (towards the agent) or `outbound` (away from it); null at a token service",
        (*REQUESTS, *EXCHANGES, *_REFUSALS),
    ),
    "workload": Key("the SPIFFE ID of the workload that writes the record, once it is known", _ALL),
    "peer": Key(
        "the SPIFFE ID at the other end of the mTLS connection: inbound the caller, outbound the next hop that the"
        " route names, at the token service its client",
        (*REQUESTS, *EXCHANGES),
    ),
    "subject": Key("the user or workload on whose behalf the call is made: the token's `sub`", (*REQUESTS, *EXCHANGES)),
    "subject_iss": Key("the token's `iss`; with `subject` it names the subject", (*REQUESTS, *EXCHANGES)),
    "actor": Key(
        "the acting workload: the outermost `act`, as a SPIFFE ID where its issuer maps it to one",
        (*REQUESTS, *EXCHANGES),
    ),
    "chain": Key("all actors of the token, the current one first", (*REQUESTS, *EXCHANGES)),
    "chain_depth": Key("the number of actors in `chain`", (*REQUESTS, *EXCHANGES)),
    "client_id": Key(
        "the OAuth client that obtained the token; it does not identify the actor", (*REQUESTS, *EXCHANGES)
    ),
    "audience": Key("the target of the token; of a refused exchange: the requested target", (*REQUESTS, *EXCHANGES)),
    "scope": Key("the scopes of the token", (*REQUESTS, *EXCHANGES)),
    "scope_needed": Key(
        "inbound the scopes that the route needs, outbound and in an exchange the requested ones",
        (*REQUESTS, *EXCHANGES),
    ),
    "route": Key("the name of the route", (*REQUESTS, *EXCHANGES)),
    "op": Key(
        "the operation: `login` where a user's login token was traded for a handle; of a pod: `injected`, `unchanged`"
        " or the first rule that it breaks",
        (*REQUESTS, *_PODS),
    ),
    "method": Key("the HTTP method", REQUESTS),
    "path": Key(
        "the path in its one canonical form, without the query; before it is canonical, as it was sent; of a pod:"
        " namespace and name",
        (*REQUESTS, *_PODS),
    ),
    "status": Key("the status of the answer; null if there was none", (*REQUESTS, *EXCHANGES)),
    "upstream_status": Key("the status of the answer of the agent or next hop", REQUESTS),
    "jti_in": Key(
        "the token that came in; outbound and in an exchange: the inbound token that the call depends on",
        (*REQUESTS, *EXCHANGES),
    ),
    "jti_out": Key("the token that was issued", (*REQUESTS, "token.exchanged")),
    "parent_jti": Key(
        "the token that this record's token was exchanged for, by its own signed claim", (*REQUESTS, *EXCHANGES)
    ),
    "txn": Key(
        "identifies the chain: minted with its first token, signed, the same in every later one",
        (*REQUESTS, *EXCHANGES),
    ),
    "fp": Key(
        "the first 128 bits of the token's SHA-256, in hex: identifies the token and cannot be used as one",
        (*REQUESTS, *EXCHANGES),
    ),
    "call_in": Key(
        "the call id that the caller gave the request; outbound: that of the request being served",
        REQUESTS,
    ),
    "call_out": Key("the call id given to the next hop, which records it as `call_in`", REQUESTS),
    "request_id": Key(
        "identifies the request, also in a refusal's answer; of a pod: the uid of the API server's review",
        (*REQUESTS, *EXCHANGES, *_PODS),
    ),
    "trace_id": Key("W3C trace id: for tracing; it proves nothing, and no command joins records by it", REQUESTS),
    "span_id": Key("W3C span id", REQUESTS),
    "bytes_in": Key("bytes that came from the caller", REQUESTS),
    "bytes_out": Key("bytes that went back to the caller", REQUESTS),
    "tls_ms": Key("time of the TLS handshake", ()),
    "decide_ms": Key("time from the head's arrival to the permit", REQUESTS),
    "exchange_ms": Key("time of the token exchange; null if the token was cached", (*REQUESTS, *EXCHANGES)),
    "upstream_ms": Key("time from forwarding to the head of the upstream's answer", REQUESTS),
    "total_ms": Key("time from beginning to end", (*REQUESTS, *EXCHANGES)),
    "after_request": Key("the call was made after its request had ended, within `linger_s`", REQUESTS),
    "verified": Key("true: the claims are from a verified token; false: they are unproven", (*REQUESTS, *EXCHANGES)),
    "source": Key("the address of the other end", (*_REFUSALS, *EXCHANGES)),
    "detail": Key(
        "more about the reason, not shown to callers; of settings: the file; of a start in Kubernetes: the run's pod,"
        " namespace, service account and node",
        (*REQUESTS, *EXCHANGES, *_REFUSALS, *_PODS, "config.reloaded", "config.refused", "started"),
    ),
    "suppressed": Key(
        "number of records of callers that proved no identity that this listener left out since the last one it wrote;"
        " null for none",
        (*_REFUSALS, "token.exchange_refused", *_PODS),
    ),
}

EVENT_MEANINGS: Final[Mapping[str, str]] = {
    "request": "a request ended: exactly one for each accepted request",
    "request.opened": "a request that lasts a second or streams, ahead of its `request`; `decision` and `reason` are"
    " null until it is decided",
    "connection.refused": "a TLS handshake was refused, or a connection ended before its first request",
    "token.exchanged": "a token was issued: written by the token service, and by the requesting sidecar once it has"
    " verified the token",
    "token.exchange_refused": "no token was issued: written by the token service if it refused, and by the"
    " requesting sidecar",
    "identity.rotated": "there is a new SVID or a new bundle",
    "identity.lost": "the identity was withdrawn or has expired: nothing is served until there is another",
    "config.reloaded": "new settings are in force",
    "config.refused": "new settings could not be used: the old ones stay",
    "ready": "the process is ready to serve",
    "not_ready": "the process is no longer ready",
    "started": "the process runs",
    "stopped": "the process ends in order; a run without this event was killed, or still runs",
    "pod.injected": "the injector admitted a pod with a sidecar",
    "pod.refused": "the injector refused a pod, or a request that is no admission review",
}
