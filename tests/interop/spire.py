"""A real SPIRE server and agent for one trust domain: the files of config/spire with a test's folders and ports."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.integration.world import free_port

NEEDED: Final = ("spire-server", "spire-agent")
SHIPPED: Final = Path(__file__).parents[2] / "config" / "spire"
_ACME: Final = "acme.example"
_PARTNER: Final = "partner.example"
_PATIENCE_S: Final = 30.0


def missing() -> list[str]:
    """Return the missing programs."""
    return [name for name in NEEDED if shutil.which(name) is None]


class Spire:
    """Runs both programs; `address` is the Workload API. A context manager: what it starts, it stops.

    `partner` is the name of the trust domain that the server federates with, at the port `partner_port`; by default one
    that is never there. `changes` are made to both files; `agent_file` and `agent_socket` are those of another agent.
    """

    def __init__(
        self,
        folder: Path,
        domain: str,
        *,
        partner: str = "nobody.example",
        bundle_port: int | None = None,
        partner_port: int | None = None,
        changes: Mapping[str, str] | None = None,
        agent_file: str = "agent.conf",
        agent_socket: Path | None = None,
    ) -> None:
        self.folder = folder
        self.domain = domain
        self.partner = partner
        self.node = f"spiffe://{domain}/spire/agent/x509pop/machine-1"
        self.bundle_port = bundle_port or free_port()
        self.agent_socket = agent_socket or folder / "agent.sock"
        self._agent_file = agent_file
        port = free_port()
        self._changes = {
            "bind_port = 8081": f"bind_port = {port}",
            "server_port = 8081": f"server_port = {port}",
            '"spire.acme.example"': '"127.0.0.1"',
            "0.0.0.0": "127.0.0.1",
            "port = 8443": f"port = {self.bundle_port}",
            "https://spire.partner.example:8443": f"https://127.0.0.1:{partner_port or free_port()}",
            '"8080"': f'"{free_port()}"',
            '"8082"': f'"{free_port()}"',
            "/run/spire/server/api.sock": f"{folder}/server.sock",
            "/run/spire/sockets/": f"{folder}/",
            "/var/lib/spire/": f"{folder}/",
            "/etc/spire/": f"{folder}/",
            _ACME: domain,
            _PARTNER: partner,
            **(changes or {}),
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        return f"unix://{self.agent_socket}"

    def rendered(self, name: str) -> str:
        """Return a file of config/spire as this machine needs it."""
        known = sorted(self._changes, key=len, reverse=True)
        text = (SHIPPED / name).read_text()
        return re.sub("|".join(map(re.escape, known)), lambda found: self._changes[found[0]], text)

    async def __aenter__(self) -> Self:
        for name, file in (("server", "server.conf"), ("agent", self._agent_file)):
            (self.folder / name).mkdir(mode=0o700)
            (self.folder / f"{name}.conf").write_text(self.rendered(file))
        self._certify_the_machine()
        try:
            await self.start_server()
            (self.folder / "bundle.pem").write_text(await self.server("bundle", "show"))
            await self.start_agent()
        except BaseException:
            await self._stop_all()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_all()

    async def _stop_all(self) -> None:
        for program in reversed(NEEDED):
            await self._stop(program, signal.SIGKILL)

    async def start_server(self) -> None:
        self._start("spire-server", "run", "-config", f"{self.folder}/server.conf")
        await self._healthy("spire-server", "healthcheck", "-socketPath", f"{self.folder}/server.sock")

    async def start_agent(self, *, wait: bool = True) -> None:
        self._start("spire-agent", "run", "-config", f"{self.folder}/agent.conf")
        if wait:
            await self.agent_healthy()

    async def agent_healthy(self) -> None:
        await self._healthy("spire-agent", "healthcheck", "-socketPath", str(self.agent_socket))

    async def kill_server(self) -> None:
        await self._stop("spire-server", signal.SIGKILL)

    async def kill_agent(self) -> None:
        await self._stop("spire-agent", signal.SIGKILL)

    async def register(
        self, spiffe_id: str, *selectors: str, ttl_s: int = 3600, federated: bool = False, entry_id: str = ""
    ) -> str:
        """Register an entry, without selectors for every process of our uid; return its id."""
        chosen = selectors or (f"unix:uid:{os.getuid()}",)
        words = [word for one in chosen for word in ("-selector", one)]
        words += ["-federatesWith", self.partner] if federated else []
        words += ["-entryID", entry_id] if entry_id else []
        shown = await self.server(
            *("entry", "create", "-parentID", self.node, "-spiffeID", spiffe_id, *words),
            *("-x509SVIDTTL", str(ttl_s), "-output", "json"),
        )
        entry: str = json.loads(shown)["results"][0]["entry"]["id"]
        return entry

    async def authority(self, *words: str) -> dict[str, Any]:
        """Run a `localauthority` command, such as `x509 prepare`."""
        found: dict[str, Any] = json.loads(await self.server("localauthority", *words, "-output", "json"))
        return found

    async def trust(self, other: Spire) -> None:
        """Take over the bundle of the partner, as an operator does once."""
        bundle = await other.server("bundle", "show", "-format", "spiffe")
        path = self.folder / "partner.bundle"
        path.write_text(bundle)
        await self.server("bundle", "set", "-format", "spiffe", "-id", f"spiffe://{other.domain}", "-path", str(path))

    async def server(self, *words: str) -> str:
        """Send a command to the server; return its standard output."""
        command = ("spire-server", *words, "-socketPath", f"{self.folder}/server.sock")
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    def _start(self, *command: str) -> None:
        (self.folder / "server.sock" if command[0] == "spire-server" else self.agent_socket).unlink(missing_ok=True)
        with (self.folder / f"{command[0]}.log").open("ab") as log:
            self._running[command[0]] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    async def _stop(self, program: str, number: signal.Signals) -> None:
        process = self._running.pop(program, None)
        if process is not None:
            process.send_signal(number)
            await asyncio.to_thread(process.wait, 10)

    async def _healthy(self, *command: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            if await process.wait() == 0:
                return
            assert time.monotonic() < deadline, (self.folder / f"{command[0]}.log").read_text()[-2000:]
            await asyncio.sleep(0.05)

    def _certify_the_machine(self) -> None:
        """Write what node attestation by x509pop needs: an authority for machines, and one machine's certificate."""
        authority, machine = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        names = {one: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in ("machines", "machine-1")}
        root = _certificate(names["machines"], names["machines"], authority.public_key(), is_authority=True)
        leaf = _certificate(names["machine-1"], names["machines"], machine.public_key(), is_authority=False)
        for name, builder in (("nodes.pem", root), ("node.pem", leaf)):
            (self.folder / name).write_bytes(builder.sign(authority, SHA256()).public_bytes(Encoding.PEM))
        key = self.folder / "node.key"
        key.touch(mode=0o600)
        key.write_bytes(machine.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, is_authority: bool
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    usage |= {"encipher_only": False, "decipher_only": False}
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_authority, key_cert_sign=is_authority, **usage), critical=True
        )
    )
