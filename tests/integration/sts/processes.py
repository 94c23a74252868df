"""Replicas of one token service as separate processes, each with its own view of one Secret of signing keys."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from delegation_core.rfc8693 import GRANT_TYPE, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.sts.key_files import file_name
from sidecar.sts.keys import SigningKey
from tests.fakes.sts_server import token_request
from tests.fakes.tokens import TokenMint
from tests.integration.world import (
    FRONT,
    ISSUER,
    PATIENCE_S,
    PLANNER,
    STS,
    WRITER,
    Answer,
    Record,
    World,
    calling,
    free_port,
    parse,
    whole_lines,
)

STAFF: Final = TokenMint("https://staff.example", key=5)
SCOPES: Final = ["docs.write"]


def pem(key: SigningKey) -> bytes:
    return key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class SecretMount:
    """A directory that changes as a kubelet changes a Secret's volume: by one swap of the link ``..data``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._versions = count(1)
        path.mkdir(mode=0o700)

    def become(self, keys: Mapping[int, SigningKey]) -> None:
        """Show these keys, by the time from which each signs."""
        version = self.path / f"..version_{next(self._versions)}"
        version.mkdir(mode=0o700)
        names = {file_name(at): key for at, key in keys.items()}
        for name, key in names.items():
            (version / name).write_bytes(pem(key))
            (version / name).chmod(0o600)
        fresh = self.path / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self.path / "..data")
        for name in names:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for link in self.path.glob("*.pem"):
            if link.name not in names:
                link.unlink()


@dataclass
class Replica:
    """One process of the token service."""

    process: Process
    port: int
    probe: int
    mount: SecretMount
    records_path: Path

    def records(self, event: str) -> list[Record]:
        lines = whole_lines(self.records_path) if self.records_path.exists() else []
        return [record for record in map(json.loads, lines) if record["event"] == event]

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)


class Clients:
    """Workloads that ask any replica: front with alice's login, planner with the token that front got."""

    def __init__(self, world: World, sources: Mapping[SpiffeId, WorkloadApiSource]) -> None:
        self._world = world
        self._sources = sources
        self.tls: dict[SpiffeId, ssl.SSLContext] = {one: calling(source, STS) for one, source in sources.items()}
        self._logins = count(1)

    def token_of(self, answer: Answer) -> str:
        assert answer.status == 200, (answer.status, answer.reason)
        token: str = json.loads(answer.body)["access_token"]
        return token

    async def get(self, replica: Replica, target: str) -> Answer:
        raw = f"GET {target} HTTP/1.1\r\nhost: sts\r\nconnection: close\r\n\r\n".encode()
        return parse(await self._world.exchange(replica.port, self.tls[FRONT], raw))

    async def post(self, replica: Replica, client: SpiffeId, form: Mapping[str, object], target: str) -> Answer:
        fields = ("content-type: application/x-www-form-urlencoded", "connection: close")
        raw = token_request(form, *fields, target=target)
        return parse(await self._world.exchange(replica.port, self.tls[client], raw))

    async def login_form(self, **changes: object) -> dict[str, object]:
        """Return front's request for a token at planner, with a new login of alice."""
        now = int(time.time())
        claims: dict[str, object] = {"iss": STAFF.issuer, "sub": "alice", "aud": "https://api.example"}
        claims |= {"client_id": "front-staff", "scope": "assistant", "iat": now, "exp": now + 600}
        login = STAFF.mint({**claims, "jti": f"login-{next(self._logins)}"}, STAFF.header(typ="at+jwt"))
        return {**await self._form(FRONT, login), "audience": PLANNER, **changes}

    async def first(self, replica: Replica, **changes: object) -> Answer:
        """Exchange a new login of alice at front for a token at planner."""
        return await self.post(replica, FRONT, await self.login_form(**changes), "/token")

    async def onward(self, replica: Replica, token: str, **changes: object) -> Answer:
        """Exchange planner's token for one at writer."""
        form = {**await self._form(PLANNER, token), "audience": WRITER, **changes}
        return await self.post(replica, PLANNER, form, "/token")

    async def _form(self, client: SpiffeId, token: str) -> dict[str, object]:
        return {
            "grant_type": GRANT_TYPE,
            "subject_token": token,
            "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
            "actor_token": await self._sources[client].jwt_svid(ISSUER),
            "actor_token_type": TOKEN_TYPE_JWT,
            "scope": "docs.write",
        }


def settings(world: World, api: str, replica: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the settings of one replica; the rest is the same for all."""
    login = {
        "issuer": STAFF.issuer,
        "jwks": f"http://127.0.0.1:{world.jwks_port}/jwks",
        "profile": "oidc-access-token",
        "scope_from": {"claim": "scope", "map": {"assistant": SCOPES}},
    }
    subjects = [{"issuer": STAFF.issuer, "subject": "*"}]
    return {
        "issuer": ISSUER,
        "listen": f"127.0.0.1:{replica['port']}",
        "probe": {"listen": f"127.0.0.1:{replica['probe']}"},
        "identity": {"workload_api": api},
        "records": {"sink": {"file": str(replica["records"])}},
        "keys": {"directory": str(replica["keys"])},
        "login_issuers": [login],
        "entries": [{"workload": FRONT, "client_ids": {STAFF.issuer: "front-staff"}}],
        "targets": [{"workload": one, "scopes": SCOPES} for one in (PLANNER, WRITER)],
        "rules": [
            {"actor": FRONT, "subjects": subjects, "audience": PLANNER, "scopes": SCOPES},
            {"actor": PLANNER, "subjects": subjects, "audience": WRITER, "scopes": SCOPES},
        ],
        "drain_s": 5.0,
        **changes,
    }


class Fleet:
    """The replicas that run, and their clients."""

    def __init__(self, world: World, clients: Clients, changes: Mapping[str, Any]) -> None:
        self.world = world
        self.clients = clients
        self.replicas: list[Replica] = []
        self._changes = changes

    async def start(self, keys: Mapping[int, SigningKey], *, wait: bool = True) -> Replica:
        """Start one replica that sees these keys."""
        number = len(self.replicas)
        folder = self.world.folder
        mount = SecretMount(folder / f"keys{number}")
        mount.become(keys)
        own: dict[str, Any] = {"port": free_port(), "probe": free_port(), "records": folder / f"sts{number}.records"}
        document = settings(self.world, (await self.world.api(STS)).address, {**own, "keys": mount.path})
        for name, value in self._changes.items():
            document[name] = {**document[name], **value} if isinstance(value, dict) and name in document else value
        path = folder / f"sts{number}.yaml"
        path.write_text(yaml.dump(json.loads(json.dumps(document)), Dumper=yaml.CSafeDumper))
        command = [sys.executable, "-m", "sidecar.cli", "sts", "--config", str(path)]
        child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=dict(os.environ))
        replica = Replica(child, own["port"], own["probe"], mount, own["records"])
        self.replicas.append(replica)
        if wait:
            await self.world.until_ready(replica.probe)
        return replica


@asynccontextmanager
async def fleet(world: World, **changes: Any) -> AsyncIterator[Fleet]:
    """Make clients, and replicas on demand; everything ends with it. ``changes`` are settings of every replica."""
    world.keys["keys"].append(STAFF.jwk)
    clients = Clients(world, {one: await world.source(one) for one in (FRONT, PLANNER, WRITER)})
    running = Fleet(world, clients, changes)
    try:
        yield running
    finally:
        for replica in running.replicas:
            if replica.process.returncode is None:
                replica.process.kill()
            await replica.process.communicate()
