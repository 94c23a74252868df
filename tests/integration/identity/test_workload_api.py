"""The source on real sockets: a scripted Workload API for faults, the development one for normal operation."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status

from delegation_core.errors import Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import workload_pb
from sidecar.identity.source import Identity, IdentitySource, State
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.workload_server import DevWorkloadApi
from tests.identity.scripted_api import ScriptedApi, x509_message
from tests.identity.shapes import HOUR, NOW, authority, leaf

pytestmark = pytest.mark.integration

A, B = TrustDomain("a.test"), TrustDomain("b.test")
ROOT_A, ROOT_B = authority("root a"), authority("root b")
SELF, OTHER = "spiffe://a.test/self", "spiffe://a.test/other"
TICK_S = 1.0


class Pauses:
    """Every wait of a source, under the test's control."""

    def __init__(self) -> None:
        self.waits: asyncio.Queue[float] = asyncio.Queue()
        self._go: asyncio.Queue[None] = asyncio.Queue()
        self._tick: asyncio.Queue[None] = asyncio.Queue()

    async def __call__(self, seconds: float) -> None:
        if seconds == TICK_S:
            await self._tick.get()
            return
        self.waits.put_nowait(seconds)
        await self._go.get()

    async def wait_for_failure(self) -> float:
        return await asyncio.wait_for(self.waits.get(), 5)

    def go(self) -> None:
        self._go.put_nowait(None)

    def tick(self) -> None:
        self._tick.put_nowait(None)


class Follower:
    """A running source, and its notifications."""

    def __init__(self, address: str, *, clock: Callable[[], float] | None = None, **settings: Any) -> None:
        self.now = float(NOW)
        self.pauses = Pauses()
        self.changes: asyncio.Queue[Identity | None] = asyncio.Queue()
        self.source = WorkloadApiSource(
            WorkloadApiSettings(address=address, expiry_tick_s=TICK_S, **({"first_message_timeout_s": 5.0} | settings)),
            clock=clock or (lambda: self.now),
            pause=self.pauses,
        )
        self.source.subscribe(self.changes.put_nowait)

    async def wait_for_change(self) -> Identity | None:
        return await asyncio.wait_for(self.changes.get(), 5)

    def state(self) -> State:
        return self.source.state

    def current(self) -> Identity | None:
        return self.source.current

    async def wait_for_identity(self) -> Identity:
        identity = await self.wait_for_change()
        assert identity is not None
        return identity


@asynccontextmanager
async def following(address: str, **settings: Any) -> AsyncIterator[Follower]:
    follower = Follower(address, **settings)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(follower.source.run())
        yield follower
        running.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a change that is not announced."""
    async with asyncio.timeout(5):
        for _ in iter(condition, True):
            await asyncio.sleep(0)


def message(
    spiffe_id: str = SELF, *, number: int = 1, federated: dict[str, bytes] | None = None, **changes: Any
) -> Any:
    """Return a good message; each ``number`` has another certificate."""
    own = leaf(ROOT_A, spiffe_id, not_after=NOW + HOUR + number)
    built = x509_message((spiffe_id, [own]), bundle=[ROOT_A], federated=federated)
    for name, value in changes.items():
        setattr(built.svids[0], name, value)
    return built


@pytest.fixture
def api(tmp_path: Path) -> ScriptedApi:
    return ScriptedApi(tmp_path / "api.sock")


async def test_it_waits_for_a_socket_that_is_not_there_yet(api: ScriptedApi) -> None:
    async with following(api.address) as follower:
        await follower.pauses.wait_for_failure()
        assert follower.state() == State.STARTING
        assert follower.current() is None
        assert "does not exist" in str(follower.source.last_error)
        api.x509 = message()
        async with api.serving():
            follower.pauses.go()
            identity = await follower.wait_for_identity()
            assert (identity.spiffe_id, identity.number) == (SELF, 1)
            assert follower.state() == State.READY
            assert follower.source.last_error is None
            assert follower.current() is identity


async def test_waits_grow_until_a_good_update(api: ScriptedApi) -> None:
    async with following(api.address) as follower:
        waits = [await follower.pauses.wait_for_failure()]
        for _ in range(5):
            follower.pauses.go()
            waits.append(await follower.pauses.wait_for_failure())
        assert waits[0] <= 0.1
        assert 0.5 <= waits[-1] <= 1.0
        api.x509 = message()
        async with api.serving():
            follower.pauses.go()
            await follower.wait_for_identity()
        assert await follower.pauses.wait_for_failure() <= 0.1


async def test_a_rotation_is_a_new_generation(api: ScriptedApi) -> None:
    api.x509 = message()
    async with api.serving(), following(api.address) as follower:
        first = await follower.wait_for_identity()
        api.say(message(number=2))
        second = await follower.wait_for_identity()
        assert (first.number, second.number) == (1, 2)
        assert second.svid.not_after == first.svid.not_after + 1
        assert second.server_context is not first.server_context
        assert second.bundles[A] is first.bundles[A]


async def test_the_same_message_again_changes_nothing(api: ScriptedApi) -> None:
    api.x509 = message()
    async with api.serving(), following(api.address) as follower:
        first = await follower.wait_for_identity()
        api.say(api.x509)
        api.say(message(number=3))
        assert (await follower.wait_for_identity()).number == first.number + 1
        assert follower.source.counts.generations == 2


UNUSABLE = {
    "no SVID": workload_pb.X509SVIDResponse(),
    "junk certificate": message(x509_svid=b"junk"),
    "another key": message(x509_svid_key=ROOT_A.key_der),
    "junk bundle": message(bundle=b"junk"),
    "empty own bundle": message(bundle=b""),
    "another ID": message(spiffe_id=OTHER),
    "expired": x509_message((SELF, [leaf(ROOT_A, SELF, not_after=NOW - 1)]), bundle=[ROOT_A]),
}


@pytest.mark.parametrize("case", UNUSABLE)
async def test_an_unusable_message_is_counted_and_the_last_good_generation_stays(api: ScriptedApi, case: str) -> None:
    api.x509 = message()
    async with api.serving(), following(api.address) as follower:
        first = await follower.wait_for_identity()
        bad = workload_pb.X509SVIDResponse.FromString(UNUSABLE[case].SerializeToString())
        if case == "another ID":
            bad.svids[0].spiffe_id = SELF
        api.say(bad)
        api.end()
        await follower.pauses.wait_for_failure()
        assert follower.current() is first
        assert follower.source.counts.discarded == 1
        api.x509 = message(number=2)
        follower.pauses.go()
        assert (await follower.wait_for_identity()).number == 2


async def test_a_broken_federated_bundle_changes_nothing_of_its_domain_and_costs_no_other(api: ScriptedApi) -> None:
    api.x509 = message(federated={"spiffe://b.test": ROOT_B.der, "spiffe://c.test": ROOT_B.der})
    async with api.serving(), following(api.address) as follower:
        assert (await follower.wait_for_identity()).bundles.keys() == {"a.test", "b.test", "c.test"}
        api.say(message(federated={"spiffe://b.test": b"junk", "spiffe://c.test": b""}))
        identity = await follower.wait_for_identity()
        assert identity.bundles.keys() == {"a.test", "b.test", "c.test"}
        assert len(identity.bundles[B].authorities) == 1
        assert identity.bundles[TrustDomain("c.test")].authorities == ()
        assert follower.source.counts.broken_bundles == 1
        assert follower.state() == State.READY


async def test_a_bundle_that_is_absent_was_withdrawn(api: ScriptedApi) -> None:
    api.x509 = message(federated={"spiffe://b.test": ROOT_B.der})
    async with api.serving(), following(api.address) as follower:
        assert B in (await follower.wait_for_identity()).bundles
        api.say(message())
        assert B not in (await follower.wait_for_identity()).bundles


async def test_other_bundles_with_the_same_svid_are_a_new_generation(api: ScriptedApi) -> None:
    api.x509 = message()
    changed = workload_pb.X509SVIDResponse()
    changed.CopyFrom(api.x509)
    changed.federated_bundles["spiffe://b.test"] = ROOT_B.der
    async with api.serving(), following(api.address) as follower:
        first = await follower.wait_for_identity()
        api.say(changed)
        second = await follower.wait_for_identity()
        assert second.svid == first.svid
        assert second.bundles.keys() == {A, B}


async def test_a_lost_connection_leaves_the_identity_in_use(api: ScriptedApi) -> None:
    api.x509 = message()
    async with following(api.address) as follower:
        async with api.serving():
            identity = await follower.wait_for_identity()
        await follower.pauses.wait_for_failure()
        assert follower.state() == State.STALE
        assert follower.current() is identity
        async with api.serving():
            follower.pauses.go()
            await until(lambda: follower.state() is State.READY)
        assert follower.source.counts.generations == 1


async def test_denial_withdraws_the_identity_at_once_until_it_is_given_back(api: ScriptedApi) -> None:
    api.x509 = message()
    async with api.serving(), following(api.address) as follower:
        await follower.wait_for_identity()
        api.say(Status.PERMISSION_DENIED)
        assert await follower.wait_for_change() is None
        assert follower.state() == State.DENIED
        assert follower.current() is None
        assert "denies" in str(follower.source.last_error)
        await follower.pauses.wait_for_failure()
        api.x509 = message(number=2)
        follower.pauses.go()
        assert (await follower.wait_for_identity()).number == 2
        assert follower.state() == State.READY


async def test_denial_at_the_start_is_waited_out(api: ScriptedApi) -> None:
    api.x509 = Status.PERMISSION_DENIED
    async with api.serving(), following(api.address) as follower:
        assert await follower.pauses.wait_for_failure() <= 0.1
        assert follower.state() == State.DENIED
        api.x509 = message()
        follower.pauses.go()
        await follower.wait_for_identity()


@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.INVALID_ARGUMENT, Status.INTERNAL])
async def test_no_other_status_takes_anything_away(api: ScriptedApi, status: Status) -> None:
    api.x509 = message()
    async with api.serving(), following(api.address) as follower:
        identity = await follower.wait_for_identity()
        api.say(status)
        await follower.pauses.wait_for_failure()
        assert follower.state() == State.STALE
        assert follower.current() is identity


async def test_a_message_without_the_configured_svid_withdraws_it(api: ScriptedApi) -> None:
    api.x509 = message()
    async with api.serving(), following(api.address, spiffe_id=SpiffeId(SELF)) as follower:
        await follower.wait_for_identity()
        api.say(message(OTHER))
        assert await follower.wait_for_change() is None
        assert follower.state() == State.DENIED
        api.say(message())
        assert (await follower.wait_for_identity()).spiffe_id == SELF


async def test_the_configured_hint_chooses_among_svids(api: ScriptedApi) -> None:
    own, other = leaf(ROOT_A, SELF), leaf(ROOT_A, OTHER)
    api.x509 = x509_message((OTHER, [other]), (SELF, [own]), bundle=[ROOT_A], hints=("x", "mine"))
    async with api.serving(), following(api.address, hint="mine") as follower:
        assert (await follower.wait_for_identity()).spiffe_id == SELF


async def test_an_identity_ends_with_its_svid_though_nobody_says_so(api: ScriptedApi) -> None:
    long_lived = TrustDomainAuthority(A).issue_jwt(SpiffeId(SELF), "x", ttl_s=9 * HOUR)
    api.x509 = message()
    api.jwt_svid = lambda _: workload_pb.JWTSVIDResponse(svids=[workload_pb.JWTSVID(svid=long_lived)])
    async with api.serving(), following(api.address) as follower:
        identity = await follower.wait_for_identity()
        assert await follower.source.jwt_svid("x") == long_lived
        follower.now = identity.svid.not_after - 1
        assert follower.current() is identity
        follower.now = identity.svid.not_after
        assert follower.current() is None
        assert follower.state() == State.EXPIRED
        with pytest.raises(Unavailable):
            await follower.source.jwt_svid("x")
        follower.pauses.tick()
        assert await follower.wait_for_change() is None


async def test_an_expired_svid_that_is_sent_again_stays_expired(api: ScriptedApi) -> None:
    api.x509 = message()
    async with api.serving(), following(api.address) as follower:
        identity = await follower.wait_for_identity()
        follower.now = identity.svid.not_after + 5
        api.say(api.x509)
        assert await follower.wait_for_change() is None
        assert follower.state() == State.EXPIRED
        api.say(x509_message((SELF, [leaf(ROOT_A, SELF, not_after=NOW + 9 * HOUR)]), bundle=[ROOT_A]))
        await follower.wait_for_identity()
        assert follower.state() == State.READY


async def test_a_mute_server_is_given_up_and_asked_again(api: ScriptedApi) -> None:
    async with api.serving(), following(api.address, first_message_timeout_s=0.5) as follower:
        await follower.pauses.wait_for_failure()
        assert follower.source.last_error == "the Workload API did not answer in time"
        api.x509 = message()
        follower.pauses.go()
        await follower.wait_for_identity()


async def test_no_second_stream_is_opened_unless_it_is_needed(api: ScriptedApi) -> None:
    api.x509 = message()
    async with api.serving(), following(api.address) as follower:
        await follower.wait_for_identity()
        assert [method for method, _ in api.calls] == ["FetchX509SVID"]
        assert follower.source.jwt_bundles == {}


async def test_jwt_bundles_follow_their_own_stream(api: ScriptedApi) -> None:
    signer = TrustDomainAuthority(A)

    def bundles(**of: bytes) -> Any:
        named = {f"spiffe://{name}.test": document for name, document in of.items()}
        return workload_pb.JWTBundlesResponse(bundles=named)

    api.x509 = Status.UNAVAILABLE
    api.jwt_bundles = bundles(a=signer.jwt_bundle(), b=b"junk")
    async with api.serving(), following(api.address, jwt_bundles=True) as follower:
        await follower.pauses.wait_for_failure()  # the X.509 stream
        await until(lambda: bool(follower.source.jwt_bundles))
        assert follower.source.jwt_bundles.keys() == {A}
        assert follower.source.counts.broken_bundles == 1
        api.say_jwt(Status.UNAVAILABLE)
        await follower.pauses.wait_for_failure()
        assert follower.source.jwt_bundles.keys() == {A}
        api.jwt_bundles = Status.PERMISSION_DENIED
        follower.pauses.go()
        follower.pauses.go()
        await follower.pauses.wait_for_failure()
        await follower.pauses.wait_for_failure()
        assert follower.source.jwt_bundles == {}


async def test_a_jwt_svid_is_asked_for_in_our_own_name(api: ScriptedApi) -> None:
    signer = TrustDomainAuthority(A)
    api.x509 = message()
    api.jwt_svid = lambda request: workload_pb.JWTSVIDResponse(
        svids=[workload_pb.JWTSVID(spiffe_id=SELF, svid=signer.issue_jwt(SpiffeId(SELF), request.audience[0]))]
    )
    async with api.serving(), following(api.address) as follower:
        await follower.wait_for_identity()
        token = await follower.source.jwt_svid("https://sts.test")
        assert await follower.source.jwt_svid("https://sts.test") == token
        assert [(list(request.audience), request.spiffe_id) for request in api.requests] == [
            (["https://sts.test"], SELF)
        ]


@pytest.mark.parametrize("answer", [Status.PERMISSION_DENIED, Status.UNAVAILABLE, workload_pb.JWTSVIDResponse()])
async def test_no_jwt_svid_is_not_ready(api: ScriptedApi, answer: Any) -> None:
    api.x509 = message()
    api.jwt_svid = lambda _: answer
    async with api.serving(), following(api.address) as follower:
        await follower.wait_for_identity()
        with pytest.raises(Unavailable) as refused:
            await follower.source.jwt_svid("x")
        assert refused.value.reason is Reason.NOT_READY


async def test_withdrawal_drops_jwt_svids(api: ScriptedApi) -> None:
    signer = TrustDomainAuthority(A)
    api.x509 = message()
    api.jwt_svid = lambda request: workload_pb.JWTSVIDResponse(
        svids=[workload_pb.JWTSVID(spiffe_id=SELF, svid=signer.issue_jwt(SpiffeId(SELF), request.audience[0]))]
    )
    async with api.serving(), following(api.address, spiffe_id=SpiffeId(SELF)) as follower:
        await follower.wait_for_identity()
        await follower.source.jwt_svid("x")
        api.say(message(OTHER))
        await follower.wait_for_change()
        with pytest.raises(Unavailable):
            await follower.source.jwt_svid("x")
        api.say(message())
        await follower.wait_for_identity()
        await follower.source.jwt_svid("x")
        assert len(api.requests) == 2


async def test_nothing_secret_is_told(api: ScriptedApi, caplog: pytest.LogCaptureFixture) -> None:
    api.x509 = message(x509_svid_key=b"secret-key")
    async with api.serving(), following(api.address) as follower:
        await until(lambda: follower.source.counts.discarded > 0)
        assert "secret-key" not in str(follower.source.last_error)
        assert "secret-key" not in caplog.text


async def test_authorities_of_one_name_are_warned_of(api: ScriptedApi, caplog: pytest.LogCaptureFixture) -> None:
    one = authority("same", extensions={"ski": None})
    two = authority("same", key=ROOT_B.key, extensions={"ski": None})
    api.x509 = message(federated={"spiffe://b.test": one.der, "spiffe://c.test": two.der})
    async with api.serving(), following(api.address) as follower:
        await follower.wait_for_identity()
    assert "share a name" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [{"address": "http://x"}, {"min_backoff_s": 0.0}, {"min_backoff_s": 2.0}],
    ids=["address", "no wait", "shortest above longest"],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        WorkloadApiSettings(**({"address": "unix:///x"} | changes))


# The development Workload API, which its own tests hold to the standard.


async def test_it_follows_the_development_api_through_registration_rotation_and_loss(tmp_path: Path) -> None:
    registry = Registry([TrustDomainAuthority(A), TrustDomainAuthority(B)])
    entry = Entry(
        spiffe_id=SpiffeId(SELF), selectors=Selectors(uid=os.getuid()), federates_with=frozenset({B}), hint="mine"
    )
    dev = DevWorkloadApi(tmp_path / "dev.sock", registry)
    async with dev, following(dev.address, jwt_bundles=True, clock=time.time) as follower:
        source: IdentitySource = follower.source
        await follower.pauses.wait_for_failure()
        await follower.pauses.wait_for_failure()
        assert source.state is State.DENIED
        registry.add_entry(entry)
        follower.pauses.go()
        follower.pauses.go()
        first = await follower.wait_for_identity()
        assert (first.spiffe_id, first.svid.hint, set(first.bundles)) == (SELF, "mine", {A, B})
        assert (await source.jwt_svid("https://sts.test")).count(".") == 2
        registry.rotate()
        second = await follower.wait_for_identity()
        assert len(second.bundles[A].authorities) == 2
        registry.remove_entry(SELF)
        assert await follower.wait_for_change() is None
        assert source.state is State.DENIED
