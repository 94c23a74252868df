from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from sidecar.delegation.keyset import VerificationKey
from sidecar.delegation.profile import DEFAULT_ALGORITHMS
from sidecar.delegation.revocation import Kind, Revocation, Revocations
from sidecar.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.exchange.revocations import RevocationList, RevocationLists, RevocationListSettings
from sidecar.identity.endpoint import Endpoint, EndpointAnswer
from sidecar.sts.keys import SigningKey
from tests.fakes.revocation_list import claims
from tests.fakes.tokens import ISSUER, NOW

KEY: Final = SigningKey.generate()
OTHER: Final = SigningKey.generate()


class FakeChannel:
    """Answers with what the test sets."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.said: EndpointAnswer | SidecarError = Unavailable(Reason.STS_UNAVAILABLE)
        self.closed = False

    async def get(self, etag: str | None) -> EndpointAnswer:
        self.asked.append(etag)
        if isinstance(self.said, SidecarError):
            raise self.said
        return self.said

    async def close(self) -> None:
        self.closed = True


class FakeKeys:
    """Knows ``KEY``."""

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        return KEY.verification_key if (issuer, kid) == (ISSUER, KEY.kid) else None

    async def wait_for_key(self, issuer: str, kid: str | None) -> VerificationKey:
        raise Denied(Reason.UNKNOWN_KEY)


class Polled:
    """A list, its channel, and its clocks."""

    def __init__(self, *, max_stale_s: float = 60.0) -> None:
        self.now = float(NOW)
        self.channel = FakeChannel()
        settings = RevocationListSettings(
            issuer=ISSUER,
            endpoint=Endpoint(url="http://127.0.0.1:1/revocations"),
            algorithms=DEFAULT_ALGORITHMS,
            max_stale_s=max_stale_s,
        )
        self.list = RevocationList(settings, self.channel, FakeKeys, wall=lambda: self.now, monotonic=lambda: self.now)

    async def answer(
        self, *values: str, seq: int = 1, ttl_s: int = 300, key: SigningKey = KEY, status: int = 200, for_s: int = 100
    ) -> None:
        """Poll, answered with a list that stops these chains."""
        revocations = [Revocation(id=one, kind=Kind.TXN, value=one, expires_at=NOW + for_s) for one in values]
        said = Revocations(seq=seq, issued_at=int(self.now), ttl_s=ttl_s, in_force={one.id: one for one in revocations})
        raw = key.sign_revocations(claims(said, ISSUER))
        self.channel.said = EndpointAnswer(status, "application/revocations+jwt", None, raw, f'"{seq}"')
        await self.list.poll()

    async def unchanged(self) -> None:
        self.channel.said = EndpointAnswer(304, None, None, b"")
        await self.list.poll()

    def error(self) -> str | None:
        return self.list.last_error

    @property
    def stopped(self) -> frozenset[object]:
        return self.list.revocations.names(Kind.TXN)


async def test_a_list_is_asked_for_again_by_its_tag_and_confirmed_without_being_sent() -> None:
    polled = Polled()
    await polled.answer("a")
    polled.now += 50
    assert polled.list.age_s == 50
    await polled.unchanged()
    assert polled.list.age_s == 0
    assert polled.error() is None
    assert polled.channel.asked == [None, '"1"']
    assert polled.stopped == {"a"}


async def refused_key(polled: Polled) -> None:
    await polled.answer("b", seq=2, key=OTHER)


async def fallen(polled: Polled) -> None:
    await polled.answer("b", seq=0)


async def failed(polled: Polled) -> None:
    await polled.answer("b", seq=2, status=503)


async def unreachable(polled: Polled) -> None:
    polled.channel.said = Unavailable(Reason.STS_UNAVAILABLE)
    await polled.list.poll()


@pytest.mark.parametrize("poll", [refused_key, fallen, failed, unreachable])
async def test_what_is_not_a_newer_list_of_the_issuer_changes_nothing_and_confirms_nothing(
    poll: Callable[[Polled], object],
) -> None:
    polled = Polled()
    await polled.answer("a")
    polled.now += 10
    await poll(polled)  # type: ignore[misc]
    assert polled.stopped == {"a"}
    assert polled.list.age_s == 10
    assert polled.error() is not None
    await polled.answer("b", seq=2)
    assert polled.list.age_s == 0
    assert polled.error() is None
    assert polled.stopped == {"a", "b"}, "only its end or a lift ends a revocation"


async def test_unchanged_before_any_list_is_no_list() -> None:
    polled = Polled()
    await polled.unchanged()
    assert polled.list.stale


@pytest.mark.parametrize(
    ("max_stale_s", "ttl_s", "bound_s"),
    [pytest.param(60, 300, 60, id="as configured"), pytest.param(600, 300, 300, id="never above a token's life")],
)
async def test_a_list_may_be_relied_on_up_to_its_bound_and_no_longer(
    max_stale_s: float, ttl_s: int, bound_s: float
) -> None:
    polled = Polled(max_stale_s=max_stale_s)
    assert polled.list.stale, "before the first list"
    await polled.answer(ttl_s=ttl_s)
    found = []
    for passed_s in (bound_s, 0.1):
        polled.now += passed_s
        found.append(polled.list.stale)
    assert found == [False, True]


async def test_a_change_is_told_once_when_something_is_stopped_ends_or_becomes_stale() -> None:
    polled = Polled(max_stale_s=500)
    lists = RevocationLists([polled.list])
    changes: list[int] = []
    lists.after_change = lambda: changes.append(1)
    lists.look()
    assert (changes, lists.missing() != []) == ([], True)
    for poll, count in ((polled.answer(), 1), (polled.answer("a", seq=2), 2), (polled.answer("a", seq=3), 2)):
        await poll  # told at once: who is ready enforces it
        assert (len(changes), lists.missing()) == (count, [])
    assert lists.count()["txn"] == 1
    polled.now += 100
    await lists.expire()
    lists.look()
    assert (len(changes), lists.count()["txn"]) == (3, 0)
    polled.now += 201
    lists.look()
    assert len(changes) == 4
    assert lists.in_force(frozenset((ISSUER,))).stale == {ISSUER}
    assert "revocations of" in lists.missing()[0]
    assert lists.rows() == [{"issuer": ISSUER, "seq": 3, "revoked": 0, "age_s": 301, "stale": True, "last_error": None}]


async def test_a_long_list_is_read_while_everything_else_goes_on_and_counts_when_all_of_it_is_read() -> None:
    polled = Polled()
    seen: list[int] = []

    async def something_else() -> None:
        while True:
            seen.append(len(polled.stopped))
            await asyncio.sleep(0)

    other = asyncio.create_task(something_else())
    await polled.answer(*(f"{one:05}" for one in range(2000)))
    other.cancel()
    assert len(seen) > 20, "steps of the JSON, the rows and the names"
    assert set(seen) == {0}
    assert len(polled.stopped) == 2000


async def test_what_ends_while_a_list_is_merged_does_not_bring_the_list_before_back() -> None:
    polled = Polled()
    await polled.answer(*(f"{one:05}" for one in range(3000)), for_s=10)
    polled.now += 10
    polling = asyncio.create_task(polled.answer("a", seq=2))
    for _ in range(10):
        await asyncio.sleep(0)
    await polled.list.expire()
    await polling
    assert polled.stopped == {"a"}


async def jumped(polled: Polled) -> None:
    polled.now += 200
    await polled.list.expire()


async def jumped_in_a_poll(polled: Polled) -> None:
    polled.now += 200
    await polled.answer("a", seq=2)


@pytest.mark.parametrize("jump", [jumped, jumped_in_a_poll])
async def test_after_the_clock_fell_the_whole_list_is_asked_for(jump: Callable[[Polled], object]) -> None:
    polled = Polled()
    await polled.answer("a")
    await polled.list.expire()
    await polled.unchanged()
    assert polled.channel.asked.pop() == '"1"'
    await jump(polled)  # type: ignore[misc]
    assert polled.stopped == frozenset()
    polled.now -= 200
    await polled.answer("a", seq=2)
    assert polled.channel.asked[-1] is None, "with a tag the answer would be that nothing changed"
    assert polled.stopped == {"a"}


async def test_only_lists_that_there_are_count_for_every_token() -> None:
    polled = Polled()
    await polled.answer("a")
    found = RevocationLists([polled.list]).in_force(frozenset((ISSUER, "https://other.example")))
    assert found.own == {ISSUER}
    assert replace(found, own=frozenset()) != found
