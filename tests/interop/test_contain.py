"""One command stops a chain at 20 sidecar processes, by the real token service: the last one refuses within 5 s.

Each process has a request in flight that its agent never answers. Run it with ``-s`` to see the times.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from delegation_core.revocation import Kind
from delegation_core.spiffe_id import SpiffeId
from sidecar.cli import main
from sidecar.sts.logout_endpoint import EventSettings
from sidecar.sts.revocations import Register, RevocationSettings
from sidecar.sts.server import StsServer, StsSettings
from tests.fakes.sts import Mesh
from tests.fakes.sts_server import StsIdentity
from tests.fakes.tokens import TRUST_DOMAIN
from tests.integration.sts.test_logout_endpoint import FORM, logout_form, post
from tests.integration.world import ISSUER, PLANNER, START_S, STS, WRITER, Answer, World, bearer, calling, open_world

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

PROCESSES: Final = 20
WITHIN_S: Final = 5.0
ANN: Final = SpiffeId("spiffe://acme.example/operator/ann")


@asynccontextmanager
async def token_service(world: World) -> AsyncIterator[tuple[Mesh, str, int]]:
    mesh = Mesh(start=int(time.time()))
    mesh.service.clock = time.time  # the sidecars' SVIDs begin while it runs
    mesh.log.workload = STS
    source = StsIdentity(world.acme, STS)
    source.bundles = {TRUST_DOMAIN: mesh.svids.keys}
    settings = RevocationSettings(operators={ANN: frozenset(Kind)}, file=world.folder / "orders.json")
    mesh.service.register = Register(settings, mesh.log)
    mesh.service.register.load()
    events = EventSettings(host="127.0.0.1", port=0)
    server = StsServer(StsSettings(port=0, probe_port=0), service=mesh.service, source=source, events=events)
    await server.start()
    assert server.events_address is not None
    try:
        yield mesh, f"https://127.0.0.1:{server.address[1]}", server.events_address[1]
    finally:
        await server.stop()


@asynccontextmanager
async def sidecars(world: World, url: str, count: int) -> AsyncIterator[list[int]]:
    """Run the processes; yield the port of each, once all are ready."""
    made: list[tuple[asyncio.subprocess.Process, Any]] = []
    settings = world.settings()
    settings["issuers"][0] |= {
        "jwks": f"{url}/jwks", "tls": {"peer": STS}, "revocations": {"url": f"{url}/revocations"}
    }  # fmt: skip
    try:
        for _ in range(count):
            path, _api, ports, _records = await world.written(WRITER, settings, {})
            words = (sys.executable, "-m", "sidecar", "run", "--config", str(path))
            process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.DEVNULL)
            made.append((process, ports))
            await world.until_ready(ports["probe"])  # one by one: twenty starts at once take a minute of two cores
        yield [ports["in"] for _, ports in made]
    finally:
        for process, _ in made:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()


async def revoke(world: World, url: str, txn: str) -> int:
    svid = world.acme.issue_x509(ANN)
    words = ["--to", url, "--peer", STS, "--reason", "INC-42", "--for", "8h"]
    for name, content in (("svid", svid.chain_pem), ("key", svid.key_pem), ("bundle", world.acme.bundle_pem())):
        path = world.folder / f"ann-{name}.pem"
        path.write_bytes(content)
        path.chmod(0o600)
        words += [f"--{name}", str(path)]
    return await asyncio.to_thread(main, ["sts", "revoke", "--txn", txn, *words])


async def test_the_last_of_twenty_processes_refuses_within_five_seconds() -> None:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with AsyncExitStack() as stack:
            world = await stack.enter_async_context(open_world(Path(folder)))
            mesh, url, _ = await stack.enter_async_context(token_service(world))
            assert mesh.policy.issuer == ISSUER
            ports = await stack.enter_async_context(sidecars(world, url, PROCESSES))
            tls = calling(await world.source(PLANNER), WRITER)
            world.agent.script = lambda _head, _body: world.agent.never()

            def asked(port: int, txn: str) -> asyncio.Task[Answer]:
                token = mesh.own(aud=WRITER, scope="docs.write", txn=txn, exp=int(time.time()) + 290)
                return asyncio.get_running_loop().create_task(world.call(port, tls, headers=bearer(token)))

            held = [asked(port, "txn-bad") for port in ports]
            others = [asked(port, "txn-good") for port in ports]
            async with asyncio.timeout(START_S):
                while len(world.agent.requests) < 2 * PROCESSES:
                    await asyncio.sleep(0.01)
                    assert [one.result() for one in (*held, *others) if one.done()] == []
            began_at = time.monotonic()
            assert await revoke(world, url, "txn-bad") == 0
            accepted_s = time.monotonic() - began_at
            ends: list[float] = []
            for one in held:
                one.add_done_callback(lambda _: ends.append(time.monotonic() - began_at))
            async with asyncio.timeout(accepted_s + WITHIN_S):
                answers = await asyncio.gather(*held)
                again = await asyncio.gather(*(asked(port, "txn-bad") for port in ports))
            assert {(answer.status, answer.reason) for answer in (*answers, *again)} == {(403, "revoked")}
            assert not any(one.done() for one in others), "every other chain goes on"
            for one in others:
                one.cancel()
            sys.stdout.write(f"\ncommand {accepted_s:.2f} s, calls ended after {min(ends):.2f} to {max(ends):.2f} s\n")


async def test_a_logout_at_the_user_issuer_ends_the_last_byte_of_its_login_within_ten_seconds() -> None:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with AsyncExitStack() as stack:
            world = await stack.enter_async_context(open_world(Path(folder)))
            mesh, url, events_port = await stack.enter_async_context(token_service(world))
            (port,) = await stack.enter_async_context(sidecars(world, url, 1))
            tls = calling(await world.source(PLANNER), WRITER)
            stream = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            world.agent.script = lambda _head, _body: stream + b"5\r\nbegun\r\n"

            def asked(session: str) -> asyncio.Task[Answer]:
                claims = {"aud": WRITER, "scope": "docs.write", "sid": session, "exp": int(time.time()) + 290}
                shown = bearer(mesh.own(**claims))
                return asyncio.get_running_loop().create_task(world.call(port, tls, method="GET", headers=shown))

            ended, other = asked("session-1"), asked("session-2")
            async with asyncio.timeout(START_S):
                while len(world.agent.requests) < 2:
                    await asyncio.sleep(0.01)
                    assert not ended.done(), ended.result()
            form = logout_form(mesh, sid="session-1", iat=int(time.time()))
            assert (await post(events_port, "/backchannel-logout", FORM, form)).status == 200
            async with asyncio.timeout(10):
                answer = await ended
            assert (answer.status, b"begun" in answer.body) == (200, True)
            assert (await asked("session-1")).reason == "revoked"
            assert not other.done(), "the user's other login goes on"
            other.cancel()
