"""An entry with a door for people's own clients, before a tool server of MCP with its own sidecar."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar_dev.login import LoginSettings, UserIssuer
from sidecar_dev.user_issuer import loopback_listener, serving
from tests.fakes.tokens import TokenMint
from tests.integration.entry_world import CUSTOMERS, STAFF, EntryWorld, Settings
from tests.integration.world import (
    FRONT,
    Answer,
    Record,
    bearer,
    free_port,
    ok,
    open_world,
)

RESOURCE: Final = "https://tools.acme.example"
HOST: Final = "tools.acme.example"
PAGE: Final = "https://inspector.acme.example"
JSON: Final = ("content-type", "application/json")
IDE: Final = "an-ide"  # an OAuth client that nobody registered here
TOOLS: Final = {"allow": ["tools/list", "tools/call:search", "tools/call:customer"], "scopes": ["docs.write"]}
DROP: Final = {"allow": ["tools/call:drop"], "scopes": ["crm.read"]}


class WebCertificates:
    """An authority of the public web, and the files of one certificate by it."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key, self.ca = (folder / name for name in ("door.crt", "door.key", "web-ca.pem"))
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._root = _certificate("A web authority", self._key, self._key, "A web authority", [])
        self.ca.write_bytes(self._root.public_bytes(serialization.Encoding.PEM))
        self.issue()

    def issue(self, host: str = HOST) -> None:
        """Put a new certificate in place."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(host), x509.DNSName("localhost")]
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        made = _certificate(host, key, self._key, "A web authority", names)
        self.key.touch(mode=0o600)
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def client(self) -> ssl.SSLContext:
        """Return TLS as any client on the web has it."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.check_hostname = False  # the tests' connections name the sidecar; ``hostname`` tests check it
        return context


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    issuer: str,
    names: Sequence[x509.GeneralName],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    else:
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(by, hashes.SHA256())


class DoorWorld(EntryWorld):
    """``front`` has the door; the tool server behind the planner's sidecar is the world's agent."""

    resource = RESOURCE
    sessions = "per_subject"
    operations: Sequence[Settings] = (TOOLS, DROP)  # of the entry's route
    people: UserIssuer | None = None  # a live issuer, whose users' clients come in by the door alone

    def prepare(self) -> None:
        self.certificates = WebCertificates(self.world.folder)
        self.port = free_port()
        self.door: Settings = {}
        self.tls = self.certificates.client()
        self.world.agent.script = lambda _head, body: ok(_result(body), b"content-type: application/json")

    def front_settings(self, **changes: Any) -> Settings:
        settings = super().front_settings(**changes)
        (plan,) = settings["outbound"]["routes"]
        tools = {**plan, "name": "tools", "match": {"prefix": "/tools"}, "protocol": "mcp"}
        tools["operations"] = self.operations
        hidden = {**tools, "name": "hidden", "match": {"prefix": "/hidden"}}
        settings["outbound"]["routes"] += [tools, hidden]
        settings["entry"]["may_call"] += ["tools", "hidden"]
        if self.people is not None:
            settings["entry"]["issuers"].append({**self._of_people(self.people), "client_id": "front-people"})
            self.door["authorization_servers"] = [self.people.issuer]
        settings["entry"]["door"] = {
            "listen": f"127.0.0.1:{self.port}",
            "certificate": str(self.certificates.certificate),
            "key": str(self.certificates.key),
            "resource": self.resource,
            "routes": ["tools"],
            "origins": [PAGE],
            **self.door,
        }
        return settings

    def planner_settings(self) -> Settings:
        settings = super().planner_settings()
        route = {"name": "mcp", "match": {"path": "/mcp"}, "protocol": "mcp", "scopes": [], "peers": [FRONT]}
        settings["inbound"]["routes"].append({**route, "operations": [TOOLS, DROP], "pass_token": True})
        settings["inbound"]["routes"][-1]["sessions"] = self.sessions
        return settings

    def write_sts(self, document: Settings) -> None:
        entry = document["entries"][0]
        entry["door"] = self.resource
        if self.people is not None:
            entry["client_ids"] = {**entry["client_ids"], self.people.issuer: "front-people"}
            document["login_issuers"].append(self._of_people(self.people))
            everybody = [{"issuer": self.people.issuer, "subject": "*"}]
            document["rules"].append({**document["rules"][0], "subjects": everybody})
        super().write_sts(document)

    def token_of(self, scope: str, audience: str | None = None) -> str:
        """Return alice's login token at the live issuer; if no other audience is asked for, for the door."""
        assert self.people is not None
        form = {"grant_type": "password", "username": "alice", "client_id": IDE, "audience": audience or self.resource}
        return str(self.people.log_in(urlencode({**form, "scope": scope}).encode())["access_token"])

    def _of_people(self, people: UserIssuer) -> Settings:
        scopes = {"claim": "scope", "map": {"search": ["docs.write"], "drop": ["crm.read"]}}
        return {
            "issuer": people.issuer,
            "jwks": f"{people.issuer}/jwks",
            "profile": "oidc-access-token",
            "subject_prefix": "people:",
            "scope_from": scopes,
        }

    def token(self, mint: TokenMint = STAFF, **changes: object) -> str:
        """Return alice's login token for the door, of an OAuth client that is not the front app's."""
        return self.log_in(mint, **{"aud": self.resource, "client_id": IDE, **changes})

    async def send(
        self,
        message: object,
        *fields: tuple[str, str],
        token: str | None = None,
        target: str = "/tools/mcp",
        method: str = "POST",
        host: str = HOST,
    ) -> Answer:
        """Send a message to the door; ``token`` "" sends none."""
        shown = [] if token == "" else bearer(token or self.token())
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        headers = [*shown, *([JSON] if body else []), *fields]
        return await self.world.call(self.port, self.tls, target, method=method, headers=headers, body=body, host=host)

    async def last(self, count: int) -> Record:
        return (await self.front.wait_for_records(count))[-1]


def _result(body: bytes) -> bytes:
    message = json.loads(body) if body else {}
    return json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "result": {"tools": []}}).encode()


@asynccontextmanager
async def open_door_world(
    folder: Path, resource: str = RESOURCE, *, sessions: str = "per_subject", **door: Any
) -> AsyncIterator[DoorWorld]:
    async with open_world(folder) as world:
        world.keys["keys"] += [STAFF.jwk, CUSTOMERS.jwk]
        opened = DoorWorld(world)
        opened.resource, opened.sessions = resource, sessions
        opened.prepare()
        opened.door = door
        await opened.start()
        yield opened


@asynccontextmanager
async def open_people_world(
    folder: Path, path: str = "", *, agent: int | None = None, operations: Sequence[Settings] = (TOOLS, DROP)
) -> AsyncIterator[DoorWorld]:
    """Open one that real clients reach: at ``localhost``, with a live issuer where ``alice`` and ``bob`` log in.

    ``agent`` is the port of the tool server; None: the world's own.
    """
    logins = LoginSettings(users={"alice": None, "bob": None}, clients=frozenset({IDE}))
    async with serving(logins, loopback_listener("127.0.0.1:0")) as people, open_world(folder) as world:
        world.keys["keys"] += [STAFF.jwk, CUSTOMERS.jwk]
        opened = DoorWorld(world)
        opened.people = people
        opened.prepare()
        world.agent.port = agent or world.agent.port
        opened.operations = operations
        opened.resource = f"https://localhost:{opened.port}{path}"
        await opened.start()
        yield opened
