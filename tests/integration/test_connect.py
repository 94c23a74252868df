"""Tunnels over real sockets: real TLS clients through the sidecar to a server whose certificate they verify."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.proxy.listening.status import SettingsState, status_of
from tests.integration.hops import Hops
from tests.integration.test_outside import authority, server_context
from tests.integration.test_websocket import deny, reload
from tests.integration.world import PATIENCE_S, WRITER, Agent, ok
from tests.wire.loopback import Raw, Upstream

pytestmark = pytest.mark.integration

GRANTED = b"HTTP/1.1 200 OK\r\n\r\n"


async def start(hops: Hops, *ports: int, host: str = "127.0.0.1", **changes: Any) -> None:
    """Run the writer's sidecar with a route of tunnels to each port, the first of them in ``may_call``."""
    settings = hops.settings(route={"may_call": ["crm", "tunnel-0"]}, **changes)
    settings["outbound"]["routes"] += [
        {"name": f"tunnel-{number}", "match": {"host": f"{host}:{port}"}, "token": "connect"}
        for number, port in enumerate(ports)
    ]
    hops.writer = await hops.world.sidecar(WRITER, settings)


async def connect(hops: Hops, port: int, handle: str | None, *, host: str = "127.0.0.1", after: bytes = b"") -> Raw:
    """Ask for a tunnel, and send ``after`` at once."""
    raw = Raw(*await asyncio.open_connection("127.0.0.1", hops.writer.outbound))
    hops.world._stack.push_async_callback(raw.close)
    shown = b"" if handle is None else b"Proxy-Authorization: Bearer " + handle.encode() + b"\r\n"
    target = f"{host}:{port}".encode()
    await raw.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, shown) + after)
    return raw


async def opened(hops: Hops, port: int, handle: str | None, **options: Any) -> Raw:
    raw = await connect(hops, port, handle, **options)
    assert await raw.read_exactly(len(GRANTED)) == GRANTED
    return raw


@pytest.fixture
async def far() -> Any:
    upstream = Upstream()
    await upstream.listen()
    yield upstream
    await upstream.close()


@pytest.fixture
async def site(hops: Hops) -> tuple[Agent, int, Path]:
    """A site with a certificate that only a client with its authority accepts."""
    _, signer, ca = authority(hops.world.folder, "sites")
    agent = Agent()
    agent.script = lambda _head, _body: ok(b"secret answer")
    port = await hops.world.listen(agent.serve, ssl=server_context(hops.world.folder, "sites", signer))
    return agent, port, ca


async def test_a_tls_client_verifies_the_server_through_the_tunnel_and_the_record_names_the_user(
    hops: Hops, site: tuple[Agent, int, Path]
) -> None:
    agent, port, ca = site
    await start(hops, port)
    async with hops.serving({"sub": "alice"}) as held:
        raw = await opened(hops, port, held.handle)
        with pytest.raises(ssl.SSLCertVerificationError):
            await raw.writer.start_tls(ssl.create_default_context(), server_hostname="127.0.0.1")
        raw = await opened(hops, port, held.handle)
        await raw.writer.start_tls(ssl.create_default_context(cafile=str(ca)), server_hostname="127.0.0.1")
        await raw.send(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n")
        assert (await raw.read_until(b"secret answer")).startswith(b"HTTP/1.1 200")
        raw.reset()
    records = await hops.outbound_records(2)
    assert [(one["subject"], one["route"], one["decision"], one["method"]) for one in records] == [
        ("alice", "tunnel-0", "allow", "CONNECT")
    ] * 2
    assert records[1]["host"] == f"127.0.0.1:{port}"
    assert records[1]["bytes_out"] > 1000
    assert len(hops.writer.records("request.opened")) >= 2
    written = hops.writer.records_path.read_text()
    assert held.handle not in written
    assert "secret answer" not in written
    assert "proxy-authorization" not in agent.requests[0][0].decode().lower()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_goes_through_by_https_proxy_with_the_handle_as_password(
    hops: Hops, site: tuple[Agent, int, Path]
) -> None:
    _, port, ca = site
    await start(hops, port)

    async def curl(handle: str) -> tuple[int | None, bytes]:
        proxy = f"http://x:{handle}@127.0.0.1:{hops.writer.outbound}"
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--max-time", "10", "--cacert", str(ca), f"https://127.0.0.1:{port}/",
            env={"HTTPS_PROXY": proxy, "PATH": "/usr/bin:/bin"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        return process.returncode, output

    async with hops.serving() as held:
        assert await curl(held.handle) == (0, b"secret answer")
        code, output = await curl("h" * 43)
        assert code != 0
        assert b"403" in output


async def test_an_open_tunnel_counts_as_a_connection_to_an_upstream(hops: Hops, far: Upstream) -> None:
    def connections() -> object:
        return status_of(hops.writer.server, SettingsState(loaded_at=0), since=0, now=0)["upstream_connections"]

    await start(hops, far.port)
    async with hops.serving() as held:
        before = connections()
        await opened(hops, far.port, held.handle)
        assert isinstance(before, int)
        assert connections() == before + 1


async def test_one_fact_changed_opens_no_tunnel(hops: Hops, far: Upstream) -> None:
    other = Upstream()
    await other.listen()
    await start(hops, far.port, other.port)
    async with hops.serving() as held:
        refused = {
            "no_request_context": await connect(hops, far.port, None),
            "call_not_allowed": await connect(hops, other.port, held.handle),
            "target_denied": await connect(hops, far.port, held.handle, host="127.1"),
        }
        for reason, raw in refused.items():
            told = await raw.read_to_end()
            assert told.startswith(b"HTTP/1.1 403 ")
            assert reason.encode() in told
        assert (await opened(hops, far.port, held.handle)) is not None
    assert (far.count, other.count) == (1, 0)
    await other.close()


async def test_a_name_that_leads_to_this_machine_opens_no_tunnel(hops: Hops, far: Upstream) -> None:
    await start(hops, far.port, host="127.1")  # a name to the resolver, which finds 127.0.0.1
    async with hops.serving() as held:
        raw = await connect(hops, far.port, held.handle, host="127.1")
        told = await raw.read_to_end()
    assert told.startswith(b"HTTP/1.1 403 ")
    assert b"target_denied" in told
    assert far.count == 0


async def test_bytes_sent_before_the_grant_arrive_and_after_a_refusal_are_no_request(hops: Hops, far: Upstream) -> None:
    await start(hops, far.port)
    async with hops.serving() as held:
        await opened(hops, far.port, held.handle, after=b"hello at once")
        assert await (await far.accept()).read_exactly(13) == b"hello at once"
        smuggled = b"GET /crm/customers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % held.handle.encode()
        raw = await connect(hops, far.port, None, after=smuggled)
        assert (await raw.read_to_end()).count(b"HTTP/1.1 ") == 1
    assert hops.crm.requests == []


async def test_each_end_may_end_its_half_first(hops: Hops, far: Upstream) -> None:
    await start(hops, far.port)
    async with hops.serving() as held:
        for first_is_client in (True, False):
            client = await opened(hops, far.port, held.handle)
            server = await far.accept()
            first, last = (client, server) if first_is_client else (server, client)
            await first.send(b"the last of me")
            first.writer.write_eof()
            assert await last.read_to_end() == b"the last of me"
            await last.send(b"and still of me")
            last.writer.write_eof()
            assert await first.read_to_end() == b"and still of me"
    assert [one["reason"] for one in await hops.outbound_records(2)] == ["ok", "ok"]


async def test_ten_thousand_single_bytes_and_a_slow_reader_lose_nothing(hops: Hops, far: Upstream) -> None:
    await start(hops, far.port)
    async with hops.serving() as held:
        client = await opened(hops, far.port, held.handle)
        server = await far.accept()
        for number in range(10_000):
            client.writer.write(bytes([number % 251]))
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert await server.read_exactly(10_000) == bytes(number % 251 for number in range(10_000))
        size = 32 * 1024 * 1024
        server.writer.write(bytes(size))
        server.writer.write_eof()
        await asyncio.sleep(0.2)  # nobody reads: the sender stalls instead of filling our memory
        assert server.writer.transport.get_write_buffer_size() > size // 2
        assert len(await client.read_to_end()) == size


def without_route(document: dict[str, Any]) -> None:
    document["outbound"]["routes"].pop()
    document["inbound"]["routes"][0]["may_call"].remove("tunnel-0")


def no_longer_opened(document: dict[str, Any]) -> None:
    document["inbound"]["routes"][0]["may_call"].remove("tunnel-0")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda document: deny("alice", document), "policy_denied", id="denied"),
        pytest.param(without_route, "target_denied", id="route-removed"),
        pytest.param(no_longer_opened, "call_not_allowed", id="no-longer-opened"),
    ],
)
async def test_a_change_ends_the_tunnel_at_both_ends(
    hops: Hops, far: Upstream, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    await start(hops, far.port)
    async with hops.serving({"sub": "alice"}) as held:
        client = await opened(hops, far.port, held.handle)
        server = await far.accept()
        await reload(hops.writer, lambda document: deny("mallory", document))
        await client.send(b"still here")
        assert await server.read_exactly(10) == b"still here"
        await reload(hops.writer, change)
        async with asyncio.timeout(1):
            for end in (client, server):
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await end.read_exactly(1)
    (record,) = await hops.outbound_records(1)
    assert (record["decision"], record["reason"], record["status"]) == ("deny", reason, 200)
    assert record["decide_ms"] is not None


async def test_a_stopping_sidecar_ends_the_tunnel_when_the_rest_has_ended(hops: Hops, far: Upstream) -> None:
    await start(hops, far.port, drain_s=6.0)
    async with hops.serving() as held:
        client = await opened(hops, far.port, held.handle)
    hops.writer.stop.set()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.read_exactly(1)
    assert await asyncio.wait_for(hops.writer.running, PATIENCE_S) is True
    (record,) = await hops.outbound_records(1)
    assert (record["decision"], record["reason"]) == ("allow", "draining")


async def test_without_a_handle_a_tunnel_opens_where_the_route_says_so_and_its_record_lists_candidates(
    hops: Hops, far: Upstream
) -> None:
    await start(hops, far.port)
    await reload(hops.writer, lambda document: document["outbound"]["routes"][-1].update(without_handle=True))
    async with hops.serving():
        raw = await opened(hops, far.port, None)
        raw.writer.write_eof()
        (await far.accept()).writer.write_eof()
        assert await raw.read_to_end() == b""
        told = await (await connect(hops, far.port, "h" * 43)).read_to_end()
        assert b"no_request_context" in told
    allowed, denied = await hops.outbound_records(2)
    assert (allowed["decision"], allowed["subject"], allowed["reason"]) == ("allow", None, "ok")
    assert len(allowed["candidates"]) == 1
    assert (denied["decision"], denied["candidates"]) == ("deny", None)
