"""Clients that people use, at an entry's door: the official MCP client in Python, and MCP Inspector's command.

Each knows the door's URL and nothing else. Its user logs in at a live issuer by code and PKCE; the tool server is the
official one, behind its own sidecar, and answers with the user that it is told.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.integration.door_world import DoorWorld, open_people_world
from tests.integration.world import START_S, free_port, until
from tests.interop import agents
from tests.interop.engine import require
from tests.interop.frameworks import end, listens

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

APPS: Final = Path(__file__).parent / "apps"
PATIENCE_S: Final = 90.0
AUTHORIZE: Final = re.compile(r"http://127\.0\.0\.1:\d+/authorize\?[^\s\"'\x1b\x07]+(?=[\s\"'\x1b\x07])")


def tool_server(port: int) -> subprocess.Popen[bytes]:
    """Start the official MCP server."""
    environ = {**os.environ, "PORT": str(port)}
    return subprocess.Popen([agents.PYTHON, APPS / "mcp_target.py"], env=environ, cwd=APPS)


@asynccontextmanager
async def serving() -> AsyncIterator[DoorWorld]:
    """Open a door before the official MCP server."""
    require(agents.missing())
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        port = free_port()
        async with open_people_world(Path(folder), agent=port) as door:
            server = tool_server(port)
            try:
                await until(lambda: listens(port), START_S)
                yield door
            finally:
                end(server)


async def output_of(*words: str | Path, **environ: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_official_client_logs_its_user_in_and_calls_a_tool() -> None:
    async with serving() as door:
        assert door.people is not None
        url, ca = f"{door.resource}/tools/mcp", str(door.certificates.ca)
        code, out, err = await output_of(agents.PYTHON, APPS / "door_client.py", url, ca, door.people.issuer)
        assert code == 0, err
        told = json.loads(out.splitlines()[-1])
        assert (told["tools"], told["said"]) == (["customer"], "Globex of people:alice")
        assert told["refused"] == "operation_refused"
        assert told["asked"]["code_challenge_method"] == "S256"
        assert told["asked"]["resource"].rstrip("/") == door.resource
        records = door.front.records()
        assert {record["op"] for record in records} >= {
            "metadata", "initialize", "tools/list", "tools/call:customer"
        }  # fmt: skip


async def test_inspector_logs_its_user_in_and_calls_a_tool() -> None:
    async with serving() as door:
        inspector = agents.inspector()
        back = f"http://127.0.0.1:{free_port()}/oauth/callback"
        words: list[str | Path] = [
            agents.node(), inspector, "--cli", f"{door.resource}/tools/mcp", "--transport", "http",
            "--client-id", "an-ide", "--callback-url", back,
        ]  # fmt: skip
        home = str(door.world.folder)
        environ = {"HOME": home, "NODE_EXTRA_CA_CERTS": str(door.certificates.ca), "MCP_INSPECTOR_SECRET_STORE": "file"}
        listed = await logged_in([*words, "--method", "tools/list"], environ)
        assert '"customer"' in listed
        # The login is kept: the second command finds the token, and asks nobody.
        call = ["--method", "tools/call", "--stored-auth-only", "--tool-args-json", '{"number": "42"}', "--tool-name"]
        code, out, err = await output_of(*words, *call, "customer", **environ)
        assert code == 0, err
        assert "Globex of people:alice" in out
        listing = ["--method", "tools/list", "--stored-auth-only", "--header"]
        for audience, fine in ((door.resource, True), ("https://api.example", False)):
            shown = f"Authorization: Bearer {door.token_of('search', audience)}"
            code, out, _ = await output_of(*words, *listing, shown, **{**environ, "HOME": f"{door.world.folder}/other"})
            assert ((code == 0), ("customer" in out)) == (fine, fine)
        records = await door.front.wait_for_records(1)
        assert "tools/call:customer" in {record["op"] for record in records}


async def logged_in(words: Sequence[str | Path], environ: dict[str, str]) -> str:
    """Run a command that tells a terminal where its user logs in; log alice in, and return what the command prints."""
    screen, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=terminal,
        stdin=subprocess.DEVNULL,
    )
    os.close(terminal)
    said = ""
    async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession() as browser:
        while (found := AUTHORIZE.search(said)) is None:
            said += (await asyncio.to_thread(os.read, screen, 65536)).decode()
        async with browser.post(found[0], data={"username": "alice"}) as back:  # it follows the way back
            assert back.status == 200, await back.text()
        out, _ = await process.communicate()
    os.close(screen)
    assert process.returncode == 0, said
    return out.decode()
