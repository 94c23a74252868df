"""Behaviour that only py-spiffe has: threads, errors as text, updates it cannot parse."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import workload_pb
from sidecar.identity.py_spiffe import PySpiffeSource
from sidecar.identity.source import State
from sidecar.identity.workload_settings import WorkloadApiSettings
from tests.identity.scripted_api import x509_message
from tests.identity.shapes import HOUR, NOW, authority, leaf
from tests.identity.supplies import ApiSupply, Given, following
from tests.integration.identity.test_workload_api import TICK_S, Pauses

pytestmark = pytest.mark.integration

A, B, C = TrustDomain("a.test"), TrustDomain("b.test"), TrustDomain("c.test")
ROOT_A, ROOT_B, ROOT_C = authority("root a"), authority("root b"), authority("root c")
SELF, OTHER = SpiffeId("spiffe://a.test/self"), SpiffeId("spiffe://a.test/other")


def given(number: int = 1, **changes: Any) -> Given:
    return Given(**({"chain": [leaf(ROOT_A, SELF, not_after=NOW + HOUR + number)], "bundle": [ROOT_A]} | changes))


@pytest.fixture
async def supply(tmp_path: Path) -> AsyncIterator[ApiSupply]:
    supply = ApiSupply(tmp_path, py_spiffe=True)
    await supply.restore()
    yield supply
    await supply.lose()


@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.INVALID_ARGUMENT, Status.INTERNAL])
async def test_no_status_but_denial_takes_anything_away(supply: ApiSupply, status: Status) -> None:
    supply.give(given())
    async with following(supply) as follower:
        identity = await follower.identity()
        supply.api.say(status)
        await follower.until(lambda source: source.counts.lost_connections > 0)
        assert follower.state() is State.STALE
        assert follower.source.current is identity
        assert status.name in str(follower.source.last_error)


async def test_a_stream_that_ends_is_opened_again(supply: ApiSupply) -> None:
    supply.give(given(1))
    async with following(supply) as follower:
        await follower.identity()
        supply.api.end()
        await follower.until(lambda source: source.counts.lost_connections > 0)
        supply.give(given(2))
        await follower.identity()
        assert follower.source.counts.discarded == 0


async def test_a_server_that_says_nothing_is_given_up_and_asked_again(supply: ApiSupply) -> None:
    supply.settings["first_message_timeout_s"] = 0.2
    async with following(supply) as follower:
        await follower.until(lambda source: source.last_error is not None)
        assert "did not answer in time" in str(follower.source.last_error)
        supply.give(given())
        await follower.identity()


async def test_silence_after_the_first_update_is_no_loss(supply: ApiSupply) -> None:
    supply.settings["first_message_timeout_s"] = 0.5
    supply.give(given())
    supply.give_jwt(None, {"a.test": b'{"keys": []}'})
    async with following(supply) as follower:
        await follower.identity()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await follower.until(lambda source: source.counts.lost_connections > 0)


async def test_waits_grow_until_a_good_update(supply: ApiSupply) -> None:
    pauses = Pauses()
    source = PySpiffeSource(WorkloadApiSettings(address=supply.api.address, expiry_tick_s=TICK_S), pause=pauses)
    async with asyncio.TaskGroup() as group:
        supply.api.say(Status.UNAVAILABLE)
        running = group.create_task(source.run())
        waits = [await pauses.wait_for_failure()]
        for _ in range(5):
            pauses.go()
            waits.append(await pauses.wait_for_failure())
        assert waits[0] <= 0.1
        assert 0.5 <= waits[-1] <= 1.0
        supply.give(given())
        pauses.go()
        async with asyncio.timeout(10):
            for _ in iter(lambda: source.current is not None, True):
                await asyncio.sleep(0)
        supply.api.end()
        assert await pauses.wait_for_failure() <= 0.1
        running.cancel()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_failures_leave_no_threads_and_no_descriptors_behind(supply: ApiSupply) -> None:
    supply.api.say(Status.PERMISSION_DENIED)
    async with following(supply) as follower:
        await follower.until(lambda source: source.counts.lost_connections > 5)
        threads, files = threading.active_count(), descriptors()
        await follower.until(lambda source: source.counts.lost_connections > 45)
        assert threading.active_count() <= threads + 4  # those of an attempt come and go
        assert descriptors() <= files + 20


async def test_an_update_it_cannot_parse_still_renews_our_svid_with_the_bundles_we_know(supply: ApiSupply) -> None:
    supply.give(given(1, federated={"b.test": [ROOT_B]}))
    async with following(supply) as follower:
        first = await follower.identity()
        supply.give(given(2, federated={"b.test": []}))
        second = await follower.identity()
        assert second.svid.not_after == first.svid.not_after + 1
        assert second.bundles is first.bundles
        await follower.until(lambda source: source.counts.discarded > 2)
        assert "empty federated bundle" in str(follower.source.last_error)
        assert follower.state() is State.READY


async def test_an_update_it_cannot_parse_makes_no_first_identity(supply: ApiSupply) -> None:
    supply.give(given(1, federated={"b.test": []}))
    async with following(supply) as follower:
        await follower.until(lambda source: source.counts.discarded > 1)
        assert follower.source.current is None


async def test_an_svid_that_is_not_ours_brings_no_trust_in_its_domain(supply: ApiSupply) -> None:
    message = x509_message(
        (SELF, [leaf(ROOT_A, SELF)]),
        ("spiffe://c.test/self", [leaf(ROOT_C, "spiffe://c.test/self")]),
        bundle=[ROOT_A],
        federated={"spiffe://b.test": ROOT_B.der},
    )
    message.svids[1].bundle = ROOT_C.der
    supply.api.say(message)
    async with following(supply, spiffe_id=SELF) as follower:
        assert (await follower.identity()).bundles.keys() == {A, B}


async def test_of_several_svids_the_configured_one_is_ours_and_without_one_none_is(supply: ApiSupply) -> None:
    supply.api.say(x509_message((OTHER, [leaf(ROOT_A, OTHER)]), (SELF, [leaf(ROOT_A, SELF)]), bundle=[ROOT_A]))
    async with following(supply) as follower:
        await follower.until(lambda source: source.counts.discarded > 0)
        assert "set identity.spiffe_id" in str(follower.source.last_error)
        assert follower.source.current is None
    async with following(supply, spiffe_id=SELF) as follower:
        assert (await follower.identity()).spiffe_id == SELF


async def test_jwt_bundles_it_cannot_parse_change_nothing_and_denial_takes_them_away(supply: ApiSupply) -> None:
    supply.give(given())
    supply.give_jwt(None, {"a.test": b'{"keys": []}'})
    async with following(supply) as follower:
        await follower.until(lambda source: source.jwt_bundles.keys() == {A})
        supply.api.say_jwt(workload_pb.JWTBundlesResponse(bundles={"spiffe://b.test": b"junk"}))
        await follower.until(lambda source: source.counts.discarded > 0)
        assert follower.source.jwt_bundles.keys() == {A}
        supply.api.say_jwt(Status.UNAVAILABLE)
        await follower.until(lambda source: source.counts.lost_connections > 0)
        assert follower.source.jwt_bundles.keys() == {A}
        supply.api.say_jwt(Status.PERMISSION_DENIED)
        await follower.until(lambda source: not source.jwt_bundles)


@pytest.mark.parametrize(
    "changes", [{"hint": "internal"}, {"address": "tcp://127.0.0.1:8081"}], ids=["a hint", "an IP address"]
)
def test_what_it_cannot_do_is_refused_in_settings(changes: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"address": "unix:///x"} | changes
    WorkloadApiSettings(**settings)
    with pytest.raises(ValueError, match="py-spiffe"):
        WorkloadApiSettings(py_spiffe=True, **settings)
