from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.identity import issuer
from sidecar.identity.endpoint import EndpointError, Trouble
from sidecar.identity.issuer import Issuer, JwksSettings, refresh_delay, retry_delay
from tests.fakes.jwks import JwksPublisher
from tests.fakes.tokens import TokenMint, encode, public_jwk

OLD = TokenMint(kid="old")
NEW = TokenMint(kid="new", key=1)
BOTH = encode({"keys": [OLD.jwk, NEW.jwk]})
NO_KEYS = encode({"keys": []})


@pytest.fixture
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer, "FIRST_RETRY_S", 0.001)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """One issuer that publishes the old key, and the task that keeps its keys."""

    def __init__(self, refresh_s: float | None = None) -> None:
        self.clock = Clock()
        self.publisher = JwksPublisher(OLD.jwks)
        self.fetched = asyncio.Event()
        self.issuer = Issuer(
            JwksSettings(issuer=OLD.issuer, url="http://127.0.0.1/jwks", refresh_s=refresh_s),
            self.publisher,
            self.clock,
            self.fetched.set,
        )

    async def wait_for_success(self) -> None:
        async with asyncio.timeout(5):
            await self.fetched.wait()
        self.fetched.clear()

    async def wait_for_failure(self) -> None:
        """Fetch once more, with a failure."""
        self.publisher.error = EndpointError(Trouble.UNREACHABLE)
        begun = self.publisher.fetches
        self.issuer.wake()
        await self.publisher.wait_for_fetches(begun + 2)  # the second proves that the first is over


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    task = asyncio.create_task(world.issuer.keep_fresh(lambda: 0.0))
    try:
        await world.wait_for_success()
        yield world
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def reason_of(wait: Awaitable[object]) -> Reason:
    with pytest.raises(SidecarError) as caught:
        await wait
    return caught.value.reason


@pytest.mark.parametrize(
    ("cache_control", "delay_s"),
    [
        pytest.param(None, 300, id="no hint"),
        pytest.param("max-age=600", 600, id="a hint"),
        pytest.param("public, Max-Age=600, must-revalidate", 600, id="among others, in any case"),
        pytest.param('max-age="600"', 600, id="quoted"),
        pytest.param("max-age=0", 60, id="too often"),
        pytest.param("max-age=60", 60, id="as often as may be"),
        pytest.param("max-age=59", 60, id="a little too often"),
        pytest.param("max-age=86400", 86400, id="as seldom as may be"),
        pytest.param("max-age=86401", 86400, id="too seldom"),
        pytest.param("max-age=999999999999", 300, id="no number we read"),
        pytest.param("max-age=-1", 300, id="negative"),
        pytest.param("x-max-age=600", 300, id="another directive"),
        pytest.param("s-maxage=600", 300, id="for shared caches"),
        pytest.param("no-store", 300, id="no number at all"),
    ],
)
def test_a_key_set_is_fetched_again_as_often_as_its_issuer_hints_within_bounds(
    cache_control: str | None, delay_s: float
) -> None:
    settings = JwksSettings(issuer="i", url="http://127.0.0.1/", max_age_s=1e6)
    assert refresh_delay(settings, cache_control, jitter=0.0) == delay_s


def test_a_configured_interval_is_meant_as_it_stands() -> None:
    settings = JwksSettings(issuer="i", url="http://127.0.0.1/", refresh_s=7)
    assert refresh_delay(settings, "max-age=600", jitter=0.0) == 7


def test_a_healthy_issuers_keys_never_get_too_old() -> None:
    settings = JwksSettings(issuer="i", url="http://127.0.0.1/", max_age_s=100)
    assert refresh_delay(settings, "max-age=86400", jitter=0.0) == 50


def test_jitter_only_shortens_the_interval() -> None:
    settings = JwksSettings(issuer="i", url="http://127.0.0.1/")
    assert 270 <= refresh_delay(settings, None, jitter=0.999) < 300


@pytest.mark.parametrize(
    ("failures", "has_keys", "delay_s"),
    [
        (1, False, 0.2),
        (2, False, 0.4),
        (5, False, 3.2),
        (6, False, 5),
        (10_000, False, 5),
        (6, True, 6.4),
        (10_000, True, 30),
    ],
)
def test_failures_are_retried_quickly_and_then_more_slowly(failures: int, has_keys: bool, delay_s: float) -> None:
    assert retry_delay(failures, has_keys=has_keys, cooldown_s=30, jitter=0.0) == pytest.approx(delay_s)
    assert retry_delay(failures, has_keys=has_keys, cooldown_s=30, jitter=0.999) >= delay_s / 2


async def test_a_key_that_is_known_is_found_without_a_fetch() -> None:
    async with running(World()) as world:
        key = world.issuer.find("old")
        assert key is not None
        assert key.public_key == OLD.key.public_key
        assert world.publisher.fetches == 1


async def test_an_unknown_key_is_fetched_for() -> None:
    async with running(World()) as world:
        world.publisher.document = BOTH
        key = await world.issuer.wait_for_key("new")
        assert key.public_key == NEW.key.public_key


async def test_a_flood_of_unknown_keys_fetches_once() -> None:
    async with running(World()) as world:
        world.publisher.hold()
        flood = [asyncio.create_task(reason_of(world.issuer.wait_for_key(f"random-{n}"))) for n in range(500)]
        await world.publisher.wait_for_fetches(2)
        world.publisher.release()
        assert set(await asyncio.gather(*flood)) == {Reason.UNKNOWN_KEY}
        assert await reason_of(world.issuer.wait_for_key("another")) is Reason.UNKNOWN_KEY
        assert world.publisher.fetches == 2


@pytest.mark.parametrize(("later_s", "fetches"), [(29.9, 2), (30.0, 3)])
async def test_unknown_keys_fetch_again_only_after_the_cooldown(later_s: float, fetches: int) -> None:
    async with running(World()) as world:
        assert await reason_of(world.issuer.wait_for_key("x")) is Reason.UNKNOWN_KEY
        world.clock.now += later_s
        assert await reason_of(world.issuer.wait_for_key("x")) is Reason.UNKNOWN_KEY
        assert world.publisher.fetches == fetches


async def test_a_fetch_that_began_before_the_key_was_published_does_not_decide() -> None:
    async with running(World(refresh_s=0.001)) as world:
        world.publisher.hold()
        await world.publisher.wait_for_fetches(world.publisher.fetches + 1)
        waiter = asyncio.create_task(world.issuer.wait_for_key("new"))
        await asyncio.sleep(0)  # the waiter joins the fetch in progress
        world.publisher.release()
        world.fetched.clear()
        await world.wait_for_success()
        world.publisher.document = BOTH
        assert (await waiter).kid == "new"


async def test_a_waiter_who_goes_away_does_not_take_the_fetch_with_it() -> None:
    async with running(World()) as world:
        world.publisher.hold()
        world.publisher.document = BOTH
        impatient = asyncio.create_task(world.issuer.wait_for_key("new"))
        patient = asyncio.create_task(world.issuer.wait_for_key("new"))
        await world.publisher.wait_for_fetches(2)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        world.publisher.release()
        assert (await patient).kid == "new"
        assert world.publisher.fetches == 2


async def test_a_key_that_is_published_no_more_is_gone_at_once() -> None:
    async with running(World(refresh_s=0.001)) as world:
        world.publisher.document = NEW.jwks
        await world.publisher.wait_for_fetches(world.publisher.fetches + 2)
        assert world.issuer.find("old") is None
        assert world.issuer.find("new") is not None


async def test_an_empty_set_means_no_keys() -> None:
    async with running(World(refresh_s=0.001)) as world:
        world.publisher.document = NO_KEYS
        await world.publisher.wait_for_fetches(world.publisher.fetches + 2)
        assert world.issuer.find("old") is None
        assert await reason_of(world.issuer.wait_for_key("old")) is Reason.UNKNOWN_KEY
        assert world.issuer.last_error == "the key set is empty"


async def test_different_keys_of_one_kid_are_told_once_and_the_others_are_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = ({**mint.jwk, "kid": "old\x1b[2J"} for mint in (OLD, NEW))
    twice = [one, other, {**one, "kid": "good"}]
    async with running(World(refresh_s=0.001)) as world:
        world.publisher.document = encode({"keys": twice})
        await world.publisher.wait_for_fetches(world.publisher.fetches + 3)
        assert world.issuer.find("old\x1b[2J") is None
        assert world.issuer.find("good") is not None
        told = "different keys have the same kid, so none of them is used: old\\u{1b}[2J"
        assert world.issuer.last_error == told
    assert [record.why for record in caplog.records if hasattr(record, "why")] == [told]


async def test_an_issuer_that_never_published_a_key_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer, "EMPTY_RETRY_S", 0.001)
    world = World(refresh_s=3600)
    world.publisher.document = NO_KEYS
    async with running(world):
        world.publisher.document = NEW.jwks
        await world.wait_for_success()
        await world.publisher.wait_for_fetches(2)
        await asyncio.sleep(0)
        assert world.issuer.find("new") is not None


@pytest.mark.usefixtures("_quick_retries")
@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda p: setattr(p, "error", EndpointError(Trouble.TIMEOUT)), id="no answer"),
        pytest.param(lambda p: setattr(p, "document", b"<html>"), id="no JSON"),
        pytest.param(lambda p: setattr(p, "document", b'{"keys":{}}'), id="no key set"),
        pytest.param(lambda p: setattr(p, "document", b'{"keys":[],"keys":[]}'), id="duplicate members"),
        pytest.param(lambda p: setattr(p, "status", 404), id="another status"),
        pytest.param(lambda p: setattr(p, "status", 302), id="a redirect"),
        pytest.param(lambda p: setattr(p, "status", 204), id="a success that is none"),
    ],
)
async def test_a_failure_keeps_the_last_good_set(break_it: Callable[[JwksPublisher], None]) -> None:
    async with running(World(refresh_s=0.001)) as world:
        generation = world.issuer.generation
        break_it(world.publisher)
        await world.publisher.wait_for_fetches(world.publisher.fetches + 3)
        assert world.issuer.find("old") is not None
        assert world.issuer.generation == generation
        assert world.issuer.last_error is not None


@pytest.mark.usefixtures("_quick_retries")
async def test_a_key_that_could_not_be_asked_for_is_not_called_unknown() -> None:
    async with running(World()) as world:
        await world.wait_for_failure()
        assert await reason_of(world.issuer.wait_for_key("new")) is Reason.KEYS_UNAVAILABLE


@pytest.mark.usefixtures("_quick_retries")
@pytest.mark.parametrize(("age_s", "found"), [(3600.0, True), (3600.1, False)])
async def test_a_set_that_cannot_be_refreshed_is_used_to_its_maximum_age(age_s: float, found: bool) -> None:
    async with running(World()) as world:
        await world.wait_for_failure()
        generation = world.issuer.generation
        world.clock.now += age_s
        assert (world.issuer.find("old") is not None) == found
        assert (world.issuer.generation == generation) == found
        if not found:
            assert await reason_of(world.issuer.wait_for_key("old")) is Reason.KEYS_UNAVAILABLE
            assert world.issuer.age_s is None


@pytest.mark.usefixtures("_quick_retries")
async def test_after_an_outage_the_keys_come_back_by_themselves() -> None:
    async with running(World()) as world:
        await world.wait_for_failure()
        world.clock.now += 4000
        assert world.issuer.find("old") is None
        world.fetched.clear()
        world.publisher.error = None
        await world.wait_for_success()
        assert world.issuer.find("old") is not None
        assert world.issuer.last_error is None
        assert await reason_of(world.issuer.wait_for_key("x")) is Reason.UNKNOWN_KEY


async def test_the_generation_grows_only_when_the_keys_change() -> None:
    async with running(World(refresh_s=0.001)) as world:
        generation = world.issuer.generation
        world.publisher.document = encode({"keys": [OLD.jwk], "comment": "the same keys, other bytes"})
        await world.publisher.wait_for_fetches(world.publisher.fetches + 2)
        assert world.issuer.generation == generation
        world.publisher.document = encode({"keys": [public_jwk(NEW.private_key, kid="old", use="sig")]})
        await world.publisher.wait_for_fetches(world.publisher.fetches + 2)
        assert world.issuer.generation == generation + 1


async def test_a_removed_key_is_a_change_among_many() -> None:
    third = TokenMint(kid="third", key=2)
    async with running(World(refresh_s=0.001)) as world:
        world.publisher.document = encode({"keys": [OLD.jwk, NEW.jwk, third.jwk]})
        await world.publisher.wait_for_fetches(world.publisher.fetches + 2)
        generation = world.issuer.generation
        world.publisher.document = BOTH
        await world.publisher.wait_for_fetches(world.publisher.fetches + 2)
        assert world.issuer.generation == generation + 1


async def test_who_asks_before_the_start_does_not_use_up_the_fetch_of_those_after() -> None:
    world = World()
    assert await reason_of(world.issuer.wait_for_key("new")) is Reason.KEYS_UNAVAILABLE
    async with running(world):
        world.publisher.document = BOTH
        assert (await world.issuer.wait_for_key("new")).kid == "new"


async def test_waking_is_no_second_fetch_beside_the_one_under_way() -> None:
    world = World()
    world.publisher.hold()
    async with asyncio.TaskGroup() as tasks:
        keeper = tasks.create_task(world.issuer.keep_fresh(lambda: 0.0))
        await world.publisher.wait_for_fetches(1)
        world.issuer.wake()
        world.publisher.release()
        await world.wait_for_success()
        await asyncio.sleep(0)
        keeper.cancel()
    assert world.publisher.fetches == 1


async def test_without_the_task_that_fetches_nobody_waits() -> None:
    world = World()
    assert await reason_of(world.issuer.wait_for_key("old")) is Reason.KEYS_UNAVAILABLE


async def test_who_waits_when_the_task_ends_is_let_go() -> None:
    world = World()
    async with running(world):
        world.publisher.hold()
        waiter = asyncio.create_task(reason_of(world.issuer.wait_for_key("new")))
        await world.publisher.wait_for_fetches(2)
    async with asyncio.timeout(1):
        assert await waiter is Reason.UNKNOWN_KEY
    assert world.publisher.closed


@pytest.mark.parametrize("name", ["refresh_s", "max_age_s", "cooldown_s", "timeout_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_times_are_above_zero(name: str, value: float) -> None:
    change: Any = {name: value}
    with pytest.raises(ValueError, match=name):
        replace(JwksSettings(issuer="i", url="http://127.0.0.1/"), **change)


@pytest.mark.usefixtures("_quick_retries")
async def test_the_two_refusals_say_whether_asking_again_helps() -> None:
    async with running(World()) as world:
        with pytest.raises(Denied):
            await world.issuer.wait_for_key("x")
        await world.wait_for_failure()
        with pytest.raises(Unavailable):
            await world.issuer.wait_for_key("x")
