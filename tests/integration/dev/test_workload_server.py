from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import StreamTerminatedError
from spiffe import JwtSource, WorkloadApiClient, X509Source
from spiffe.workloadapi.errors import FetchX509SvidError

from delegation_core.bearer import parse_jwt_svid
from delegation_core.jwt_svid import verify_jwt_svid
from delegation_core.keyset import parse_jwt_bundle
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import workload_pb as pb
from sidecar.identity.source import Identity, State
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar_dev.attestation import Peer
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.svid import fetch
from sidecar_dev.workload_server import DevWorkloadApi
from sidecar_dev.workload_service import PeerService
from tests.dev.calls import first, opened, refusal, stream_of

pytestmark = pytest.mark.integration

ACME = TrustDomain("acme.example")
PARTNER = TrustDomain("partner.example")
PLANNER = SpiffeId("spiffe://acme.example/agent/planner")
ENTRY = Entry(
    spiffe_id=PLANNER, selectors=Selectors(pids=frozenset({os.getpid()})), federates_with=frozenset({PARTNER})
)
STS = "https://sts.acme.example"
WAIT_S = 5


@pytest.fixture
def registry() -> Registry:
    return Registry([TrustDomainAuthority(ACME), TrustDomainAuthority(PARTNER)], [ENTRY])


@pytest.fixture
async def api(registry: Registry, tmp_path: Path) -> AsyncIterator[DevWorkloadApi]:
    async with DevWorkloadApi(tmp_path / "api.sock", registry) as serving:
        yield serving


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_py_spiffes_client_gets_svids_and_bundles(api: DevWorkloadApi, registry: Registry) -> None:
    def ask() -> None:
        with WorkloadApiClient(api.address) as client:
            svid = client.fetch_x509_svid(timeout=WAIT_S)
            assert str(svid.spiffe_id) == PLANNER
            bundles = client.fetch_x509_bundles(timeout=WAIT_S).bundles
            assert {bundle.trust_domain.name for bundle in bundles} == {ACME, PARTNER}
            jwt_svid = client.fetch_jwt_svid(audience={STS}, timeout=WAIT_S)
            assert str(client.validate_jwt_svid(jwt_svid.token, STS, timeout=WAIT_S).spiffe_id) == PLANNER
            jwt_bundles = client.fetch_jwt_bundles(timeout=WAIT_S).bundles
            assert {bundle.trust_domain.name for bundle in jwt_bundles} == {ACME, PARTNER}

    await asyncio.to_thread(ask)


async def test_py_spiffes_client_is_denied_without_an_entry(api: DevWorkloadApi, registry: Registry) -> None:
    registry.remove_entry(PLANNER)

    def ask() -> None:
        with WorkloadApiClient(api.address) as client, pytest.raises(FetchX509SvidError, match="PERMISSION_DENIED"):
            client.fetch_x509_svid(timeout=WAIT_S)

    await asyncio.to_thread(ask)


async def test_py_spiffes_sources_follow_a_rotation(api: DevWorkloadApi, registry: Registry) -> None:
    loop = asyncio.get_running_loop()
    updated = asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(updated.set)

    def open_sources() -> tuple[X509Source, JwtSource]:
        x509_source = X509Source(socket_path=api.address, timeout_in_seconds=WAIT_S)
        x509_source.subscribe_for_updates(tell)
        return x509_source, JwtSource(socket_path=api.address, timeout_in_seconds=WAIT_S)

    x509_source, jwt_source = await asyncio.to_thread(open_sources)
    try:
        before = x509_source.get_x509_context().default_svid
        registry.rotate()
        async with asyncio.timeout(WAIT_S):
            await updated.wait()
        assert x509_source.get_x509_context().default_svid.leaf.serial_number != before.leaf.serial_number
        token = await asyncio.to_thread(lambda: jwt_source.fetch_svid(audience={STS}))
        assert str(token.spiffe_id) == PLANNER
    finally:
        await asyncio.to_thread(x509_source.close)
        await asyncio.to_thread(jwt_source.close)


async def test_the_sidecars_own_source_follows_rotation_withdrawal_and_grant(
    api: DevWorkloadApi, registry: Registry
) -> None:
    source = WorkloadApiSource(WorkloadApiSettings(address=api.address, jwt_bundles=True, max_backoff_s=0.1))
    told: asyncio.Queue[Identity | None] = asyncio.Queue()
    source.subscribe(told.put_nowait)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        running = group.create_task(source.run())
        first_identity = await told.get()
        assert first_identity is not None
        assert first_identity.spiffe_id == PLANNER
        assert set(first_identity.bundles) == {ACME, PARTNER}
        registry.rotate()
        second = await told.get()
        assert second is not None
        assert second.svid.chain != first_identity.svid.chain
        token = parse_jwt_svid(await source.jwt_svid(STS))
        key = parse_jwt_bundle(registry.authority(ACME).jwt_bundle()).find(token.kid)
        assert key is not None
        assert verify_jwt_svid(token, key=key, audience=STS, now=int(time.time())).spiffe_id == PLANNER
        registry.remove_entry(PLANNER)
        assert await told.get() is None
        assert source.state is State.DENIED
        registry.add_entry(ENTRY)
        assert await told.get() is not None
        running.cancel()


@pytest.mark.parametrize("mode", [0o600, 0o666])
async def test_the_socket_has_the_mode_it_was_given(registry: Registry, tmp_path: Path, mode: int) -> None:
    async with DevWorkloadApi(tmp_path / "s", registry, mode=mode) as api:
        assert api.path.stat().st_mode & 0o777 == mode


async def test_a_socket_that_a_dead_server_left_is_replaced(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with DevWorkloadApi(path, registry):
        assert await first(path, "FetchX509SVID")


async def test_a_living_server_is_not_pushed_aside(api: DevWorkloadApi, registry: Registry) -> None:
    with pytest.raises(OSError, match="in use"):
        await DevWorkloadApi(api.path, registry).start()
    assert await first(api.path, "FetchX509SVID")


async def test_a_file_that_is_no_socket_is_not_removed(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(OSError, match="in use"):
        await DevWorkloadApi(path, registry).start()
    assert path.read_text() == "x"


async def test_a_stopped_server_can_be_started_again(api: DevWorkloadApi) -> None:
    await api.stop()
    assert not api.path.exists()
    await api.stop()
    await api.start()
    assert await first(api.path, "FetchX509SVID")


async def test_connections_leave_no_descriptor_behind(registry: Registry, tmp_path: Path) -> None:
    before = open_descriptors()
    async with DevWorkloadApi(tmp_path / "s", registry) as api:
        for _ in range(20):
            await first(api.path, "FetchX509SVID")
    assert open_descriptors() == before


async def test_a_server_that_stops_ends_its_streams_without_a_word(api: DevWorkloadApi) -> None:
    async def wait_for_the_end() -> None:
        async with Channel(path=str(api.path)) as channel, stream_of(channel, "FetchX509SVID") as stream:
            await opened(stream, pb.X509SVIDRequest())
            await api.stop()
            await stream.recv_message()

    with pytest.raises(StreamTerminatedError):
        await wait_for_the_end()


async def test_an_end_that_cannot_be_told_is_denied(registry: Registry, tmp_path: Path) -> None:
    class Blind(DevWorkloadApi):
        def service(self, peer: Peer | None) -> PeerService:
            return PeerService(self.registry, None)

    async with Blind(tmp_path / "s", registry) as api:
        status, _ = await refusal(first(api.path, "FetchX509SVID"))
    assert status is Status.PERMISSION_DENIED


async def test_the_address_is_what_clients_want_in_their_environment(api: DevWorkloadApi) -> None:
    assert api.address == f"unix://{api.path}"


async def test_each_socket_gives_the_identity_that_is_entered_for_it(tmp_path: Path) -> None:
    names = ("front", "writer")
    paths = {name: tmp_path / f"{name}.sock" for name in names}
    entries = [
        Entry(spiffe_id=SpiffeId(f"spiffe://{ACME}/{name}"), selectors=Selectors(socket=path))
        for name, path in paths.items()
    ]
    registry = Registry([TrustDomainAuthority(ACME)], entries)
    async with DevWorkloadApi(paths["front"], registry), DevWorkloadApi(paths["writer"], registry):
        for name, path in paths.items():
            fetched = await fetch(path, audience=None, timeout_s=WAIT_S)
            assert fetched.spiffe_id == f"spiffe://{ACME}/{name}"
