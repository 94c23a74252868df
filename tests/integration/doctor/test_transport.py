"""The doctor's command as people run it, before a fake server on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import ssl
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

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
        assert set(server.asked) == {"/.well-known/oauth-authorization-server"}  # not even keys are fetched
        for path in ("token", "introspect", "revoke", "jwks"):
            assert f": {server.sts.issuer}/{path}\n" in ended.err
        await doctor(server, tmp_path, "--yes")
        assert {"/token", "/jwks"} <= set(server.asked)


async def test_a_host_that_looks_like_a_token_is_not_hidden_from_who_approves(tmp_path: Path) -> None:
    async with served() as server:
        place = "https://eyJhbGciOiJSUzI1NiJ9.e30.evil.example/token"
        server.named["token_endpoint"] = place
        ended = await doctor(server, tmp_path)
        assert ended.code == 2
        assert f"token endpoint: {place}\n" in ended.err


async def test_another_origin_gets_secrets_and_tokens_only_where_an_option_names_it(tmp_path: Path) -> None:
    opaque = Knobs(opaque="opaque")
    async with served(opaque) as server, served(opaque) as other:
        place = f"{other.sts.issuer}/introspect"
        server.named["introspection_endpoint"] = place
        ended = await doctor(server, tmp_path, "--yes", "--json")
        assert ended.code in (0, 1), ended.err
        assert server.sts.requests
        assert other.asked == []
        assert f"(--introspection-endpoint URL allows it): {place}\n" in ended.err
        ended = await doctor(server, tmp_path, "--yes", "--json", "--introspection-endpoint", place)
        assert set(other.asked) == {"/introspect"}
        assert f"tokens that cannot be read: {place}\n" in ended.err
        assert "not asked" not in ended.err


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


@dataclass
class Certified:
    """Files of an authority, a server for 127.0.0.1 and a client."""

    ca: str
    server: tuple[str, str]
    client: tuple[str, str]


def certified(folder: Path) -> Certified:
    day = timedelta(days=1)
    now = datetime.now(UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])

    def write(name: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> tuple[str, str]:
        subject = ca_name if ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        )
        if ca:
            usage = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                 "encipher_only", "decipher_only"), False,
            )  # fmt: skip
            builder = builder.add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
        certificate, key_file = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(builder.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(certificate), str(key_file)

    ca, _ = write("ca", ca_key, ca=True)
    server = write("server", ec.generate_private_key(ec.SECP256R1()), ca=False)
    return Certified(ca, server, write("agent-a", ec.generate_private_key(ec.SECP256R1()), ca=False))


async def test_a_client_certificate_is_shown_to_a_server_that_our_authority_certifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = certified(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca)
    context.load_cert_chain(*files.server)
    context.verify_mode = ssl.CERT_OPTIONAL

    async def token(request: web.Request) -> web.Response:
        shown = (request.transport.get_extra_info("peercert") if request.transport else None) or {}
        names = [value for part in shown.get("subject", ()) for _, value in part]
        form = await request.post()
        known = names == [form.get("client_id")]
        return web.json_response({"access_token": "t"} if known else {"error": "invalid_client"}, status=200)

    application = web.Application()
    application.router.add_post("/token", token)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    server = to(f"https://127.0.0.1:{runner.addresses[0][1]}")
    client = TestClient(client_id="agent-a", method=Method.TLS, certificate=files.client)
    asked = replace(request(), client=client)
    key_log = tmp_path / "key.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(key_log))  # whoever has that log can read what was sent
    try:
        async with Transport(server, ca_file=files.ca) as transport:
            assert (await transport(asked)).issued == "t"
            assert (await transport(replace(asked, wrong=True))).error == "invalid_client"
        async with Transport(server) as transport:
            assert (await transport(asked)).trouble == "the server's certificate is not trusted: see --ca"
    finally:
        await runner.cleanup()
    assert not key_log.exists()


@pytest.mark.parametrize(("typed", "sent"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
async def test_on_a_terminal_it_asks(typed: bytes, sent: bool, tmp_path: Path) -> None:
    async with served() as server:
        ours, theirs = pty.openpty()
        words = [sys.executable, "-m", "sidecar", "sts", "doctor", server.sts.issuer]
        for name in ("agent-a", "agent-b"):
            (tmp_path / name).write_text(CLIENTS[name])
            words += ["--client", name, "client_secret_basic", str(tmp_path / name)]
        (tmp_path / "user").write_text(server.sts.user_token())
        words += ["--subject", str(tmp_path / "user")]
        process = await asyncio.create_subprocess_exec(
            *words, stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        os.write(ours, typed)
        _, err = await process.communicate()
        os.close(ours)
        os.close(theirs)
        assert b"Send them? [y/N]" in err
        assert bool(server.sts.requests) is sent
        assert (process.returncode == 2) is not sent
