from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity import issuer
from sidecar.identity.endpoint import EndpointError, Trouble
from sidecar.identity.jwks import IssuerKeys, JwksSettings
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.jwks import JwksPublisher
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import TRUST_DOMAIN, WRITER, TokenMint

HERE = TokenMint("https://here.example", kid="k1")
THERE = TokenMint("https://there.example", kid="k1", key=1)  # the same key ID, as any two issuers may use
AUTHORITY = TrustDomainAuthority(TRUST_DOMAIN)


class World:
    """Two issuers, and our own identity."""

    def __init__(self, spiffe_id: SpiffeId | None = WRITER) -> None:
        self.source = OwnIdentity(AUTHORITY, spiffe_id)
        self.publishers = {mint.issuer: JwksPublisher(mint.jwks) for mint in (HERE, THERE)}
        self.fetched: asyncio.Queue[str] = asyncio.Queue()
        self.keys = IssuerKeys(
            [JwksSettings(issuer=name, url="http://127.0.0.1/jwks") for name in self.publishers],
            self.source,
            clock=lambda: 1000.0,
            jitter=lambda: 0.0,
            fetcher_for=lambda settings: self.publishers[settings.issuer],
            on_fetched=self.fetched.put_nowait,
        )


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    task = asyncio.create_task(world.keys.run())
    try:
        yield world
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def wait_for_both(world: World) -> None:
    async with asyncio.timeout(5):
        assert {await world.fetched.get(), await world.fetched.get()} == {HERE.issuer, THERE.issuer}


async def test_each_issuer_has_its_own_keys() -> None:
    async with running(World()) as world:
        await wait_for_both(world)
        here, there = world.keys.find(HERE.issuer, "k1"), world.keys.find(THERE.issuer, "k1")
        assert here is not None
        assert there is not None
        assert here.public_key == HERE.key.public_key
        assert there.public_key == THERE.key.public_key


async def test_after_each_fetch_the_new_keys_are_in_use() -> None:
    world = World()
    found: list[bool] = []

    def look() -> None:
        found.append(all(world.keys.find(mint.issuer, "k1") is not None for mint in (HERE, THERE)))

    world.keys.after_fetch = look
    async with running(world):
        await wait_for_both(world)
    assert found == [False, True]  # each issuer's set comes by itself


async def test_nothing_is_fetched_for_an_issuer_that_is_not_configured() -> None:
    async with running(World()) as world:
        await wait_for_both(world)
        assert world.keys.find("https://evil.example", "k1") is None
        with pytest.raises(Denied) as caught:
            await world.keys.wait_for_key("https://evil.example", "k1")
        assert caught.value.reason is Reason.WRONG_ISSUER
        assert [publisher.fetches for publisher in world.publishers.values()] == [1, 1]
        assert not world.keys.ready("https://evil.example")
        assert not world.keys.known("https://evil.example")
        assert world.keys.generation_of("https://evil.example") == 0


async def test_a_known_key_is_had_without_waiting() -> None:
    async with running(World()) as world:
        await wait_for_both(world)
        world.publishers[HERE.issuer].hold()
        assert (await world.keys.wait_for_key(HERE.issuer, "k1")).kid == "k1"


async def test_an_issuer_is_ready_from_its_first_key_on() -> None:
    world = World()
    world.publishers[THERE.issuer].document = b'{"keys":[]}'
    assert not world.keys.ready(HERE.issuer)
    assert not world.keys.known(HERE.issuer)
    async with running(world):
        await wait_for_both(world)
        assert world.keys.ready(HERE.issuer)
        assert not world.keys.ready(THERE.issuer)
        assert world.keys.known(THERE.issuer)  # the empty set is one


async def test_an_issuer_that_publishes_no_key_any_more_is_ready_no_more() -> None:
    world = World()
    settings = JwksSettings(issuer=HERE.issuer, url="http://127.0.0.1/jwks", refresh_s=0.01)
    publisher = world.publishers[HERE.issuer]
    keys = IssuerKeys([settings], world.source, fetcher_for=lambda _: publisher, on_fetched=world.fetched.put_nowait)
    task = asyncio.create_task(keys.run())
    await asyncio.wait_for(world.fetched.get(), 5)
    full, publisher.document = publisher.document, b'{"keys":[]}'
    found = []
    for document in (publisher.document, full):
        publisher.document = document
        for _ in range(2):  # a fetch may have been in flight
            await asyncio.wait_for(world.fetched.get(), 5)
        found.append(keys.ready(HERE.issuer))
    assert found == [False, True]
    task.cancel()


async def test_an_issuer_whose_keys_are_too_old_is_ready_no_more() -> None:
    world, now = World(), [1000.0]
    settings = JwksSettings(issuer=HERE.issuer, url="http://127.0.0.1/jwks", max_age_s=60)
    keys = IssuerKeys(
        [settings],
        world.source,
        clock=lambda: now[0],
        fetcher_for=lambda _: world.publishers[HERE.issuer],
        on_fetched=world.fetched.put_nowait,
    )
    task = asyncio.create_task(keys.run())
    await asyncio.wait_for(world.fetched.get(), 5)
    now[0] += 60
    assert keys.ready(HERE.issuer)
    assert keys.known(HERE.issuer)
    now[0] += 1
    assert not keys.ready(HERE.issuer)
    assert not keys.known(HERE.issuer)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_one_issuers_trouble_is_not_the_others() -> None:
    world = World()
    world.publishers[HERE.issuer].error = EndpointError(Trouble.UNREACHABLE)
    async with running(world):
        async with asyncio.timeout(5):
            assert await world.fetched.get() == THERE.issuer
        assert world.keys.find(THERE.issuer, "k1") is not None
        await world.publishers[HERE.issuer].wait_for_fetches(1)
        assert world.keys.ages() == {HERE.issuer: None, THERE.issuer: 0.0}
        assert world.keys.last_errors()[THERE.issuer] is None
        assert world.keys.last_errors()[HERE.issuer]


async def test_the_generation_tells_of_a_change_at_any_issuer() -> None:
    async with running(World()) as world:
        await wait_for_both(world)
        before, here, there = world.keys.generation, *map(world.keys.generation_of, (HERE.issuer, THERE.issuer))
        world.publishers[THERE.issuer].document = TokenMint(kid="k2").jwks
        await world.keys.wait_for_key(THERE.issuer, "k2")
        assert world.keys.generation == before + 1
        assert world.keys.generation_of(HERE.issuer) == here
        assert world.keys.generation_of(THERE.issuer) == there + 1


async def test_an_identity_that_comes_ends_the_wait_for_keys_that_needed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer, "FIRST_RETRY_S", 60.0)
    monkeypatch.setattr(issuer, "LAST_RETRY_S", 60.0)
    world = World(None)
    publisher = world.publishers[HERE.issuer]
    publisher.error = EndpointError(Trouble.NOT_READY)
    async with running(world):
        await publisher.wait_for_fetches(1)
        await asyncio.sleep(0)  # let it fail
        publisher.error = None
        world.source.become(WRITER)
        async with asyncio.timeout(2):
            while not world.keys.ready(HERE.issuer):
                await world.fetched.get()


async def test_a_renewed_identity_fetches_nothing_anew() -> None:
    async with running(World()) as world:
        await wait_for_both(world)
        world.source.become(WRITER)
        world.source.become(None)
        await asyncio.sleep(0)
        assert [publisher.fetches for publisher in world.publishers.values()] == [1, 1]


def test_an_issuer_has_one_key_set() -> None:
    settings = JwksSettings(issuer="i", url="http://127.0.0.1/")
    with pytest.raises(ValueError, match="one key set"):
        IssuerKeys([settings, settings], OwnIdentity(AUTHORITY, None))
