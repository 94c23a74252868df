"""Calls to hosts outside the mesh over real sockets: a provider with a certificate of its own authority."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.assembly.setup import make_setup
from sidecar.config import load_sidecar
from sidecar.observe.secret_names import secret_fingerprint
from sidecar.reload import prepare
from tests.config.documents import written
from tests.integration.hops import Headers, Hops
from tests.integration.world import PATIENCE_S, WRITER, Agent, Answer

pytestmark = pytest.mark.integration

SECRET = "sk-secret-of-the-sidecar"
EVENTS = [b'data: {"delta": "one"}\n\n', b'data: {"delta": "sk-"}\n\n', b"data: [DONE]\n\n"]


@dataclass
class Provider:
    """A host outside the mesh."""

    agent: Agent
    port: int
    ca: Path


def authority(folder: Path, name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(name, key, name, key, ca=True)
    path = folder / f"{name}.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate, key, path


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(signer, hashes.SHA256())
    )


def server_context(
    folder: Path, ca: str, signer: ec.EllipticCurvePrivateKey, host: str = "127.0.0.1"
) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("provider", key, ca, signer, ca=False)
    chain = folder / "provider.pem"
    chain.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context


@pytest.fixture
async def provider(hops: Hops) -> Provider:
    _, signer, ca = authority(hops.world.folder, "models")
    agent = Agent()
    port = await hops.world.listen(agent.serve, ssl=server_context(hops.world.folder, "models", signer))
    return Provider(agent, port, ca)


def route(provider: Provider, folder: Path, **changes: Any) -> dict[str, Any]:
    file = folder / "model.key"
    if not file.exists():
        file.write_text(SECRET)
        file.chmod(0o600)
    key = {"file": str(file), "field": "authorization", "scheme": "Bearer", "owner": "ml", "until": "2999-01-01"}
    return {
        "name": "model",
        "match": {"prefix": "/model"},
        "upstream": f"https://127.0.0.1:{provider.port}",
        "ca": str(provider.ca),
        "methods": ["POST"],
        "paths": ["/v1/responses"],
        "token": "inject",
        "inject": key,
        **changes,
    }


async def start(hops: Hops, provider: Provider, **changes: Any) -> None:
    """Run the writer's sidecar with the route, below a platform file that lists its host."""
    settings = hops.settings(route={"may_call": ["crm", "model"]})
    settings["outbound"]["routes"].append(route(provider, hops.world.folder, **changes))
    folder = hops.world.folder / "platform"
    folder.mkdir()
    issuers = [{**one, "token_endpoint": settings["exchange"]["token_endpoint"]} for one in settings["issuers"]]
    platform = written(
        folder, {"issuers": issuers, "inject": [f"{host}:{provider.port}" for host in ("127.0.0.1", "localhost")]}
    )
    hops.writer = await hops.world.sidecar(WRITER, settings, platform=platform)


async def ask(hops: Hops, headers: Headers, target: str = "/model/v1/responses", **options: Any) -> Answer:
    return await hops.call(headers, target, method="POST", body=b"{}", **options)


async def test_a_call_leaves_with_the_key_and_its_record_names_the_user(hops: Hops, provider: Provider) -> None:
    await start(hops, provider)
    async with hops.serving({"sub": "alice"}) as held:
        answer = await ask(hops, held.shown)
        assert (answer.status, answer.body) == (200, b"done")
        fields = provider.agent.headers()
        assert (fields["authorization"], fields["host"]) == (f"Bearer {SECRET}", f"127.0.0.1:{provider.port}")
        assert not [name for name in fields if name.startswith("delegation-")]
        assert (await ask(hops, held.shown, "/model/v1/files")).reason == "target_denied"
        assert (await ask(hops, [])).reason == "no_request_context"
    assert (await ask(hops, held.shown)).reason == "no_request_context"
    record = (await hops.outbound_records(4))[0]
    assert (record["subject"], record["route"], record["decision"]) == ("alice", "model", "allow")
    assert record["credential"] == f"inject:{secret_fingerprint(SECRET.encode())}"
    assert SECRET not in hops.writer.records_path.read_text()
    assert len(provider.agent.requests) == 1


async def test_the_key_is_followed_as_its_file_changes(
    hops: Hops, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.features.outside.static_keys.LOOK_S", 0.01)
    await start(hops, provider)
    async with hops.serving() as held:
        await ask(hops, held.shown)
        (hops.world.folder / "model.key").write_text("sk-the-next-key")
        async with asyncio.timeout(10):
            while b"sk-the-next-key" not in provider.agent.requests[-1][0]:
                await asyncio.sleep(0.05)  # a request has a number of calls
                await ask(hops, held.shown)
        first, *_, last = (head.decode().lower() for head, _ in provider.agent.requests)
    assert (SECRET in first, SECRET in last) == (True, False)
    assert "bearer sk-the-next-key" in last


def another_authority(folder: Path, _provider: Provider) -> dict[str, str]:
    return {"ca": str(authority(folder, "others")[2])}


def public_authorities(_folder: Path, _provider: Provider) -> dict[str, None]:
    return {"ca": None}


def another_name(_folder: Path, provider: Provider) -> dict[str, str]:
    return {"upstream": f"https://localhost:{provider.port}"}


@pytest.mark.parametrize("change", [another_authority, public_authorities, another_name])
async def test_a_host_that_cannot_prove_its_name_gets_no_key(hops: Hops, provider: Provider, change: Any) -> None:
    await start(hops, provider, **change(hops.world.folder, provider))
    async with hops.serving() as held:
        answer = await ask(hops, held.shown)
    assert (answer.status, answer.reason) == (502, "upstream_identity")
    assert provider.agent.requests == []


async def test_an_answer_with_the_key_does_not_reach_the_agent(hops: Hops, provider: Provider) -> None:
    await start(hops, provider)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    async with hops.serving() as held:
        provider.agent.script = lambda _head, _body: head + b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n"
        answer = await ask(hops, held.shown)
        assert (answer.status, b"[DONE]" in answer.body) == (200, True)
        leak = [b"data: ", SECRET[:7].encode(), SECRET[7:].encode(), b"\n\n"]
        provider.agent.script = lambda _head, _body: head + b"".join(map(chunk, leak)) + b"0\r\n\r\n"
        refused = await ask(hops, held.shown)
    assert (refused.status, refused.reason) == (502, "credential_exposed")
    assert SECRET not in str(refused)
    assert [one["reason"] for one in await hops.outbound_records(2)] == ["ok", "credential_exposed"]


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def test_a_call_in_flight_ends_when_its_route_is_closed(hops: Hops, provider: Provider) -> None:
    await start(hops, provider)
    provider.agent.script = lambda _head, _body: provider.agent.never()
    async with hops.serving() as held:
        call = asyncio.ensure_future(ask(hops, held.shown))
        await provider.agent.arrived.wait()
        setup = hops.writer.server.parts.snapshots.setup
        document = yaml.safe_load(hops.writer.settings_path.read_text())
        document["outbound"]["routes"].pop()
        document["inbound"]["routes"][0]["may_call"].remove("model")
        fresh = load_sidecar(written(hops.world.folder / "platform", document), {})
        metrics = hops.writer.server.parts.log.metrics
        (await prepare(hops.writer.server, make_setup(fresh, setup.keys, setup.exchanges, metrics))).commit()
        answer = await asyncio.wait_for(call, PATIENCE_S)
    assert (answer.status, answer.reason) == (403, "target_denied")
