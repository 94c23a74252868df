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
    "ts": Key("when, UTC, to the microsecond; of a request: when its head had arrived", _ALL),
    "run": Key("names one run of one process", _ALL),
    "seq": Key("number of the record in its run, from 1 and without gaps: a gap is a lost or removed record", _ALL),
    "decision": Key(
        "`allow`, `deny`, or `observed_deny` (let through, and would have been refused)",
        (*REQUESTS, *EXCHANGES, *_REFUSALS, *_LOST, *_PODS),
    ),
    "reason": Key(
        "`ok` or a [reason code](reasons.md); of an allowed request: how it ended",
        (*REQUESTS, *EXCHANGES, *_REFUSALS, *_LOST),
    ),
    "direction": Key(
        "`inbound` (towards the agent) or `outbound` (away from it); null at a token service",
        (*REQUESTS, *EXCHANGES, *_REFUSALS),
    ),
    "workload": Key("the SPIFFE ID of whose record this is, once it is known", _ALL),
    "peer": Key(
        "the SPIFFE ID at the other end of the mTLS connection: inbound who calls, outbound the next hop that the route"
        " names, at the token service its client",
        (*REQUESTS, *EXCHANGES),
    ),
    "subject": Key("for whom: the token's `sub`", (*REQUESTS, *EXCHANGES)),
    "subject_iss": Key("the token's `iss`; with `subject` it names the subject", (*REQUESTS, *EXCHANGES)),
    "actor": Key(
        "who acts: the outermost `act`, as a SPIFFE ID where its issuer maps it to one", (*REQUESTS, *EXCHANGES)
    ),
    "chain": Key("all actors of the token, the current one first", (*REQUESTS, *EXCHANGES)),
    "chain_depth": Key("how many they are", (*REQUESTS, *EXCHANGES)),
    "client_id": Key("the OAuth client that obtained the token; no statement about who acts", (*REQUESTS, *EXCHANGES)),
    "audience": Key("whom the token is for; of a refused exchange: who was asked for", (*REQUESTS, *EXCHANGES)),
    "scope": Key("what the token holds", (*REQUESTS, *EXCHANGES)),
    "scope_needed": Key(
        "inbound what the route needs, outbound and in an exchange what was asked for", (*REQUESTS, *EXCHANGES)
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
    "status": Key("the status of the answer that was given; null where none was", (*REQUESTS, *EXCHANGES)),
    "upstream_status": Key("the status that agent or next hop answered with", REQUESTS),
    "jti_in": Key(
        "the token that came in; outbound and in an exchange: the one that the call rests on", (*REQUESTS, *EXCHANGES)
    ),
    "jti_out": Key("the token that was issued", (*REQUESTS, "token.exchanged")),
    "parent_jti": Key(
        "the token that the one told of was issued for, by its own signed claim", (*REQUESTS, *EXCHANGES)
    ),
    "txn": Key(
        "names the chain: minted with its first token, signed, the same in every later one", (*REQUESTS, *EXCHANGES)
    ),
    "fp": Key("the first 128 bits of the token's SHA-256, in hex: names it and opens nothing", (*REQUESTS, *EXCHANGES)),
    "call_in": Key(
        "the call by which the request came, as its caller named it; outbound: that of the request being served",
        REQUESTS,
    ),
    "call_out": Key("the call that this request became at the next hop, whose `call_in` it is", REQUESTS),
    "request_id": Key(
        "names the request; the refused caller is told it; of a pod: the uid of the API server's question",
        (*REQUESTS, *EXCHANGES, *_PODS),
    ),
    "trace_id": Key("W3C trace id: for tracing, no evidence; joins no records by itself", REQUESTS),
    "span_id": Key("W3C span id", REQUESTS),
    "bytes_in": Key("bytes that came from the caller", REQUESTS),
    "bytes_out": Key("bytes that went back to the caller", REQUESTS),
    "tls_ms": Key("time of the TLS handshake", ()),
    "decide_ms": Key("time from the head's arrival to the permit", REQUESTS),
    "exchange_ms": Key("time of the token exchange; null if the token was at hand", (*REQUESTS, *EXCHANGES)),
    "upstream_ms": Key("time from forwarding to the head of the upstream's answer", REQUESTS),
    "total_ms": Key("time from beginning to end", (*REQUESTS, *EXCHANGES)),
    "after_request": Key("the call was made after its request had ended, within `linger_s`", REQUESTS),
    "verified": Key(
        "whether the claims are from a token that verified; if false they are nobody's word", (*REQUESTS, *EXCHANGES)
    ),
    "source": Key("the address of the other end", (*_REFUSALS, *EXCHANGES)),
    "detail": Key(
        "more about the reason, which no caller sees; of settings: which file; of a start in Kubernetes: the run's pod,"
        " namespace, service account and node",
        (*REQUESTS, *EXCHANGES, *_REFUSALS, *_PODS, "config.reloaded", "config.refused", "started"),
    ),
    "suppressed": Key(
        "how many records of callers that proved nothing this listener left out since the last one it wrote; null for"
        " none",
        (*_REFUSALS, "token.exchange_refused", *_PODS),
    ),
}

EVENT_MEANINGS: Final[Mapping[str, str]] = {
    "request": "a request ended: exactly one of these for each that was accepted",
    "request.opened": "the same request, ahead, because it lasts or streams; its `request` follows;"
    " `decision` and `reason` are null while nobody has decided",
    "connection.refused": "a TLS handshake was refused, or a connection ended before its first request",
    "token.exchanged": "a token was issued: told by the token service, and by the sidecar that asked, once proven",
    "token.exchange_refused": "no token: told by the token service if it refused, and by the sidecar that asked",
    "identity.rotated": "there is a new SVID or a new bundle",
    "identity.lost": "the identity was withdrawn or has expired: nothing is served until there is another",
    "config.reloaded": "new settings are in force",
    "config.refused": "new settings could not be used: the old ones stay",
    "ready": "it serves from now on",
    "not_ready": "it does not serve any more",
    "started": "the process runs",
    "stopped": "the process ends in order; a run without it was killed, or goes on",
    "pod.injected": "the injector was asked about a pod and let it be, with a sidecar",
    "pod.refused": "the injector refused a pod, or a question that was none",
}
