"""HTTP/2 at a running sidecar."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from contextlib import AsyncExitStack

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from sidecar.identity.tls import client_context
from sidecar.observe.scrape import render
from sidecar.proxy.journeys.answers import _warn_of_http2
from tests.integration.h2_caller import asks, speaking_http2
from tests.integration.hops import Hops
from tests.integration.test_garbage import no_circles
from tests.integration.test_reload import Reloadable
from tests.integration.world import PATIENCE_S, PLANNER, WRITER, bearer, mint, ok, until

pytestmark = pytest.mark.integration


async def test_a_client_of_grpc_fails_at_once_where_http2_is_off_and_the_log_names_the_fix(
    hops: Hops, caplog: pytest.LogCaptureFixture
) -> None:
    await hops.start()
    _warn_of_http2.cache_clear()

    def call() -> list[grpc.RpcError]:
        errors = []
        with grpc.insecure_channel(f"127.0.0.1:{hops.writer.outbound}") as channel:
            for _ in range(3):
                try:
                    channel.unary_unary("/crm.Orders/Get")(b"", timeout=PATIENCE_S)
                except grpc.RpcError as error:
                    errors.append(error)
        return errors

    errors = await asyncio.to_thread(call)
    assert [error.code() for error in errors] == [grpc.StatusCode.UNAVAILABLE] * 3
    assert all("HTTP status 505" in str(error) for error in errors)
    records = await hops.writer.wait_for_records(1)
    assert len(records) <= 3, "it connects again and again"
    assert [records[0][key] for key in ("direction", "decision", "reason", "status")] == [
        "outbound", "deny", "http_version", 505
    ]  # fmt: skip
    assert len([one for one in caplog.messages if "set protocols.http2" in one]) == 1


async def test_a_peer_that_speaks_http2_unasked_is_told_so(hops: Hops) -> None:
    await hops.start()
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    raw = await hops.world.exchange(hops.writer.inbound, hops.planner, client.data_to_send())
    assert raw.startswith(b"HTTP/1.1 505 ")
    assert b"\r\ndelegation-reason: http_version\r\n" in raw.lower()
    (record,) = await hops.writer.wait_for_records(1)
    assert [record[key] for key in ("peer", "decision", "reason", "status")] == [
        str(PLANNER), "deny", "http_version", 505
    ]  # fmt: skip


HTTP2 = {"protocols": {"http2": True}}


@pytest.fixture
async def h2_planner(hops: Hops) -> ssl.SSLContext:
    """TLS as the planner, which speaks HTTP/2 alone."""
    return client_context(await hops.world.source(PLANNER), expected=WRITER, alpn=("h2",))


def names_the_subject(head: bytes, _body: bytes) -> bytes:
    fields = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:] if line)
    return ok(f"{fields['delegation-subject']} {fields.get('x-number')} {fields['host']}".encode())


async def test_a_peer_may_speak_http2_and_its_call_is_judged_and_recorded_as_any(
    hops: Hops, h2_planner: ssl.SSLContext
) -> None:
    await hops.start(**HTTP2)
    hops.agent.script = names_the_subject
    async with speaking_http2(hops.writer.inbound, h2_planner) as caller:
        served = await caller.ask(asks(headers=[*bearer(mint({"sub": "alice"})), ("x-number", "1")]), b"hello")
        refused = await caller.ask(asks(headers=bearer(mint({"sub": "alice", "act": None}))), b"hello")
        elsewhere = await caller.ask(asks("/other", headers=bearer(mint())))
    assert (served.status, served.content) == (200, f"alice 1 127.0.0.1:{hops.agent.port}".encode())
    assert (refused.status, refused.fields[b"delegation-reason"]) == (401, b"act_missing")
    assert (elsewhere.status, elsewhere.fields[b"delegation-reason"]) == (404, b"no_route")
    records = await hops.writer.wait_for_records(3)
    assert [(one["decision"], one["reason"], one["status"], one["peer"]) for one in records] == [
        ("allow", "ok", 200, str(PLANNER)),
        ("deny", "act_missing", 401, str(PLANNER)),
        ("deny", "no_route", 404, str(PLANNER)),
    ]
    assert all(one["bytes_in"] > 0 and one["bytes_out"] > 0 for one in records)


async def test_http2_is_off_unless_the_settings_say_so(hops: Hops, h2_planner: ssl.SSLContext) -> None:
    await hops.start()
    with pytest.raises(ConnectionError, match="chose None"):
        async with speaking_http2(hops.writer.inbound, h2_planner):
            pass


async def test_http_1_goes_on_beside_http2(hops: Hops) -> None:
    await hops.start(**HTTP2)
    hops.agent.script = names_the_subject
    answer = await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(mint({"sub": "alice"})))
    assert answer.status == 200


@pytest.mark.parametrize(
    ("line", "http2", "status"),
    [("INVALID CONNECTION PREFACE", True, None), ("INVALID PREFACE HTTP/1.1", True, 400), ("INVALID", False, 400)],
)
async def test_a_first_line_of_no_version_is_not_answered_at_the_agents_port_but_recorded(
    hops: Hops, line: str, http2: bool, status: int | None
) -> None:
    await hops.start(protocols={"http2": http2})
    raw = await hops.world.exchange(hops.writer.outbound, None, f"{line}\r\n\r\n".encode())
    assert raw.startswith(b"HTTP/1.1 400 ") if status else raw == b""
    (record,) = await hops.writer.wait_for_records(1)
    assert [record[key] for key in ("direction", "decision", "reason", "status", "bytes_out")] == [
        "outbound", "deny", "bad_request", status, len(raw)
    ]  # fmt: skip
    assert record["bytes_in"] == len(line) + 4
    counted = [one for one in render(hops.writer.server.metrics).decode().splitlines() if 'reason="bad_request"' in one]
    assert [(one.partition("{")[0], one.rpartition(" ")[2]) for one in counted] == [("sidecar_requests_total", "1.0")]


async def test_streams_of_many_users_on_few_connections_never_mix(hops: Hops, h2_planner: ssl.SSLContext) -> None:
    await hops.start(**HTTP2)
    hops.agent.script = names_the_subject
    tokens = {f"user-{number}": mint({"sub": f"user-{number}"}) for number in range(50)}
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(speaking_http2(hops.writer.inbound, h2_planner)) for _ in range(4)]

        async def calls_of(number: int) -> None:
            user = f"user-{number % 50}"
            caller = callers[number % len(callers)]
            fields = asks(headers=[*bearer(tokens[user]), ("x-number", str(number))])
            answer = await caller.ask(fields, b"hello")
            assert (answer.status, answer.content.split()[:2]) == (200, [user.encode(), b"%d" % number])

        for begin in range(0, 1000, 200):
            await asyncio.gather(*(calls_of(number) for number in range(begin, begin + 200)))
    records = await hops.writer.wait_for_records(1000)
    assert Counter(one["subject"] for one in records) == dict.fromkeys(tokens, 20)


async def test_the_agent_may_call_by_http2_and_prior_knowledge(hops: Hops) -> None:
    await hops.start(**HTTP2)
    async with hops.serving({"sub": "alice"}) as held, speaking_http2(hops.writer.outbound) as agent:
        host = f"127.0.0.1:{hops.writer.outbound}"
        answer = await agent.ask(asks("/crm/customers", method="GET", host=host, headers=held.shown))
        unknown = await agent.ask(asks("/crm/customers", method="GET", host=host, headers=bearer("x" * 43)))
    assert (answer.status, unknown.status) == (200, 403)
    assert hops.crm.requests[0][0].startswith(b"GET /customers HTTP/1.1\r\n")
    first, second = await hops.outbound_records(2)
    assert (first["decision"], first["subject"]) == ("allow", "alice")
    assert (second["decision"], second["reason"]) == ("deny", "no_request_context")


async def test_a_long_body_and_a_long_answer_pass_at_the_pace_of_the_slower_end(
    hops: Hops, h2_planner: ssl.SSLContext
) -> None:
    await hops.start(**HTTP2)
    size = 3_000_000
    hops.agent.script = lambda _head, body: ok(b"y" * (len(body) * 2))
    async with speaking_http2(hops.writer.inbound, h2_planner) as caller:
        stream_id = caller.begin(asks(headers=[*bearer(mint()), ("content-length", str(size))]), ends=False)
        left = size
        async with asyncio.timeout(20):
            while left:
                room = min(caller.peer.h2.local_flow_control_window(stream_id), 16384, left)
                if room > 0:
                    caller.peer.h2.send_data(stream_id, b"x" * room, end_stream=room == left)
                    left -= room
                    caller.send()
                await asyncio.sleep(0)
            answer = await caller.until(stream_id)
    assert (answer.status, len(answer.content)) == (200, 2 * size)


async def test_a_stream_that_its_peer_gives_up_ends_its_call_alone(hops: Hops, h2_planner: ssl.SSLContext) -> None:
    await hops.start(**HTTP2)
    async with speaking_http2(hops.writer.inbound, h2_planner) as caller:
        ids = [caller.begin(asks(headers=[*bearer(mint()), ("x-number", str(number))])) for number in range(2)]
        held = [await asyncio.wait_for(hops.agent.expect(str(number)), PATIENCE_S) for number in range(2)]
        caller.peer.h2.reset_stream(ids[0], ErrorCodes.CANCEL)
        caller.send()
        (first,) = await hops.writer.wait_for_records(1)
        held[1].answer.set_result(ok(b"done"))
        assert (await caller.until(ids[1])).content == b"done"
    assert first["reason"] == "peer_gone"
    held[0].answer.cancel()


async def test_a_drain_lets_streams_finish_and_refuses_later_ones(hops: Hops, h2_planner: ssl.SSLContext) -> None:
    await hops.start(**HTTP2, drain_s=8.0)
    async with speaking_http2(hops.writer.inbound, h2_planner) as caller:
        stream_id = caller.begin(asks(headers=[*bearer(mint()), ("x-number", "1")]))
        held = await asyncio.wait_for(hops.agent.expect("1"), PATIENCE_S)
        hops.writer.stop.set()
        await caller.until_goaway()
        held.answer.set_result(ok(b"done"))
        assert (await caller.until(stream_id)).content == b"done"
    assert await hops.writer.running
    records = hops.writer.records()
    assert [(one["decision"], one["status"]) for one in records] == [("allow", 200)]


async def test_a_token_that_ends_ends_its_own_streams_alone(hops: Hops, h2_planner: ssl.SSLContext) -> None:
    """A withdrawn permission reaches the streams that it is about, and no other on the same connection."""
    await hops.start(**HTTP2)
    async with speaking_http2(hops.writer.inbound, h2_planner) as caller:
        ids = [caller.begin(asks(headers=[*bearer(mint({"sub": who})), ("x-number", who)])) for who in ("alice", "bob")]
        held = [await asyncio.wait_for(hops.agent.expect(who), PATIENCE_S) for who in ("alice", "bob")]
        await Reloadable(hops.world, hops.writer, {}).reload(deny=[{"subject": "alice"}])
        refused = await caller.until(ids[0])
        held[1].answer.set_result(ok(b"done"))
        assert (await caller.until(ids[1])).content == b"done"
    assert refused.fields[b"delegation-reason"] == b"policy_denied"
    held[0].answer.cancel()


async def test_curl_speaks_http2_to_the_agents_port(hops: Hops) -> None:
    await hops.start(**HTTP2)
    async with hops.serving() as held:
        url = f"http://127.0.0.1:{hops.writer.outbound}/crm/customers"
        ran = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--max-time", "10", "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}",
            *(argument for name, value in held.shown for argument in ("-H", f"{name}: {value}")), url,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, _ = await ran.communicate()
    assert told.decode().endswith(" 2 200")


async def test_finished_streams_and_connections_leave_no_cycles(hops: Hops, h2_planner: ssl.SSLContext) -> None:
    await hops.start(**HTTP2)
    hops.agent.script = names_the_subject

    async def calls() -> None:
        async with speaking_http2(hops.writer.inbound, h2_planner) as caller:
            await caller.ask(asks(headers=[*bearer(mint()), ("x-number", "1")]), b"hello")
            await caller.ask(asks(headers=bearer(mint({"act": None}))))
            await caller.ask([*asks(headers=bearer(mint())), (b"Upper", b"case")])
            given_up = caller.begin(asks(headers=bearer(mint())), ends=False)
            caller.peer.h2.reset_stream(given_up)
            caller.send()
        await until(lambda: not len(hops.writer.server.parts.listeners[0].connections))

    await calls()
    with no_circles():
        await calls()
