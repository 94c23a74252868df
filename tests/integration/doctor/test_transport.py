"""The doctor's command as people run it, before a fake server on real sockets."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from sidecar.doctor.case import Server
from sidecar.doctor.clients import Method, TestClient
from sidecar.doctor.messages import Place, Request
from sidecar.doctor.proof import ProofKey
from sidecar.doctor.transport import Transport
from tests.fakes.foreign_sts import CLIENTS, Knobs
from tests.fakes.foreign_sts_server import HttpSts, served

pytestmark = pytest.mark.integration


@dataclass
class Ended:
    code: int
    out: str
    err: str


async def doctor(server: HttpSts, folder: Path, *more: str, answer: bytes | None = None) -> Ended:
    """Run the command; standard input is no terminal."""
    words = [sys.executable, "-m", "sidecar", "sts", "doctor", server.sts.issuer]
    for name, method in (("agent-a", "client_secret_basic"), ("agent-b", "client_secret_post")):
        (folder / name).write_text(CLIENTS[name])
        words += ["--client", name, method, str(folder / name)]
    (folder / "user").write_text(server.sts.user_token())
    words += ["--subject", str(folder / "user"), "--scope", "crm.read", "--wait", "2", *more]
    words += ["--audience", "tool-crm", "--audience", "tool-mail", "--wider-scope", "crm.write"]
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate(answer)
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def test_a_server_that_fits_is_exit_code_0_and_its_settings_are_printed(tmp_path: Path) -> None:
    async with served() as server:
        ended = await doctor(server, tmp_path, "--yes")
        assert (ended.code, "It fits." in ended.out) == (0, True), ended.out + ended.err
        whole = ended.out + ended.err
        assert not [token for token in server.sts.known if token in whole]
        assert not [secret for secret in CLIENTS.values() if secret in whole]


async def test_json_is_one_document_on_standard_output(tmp_path: Path) -> None:
    async with served(Knobs(actor="ignore")) as server:
        ended = await doctor(server, tmp_path, "--yes", "--json")
    assert ended.code == 1
    document = json.loads(ended.out)
    assert document["fits"] is False
    assert document["facts"]["signature"] == "ES256, verified"
    proven = document["facts"]["client authentication proven"]
    assert proven == "client_secret_basic, client_secret_post"


async def test_nothing_is_sent_without_approval(tmp_path: Path) -> None:
    async with served() as server:
        ended = await doctor(server, tmp_path, answer=b"y\n")
        assert ended.code == 2
        assert "--yes" in ended.err
        assert "subject_token=<subject>" in ended.err
        assert server.sts.requests == []


@pytest.mark.parametrize("knobs", [Knobs(refusal=(500, ""), wrong_secret=(401, "")), Knobs(opaque="jwe")])
async def test_odd_servers_are_survived(knobs: Knobs, tmp_path: Path) -> None:
    async with served(knobs) as server:
        ended = await doctor(server, tmp_path, "--yes", "--json")
    assert ended.code in (0, 1), ended.err
    values = {cell["id"]: cell["value"] for cell in json.loads(ended.out)["cells"]}
    assert (values["garbage-actor"], values["wrong-secret"]) == ("refused", "refused")


def request(proof: ProofKey | None = None) -> Request:
    client = TestClient(client_id="agent-a", method=Method.BASIC, secret=CLIENTS["agent-a"])
    form = (("grant_type", "client_credentials"),)
    return Request(name="own token", place=Place.TOKEN, client=client, form=form, proof=proof)


def to(url: str) -> Server:
    return Server(token=f"{url}/token", issuer=url)


async def test_a_busy_server_is_asked_again_and_its_nonce_used() -> None:
    async with served() as server:
        server.busy = [503, 429]
        async with Transport(to(server.sts.issuer)) as transport:
            assert (await transport(request())).status == 200
            server.busy = [503, 503, 503]
            assert (await transport(request())).status == 503
            server.nonce = "n1"
            assert (await transport(request(ProofKey()))).status == 200


async def test_no_redirect_is_followed() -> None:
    followed: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        followed.append(await request.text())
        return web.json_response({})

    async def redirect(_request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/elsewhere")

    application = web.Application()
    application.router.add_post("/token", redirect)
    application.router.add_post("/elsewhere", elsewhere)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with Transport(to(f"http://127.0.0.1:{runner.addresses[0][1]}")) as transport:
            assert (await transport(request())).status == 307
    finally:
        await runner.cleanup()
    assert followed == []


async def test_no_answer_and_too_large_a_one_are_told() -> None:
    async def endless(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 300_000)

    async def silent(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    application = web.Application()
    application.router.add_post("/large/token", endless)
    application.router.add_post("/silent/token", silent)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with Transport(to(f"{url}/large")) as transport:
            assert (await transport(request())).trouble == "the answer is too large"
        async with Transport(to(f"{url}/silent"), timeout_s=0.3) as transport:
            assert (await transport(request())).trouble == "none within 0.3 s"
    finally:
        await runner.cleanup()
    async with Transport(to(url)) as transport:
        assert (await transport(request())).trouble == "the connection failed"
