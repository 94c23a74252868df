from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.decide import accept_issued, decide_verified
from delegation_core.errors import Denied, Reason
from delegation_core.permit import IssuedPermit, Permit
from delegation_core.route import Upstream
from sidecar.exchange.cache import Issued
from sidecar.observe.tracing import TraceContext
from sidecar.proxy.journeys.headers import (
    _SET_BY_US,
    FROM_AGENT,
    FROM_NEXT_HOP,
    MAX_VALUE_BYTES,
    call_id,
    encode_value,
    identity_values,
    new_call_id,
    passes_to_mesh,
    source_of,
    to_agent,
    to_next_hop,
)
from sidecar.wire.h1_fields import edited
from sidecar.wire.message import NOT_PASSED, Field
from tests.core.world import (
    INBOUND_CLAIMS,
    ISSUED_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    plan,
    signed,
    verification_key,
    verified,
)
from tests.wire.written import answer_with, fields_in, request_with

TRACE = TraceContext("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "a" * 32, "b" * 16, None)


def permit(*, pass_token: bool = False, forwarded: bool = False, **claims: Any) -> Permit:
    route = replace(SEARCH, pass_token=pass_token, forwarded=forwarded)
    return decide_verified(verified(INBOUND_CLAIMS | claims), peer=PLANNER, route=route, policy=POLICY, now=NOW)


@cache
def issued() -> IssuedPermit:
    return accept_issued(signed(ISSUED_CLAIMS), plan=plan(), key=verification_key(), policy=POLICY, now=NOW)


@cache
def issued_outside() -> IssuedPermit:
    upstream = Upstream(scheme="http", host="127.0.0.1", port=80)
    planned = replace(plan(), route=replace(plan().route, peer=None, upstream=upstream))
    return accept_issued(signed(ISSUED_CLAIMS), plan=planned, key=verification_key(), policy=POLICY, now=NOW)


def for_agent(
    fields: list[Field], by: Permit | None = None, trace: TraceContext = TRACE, source: str | None = None
) -> list[Field]:
    request, by = request_with(fields), by or permit()
    edits = to_agent(
        request,
        by,
        identity_values(by),
        entry=SimpleNamespace(request_id="r1"),  # type: ignore[arg-type]
        handle="h" * 43,
        trace=trace,
        host=b"127.0.0.1:8080",
        source=source,
    )
    return fields_in(edited(request, edits))


def for_next_hop(fields: list[Field], trace: TraceContext = TRACE, *, outside: bool = False) -> list[Field]:
    by = issued_outside() if outside else issued()
    entry: Any = None
    edits = to_next_hop(
        Issued(by, usable_until=NOW + 200, refresh_at=NOW + 100), by.plan, entry,
        call="c" * 32, trace=trace, host=b"crm.internal:7443",
    )  # fmt: skip
    return fields_in(edited(request_with(fields), edits))


def call_of(*values: bytes) -> str | None:
    return call_id(request_with([(b"delegation-call", value) for value in values]))


def for_peer(fields: list[Field]) -> list[Field]:
    return fields_in(edited(answer_with(fields), FROM_AGENT))


def back_to_agent(fields: list[Field]) -> list[Field]:
    return fields_in(edited(answer_with(fields), FROM_NEXT_HOP))


NEVER = [  # in no direction and spelling
    b"authorization",
    b"client-cert",
    b"client_cert_chain",
    b"content.length",
    b"content_length",
    b"delegation-anything",
    b"delegation-call",
    b"delegation-handle",
    b"delegation-subject",
    b"delegation-token",
    b"delegation.subject",
    b"delegation_subject",
    b"delegation~x",
    b"expect",
    b"host",
    b"keep_alive",
    b"proxy_authorization",
    b"traceparent",
    b"tracestate",
    b"transfer_encoding",
    b"txn-token",
    b"txn.token",
    b"txn_token",
    b"x-forwarded-client-cert",
    b"x_forwarded_client_cert",
]
OURS = sorted({name.replace(b"-", mark) for name in _SET_BY_US for mark in (b"-", b"_", b".")})
INSIDE = [  # removed for agents and mesh peers; a host outside may need them
    b"forwarded",
    b"l5d-client-id",
    b"path-info",
    b"path_info",
    b"proxy",
    b"remote-user",
    b"script-name",
    b"script_name",
    b"x-forwarded-for",
    b"x-http-method",
    b"x-http-method-override",
    b"x-jwt-payload",
    b"x-method-override",
    b"x-original-url",
    b"x-real-ip",
    b"x-rewrite-url",
    b"x_anything",
    b"$wsru",
]
OTHERS = [
    b"accept",
    b"cookie",
    b"delegations",
    b"etag",
    b"my-authorization",
    b"x-delegation-subject",
    b"x-request-id",
]


@pytest.mark.parametrize("name", sorted({*NEVER, *OURS}))
def test_a_name_that_could_be_taken_for_one_of_ours_passes_in_no_direction(name: bytes) -> None:
    forged = (name, b"forged")
    assert b"forged" not in dict(for_agent([forged])).values()
    assert b"forged" not in dict(for_next_hop([forged])).values()
    assert b"forged" not in dict(for_next_hop([forged], outside=True)).values()


@pytest.mark.parametrize("name", INSIDE)
def test_a_name_that_servers_trust_reaches_no_agent_and_no_peer_but_a_host_outside(name: bytes) -> None:
    forged = (name, b"forged")
    assert b"forged" not in dict(for_agent([forged])).values()
    assert b"forged" not in dict(for_next_hop([forged])).values()
    assert forged in for_next_hop([forged], outside=True)


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_name_passes_as_it_is(name: bytes) -> None:
    assert passes_to_mesh(name)
    field = (name, b"value")
    assert field in for_agent([field])
    assert field in for_next_hop([field])
    assert field in for_next_hop([field], outside=True)
    assert for_peer([field]) == back_to_agent([field]) == [field]


def test_a_host_outside_gets_the_issued_token_in_the_place_of_the_agents_credentials_too() -> None:
    fields = for_next_hop([(b"authorization", b"Bearer x"), (b"proxy-authorization", b"Basic y")], outside=True)
    assert (b"authorization", b"Bearer " + issued_outside().token.raw.encode()) in fields
    assert b"proxy-authorization" not in dict(fields)


def test_an_agent_is_told_how_the_call_came_only_where_the_route_says_so() -> None:
    forged = [(b"x-forwarded-proto", b"gopher"), (b"x-forwarded-host", b"evil"), (b"x-forwarded-for", b"203.0.113.9")]
    told = [
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"h"),
        (b"x-forwarded-for", b"192.0.2.7"),
    ]
    by = permit(forwarded=True)
    assert [field for field in for_agent(forged, by, source="192.0.2.7") if field[0].startswith(b"x-")] == told
    assert [field for field in for_agent(forged, permit()) if field[0].startswith(b"x-")] == []


@pytest.mark.parametrize(
    ("address", "source"),
    [(("192.0.2.7", 1), "192.0.2.7"), (("2001:db8::7", 1, 0, 0), "2001:db8::7"), (None, "unknown"), ("", "unknown")],
)
def test_the_source_of_a_call_is_the_host_of_its_address(address: object, source: str) -> None:
    assert source_of(address) == source


def test_the_agent_is_told_who_calls_and_for_whom_and_gets_a_handle_instead_of_the_token() -> None:
    fields = for_agent([(b"host", b"evil"), (b"x-own", b"1"), (b"x-own", b"2")])
    assert fields == [
        (b"x-own", b"1"),
        (b"x-own", b"2"),
        (b"host", b"127.0.0.1:8080"),
        (b"delegation-subject", b"alice"),
        (b"delegation-subject-issuer", STS.encode()),
        (b"delegation-actor", PLANNER.encode()),
        (b"delegation-scope", b"crm.read docs.read"),
        (b"authorization", b"Bearer " + b"h" * 43),
        (b"delegation-handle", b"h" * 43),
        (b"delegation-request-id", b"r1"),
        (b"traceparent", TRACE.traceparent.encode()),
    ]


def test_the_token_itself_is_passed_only_where_the_route_says_so() -> None:
    raw = permit().token.raw.encode()
    assert (b"delegation-token", raw) in for_agent([], permit(pass_token=True))
    assert all(raw not in value for _, value in for_agent([], permit(pass_token=False)))


def test_the_next_hop_gets_the_issued_token_and_nothing_that_was_the_agents_authority() -> None:
    fields = for_next_hop([(b"host", b"crm.mesh"), (b"authorization", b"Bearer x"), (b"delegation-handle", b"x")])
    assert fields == [
        (b"host", b"crm.internal:7443"),
        (b"authorization", b"Bearer " + issued().token.raw.encode()),
        (b"delegation-call", b"c" * 32),
        (b"traceparent", TRACE.traceparent.encode()),
    ]


def test_trace_state_travels_with_its_parent() -> None:
    trace = TRACE._replace(tracestate="vendor=1")
    assert (b"tracestate", b"vendor=1") in for_agent([], trace=trace)
    assert (b"tracestate", b"vendor=1") in for_next_hop([], trace)


@pytest.mark.parametrize(
    "name",
    [b"delegation-reason", b"delegation_reason", b"delegation-subject", b"delegation-token", b"delegation-handle"],
)
def test_an_agents_answer_cannot_speak_in_the_sidecars_name(name: bytes) -> None:
    assert for_peer([(name, b"x"), (b"www-authenticate", b"Bearer")]) == [(b"www-authenticate", b"Bearer")]


@pytest.mark.parametrize("name", [b"delegation-reason", b"delegation-request-id"])
def test_a_next_hops_reason_and_request_id_pass_back_to_the_agent(name: bytes) -> None:
    assert back_to_agent([(name, b"act_missing")]) == [(name, b"act_missing")]


@pytest.mark.parametrize(
    "name",
    [
        b"delegation-token",
        b"delegation-handle",
        b"delegation-subject",
        b"delegation_reason",
        b"delegation_request_id",
        b"delegation.reason",
        b"delegation-request_id",
    ],
)
def test_nothing_else_of_ours_passes_back_from_a_next_hop(name: bytes) -> None:
    assert back_to_agent([(name, b"x"), (b"etag", b"e")]) == [(b"etag", b"e")]


# --- values


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("alice", b"alice"),
        ("user@example.com", b"user@example.com"),
        ("auth0|5f7c", b"auth0|5f7c"),
        ("a b", b"a%20b"),
        ("100%", b"100%25"),
        ("a,b;c", b"a%2Cb%3Bc"),
        ('"\\', b"%22%5C"),
        ("\r\nx: y", b"%0D%0Ax:%20y"),
        ("ü", b"%C3%BC"),
        ("", b""),
    ],
)
def test_a_value_is_written_so_that_it_breaks_no_line_and_no_list(text: str, encoded: bytes) -> None:
    assert encode_value(text) == encoded


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_two_values_never_meet(text: str) -> None:
    encoded = encode_value(text)
    assert unquote_to_bytes(encoded) == text.encode()
    assert all(0x21 <= byte < 0x7F and byte not in b'",;\\' for byte in encoded)


def test_a_value_is_refused_before_it_is_cut() -> None:
    assert len(encode_value("x" * MAX_VALUE_BYTES)) == MAX_VALUE_BYTES
    for text in ("x" * (MAX_VALUE_BYTES + 1), "ü" * (MAX_VALUE_BYTES // 6 + 1), "\ud800"):
        with pytest.raises(Denied) as refused:
            encode_value(text)
        assert refused.value.reason is Reason.MALFORMED_TOKEN


def test_a_subject_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(Denied):
        for_agent([], permit(sub="x" * 7000))


# --- what Connection names, and call ids


def test_what_connection_names_is_taken_off_and_never_what_we_set() -> None:
    fields = [(b"connection", b"x-one, authorization, delegation-subject, host"), (b"x-one", b"1"), (b"keep", b"k")]
    for sent in (for_agent(fields), for_next_hop(fields)):
        names = [name for name, _ in sent]
        assert b"x-one" not in names
        assert {b"keep", b"authorization", b"host"} <= set(names)
    assert b"delegation-subject" in dict(for_agent(fields))
    assert for_peer([(b"connection", b"x-one"), (b"x-one", b"1"), (b"keep", b"k")]) == [(b"keep", b"k")]


@pytest.mark.parametrize("name", sorted(NOT_PASSED))
def test_hop_by_hop_and_framing_fields_travel_in_no_direction(name: bytes) -> None:
    assert name not in dict(for_agent([(name, b"v")]))
    assert name not in dict(for_next_hop([(name, b"v")]))
    assert name not in dict(for_next_hop([(name, b"v")], outside=True))
    assert for_peer([(name, b"v"), (b"keep", b"k")]) == [(b"keep", b"k")]
    assert back_to_agent([(name, b"v"), (b"keep", b"k")]) == [(b"keep", b"k")]


@pytest.mark.parametrize(
    "value", [b"", b"0" * 31, b"0" * 33, b"A" * 32, b"g" * 32, b"0" * 31 + b" ", b"0" * 32 + b"\xff"], ids=repr
)
def test_a_call_id_that_is_none_is_no_evidence(value: bytes) -> None:
    assert call_of(value) is None


def test_a_call_id_is_read_back_as_it_was_made() -> None:
    call = new_call_id()
    assert call_of(call.encode()) == call
    assert call_of() is None
    assert len({new_call_id() for _ in range(100)}) == 100


def test_two_call_ids_are_refused() -> None:
    with pytest.raises(Denied) as refused:
        call_of(b"0" * 32, b"0" * 32)
    assert refused.value.reason is Reason.HEADER_MALFORMED
