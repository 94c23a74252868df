from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.keyset import VerificationKey
from delegation_core.profile import DEFAULT_ALGORITHMS
from delegation_core.revocation import Kind
from delegation_core.revocation_list import claims_of, said_by, unchanged_claims
from delegation_core.revocations_kept import Revocation, Revocations
from delegation_core.steps import at_once
from sidecar.exchange.revocations import RevocationList, RevocationLists, RevocationListSettings
from sidecar.identity.endpoint import Endpoint, EndpointAnswer
from sidecar.sts.keys import SigningKey
from tests.fakes.tokens import ISSUER, NOW

KEY: Final = SigningKey.generate()
OTHER: Final = SigningKey.generate()


class FakeChannel:
    """Answers with what the test sets."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.said: EndpointAnswer | SidecarError = Unavailable(Reason.STS_UNAVAILABLE)
        self.closed = False
        self.reconnects = 0

    async def get(self, etag: str | None) -> EndpointAnswer:
        self.asked.append(etag)
        if isinstance(self.said, SidecarError):
            raise self.said
        return self.said

    def reconnect(self) -> None:
        self.reconnects += 1

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
        self,
        *values: str,
        seq: int = 1,
        ttl_s: int = 300,
        key: SigningKey = KEY,
        status: int = 200,
        for_s: int = 100,
        heard: tuple[int, ...] = (),
        signed_s: int = 0,
    ) -> None:
        """Poll, answered with a list that stops these chains, of a replica that heard its peers so long ago."""
        revocations = [Revocation(id=one, kind=Kind.TXN, value=one, expires_at=NOW + for_s) for one in values]
        said = Revocations(seq=seq, ttl_s=ttl_s, in_force={one.id: one for one in revocations})
        at = int(self.now) - signed_s
        times = [at - one for one in heard]
        raw = key.sign_revocations(claims_of(said, at_once(said_by(said)), issuer=ISSUER, issued_at=at, heard=times))
        self.channel.said = EndpointAnswer(status, "application/revocations+jwt", None, raw, f'"{seq}"')
        await self.list.poll()

    async def unchanged(self, *heard: int, key: SigningKey = KEY, signed_s: int = 0, **changes: object) -> None:
        """Poll, answered that nothing has changed, by a replica that heard its peers so long ago."""
        at = int(self.now) - signed_s
        times = [at - one for one in heard]
        said = unchanged_claims(issuer=ISSUER, tag='"1"', issued_at=at, heard=times)
        await self.confirmed_by(key.sign_unchanged(said | changes))

    async def confirmed_by(self, confirmation: str | None) -> None:
        self.channel.said = EndpointAnswer(304, None, None, b"", None, confirmation)
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
    ("heard", "lag_s"),
    [
        pytest.param((), 0, id="the only replica"),
        pytest.param((3,), 3, id="two, that hear each other"),
        pytest.param((40,), 40, id="two, apart"),
        pytest.param((3, 40), 3, id="three, one dead"),
        pytest.param((40, 50), 40, id="three, cut off from both"),
        pytest.param((3, 40, 50), 40, id="four, two and two"),
        pytest.param((3, 3, 40, 50), 3, id="five, two dead"),
    ],
)
@pytest.mark.parametrize("unchanged", [False, True])
async def test_a_list_is_as_old_as_the_majority_that_its_replica_has_heard(
    heard: tuple[int, ...], lag_s: int, unchanged: bool
) -> None:
    polled = Polled(max_stale_s=30)
    if unchanged:
        await polled.answer()
        polled.now += 100
        await polled.unchanged(*heard)
    else:
        await polled.answer(heard=heard)
    assert polled.list.age_s == lag_s
    assert polled.list.stale is (lag_s > 30)
    assert polled.channel.reconnects == (lag_s > 15), "another connection may lead to another replica"
    assert (polled.list.problem is not None) is (lag_s > 15)


async def test_a_replica_that_is_cut_off_does_not_take_back_what_another_one_knew() -> None:
    polled = Polled()
    await polled.answer()
    polled.now += 10
    await polled.unchanged(200)
    assert polled.list.age_s == 10
    polled.now += 60
    await polled.unchanged(260)
    assert polled.list.stale
    await polled.unchanged(2)
    assert (polled.list.stale, polled.list.problem) == (False, None)


@pytest.mark.parametrize(
    "poll",
    [
        pytest.param(lambda polled: polled.confirmed_by(None), id="none at all"),
        pytest.param(lambda polled: polled.confirmed_by("a.b.c"), id="no JWS"),
        pytest.param(lambda polled: polled.unchanged(key=OTHER), id="of another key"),
        pytest.param(lambda polled: polled.unchanged(tag='"2"'), id="of another list"),
        pytest.param(lambda polled: polled.unchanged(iss="https://other.example"), id="of another issuer"),
        pytest.param(lambda polled: polled.unchanged(heard=[NOW + 1000]), id="with a time after its own"),
        pytest.param(lambda polled: polled.unchanged(heard="0"), id="without times"),
        pytest.param(lambda polled: polled.unchanged(signed_s=-61), id="from the future"),
        pytest.param(
            lambda polled: polled.confirmed_by(
                KEY.sign_revocations(
                    unchanged_claims(issuer=ISSUER, tag='"1"', issued_at=int(polled.now), heard=())
                ).decode()
            ),
            id="of another type",
        ),
    ],
)
async def test_unchanged_without_its_proof_confirms_nothing(poll: Callable[[Polled], Awaitable[None]]) -> None:
    polled = Polled()
    await polled.answer()
    polled.now += 9
    await poll(polled)
    assert polled.list.age_s == 9
    await polled.unchanged()
    assert polled.list.age_s == 0


@pytest.mark.parametrize("unchanged", [False, True])
async def test_a_statement_older_than_clocks_may_differ_confirms_as_much_less(unchanged: bool) -> None:
    polled = Polled()
    await polled.answer()
    polled.now += 100
    for signed_s, age_s in ((90, 30), (60, 0)):
        await (polled.unchanged(signed_s=signed_s) if unchanged else polled.answer(signed_s=signed_s))
        assert polled.list.age_s == age_s


async def test_an_issuer_of_before_whose_304_confirms_nothing_is_asked_for_the_whole_list() -> None:
    polled = Polled()
    await polled.answer()
    for passed_s, asked in ((10, '"1"'), (1, '"1"'), (1, None)):
        polled.now += passed_s
        await polled.confirmed_by(None)
        assert polled.channel.asked[-1] == asked
    await polled.answer()
    assert polled.list.age_s == 0


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
