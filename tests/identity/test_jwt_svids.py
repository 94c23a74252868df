from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import jwt
import pytest

from delegation_core.errors import Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import jwt_svids
from sidecar.identity.jwt_svids import RETRY_S, JwtSvids
from sidecar_dev.pki import TrustDomainAuthority

SELF, OTHER = SpiffeId("spiffe://a.test/self"), SpiffeId("spiffe://a.test/other")
STS = "https://sts.test"
AUTHORITY = TrustDomainAuthority(TrustDomain("a.test"))
START = 1_800_000_000
TTL_S = 100


class Api:
    """Issues on demand; ``answers`` come first."""

    def __init__(self) -> None:
        self.now = float(START)
        self.fetched: list[tuple[str, SpiffeId]] = []
        self.answers: list[str | Unavailable] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def fetch(self, audience: str, owner: SpiffeId) -> str:
        self.fetched.append((audience, owner))
        self.asked.set()
        await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else self.issue(owner, audience)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    def issue(self, owner: SpiffeId = SELF, audience: str = STS, *, ttl_s: int = TTL_S) -> str:
        return AUTHORITY.issue_jwt(owner, audience, ttl_s=ttl_s, issued_at=int(self.now))

    def clock(self) -> float:
        return self.now


@asynccontextmanager
async def held(api: Api, owner: SpiffeId | None = SELF) -> AsyncIterator[JwtSvids]:
    svids = JwtSvids(api.fetch, api.clock)
    svids.belong_to(owner)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(svids.run())
        await asyncio.sleep(0)
        yield svids
        running.cancel()


async def refusal(svids: JwtSvids, audience: str = STS) -> str:
    with pytest.raises(Unavailable) as refused:
        await svids.get(audience)
    assert refused.value.reason is Reason.NOT_READY
    return refused.value.detail


async def test_a_token_is_kept_for_half_of_its_life() -> None:
    api = Api()
    async with held(api) as svids:
        first = await svids.get(STS)
        api.now = START + TTL_S / 2 - 1
        assert await svids.get(STS) == first
        api.now = START + TTL_S / 2
        assert await svids.get(STS) != first
    assert api.fetched == [(STS, SELF)] * 2


async def test_with_a_new_generation_of_the_identity_a_token_is_asked_for_anew() -> None:
    """The authority of the old one may be withdrawn: the token service would refuse it until its end."""
    api = Api()
    async with held(api) as svids:
        first = await svids.get(STS)
        api.now += 1
        svids.renew()
        assert await svids.get(STS) != first
    assert len(api.fetched) == 2


async def test_an_old_token_is_better_than_none() -> None:
    api = Api()
    async with held(api) as svids:
        first = await svids.get(STS)
        svids.renew()
        api.answers = [Unavailable(Reason.NOT_READY, "no answer")]
        assert await svids.get(STS) == first


async def test_a_token_that_was_under_way_when_the_generation_changed_is_used_once() -> None:
    api = Api()
    api.gate.clear()
    async with held(api) as svids, asyncio.TaskGroup() as group:
        waiting = group.create_task(svids.get(STS))
        await api.asked.wait()
        svids.renew()
        api.gate.set()
        first = await waiting
        api.now += 1
        assert await svids.get(STS) != first


async def test_each_audience_has_a_token_of_its_own() -> None:
    api = Api()
    async with held(api) as svids:
        assert await svids.get(STS) != await svids.get("https://other.test")
        assert [audience for audience, _ in api.fetched] == [STS, "https://other.test"]


async def test_a_thousand_at_once_make_one_call() -> None:
    api = Api()
    api.gate.clear()
    async with held(api) as svids, asyncio.TaskGroup() as group:
        waiting = [group.create_task(svids.get(STS)) for _ in range(1000)]
        await api.asked.wait()
        api.gate.set()
        assert len({await task for task in waiting}) == 1
    assert len(api.fetched) == 1


async def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    api = Api()
    api.gate.clear()
    async with held(api) as svids, asyncio.TaskGroup() as group:
        impatient, patient = group.create_task(svids.get(STS)), group.create_task(svids.get(STS))
        await api.asked.wait()
        impatient.cancel()
        api.gate.set()
        assert await patient == await svids.get(STS)
    assert len(api.fetched) == 1


async def test_a_failure_is_told_to_all_and_not_kept() -> None:
    api = Api()
    api.answers = [Unavailable(Reason.NOT_READY, "down")]
    async with held(api) as svids:
        told = await asyncio.gather(*(svids.get(STS) for _ in range(5)), return_exceptions=True)
        assert {str(one) for one in told} == {"not_ready: down"}
        assert await svids.get(STS)


async def test_a_failed_renewal_uses_up_the_old_token_and_asks_again_after_a_second() -> None:
    api = Api()
    async with held(api) as svids:
        first = await svids.get(STS)
        api.now = START + TTL_S / 2
        api.answers = [Unavailable(Reason.NOT_READY, "down")] * 2
        assert await svids.get(STS) == first
        assert await svids.get(STS) == first
        assert len(api.fetched) == 2
        api.now += RETRY_S
        assert await svids.get(STS) == first
        assert len(api.fetched) == 3


async def test_a_failed_renewal_never_stretches_a_tokens_life() -> None:
    api = Api()
    async with held(api) as svids:
        await svids.get(STS)
        api.now = START + TTL_S - 2
        api.answers = [Unavailable(Reason.NOT_READY, "down")]
        assert await refusal(svids) == "down"


async def test_a_retry_never_stretches_a_tokens_life() -> None:
    api = Api()
    async with held(api) as svids:
        await svids.get(STS)
        api.now = START + TTL_S - 2.5
        api.answers = [Unavailable(Reason.NOT_READY, "down")] * 2
        await svids.get(STS)
        api.now += 0.6
        assert await refusal(svids) == "down"


@pytest.mark.parametrize("next_owner", [None, OTHER], ids=["withdrawn", "another SPIFFE ID"])
async def test_a_change_of_owner_drops_every_token(next_owner: SpiffeId | None) -> None:
    api = Api()
    async with held(api) as svids:
        first = await svids.get(STS)
        svids.belong_to(next_owner)
        svids.belong_to(SELF)
        api.now += 1
        assert await svids.get(STS) != first


async def test_a_renewal_of_the_same_owner_drops_nothing() -> None:
    api = Api()
    async with held(api) as svids:
        first = await svids.get(STS)
        svids.belong_to(SELF)
        assert await svids.get(STS) == first


async def test_a_token_under_way_when_the_owner_changes_is_not_used() -> None:
    api = Api()
    api.gate.clear()
    async with held(api) as svids, asyncio.TaskGroup() as group:
        waiting = group.create_task(refusal(svids))
        await api.asked.wait()
        svids.belong_to(None)
        svids.belong_to(SELF)
        api.gate.set()
        assert "changed" in await waiting
        assert await svids.get(STS)
    assert len(api.fetched) == 2


async def test_nobody_gets_a_token_without_an_owner() -> None:
    api = Api()
    async with held(api, owner=None) as svids:
        await refusal(svids)
    assert api.fetched == []


async def test_nobody_gets_a_token_before_the_start_or_after_the_end() -> None:
    api = Api()
    svids = JwtSvids(api.fetch, api.clock)
    svids.belong_to(SELF)
    assert "no identity" in await refusal(svids)
    async with held(api) as ended:
        pass
    assert "no identity" in await refusal(ended)
    assert api.fetched == []


async def test_who_waits_at_the_end_is_told() -> None:
    api = Api()
    api.gate.clear()
    async with asyncio.TaskGroup() as group:
        async with held(api) as svids:
            waiting = group.create_task(refusal(svids))
            await api.asked.wait()
        assert "cancelled" in await waiting


def signed(claims: dict[str, object], **header: object) -> str:
    return jwt.encode(claims, AUTHORITY.current.jwt_key, algorithm="ES256", headers={"kid": "k", **header})


GOOD: dict[str, object] = {"sub": SELF, "aud": [STS], "exp": START + TTL_S}


@pytest.mark.parametrize(
    "token",
    [
        "",
        "junk",
        signed(GOOD, typ="at+jwt"),
        signed(GOOD | {"sub": OTHER}),
        signed(GOOD | {"aud": ["https://other.test"]}),
        signed(GOOD | {"aud": [STS, "https://other.test"]}),
        signed(GOOD | {"aud": []}),
        signed({"sub": SELF, "aud": STS}),
        signed(GOOD | {"exp": START + 2}),
        signed(GOOD | {"exp": START - 1}),
    ],
    ids=["empty", "junk", "typ", "sub", "aud", "two aud", "no aud", "no exp", "about to expire", "expired"],
)
async def test_a_token_that_is_not_what_was_asked_for_is_not_used(token: str) -> None:
    api = Api()
    api.answers = [token]
    async with held(api) as svids:
        detail = await refusal(svids)
        assert not token or token not in detail


async def test_a_token_that_is_valid_just_long_enough_is_used() -> None:
    api = Api()
    api.answers = [token := signed(GOOD | {"exp": START + 3})]
    async with held(api) as svids:
        assert await svids.get(STS) == token


@pytest.mark.parametrize("audience", [STS, [STS]], ids=["string", "array"])
async def test_an_audience_is_a_string_or_an_array_of_one(audience: str | Sequence[str]) -> None:
    api = Api()
    api.answers = [token := signed(GOOD | {"aud": audience, "exp": START + 50.5})]
    async with held(api) as svids:
        assert await svids.get(STS) == token


async def test_the_number_of_audiences_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwt_svids, "MAX_AUDIENCES", 2)
    async with held(Api()) as svids:
        for audience in ("a", "b", "a"):
            await svids.get(audience)
        assert "too many" in await refusal(svids, "c")
        svids.renew()
        assert await svids.get("a")


async def test_a_held_token_is_never_shown() -> None:
    api = Api()
    async with held(api) as svids:
        token = await svids.get(STS)
        assert token not in repr(svids._held)
