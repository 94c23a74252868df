"""Storms and outages over every adapter: one exchange for a thousand calls, nothing shared, no failure stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.route import OutboundRoute
from sidecar.exchange import conversation
from sidecar.exchange.adapters.adapter import ClientAuth
from sidecar.exchange.cache import Issued
from sidecar.exchange.circuit import MAX_PAUSE_S, OPEN_AFTER
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.sts import ExchangeSettings
from tests.exchange.world import World, running
from tests.fakes.conversations import listening
from tests.fakes.counterparts import COUNTERPARTS, OTHER_TARGETS, Counterpart
from tests.fakes.lying_sts import LyingSts, Reply, Server
from tests.fakes.tokens import ISSUER, NOW, WRITER, encode
from tests.integration.world import free_port

pytestmark = pytest.mark.integration

ALL: Final = pytest.mark.parametrize("counterpart", COUNTERPARTS.values(), ids=COUNTERPARTS.keys())
OF_USERS: Final = pytest.mark.parametrize(
    "counterpart",
    [one for one in COUNTERPARTS.values() if one.users],
    ids=[name for name, one in COUNTERPARTS.items() if one.users],
)


class Door(Server):
    """The counterpart on a port. It can keep answers back, refuse everything, or be closed and opened again."""

    def __init__(self, sts: LyingSts) -> None:
        super().__init__(sts)
        self.keeps = True
        self.open = asyncio.Event()
        self.open.set()
        self.refuses: int | None = None
        self.grants: list[str] = []
        self.asked = asyncio.Event()
        self._reply = sts.reply
        sts.reply = self._guarded  # type: ignore[method-assign]

    async def _guarded(self, form: bytes) -> Reply:
        self.asked.set()
        await self.open.wait()
        if self.refuses is not None:
            return Reply(self.refuses, body=encode({"error": "invalid_grant"}))
        reply = await self._reply(form)
        assert reply.status == 200, reply.body
        self.grants.append(self.sts.forms[-1]["grant_type"])
        return reply


class Asking:
    """One exchange client and its server."""

    def __init__(self, counterpart: Counterpart, door: Door, folder: Path, **settings: Any) -> None:
        self.counterpart = counterpart
        self.door = door
        self.folder = folder
        more = {**counterpart.settings(door.url, folder), "timeout_s": 20.0, "max_flights": 2000, **settings}
        self.world = World(server=door, adapter=counterpart.adapter, **more)

    async def ask(self, user: str = "user-1", to: OutboundRoute | None = None) -> Issued:
        plan, policy = self.counterpart.asked(user, to)
        return await self.world.exchange.exchange(plan, policy)

    def cached(self, user: str = "user-1", to: OutboundRoute | None = None, *, now: int = NOW) -> Issued | None:
        plan, policy = self.counterpart.asked(user, to)
        return self.world.exchange.cached(plan, policy=policy, now=now)

    async def reason(self, user: str = "user-1", to: OutboundRoute | None = None) -> Reason:
        with pytest.raises(SidecarError) as caught:
            await self.ask(user, to)
        return caught.value.reason

    @property
    def issued(self) -> int:
        """The number of tokens that the server issued at its last step."""
        return self.door.grants.count(self.counterpart.grants[-1])


@asynccontextmanager
async def asking(counterpart: Counterpart, folder: Path, **settings: Any) -> AsyncIterator[Asking]:
    door = Door(counterpart.server())
    async with listening(door.serve) as port:
        door.url = f"http://127.0.0.1:{port}/token"
        one = Asking(counterpart, door, folder, **settings)
        async with running(one.world):
            yield one


@ALL
async def test_a_thousand_identical_calls_at_once_make_one_exchange(counterpart: Counterpart, tmp_path: Path) -> None:
    async with asking(counterpart, tmp_path) as one:
        one.door.open.clear()
        calls = [asyncio.ensure_future(one.ask()) for _ in range(1000)]
        await one.door.asked.wait()
        one.door.open.set()
        issued = await asyncio.gather(*calls)
        assert len({id(each) for each in issued}) == 1
        assert one.door.grants == list(counterpart.grants)
        assert one.cached() is issued[0]
        await one.ask()
        assert one.issued == 1


@OF_USERS
async def test_users_share_nothing_but_what_depends_on_no_user(counterpart: Counterpart, tmp_path: Path) -> None:
    async with asking(counterpart, tmp_path) as one:
        users = [f"user-{number % 4}" for number in range(200)]
        issued = await asyncio.gather(*map(one.ask, users))
        for user, each in zip(users, issued, strict=True):
            assert each.permit.token.subject.removeprefix("home:") == user
        assert one.issued == 4
        first = counterpart.grants[0]
        shared = first == "client_credentials"
        assert one.door.grants.count(first) == (1 if shared else 4)
        assert one.cached("user-9") is None


@ALL
@pytest.mark.parametrize("fact", OTHER_TARGETS)
async def test_targets_share_nothing(counterpart: Counterpart, fact: str, tmp_path: Path) -> None:
    to = counterpart.others[fact]
    async with asking(counterpart, tmp_path) as one:
        here, there = await asyncio.gather(one.ask(), one.ask(to=to))
        assert one.issued == 2
        assert here.permit.token.raw != there.permit.token.raw
        assert (there.permit.token.audience, there.permit.token.scope) == (to.audience, to.scopes)
        assert (one.cached(), one.cached(to=to)) == (here, there)


@ALL
async def test_token_services_share_nothing(counterpart: Counterpart, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with asking(counterpart, tmp_path) as one, asking(counterpart, tmp_path / "other") as other:
        await one.ask()
        assert other.cached() is None
        await other.ask()
        assert one.door.grants == other.door.grants == list(counterpart.grants)


@ALL
async def test_another_identity_of_ours_shares_nothing(counterpart: Counterpart, tmp_path: Path) -> None:
    async with asking(counterpart, tmp_path) as one:
        await one.ask()
        one.world.source.become(None)
        assert one.cached() is None
        assert await one.reason() is Reason.NOT_READY
        one.world.source.become(WRITER)
        assert one.cached() is None
        await one.ask()
        assert one.issued == 2


SETTINGS: Final[dict[str, Any]] = {"issuer": ISSUER, "token_endpoint": "https://a/token", "ca_file": "/ca.pem"}
SVID: Final = ClientAuthSettings(method=ClientAuth.JWT_SVID, audience=ISSUER)


@pytest.mark.parametrize(
    "change",
    [
        {"token_endpoint": "https://b/token"},
        {"further_token_endpoints": ("https://b/token",)},
        {"ca_file": "/other.pem"},
        {"options": {"target": "resource"}},
        {"client_auth": SVID},
        {"client_auth": replace(SVID, client_id="another")},
        {"client_auth": replace(SVID, audience="another")},
        {"adapter": "workload-authorization-grant-02"},
        {"issuer": "https://other.example"},
    ],
    ids=lambda change: " ".join(change),
)
def test_a_reload_with_another_of_these_begins_with_no_token(change: dict[str, Any]) -> None:
    """A reload keeps the exchanges, and so their caches, only if their settings are equal."""
    assert ExchangeSettings(**SETTINGS) == ExchangeSettings(**SETTINGS)
    assert ExchangeSettings(**{**SETTINGS, **change}) != ExchangeSettings(**SETTINGS)


@pytest.mark.parametrize("code", [400, 401, 429, 500, 503])
@ALL
async def test_a_refusal_is_told_to_those_who_wait_and_stays_with_nobody(
    counterpart: Counterpart, code: int, tmp_path: Path
) -> None:
    async with asking(counterpart, tmp_path) as one:
        one.door.open.clear()
        calls = [asyncio.ensure_future(one.reason()) for _ in range(50)]
        await one.door.asked.wait()
        one.door.refuses = code
        one.door.open.set()
        expected = {400: Reason.EXCHANGE_DENIED, 401: Reason.STS_ERROR}.get(code, Reason.STS_UNAVAILABLE)
        assert set(await asyncio.gather(*calls)) == {expected}
        one.door.refuses = None
        issued = await one.ask()
        assert one.cached() is issued
        if counterpart.users:
            await one.ask("user-2")


@ALL
async def test_a_token_serves_through_an_outage_and_the_next_one_comes_without_a_restart(
    counterpart: Counterpart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "FIRST_RETRY_S", 0.001)
    door, port = Door(counterpart.server()), free_port()
    door.url = f"http://127.0.0.1:{port}/token"
    one = Asking(counterpart, door, tmp_path)
    elsewhere = counterpart.others["audience"]
    async with running(one.world):
        async with listening(door.serve, port):
            issued = await one.ask()
        assert one.cached() is issued
        for _ in range(OPEN_AFTER):
            assert await one.reason(to=elsewhere) is Reason.STS_UNAVAILABLE
            one.world.monotonic.now += 2 * MAX_PAUSE_S
        assert [state.open for state in one.world.exchange.endpoints][-1:] == [True]
        assert one.cached(now=issued.usable_until - 1) is issued
        assert one.cached(now=issued.usable_until) is None
        assert await one.reason() is Reason.STS_UNAVAILABLE
        answer = Reason.STS_UNAVAILABLE.answer
        assert (answer.status, answer.retry_after_s) == (503, 1)
        async with listening(door.serve, port):
            one.world.monotonic.now += 2 * MAX_PAUSE_S
            again = await one.ask()
            assert again.permit.token.raw != issued.permit.token.raw
            await one.ask(to=elsewhere)
