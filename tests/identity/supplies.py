"""Suppliers of an identity under the test's control: the same few actions for each kind of source."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives import serialization
from grpclib.const import Status

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import workload_pb
from sidecar.identity.base_source import BaseSource
from sidecar.identity.files import FileSettings, FileSource
from sidecar.identity.py_spiffe import PySpiffeSource
from sidecar.identity.source import Identity, State
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_settings import WorkloadApiSettings
from tests.identity.scripted_api import ScriptedApi
from tests.identity.shapes import NOW, Issued, der_of

AUDIENCE = "https://sts.test"
OPEN_MODE, PRIVATE_MODE = 0o644, 0o600


@dataclass
class Given:
    """One full state: our chain, leaf first, the key (by default the leaf's), and the bundles."""

    chain: Sequence[Issued]
    bundle: Sequence[Issued]
    federated: Mapping[str, Sequence[Issued] | bytes] = field(default_factory=dict)
    key: Issued | None = None
    name: str = "spiffe://a.test/self"


class Supply(Protocol):
    """``lose`` and ``restore`` the connection to the source; ``withdraw`` the identity."""

    def source(
        self, federated: Sequence[str], clock: Callable[[], float], spiffe_id: SpiffeId | None
    ) -> BaseSource: ...

    def give(self, given: Given) -> None: ...

    def give_jwt(self, token: str | None, bundles: Mapping[str, bytes]) -> None: ...

    def give_nothing(self) -> None: ...

    def give_garbage(self) -> None: ...

    def withdraw(self) -> None: ...

    async def lose(self) -> None: ...

    async def restore(self) -> None: ...


class ApiSupply:
    """A scripted Workload API, for our own client or for py-spiffe."""

    def __init__(self, folder: Path, *, py_spiffe: bool) -> None:
        self.api = ScriptedApi(folder / "api.sock")
        self._py_spiffe = py_spiffe
        self._serving = AsyncExitStack()
        self.settings: dict[str, Any] = {}

    def source(self, federated: Sequence[str], clock: Callable[[], float], spiffe_id: SpiffeId | None) -> BaseSource:
        settings = WorkloadApiSettings(
            address=self.api.address,
            spiffe_id=spiffe_id,
            py_spiffe=self._py_spiffe,
            jwt_bundles=True,
            min_backoff_s=0.01,
            max_backoff_s=0.05,
            expiry_tick_s=0.02,
            **self.settings,
        )
        return (PySpiffeSource if self._py_spiffe else WorkloadApiSource)(settings, clock=clock)

    def give(self, given: Given) -> None:
        federated = {
            f"spiffe://{name}": held if isinstance(held, bytes) else b"".join(der_of(*held))
            for name, held in given.federated.items()
        }
        own = workload_pb.X509SVID(
            spiffe_id=given.name,
            x509_svid=b"".join(der_of(*given.chain)),
            x509_svid_key=(given.key or given.chain[0]).key_der,
            bundle=b"".join(der_of(*given.bundle)),
        )
        self.api.say(workload_pb.X509SVIDResponse(svids=[own], federated_bundles=federated))

    def give_jwt(self, token: str | None, bundles: Mapping[str, bytes]) -> None:
        svids = [workload_pb.JWTSVID(svid=token)] if token is not None else []
        self.api.jwt_svid = lambda _: workload_pb.JWTSVIDResponse(svids=svids)
        named = {f"spiffe://{name}": document for name, document in bundles.items()}
        self.api.say_jwt(workload_pb.JWTBundlesResponse(bundles=named))

    def give_nothing(self) -> None:
        self.api.say(workload_pb.X509SVIDResponse())

    def give_garbage(self) -> None:
        broken: Any = workload_pb.X509SVIDResponse.FromString(self.api.x509.SerializeToString())
        broken.svids[0].x509_svid = b"junk"
        self.api.say(broken)

    def withdraw(self) -> None:
        self.api.say(Status.PERMISSION_DENIED)

    async def lose(self) -> None:
        await self._serving.aclose()

    async def restore(self) -> None:
        await self._serving.enter_async_context(self.api.serving())


class FileSupply:
    """A folder as Kubernetes makes it: a link ``..data`` to the folder with the newest files, changed atomically."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "..data"
        self._jwt = folder / "jwt"
        self._jwt.mkdir()
        self._turn = 0
        self._files: dict[str, bytes] = {}

    def source(self, federated: Sequence[str], clock: Callable[[], float], spiffe_id: SpiffeId | None) -> BaseSource:
        settings = FileSettings(
            certificate=self._data / "tls.crt",
            key=self._data / "tls.key",
            bundle=self._data / "ca.crt",
            federated={TrustDomain(name): self._data / name for name in federated},
            jwt_svids={AUDIENCE: self._jwt / "svid"},
            jwt_bundles=self._jwt / "bundles",
            spiffe_id=spiffe_id,
            look_every_s=0.03,
            settle_s=0.01,
        )
        return FileSource(settings, clock=clock)

    def give(self, given: Given) -> None:
        self._files = {
            "tls.crt": pem_of(*given.chain),
            "tls.key": pem_key_of(given.key or given.chain[0]),
            "ca.crt": pem_of(*given.bundle),
        } | {name: held if isinstance(held, bytes) else pem_of(*held) for name, held in given.federated.items()}
        self._swap()

    def give_jwt(self, token: str | None, bundles: Mapping[str, bytes]) -> None:
        if token is None:
            (self._jwt / "svid").unlink(missing_ok=True)
        else:
            replace(self._jwt / "svid", f"{token}\n".encode(), PRIVATE_MODE)
        encoded = {name: base64.b64encode(document).decode() for name, document in bundles.items()}
        replace(self._jwt / "bundles", json.dumps(encoded).encode(), OPEN_MODE)

    def give_nothing(self) -> None:
        self._files = dict.fromkeys(self._files, b"")
        self._swap()

    def give_garbage(self) -> None:
        self._files["tls.crt"] = b"-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n"
        self._swap()

    def withdraw(self) -> None:
        self._files = {}
        self._swap()

    async def lose(self) -> None:
        self._point_at("..data")  # a link to itself: neither present nor missing

    async def restore(self) -> None:
        if self._turn:
            self._swap()

    def _swap(self) -> None:
        self._turn += 1
        fresh = self._folder / f"..{self._turn}"
        fresh.mkdir()
        for name, content in self._files.items():
            replace(fresh / name, content, PRIVATE_MODE if name == "tls.key" else OPEN_MODE)
        self._point_at(fresh.name)
        shutil.rmtree(self._folder / f"..{self._turn - 1}", ignore_errors=True)

    def _point_at(self, name: str) -> None:
        link = self._folder / "..data_tmp"
        link.symlink_to(name)
        link.replace(self._data)


def replace(path: Path, content: bytes, mode: int) -> None:
    """Replace a whole file atomically."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.touch(mode=mode)
    fresh.chmod(mode)
    fresh.write_bytes(content)
    fresh.replace(path)


def pem_of(*certificates: Issued) -> bytes:
    return b"".join(issued.certificate.public_bytes(serialization.Encoding.PEM) for issued in certificates)


def pem_key_of(issued: Issued) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return bytes(issued.key.private_bytes(encoding, form, serialization.NoEncryption()))


SUPPLIES: dict[str, Callable[[Path], Supply]] = {
    "workload_api": lambda folder: ApiSupply(folder, py_spiffe=False),
    "files": FileSupply,
    "py_spiffe": lambda folder: ApiSupply(folder, py_spiffe=True),
}


class Follower:
    """A running source, its notifications, and its wall clock."""

    def __init__(self, supply: Supply, federated: Sequence[str], spiffe_id: SpiffeId | None) -> None:
        self.now = float(NOW)
        self.changes: asyncio.Queue[Identity | None] = asyncio.Queue()
        self.source = supply.source(federated, lambda: self.now, spiffe_id)
        self.source.subscribe(self.changes.put_nowait)

    def state(self) -> State:
        return self.source.state

    def current(self) -> Identity | None:
        return self.source.current

    async def change(self) -> Identity | None:
        return await asyncio.wait_for(self.changes.get(), 10)

    async def identity(self) -> Identity:
        identity = await self.change()
        assert identity is not None
        return identity

    async def until(self, condition: Callable[[BaseSource], bool]) -> None:
        """Wait for a change that is not announced."""
        async with asyncio.timeout(10):
            for _ in iter(lambda: condition(self.source), True):
                await asyncio.sleep(0)


@asynccontextmanager
async def following(
    supply: Supply, *, federated: Sequence[str] = (), spiffe_id: SpiffeId | None = None
) -> AsyncIterator[Follower]:
    follower = Follower(supply, federated, spiffe_id)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(follower.source.run())
        yield follower
        running.cancel()
