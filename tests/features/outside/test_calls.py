"""Calls to hosts outside the mesh, one fact at a time: each lawful call beside the same call refused."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.outside import OutsideRoute
from sidecar.features.outside.fields import BESIDE_A_KEY
from sidecar.observe.secret_names import secret_fingerprint
from tests.core.test_outside import HOOK, KEY, MODEL, OPEN, SEARCH
from tests.core.world import INBOUND_CLAIMS, POLICY, TO_CRM, delegation, signed
from tests.proxy.agent_calls import OWN, AgentCalls, Answer, Fields, bearer

SECRET = "sk-secret-of-the-sidecar"
TO_MODEL = {"target": "/model/v1/messages", "host": OWN}
TO_HOOK = {"target": "/hook/v1/messages", "host": OWN}


@pytest.fixture
async def calls(tmp_path: Path) -> AgentCalls:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    calls = AgentCalls(tmp_path)
    route = replace(MODEL, key=replace(KEY, file=str(file)))
    calls.policy = replace(POLICY, outbound=OutboundRoutes([TO_CRM, route, HOOK]))
    return calls


def handle(calls: AgentCalls, **changes: Any) -> str:
    return calls.handle(may_call=OPEN, **changes)


def own(value: str) -> Fields:
    return [("Delegation-Handle", value)]


async def refused(calls: AgentCalls, fields: Fields, **target: str) -> str | None:
    """Make a call that must not leave; return its reason."""
    answer = await calls.call(fields, **{**TO_MODEL, **target})
    assert answer.status >= 400
    assert calls.left == b""
    return answer.reason


@pytest.mark.parametrize("target", [TO_MODEL, TO_HOOK], ids=["inject", "passthrough"])
async def test_calls_outside_count_against_the_calls_of_the_request(calls: AgentCalls, target: dict[str, str]) -> None:
    live = own(handle(calls, max_calls=1))
    assert (await calls.call(live, **target)).status == 200
    spent = await calls.call(live, **target)
    assert (spent.status, spent.reason) == (403, "calls_exhausted")


@pytest.mark.parametrize("shown", [bearer, own], ids=["authorization", "delegation-handle"])
async def test_the_sidecar_puts_the_key_on_a_call_and_names_its_fingerprint(
    calls: AgentCalls, shown: Callable[[str], Fields]
) -> None:
    live = handle(calls)
    assert (await calls.call([*shown(live), ("x-api-key", "mine"), ("cookie", "a=b")], **TO_MODEL)).status == 200
    left = calls.left.lower()
    assert b"x-api-key: " + SECRET.encode() in left
    assert b"host: api.model.example\r\n" in left
    assert b"accept-encoding: identity" in left
    for name in (b"authorization", b"cookie", b"delegation-", b"traceparent", b"mine"):
        assert name not in left
    assert live.encode() not in calls.left
    (record,) = await calls.records()
    told = ("decision", "reason", "route", "subject", "actor", "jti_in", "call_in", "credential", "jti_out", "peer")
    token = delegation().token
    assert [record[key] for key in told] == [
        "allow", "ok", "model", token.subject, token.actor_id, "token-2", "c1",
        f"inject:{secret_fingerprint(SECRET.encode())}", None, None,
    ]  # fmt: skip
    assert SECRET not in str(record)


@pytest.mark.parametrize(
    ("credential", "told"),
    [
        (
            ("authorization", "Bearer my-own-long-key-1"),
            f"passthrough:bearer:{secret_fingerprint(b'my-own-long-key-1')}",
        ),
        (("x-api-key", "my-own-long-key-1"), f"passthrough:x-api-key:{secret_fingerprint(b'my-own-long-key-1')}"),
        (("x-api-key", "my-own-key"), "passthrough:x-api-key"),
        (("authorization", "Basic dXNlcjpwdw=="), "passthrough:basic"),
        (("cookie", "session=1"), "passthrough:cookie"),
        (("accept", "*/*"), "passthrough:none"),
    ],
)
async def test_an_agent_s_own_credential_passes_and_is_recorded_as_a_static_one(
    calls: AgentCalls, credential: tuple[str, str], told: str
) -> None:
    assert (await calls.call([*own(handle(calls)), credential], **TO_HOOK)).status == 200
    assert f"{credential[0]}: {credential[1]}".encode() in calls.left
    assert b"delegation-" not in calls.left.lower()
    (record,) = await calls.records()
    assert record["credential"] == told


async def test_without_a_live_handle_nothing_leaves(calls: AgentCalls) -> None:
    assert await refused(calls, []) == "no_request_context"
    assert await refused(calls, bearer("h" * 43)) == "no_request_context"
    assert await refused(calls, bearer(calls.handle())) == "call_not_allowed"
    live = handle(calls)
    calls.handles.end(live)
    calls.now += 61
    assert await refused(calls, bearer(live)) == "no_request_context"
    assert await refused(calls, bearer(handle(calls)), **TO_HOOK) == "no_request_context"  # Authorization is its own


async def test_two_handles_say_nothing(calls: AgentCalls) -> None:
    assert await refused(calls, [*bearer(handle(calls)), *own(handle(calls))]) == "no_request_context"
    one = handle(calls)
    assert await refused(calls, [*own(one), *own(one)]) == "no_request_context"


def basic(value: str) -> str:
    return "Basic " + base64.b64encode(f"user:{value}".encode()).decode()


@pytest.mark.parametrize(
    ("field", "target"),
    [
        pytest.param(lambda live: ("x-api-key", live), {}, id="key"),
        pytest.param(lambda live: ("x-note", f"see {live}."), {}, id="within a value"),
        pytest.param(lambda live: ("authorization", f"Bearer {live}"), TO_HOOK, id="authorization-of-passthrough"),
        pytest.param(lambda live: ("authorization", basic(live)), TO_HOOK, id="basic"),
    ],
)
async def test_a_live_handle_in_any_other_field_refuses_the_call(
    calls: AgentCalls, field: Callable[[str], tuple[str, str]], target: dict[str, str]
) -> None:
    live, other = handle(calls), handle(calls)
    assert await refused(calls, [*own(live), field(other)], **target) == "no_request_context"
    assert (await calls.call([*own(live), field("x" * 43)], **{**TO_MODEL, **target})).status == 200


async def test_a_live_handle_in_the_target_refuses_the_call(calls: AgentCalls) -> None:
    live = handle(calls)
    target = f"/model/v1/messages?h={live}"
    assert await refused(calls, bearer(live), target=target) == "no_request_context"


async def test_a_login_token_opens_no_host_outside(calls: AgentCalls) -> None:
    assert await refused(calls, bearer("eyJh.eyJz.c2ln")) == "no_request_context"


async def test_a_request_s_budget_counts_these_calls_too(calls: AgentCalls) -> None:
    live = handle(calls, max_calls=1)
    assert (await calls.call(bearer(live), **TO_MODEL)).status == 200
    assert (await calls.call(bearer(live), **TO_MODEL)).reason == "calls_exhausted"


async def test_without_its_key_nothing_leaves(calls: AgentCalls, tmp_path: Path) -> None:
    (tmp_path / "key").unlink()
    assert await refused(calls, bearer(handle(calls))) == "credential_unavailable"


async def test_an_upgrade_is_refused(calls: AgentCalls) -> None:
    upgrade = [
        ("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"),
        ("sec-websocket-key", base64.b64encode(bytes(16)).decode()),
    ]  # fmt: skip
    routes = [replace(one, methods=frozenset({"GET"})) for one in calls.policy.outbound.outside]
    calls.policy = replace(calls.policy, outbound=OutboundRoutes([TO_CRM, *routes]))
    reason = await refused(calls, [*bearer(handle(calls)), *upgrade], method="GET")
    assert reason == "upgrade_refused"


async def answered(calls: AgentCalls, answer: bytes) -> Answer:
    calls.answer_of_next_hop = answer
    return await calls.call(bearer(handle(calls)), **TO_MODEL)


LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n%b", "credential_exposed", id="whole"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Echo: %b\r\nContent-Length: 0\r\n\r\n", "credential_exposed", id="head"),
        pytest.param(LONG + b"%b", "credential_exposed", id="begun"),
        pytest.param(
            b"HTTP/1.1 302 Found\r\nLocation: https://else.example\r\nContent-Length: 0\r\n\r\n",
            "upstream_bad_response",
            id="redirect",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx",
            "upstream_bad_response",
            id="encoded",
        ),
    ],
)
async def test_an_answer_that_contains_or_hides_the_key_is_refused(
    calls: AgentCalls, answer: bytes, reason: str
) -> None:
    told = await answered(calls, answer.replace(b"%b", SECRET.encode()))
    assert (told.status, told.reason) == (502, reason)
    assert SECRET not in str(told.body) + str(told.headers)
    (record,) = await calls.records()
    assert (record["decision"], record["reason"]) == ("allow", reason)


async def test_an_ordinary_answer_passes(calls: AgentCalls) -> None:
    told = await answered(calls, b"HTTP/1.1 200 OK\r\nX-Echo: no\r\nContent-Length: 9\r\n\r\nsk-secret")
    assert (told.status, told.body) == (200, b"sk-secret")


async def test_a_stream_is_cut_before_the_key_however_it_arrives(calls: AgentCalls) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    calls.answer_of_next_hop = head + chunk(b"data: one\n\n")
    assert (await calls.call(bearer(handle(calls)), **TO_MODEL)).status == 200
    for piece in (b"data: sk-", b"secre", b"t-of-the-sidecar\n\n"):
        calls.pool.agent.data_received(chunk(piece))
    assert b"data: one" in calls.arrived
    assert b"data: " in calls.arrived.partition(b"data: one")[2]
    assert b"sk-" not in calls.arrived
    assert calls.cut
    opened, closed = await calls.records()
    assert (opened["event"], closed["reason"]) == ("request.opened", "credential_exposed")


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def test_the_world_of_these_tests_opens_the_routes() -> None:
    assert isinstance(MODEL, OutsideRoute)
    assert SEARCH.may_call == OPEN


@pytest.mark.parametrize("where", [TO_MODEL, TO_HOOK], ids=["inject", "passthrough"])
@pytest.mark.parametrize("field", ["x-user-token", "cookie"])
async def test_a_token_of_the_mesh_never_leaves_it(calls: AgentCalls, where: dict[str, str], field: str) -> None:
    token = signed(INBOUND_CLAIMS).raw
    shown = own(handle(calls))
    assert await refused(calls, [*shown, (field, token)], **where) == "no_request_context"
    assert (await calls.call([*shown, (field, "opaque")], **where)).status == 200


@pytest.mark.parametrize("name", ["x-http-method-override", "x-original-url", "range", "if-range", "accept-charset"])
async def test_what_changes_the_judged_call_or_hides_the_key_stays_behind(calls: AgentCalls, name: str) -> None:
    assert (await calls.call([*bearer(handle(calls)), (name, "x"), ("idempotency-key", "x")], **TO_MODEL)).status == 200
    assert name.encode() not in calls.left.lower()
    assert b"idempotency-key: x" in calls.left.lower()


# Fields that choose who pays, how the host works, or how it spells its answer: a route lists what its agent may choose.
LEFT_BEHIND = (
    "openai-organization", "openai-project", "openai-beta", "anthropic-beta", "x-goog-user-project", "x-github-otp",
    "prefer", "a-im", "te", "x-stainless-lang", "x-anything", "forwarded", "via", "origin", "referer", "if-none-match",
    "want-digest", "accept-charset", "accept-encoding", "x-http-method-override", "content_type", "user_agent",
)  # fmt: skip


@pytest.mark.parametrize("name", LEFT_BEHIND)
async def test_only_listed_fields_go_beside_the_key(calls: AgentCalls, name: str) -> None:
    shown = [*bearer(handle(calls)), (name, "chosen-by-the-agent")]
    assert (await calls.call(shown, **TO_MODEL)).status == 200
    assert b"chosen-by-the-agent" not in calls.left


@pytest.mark.parametrize("name", sorted(BESIDE_A_KEY))
async def test_the_usual_fields_go_beside_the_key(calls: AgentCalls, name: bytes) -> None:
    shown = [*bearer(handle(calls)), (name.decode(), "application/json")]
    assert (await calls.call(shown, **TO_MODEL)).status == 200
    assert b"%b: application/json\r\n" % name in calls.left.lower()


@pytest.mark.parametrize(
    ("listed", "passes"), [("openai-organization", True), ("anthropic-beta", False), ("a-im", False), ("cookie", False)]
)
async def test_a_route_lists_further_fields_but_no_credential_and_no_coding(
    calls: AgentCalls, listed: str, passes: bool
) -> None:
    model, hook = calls.policy.outbound.outside
    route = replace(model, fields=frozenset({listed.replace("anthropic-beta", "another")}))
    calls.policy = replace(calls.policy, outbound=OutboundRoutes([TO_CRM, route, hook]))
    assert (await calls.call([*bearer(handle(calls)), (listed, "chosen")], **TO_MODEL)).status == 200
    assert (b"chosen" in calls.left) is passes


@pytest.mark.parametrize(
    ("accept", "passes"),
    [
        ("application/json", True),
        ("text/event-stream, application/vnd.github+json;q=0.9, */*;q=0", True),
        ("application/json;charset=utf-16", False),
        ("application/json, text/html;level=1", False),
        ('text/plain; q="1"', False),
        ("json", False),
    ],
)
async def test_accept_goes_if_it_names_media_types_alone(calls: AgentCalls, accept: str, passes: bool) -> None:
    assert (await calls.call([*bearer(handle(calls)), ("accept", accept)], **TO_MODEL)).status == 200
    assert (f"\r\naccept: {accept}\r\n".encode() in calls.left) is passes
    assert calls.left.count(b"\r\naccept: ") == passes


async def test_the_key_as_a_field_s_name_is_found_too(calls: AgentCalls) -> None:
    told = await answered(calls, f"HTTP/1.1 200 OK\r\n{SECRET}: x\r\nContent-Length: 0\r\n\r\n".encode())
    assert told.reason == "credential_exposed"


@pytest.mark.parametrize(
    "glued", ["sk-{}", "{}y", "Bearer x{}y", "a={}_{}", "x" * 200 + "{}" + "y" * 200], ids=range(5)
)
async def test_a_live_handle_glued_to_other_text_is_seen_and_another_text_of_that_form_is_not(
    calls: AgentCalls, glued: str
) -> None:
    live, other = handle(calls), handle(calls)
    for stray in (live, other):
        text = glued.replace("{}", stray)
        assert await refused(calls, [*own(live), ("x-key", text)]) == "no_request_context"
        target = f"/hook/v1/messages?u={text.replace(' ', '')}"
        assert await refused(calls, own(live), target=target, host=OWN) == "no_request_context"
        assert await refused(calls, [*own(live), ("authorization", basic(text))], **TO_HOOK) == "no_request_context"
    fine = glued.replace("{}", "x" * 43)
    assert (await calls.call([*own(live), ("x-key", fine)], **TO_MODEL)).status == 200
    calls.handles.end(other)
    calls.now += 61  # it lingered
    assert (await calls.call([*own(live), ("x-key", glued.replace("{}", other))], **TO_MODEL)).status == 200


def escaped(text: str, times: int) -> str:
    text = "".join(f"%{ord(one):02X}" for one in text)
    for _ in range(times - 1):
        text = text.replace("%", "%25")
    return text


@pytest.mark.parametrize("times", [1, 2, 3, 9])
async def test_a_handle_or_a_token_that_is_escaped_several_times_is_seen(calls: AgentCalls, times: int) -> None:
    live, other = handle(calls), handle(calls)
    for hidden in (other, signed(INBOUND_CLAIMS).raw):
        target = f"/model/v1/messages?u={escaped(hidden[:60], times)}{hidden[60:]}"
        assert await refused(calls, bearer(live), target=target) == "no_request_context"
    fine = f"/model/v1/messages?u={escaped('x' * 43, times)}%"
    assert (await calls.call(bearer(live), target=fine, host=OWN)).status == 200


async def test_an_escape_of_which_each_character_is_escaped_is_seen(calls: AgentCalls) -> None:
    live, other = handle(calls), handle(calls)
    hidden = escaped(escaped(other[0], 1), 1) + other[1:]
    assert await refused(calls, [*bearer(live), ("x-note", hidden)]) == "no_request_context"


@pytest.mark.parametrize("escaped", ["a%20{}", "https%3A%2F%2Fx%2F%3Fkey%3D{}", "Bearer%20{}"])
async def test_a_handle_or_a_token_behind_percent_escapes_is_seen(calls: AgentCalls, escaped: str) -> None:
    live, other = handle(calls), handle(calls)
    token = signed(INBOUND_CLAIMS).raw.replace(".", "%2E")
    for hidden in (escaped.format(other), escaped.format(token)):
        assert await refused(calls, [*bearer(live), ("cookie", hidden)]) == "no_request_context"
        target = f"/model/v1/messages?u={hidden}"
        assert await refused(calls, bearer(live), target=target) == "no_request_context"
    fine = escaped.format("x" * 43)
    assert (await calls.call([*bearer(live), ("x-note", fine)], **TO_MODEL)).status == 200


@pytest.mark.parametrize(
    "name", ["x-functions-key", "Ocp-Apim-Subscription-Key", "X-Vault-Token", "x_api_key", "X-Client-Secret", "x-auth"]
)
async def test_a_field_that_is_a_credential_by_its_name_is_recorded_beside_a_decoy_without_its_value(
    calls: AgentCalls, name: str
) -> None:
    shown = [("authorization", "Bearer decoy"), (name, "the-real-one"), ("idempotency-key", "1"), ("x-csrf-token", "2")]
    assert (await calls.call([*own(handle(calls)), *shown], **TO_HOOK)).status == 200
    assert b"the-real-one" in calls.left
    (record,) = await calls.records()
    assert record["credential"] == f"passthrough:bearer,{name.lower()}"


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "cookie"])
async def test_a_field_of_credentials_that_is_repeated_refuses_the_call(calls: AgentCalls, name: str) -> None:
    shown = [(name, "a"), (name, "b")]
    assert await refused(calls, [*own(handle(calls)), *shown], **TO_HOOK) == "header_malformed"


async def test_each_credential_of_an_agent_s_own_is_recorded(calls: AgentCalls) -> None:
    shown = [("authorization", "Bearer decoy"), ("x-api-key", "the-real-one-is-here")]
    assert (await calls.call([*own(handle(calls)), *shown], **TO_HOOK)).status == 200
    (record,) = await calls.records()
    told = f"passthrough:bearer,x-api-key:{secret_fingerprint(b'the-real-one-is-here')}"
    assert record["credential"] == told
