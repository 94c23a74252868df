from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, StreamStreamMethod
from grpclib.const import Status

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import workload_pb as pb
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.workload_server import DevWorkloadApi
from tests.dev.calls import HEADER, STREAMS, UNARY, call, first, opened, refusal, stream_of

pytestmark = pytest.mark.integration

ACME = TrustDomain("acme.example")
PLANNER = SpiffeId("spiffe://acme.example/agent/planner")
OTHER = SpiffeId("spiffe://acme.example/agent/other")
US = Selectors(uid=os.getuid(), pids=frozenset({os.getpid()}))
STS = "https://sts.acme.example"
HALF_LIFE_S = 1800
DENIED = (Status.PERMISSION_DENIED, "no identity issued")


class Clock:
    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> Registry:
    registry = Registry([TrustDomainAuthority(ACME)], [Entry(spiffe_id=PLANNER, selectors=US)], clock=clock)
    registry.svid(registry.entries[0])  # issued now
    return registry


@pytest.fixture
async def path(registry: Registry, tmp_path: Path) -> AsyncIterator[Path]:
    async with DevWorkloadApi(tmp_path / "api.sock", registry) as api:
        yield api.path


@pytest.mark.parametrize("name", STREAMS)
async def test_a_streams_first_message_comes_at_once(path: Path, name: str) -> None:
    assert await first(path, name) is not None


BAD_METADATA = {
    "none": [],
    "false": [(pb.SECURITY_HEADER, "false")],
    "upper case": [(pb.SECURITY_HEADER, "True")],
    "padded": [(pb.SECURITY_HEADER, "true x")],
    "twice": [*HEADER, *HEADER],
    "true and false": [*HEADER, (pb.SECURITY_HEADER, "false")],
}


@pytest.mark.parametrize("metadata", BAD_METADATA.values(), ids=BAD_METADATA.keys())
@pytest.mark.parametrize("name", [*STREAMS, *UNARY])
async def test_without_exactly_one_security_header_there_is_no_answer(
    path: Path, name: str, metadata: list[tuple[str, str]]
) -> None:
    waiting = first(path, name, metadata) if name in STREAMS else call(path, name, metadata)
    assert await refusal(waiting) == (Status.INVALID_ARGUMENT, "security header missing from request")


async def test_a_process_without_an_entry_is_denied_every_call(path: Path, registry: Registry) -> None:
    registry.replace_entries([Entry(spiffe_id=PLANNER, selectors=Selectors(pids=frozenset({1})))])
    for name in STREAMS:
        assert await refusal(first(path, name)) == DENIED
    assert await refusal(call(path, "FetchJWTSVID", audience=[STS])) == DENIED
    assert await refusal(call(path, "ValidateJWTSVID", audience=STS, svid="x")) == DENIED


async def test_a_rotation_reaches_open_streams_with_the_whole_new_state(path: Path, registry: Registry) -> None:
    async with Channel(path=str(path)) as channel, stream_of(channel, "FetchX509SVID") as stream:
        before = await opened(stream, pb.X509SVIDRequest())
        registry.rotate()
        after = await stream.recv_message()
        assert after.svids[0].x509_svid != before.svids[0].x509_svid
        assert after.svids[0].bundle.startswith(before.svids[0].bundle)  # the old authority is still trusted
        registry.drop_old()
        dropped = await stream.recv_message()
        assert dropped.svids[0].bundle == registry.authority(ACME).bundle_der()
        assert dropped.svids[0].x509_svid == after.svids[0].x509_svid
        await stream.cancel()


@pytest.mark.parametrize("name", ["FetchX509Bundles", "FetchJWTBundles"])
async def test_a_rotation_reaches_the_streams_of_bundles(path: Path, registry: Registry, name: str) -> None:
    async with Channel(path=str(path)) as channel, stream_of(channel, name) as stream:
        before = dict((await opened(stream, STREAMS[name][0]())).bundles)
        registry.rotate()
        assert dict((await stream.recv_message()).bundles) != before
        await stream.cancel()


async def test_a_reader_that_comes_late_gets_the_latest_state_only(path: Path, registry: Registry) -> None:
    async with Channel(path=str(path)) as channel, stream_of(channel, "FetchX509SVID") as stream:
        await opened(stream, pb.X509SVIDRequest())
        for _ in range(5):
            registry.rotate()
        latest = await stream.recv_message()
        assert latest.svids[0].bundle == registry.authority(ACME).bundle_der()
        await stream.cancel()


async def test_what_does_not_concern_a_process_is_not_sent_to_it(path: Path, registry: Registry) -> None:
    async with Channel(path=str(path)) as channel, stream_of(channel, "FetchX509SVID") as stream:
        await opened(stream, pb.X509SVIDRequest())
        registry.add_entry(Entry(spiffe_id=OTHER, selectors=Selectors(pids=frozenset({1}))))
        await first(path, "FetchX509Bundles")  # the stream was served meanwhile
        registry.add_entry(Entry(spiffe_id=OTHER, selectors=US))
        message = await stream.recv_message()
        assert [svid.spiffe_id for svid in message.svids] == [PLANNER, OTHER]
        await stream.cancel()


@pytest.mark.parametrize("name", STREAMS)
async def test_a_withdrawn_identity_ends_its_streams_with_a_denial(path: Path, registry: Registry, name: str) -> None:
    async def wait_for_withdrawal() -> None:
        async with Channel(path=str(path)) as channel, stream_of(channel, name) as stream:
            assert await opened(stream, STREAMS[name][0]()) is not None
            registry.remove_entry(PLANNER)
            assert await stream.recv_message() is None

    assert await refusal(wait_for_withdrawal()) == DENIED


async def test_an_identity_granted_again_is_served_again(path: Path, registry: Registry) -> None:
    (entry,) = registry.entries
    registry.remove_entry(PLANNER)
    assert await refusal(first(path, "FetchX509SVID")) == DENIED
    registry.add_entry(entry)
    assert (await first(path, "FetchX509SVID")).svids[0].spiffe_id == PLANNER


async def test_an_svid_is_renewed_without_being_asked_for(path: Path, registry: Registry, clock: Clock) -> None:
    clock.now += HALF_LIFE_S - 0.01
    async with Channel(path=str(path)) as channel, stream_of(channel, "FetchX509SVID") as stream:
        before = await opened(stream, pb.X509SVIDRequest())
        assert before.svids[0].x509_svid == b"".join(registry.svid(registry.entries[0]).chain_der)
        clock.now += 0.01
        after = await stream.recv_message()
        assert after.svids[0].x509_svid != before.svids[0].x509_svid
        await stream.cancel()


async def test_jwt_svids_are_given_and_validated(path: Path) -> None:
    (svid,) = (await call(path, "FetchJWTSVID", audience=[STS])).svids
    answer = await call(path, "ValidateJWTSVID", audience=STS, svid=svid.svid)
    assert answer.spiffe_id == PLANNER


async def test_a_jwt_svid_that_is_not_valid_is_refused_with_the_reason(path: Path) -> None:
    (svid,) = (await call(path, "FetchJWTSVID", audience=[STS])).svids
    waiting = call(path, "ValidateJWTSVID", audience="https://other", svid=svid.svid)
    assert await refusal(waiting) == (Status.INVALID_ARGUMENT, "wrong_audience")


@pytest.mark.parametrize("audience", [[], [""], [STS, ""], ["x"] * 17], ids=["none", "empty", "one empty", "many"])
async def test_a_jwt_svid_needs_audiences_in_reason(path: Path, audience: list[str]) -> None:
    status, _ = await refusal(call(path, "FetchJWTSVID", audience=audience))
    assert status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize("fields", [{"audience": STS}, {"svid": "x"}, {}], ids=["no svid", "no audience", "nothing"])
async def test_validation_needs_both_an_audience_and_an_svid(path: Path, fields: dict[str, str]) -> None:
    status, message = await refusal(call(path, "ValidateJWTSVID", HEADER, **fields))
    assert (status, message) == (Status.INVALID_ARGUMENT, "audience and svid must be given")


async def test_a_jwt_svid_of_another_workload_is_denied(path: Path) -> None:
    assert await refusal(call(path, "FetchJWTSVID", audience=[STS], spiffe_id=OTHER)) == DENIED


async def test_a_call_without_a_request_message_is_refused(path: Path) -> None:
    async def ask_nothing() -> None:
        async with Channel(path=str(path)) as channel:
            method = StreamStreamMethod[Any, Any](
                channel, f"{pb.SERVICE}FetchX509SVID", pb.X509SVIDRequest, pb.X509SVIDResponse
            )
            async with method.open(metadata=HEADER, timeout=5) as stream:
                await stream.send_request()
                await stream.end()
                await stream.recv_message()

    status, _ = await refusal(ask_nothing())
    assert status is Status.INVALID_ARGUMENT
