"""The programs of examples/grpc in the mesh of ``sidecar dev run``, called as their docstrings say."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc
import pytest
import yaml

from sidecar_dev.processes import free_ports, listens
from tests.integration.dev.test_agent_mesh import PATIENCE_S, Session, running
from tests.integration.world import until

pytestmark = pytest.mark.integration

ROOT: Final = Path(__file__).parents[3]
EXAMPLES: Final = ROOT / "examples/grpc"
AGENTS: Final = ("agent.py", "aio_agent.py")


@pytest.fixture(autouse=True)
def _library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the programs find the library for agents, which is not installed here."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "agent"))


@asynccontextmanager
async def mesh(*options: str, agent: str = "agent.py") -> AsyncIterator[tuple[Session, str, str]]:
    """Run the CRM, and the agent in a mesh; return the mesh, the address to call and the file of the login."""
    (port,) = free_ports(1)
    crm = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLES / "crm.py", env={**os.environ, "PORT": str(port)}
    )
    try:
        await until(lambda: listens(port), PATIENCE_S)
        options = ("--grpc", "agent", "--may-call", f"crm=http://127.0.0.1:{port}", "--grpc", "crm", *options)
        async with running([sys.executable, str(EXAMPLES / agent)], *options, stdout=PIPE) as session:
            found = await session.hears(r"as alice: at (\S+) with the authority agent and the metadata in ([^;]+);")
            yield session, found[1], found[2]
    finally:
        crm.kill()
        await crm.wait()


async def call(*words: str) -> tuple[str, str]:
    """Run the program that calls the agent; return what it says on both outputs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLES / "call.py", *words, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(PATIENCE_S):
        told, error = await process.communicate()
    return told.decode(), error.decode()


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_call_of_grpc_goes_through_both_hops_in_the_users_name(agent: str, tmp_path: Path) -> None:
    async with mesh("--print-settings", agent=agent) as (session, address, login):
        told, _ = await call(address, login)
        assert told == "customer 42, read by spiffe://acme.example/agent/agent for alice\n"
        await session.hears(r"crm +inbound POST /shop.Customers/Find 200  for alice by agent via front")

        nobody = tmp_path / "nobody"
        nobody.write_text("X-Nothing: at all")
        _, error = await call(address, str(nobody))
        assert "(no_request_context)" in error
        session.process.send_signal(signal.SIGINT)
        printed, crm = yaml.safe_load_all(await session.printed())
    assert printed["protocols"] == crm["protocols"] == {"http2": True, "agent": "h2c"}
    assert printed["inbound"]["routes"][0]["operations"] == [{"allow": ["shop.Planner/Ask"]}]
    assert crm["inbound"]["routes"][0]["operations"] == [{"allow": ["shop.Customers/Find"]}]


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_caller_without_a_deadline_is_answered_too(agent: str) -> None:
    async with mesh(agent=agent) as (_, address, login):
        metadata = [("authorization", (await asyncio.to_thread(Path(login).read_text)).strip().partition(": ")[2])]
        with grpc.insecure_channel(address, options=[("grpc.default_authority", "agent")]) as channel:
            ask = channel.unary_unary("/shop.Planner/Ask")
            async with asyncio.timeout(PATIENCE_S):
                told = await asyncio.to_thread(ask, b"42", metadata=metadata)
    assert told == b"customer 42, read by spiffe://acme.example/agent/agent for alice"


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_method_that_is_not_allowed_is_refused_and_the_agent_passes_the_reason_on(agent: str) -> None:
    async with mesh("--allow", "crm=shop.Customers/Delete", agent=agent) as (_, address, login):
        _, error = await call(address, login)
    assert error.startswith("PERMISSION_DENIED: ")
    assert "(operation_refused)" in error


@pytest.mark.parametrize("agent", AGENTS)
async def test_an_agent_without_a_handle_is_refused(agent: str) -> None:
    """The same call on the agent's own port, past its sidecar: nobody gave it a handle."""
    async with mesh(agent=agent) as (session, _, _):
        (port,) = re.findall(r" with PORT=(\d+) ", "".join(session.said))
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
            await asyncio.to_thread(channel.unary_unary("/shop.Planner/Ask"), b"42", timeout=PATIENCE_S)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "(no_request_context)" in refused.value.details()
