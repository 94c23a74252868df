"""The definition of the record stream: every event, and every key with its type, its meaning and who sets it.

One flat JSON object per line, with the same keys for all events; a key that does not apply is null. Writers get the
types from here, ``record_schema`` and the page of records are made from it, and audit reads by it. ``record_text``
writes the lines.
"""

# Annotations are evaluated below, so they are not deferred: no ``from __future__ import annotations`` here.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, TypedDict, get_args

Direction = Literal["inbound", "outbound"]
Decision = Literal["allow", "deny", "observed_deny"]
Kind = Literal["text", "texts", "count", "milliseconds", "flag"]

OK: Final = "ok"  # the reason of a permitted request
MAX_ITEMS: Final = 64  # of a list: a scope claim could hold thousands of tokens

Record = dict[str, Any]  # complete: every key of ``FIELDS``, in their order

EVENTS: Final[Mapping[str, str]] = {
    "request": "a request ended: exactly one for each accepted request",
    "request.opened": "a request that lasts a second or streams, ahead of its `request`; `decision` and `reason` are"
    " null until it is decided",
    "connection.refused": "a TLS handshake was refused, or a connection ended before its first request",
    "token.exchanged": "a token was issued: written by the token service, and by the requesting sidecar once it has"
    " verified the token",
    "token.exchange_refused": "no token was issued: written by the token service if it refused, and by the"
    " requesting sidecar",
    "token.introspected": "the token service answered an introspection of `peer`: `allow` if the token is active and"
    " for it, else `deny` with the reason, which the answer does not tell",
    "identity.rotated": "there is a new SVID or a new bundle",
    "identity.lost": "the identity was withdrawn or has expired: nothing is served until there is another",
    "config.reloaded": "new settings are in force",
    "config.refused": "new settings could not be used: the old ones stay",
    "deny.changed": "the list of `deny_file` is in force: `detail` has its rows, and the SHA-256 of the file",
    "deny.refused": "the file of `deny_file` cannot be used: `detail` says why; the list in force stays",
    "not_ready": "a sidecar is no longer ready: `detail` says what is missing",
    "ready": "a sidecar is ready again, after `not_ready`; the first time it is `started` that says so",
    "started": "the process runs",
    "records.countersigned": "the token service signed the head of this run's hash chain; at the token service: it"
    " signed the head of `peer`",
    "revocation.ordered": "the token service accepted an order: `op` is `revoke`, `confirm` or `lift`, `peer` the"
    " operator, `detail` the reason",
    "revocation.refused": "the token service refused an order",
    "revocations.changed": "a sidecar enforces other revocations (`revocation`), or a list became stale (`detail`)",
    "stopped": "the process ends in order; a run without this event was killed, or still runs",
    "pod.injected": "the injector admitted a pod with a sidecar",
    "pod.refused": "the injector refused a pod, or a request that is not an admission review",
}

_ALL: Final = tuple(EVENTS)
_REQUESTS: Final = ("request", "request.opened")
_EXCHANGES: Final = ("token.exchanged", "token.exchange_refused")
_CALLS: Final = (*_REQUESTS, *_EXCHANGES)
_ASKED: Final = (*_CALLS, "token.introspected")
_SETTINGS: Final = ("config.reloaded", "config.refused")
_RUNS: Final = ("not_ready", "started", "stopped")
_ORDERS: Final = ("revocation.ordered", "revocation.refused")
_DENIES: Final = ("deny.changed", "deny.refused")
_PODS: Final = ("pod.injected", "pod.refused")


@dataclass(frozen=True, slots=True)
class Key:
    """A key's meaning and the ``events`` that may set it; ``kind`` and ``choices`` come from its annotation.

    ``since``: the release that added the key; empty for the first release. A new key: docs/contributing/record-key.md.
    """

    means: str
    events: tuple[str, ...]
    since: str = ""
    kind: Kind = "text"
    choices: tuple[str, ...] = ()


class _WriterFields(TypedDict):
    """The keys that the writer sets."""

    event: Annotated[str, Key("what happened", _ALL)]
    ts: Annotated[str, Key("time in UTC, to the microsecond; of a request: the arrival of its head", _ALL)]
    run: Annotated[str, Key("identifies one run of one process", _ALL)]
    seq: Annotated[
        int, Key("number of the record in its run, from 1 and without gaps: a gap is a lost or removed record", _ALL)
    ]


class RecordFields(TypedDict, total=False):
    """The keys that an event may set."""

    decision: Annotated[
        Decision | None,
        Key(
            "the last decision: `allow` or `deny`; `observed_deny`: the policy refuses the call, but it passed, without"
            " authority, on a route that only observes. `deny` with a `decide_ms`: the request was permitted and later"
            " ended, because the policy, the deny list, the keys or the trust in force would refuse it, or this"
            " workload lost its identity. A request that ends by time, a drain or a failure stays `allow`",
            (*_ASKED, "connection.refused", "identity.lost", *_PODS, "revocation.refused"),
        ),
    ]
    reason: Annotated[
        str | None,
        Key(
            "`ok` or a [reason code](reasons.md); of an allowed request: the reason of its end; of an observed one:"
            " why it would have been refused",
            (*_ASKED, "connection.refused", "identity.lost", "revocation.refused"),
        ),
    ]
    direction: Annotated[
        Direction | None,
        Key(
            "`inbound` (towards the agent) or `outbound` (away from it); null at a token service",
            (*_CALLS, "connection.refused"),
        ),
    ]
    workload: Annotated[str | None, Key("the SPIFFE ID of the workload that writes the record, once it is known", _ALL)]
    peer: Annotated[
        str | None,
        Key(
            "the SPIFFE ID at the other end of the mTLS connection: inbound the caller, outbound the next hop"
            " that the route names, at the token service its client",
            (*_ASKED, "records.countersigned", *_ORDERS),
        ),
    ]
    subject: Annotated[
        str | None, Key("the user or workload on whose behalf the call is made: the token's `sub`", _ASKED)
    ]
    subject_iss: Annotated[str | None, Key("the token's `iss`; with `subject` it names the subject", _ASKED)]
    actor: Annotated[
        str | None,
        Key("the acting workload: the outermost `act`, as a SPIFFE ID where its issuer maps it to one", _CALLS),
    ]
    chain: Annotated[Sequence[str] | None, Key("all actors of the token, the current one first", _CALLS)]
    chain_depth: Annotated[int | None, Key("the number of actors in `chain`", _CALLS)]
    client_id: Annotated[
        str | None, Key("the OAuth client that obtained the token; it does not identify the actor", _CALLS)
    ]
    audience: Annotated[str | None, Key("the target of the token; of a refused exchange: the requested target", _CALLS)]
    scope: Annotated[Sequence[str] | None, Key("the scopes of the token", _CALLS)]
    scope_needed: Annotated[
        Sequence[str] | None,
        Key("inbound the scopes that the route needs, outbound and in an exchange the requested ones", _CALLS),
    ]
    route: Annotated[str | None, Key("the name of the route", _CALLS)]
    op: Annotated[
        str | None,
        Key(
            "the operation: `login` where a front app traded a user's login token for a handle, or began or continued a"
            " login at a token service; `own` where the agent showed the workload handle and so acted for no user,"
            " unless its route is of MCP, A2A or gRPC; "
            "`metadata` where the sidecar itself told a caller who issues tokens for a route or a door, and `preflight`"
            " where it told a browser what a page may send; on a"
            " route of MCP or A2A the operation as the settings list it, such as `tools/call:search`, with `other` for"
            " a name or method that they do not list, on one of gRPC `/pkg.Service/Method`, `/pkg.Service/other` or"
            " `other`; of a pod: `injected`, `unchanged` or the first rule that it"
            " breaks; of an order: `revoke`, `confirm` or `lift`",
            (*_REQUESTS, *_PODS, "revocation.ordered"),
        ),
    ]
    method: Annotated[str | None, Key("the HTTP method", _REQUESTS)]
    path: Annotated[
        str | None,
        Key(
            "the path in its one canonical form, without the query; before it is canonical, as it was sent; of a"
            " pod: namespace and name",
            (*_REQUESTS, *_PODS),
        ),
    ]
    status: Annotated[int | None, Key("the status of the answer; null if there was none", _ASKED)]
    upstream_status: Annotated[int | None, Key("the status of the answer of the agent or next hop", _REQUESTS)]
    jti_in: Annotated[
        str | None,
        Key("the token that came in; outbound and in an exchange: the inbound token that the call depends on", _ASKED),
    ]
    jti_out: Annotated[
        str | None,
        Key(
            "the token that was issued; of a refused exchange, if only the transaction token was missing",
            (*_REQUESTS, "token.exchanged", "token.exchange_refused"),
        ),
    ]
    parent_jti: Annotated[
        str | None, Key("the token that this record's token was exchanged for, by its own signed claim", _CALLS)
    ]
    txn: Annotated[
        str | None,
        Key("identifies the chain: minted with its first token, signed, the same in every later one", _CALLS),
    ]
    fp: Annotated[
        str | None,
        Key(
            "the first 128 bits of the token's SHA-256, in hex: identifies the token and cannot be used as one", _CALLS
        ),
    ]
    host: Annotated[
        str | None,
        Key(
            "the host that the agent asked for: of a refused call, one to which no route leads, so that the call did"
            " not leave; of a tunnel, the host and port to which it led",
            _REQUESTS,
            since="0.2",
        ),
    ]
    candidates: Annotated[
        Sequence[str] | None,
        Key(
            "of a call without a live handle to a host without a route or for a refused operation, or a `CONNECT`"
            " without a handle: the call ids of the requests that this process was serving then. One of them may have"
            " caused it; none is named as the cause",
            _REQUESTS,
            since="0.2",
        ),
    ]
    credential: Annotated[
        str | None,
        Key(
            "the credential that a call out of the mesh, or an observed one, carried: `inject`, `federate`, "
            "`passthrough` or `observed`, the kind or provider, and a slow hash of it (scrypt; for `federate` "
            "SHA-256), 128 bits in hex; a password, a cookie, and a field that is known by its name alone have none. "
            "Of an exchange: `client`, if the sidecar authenticated at the token service by a secret or a static key."
            " All but `federate` are static credentials",
            (*_REQUESTS, *_EXCHANGES),
            since="0.2",
        ),
    ]
    crossed_from: Annotated[
        str | None,
        Key(
            "the issuer of the token that was exchanged, where it is another than that of the issued token: the"
            " subject's name there is `subject` without the prefix of the crossing",
            (*_REQUESTS, "token.exchanged"),
            since="0.2",
        ),
    ]
    adapter: Annotated[
        str | None,
        Key(
            "the adapter by which the sidecar asked the token service (`exchange.adapter`); null at a token service",
            _EXCHANGES,
            since="0.2",
        ),
    ]
    call_in: Annotated[
        str | None,
        Key("the call id that the caller gave the request; outbound: that of the request being served", _REQUESTS),
    ]
    call_out: Annotated[str | None, Key("the call id given to the next hop, which records it as `call_in`", _REQUESTS)]
    request_id: Annotated[
        str | None,
        Key(
            "identifies the request, also in a refusal's answer; of a pod: the uid of the API server's review",
            (*_ASKED, *_PODS),
        ),
    ]
    trace_id: Annotated[
        str | None, Key("W3C trace id: for tracing; it proves nothing, and no command joins records by it", _REQUESTS)
    ]
    span_id: Annotated[str | None, Key("W3C span id", _REQUESTS)]
    bytes_in: Annotated[int | None, Key("bytes that came from the caller", _REQUESTS)]
    bytes_out: Annotated[int | None, Key("bytes that went back to the caller", _REQUESTS)]
    decide_ms: Annotated[
        float | None,
        Key("time from the head's arrival to the permit; null of a request that was never permitted", _REQUESTS),
    ]
    exchange_ms: Annotated[float | None, Key("time of the token exchange; null if the token was cached", _CALLS)]
    upstream_ms: Annotated[float | None, Key("time from forwarding to the head of the upstream's answer", _REQUESTS)]
    total_ms: Annotated[float | None, Key("time from beginning to end", _ASKED)]
    after_request: Annotated[
        bool | None, Key("the call was made after its request had ended, within `linger_s`", _REQUESTS)
    ]
    verified: Annotated[
        bool | None, Key("true: the claims are from a verified token; false: they are unverified", _ASKED)
    ]
    source: Annotated[
        str | None,
        Key(
            "the address of the other end; of a request: only at a door, and of one without TLS",
            ("connection.refused", *_EXCHANGES, "token.introspected", *_REQUESTS),
        ),
    ]
    detail: Annotated[
        str | None,
        Key(
            "more about the reason, not shown to callers; of settings: the file; of a sidecar's start: `engine=` and"
            " the engine of warm requests; of a start in Kubernetes: also the run's pod, namespace, service account and"
            " node; of a stop: the part that failed",
            (*_ASKED, "connection.refused", *_SETTINGS, *_RUNS, *_PODS, *_ORDERS, "revocations.changed", *_DENIES),
        ),
    ]
    suppressed: Annotated[
        int | None,
        Key(
            "number of records of callers that proved no identity that this listener left out since the last one"
            " it wrote; null for none",
            ("connection.refused", "request", "token.exchange_refused", *_PODS),
        ),
    ]
    checkpoint: Annotated[
        str | None,
        Key(
            "what the token service signed, and its signature; at the token service also the run of `peer`. `sidecar"
            " audit verify` checks it",
            ("records.countersigned",),
            since="0.2",
        ),
    ]
    revocation: Annotated[
        str | None,
        Key(
            "of an order: its id, what it stops and until when; of `revocations.changed`: each list with its issuer,"
            " its number and how many revocations it has",
            (*_ORDERS, "revocations.changed"),
            since="0.2",
        ),
    ]


class _ChainFields(TypedDict):
    """The key that the hash chain sets, the last of a line."""

    prev: Annotated[
        str | None,
        Key(
            "the SHA-256 of the run's line before this one, without its newline, in hex; null in the first",
            _ALL,
            since="0.2",
        ),
    ]


_KINDS: Final[Mapping[object, Kind]] = {
    str: "text",
    int: "count",
    float: "milliseconds",
    bool: "flag",
    Sequence[str]: "texts",
}


def _keys() -> Mapping[str, Key]:
    found: dict[str, Key] = {}
    for name, annotation in (
        _WriterFields.__annotations__ | RecordFields.__annotations__ | _ChainFields.__annotations__
    ).items():
        declared, key = get_args(annotation)
        value = next((one for one in get_args(declared) if one is not type(None)), declared)
        found[name] = replace(
            key, kind=_KINDS.get(value, "text"), choices=get_args(value) if value not in _KINDS else ()
        )
    return found


KEYS: Final = _keys()
FIELDS: Final = tuple(KEYS)
