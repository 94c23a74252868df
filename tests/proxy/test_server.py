from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from delegation_core.errors import ConfigError, Denied, Reason, Unavailable
from delegation_core.policy import Policy
from delegation_core.spiffe_id import SpiffeId
from sidecar.background import PartEndedError
from sidecar.exchange.client import TokenExchange
from sidecar.exchange.exchanges import Exchanges
from sidecar.exchange.sts import ExchangeSettings
from sidecar.identity.endpoint import EndpointError, Trouble
from sidecar.identity.jwks import IssuerKeys, JwksSettings
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.scrape import scrape
from sidecar.proxy.journeys import watch as watch_module
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.journey import Tasks
from sidecar.proxy.journeys.snapshot import Setup, Snapshots
from sidecar.proxy.journeys.watch import Watch
from sidecar.proxy.listening.listener import Listener, ListenerSettings
from sidecar.proxy.listening.memory_pressure import Memory
from sidecar.proxy.listening.server import Parts, Server
from sidecar.reload import prepare
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.stream import Stream
from sidecar_dev.pki import TrustDomainAuthority
from tests.core.world import POLICY
from tests.fakes.jwks import JwksPublisher
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.sink import FakeSink
from tests.fakes.tokens import ISSUER, TRUST_DOMAIN, WRITER, TokenMint

PATIENCE_S = 5.0


class Nobody:
    """A handler that is never called."""

    def on_request(self, exchange: Stream) -> None:
        raise AssertionError

    def on_refused(self, exchange: Stream, error: Exception) -> None:
        raise AssertionError


class BrokenSource(OwnIdentity):
    """Has an identity, and a bug."""

    async def run(self) -> NoReturn:
        raise ZeroDivisionError


def nobody_told(reason: Reason, detail: str, address: str) -> None:
    pytest.fail(f"{address} was turned away: {reason}, {detail}")


class Ordered(Listener):
    """WriteBatch down when it drains."""

    order: list[str]
    name: str
    in_time = True

    def tighten(self, *, at_once: bool) -> None:
        self.order.append(f"tightened {self.name}")
        super().tighten(at_once=at_once)

    def relax(self) -> None:
        self.order.append(f"relaxed {self.name}")
        super().relax()

    def leave(self) -> None:
        self.order.append(f"left {self.name}")
        super().leave()

    async def drain(self, timeout_s: float) -> bool:
        self.order.append(self.name)
        return await super().drain(timeout_s) and self.in_time


def make_policy(workload: SpiffeId, number: int) -> Policy:
    return replace(POLICY, workload=workload, number=number)


@pytest.fixture(scope="module")
def authority() -> TrustDomainAuthority:
    return TrustDomainAuthority(TRUST_DOMAIN)


class Bench:
    """A server of real parts whose only network is its listeners, with fakes below."""

    def __init__(
        self, authority: TrustDomainAuthority, *, identity: SpiffeId | None = WRITER, memory: Memory | None = None
    ) -> None:
        self.memory = memory
        self.source = OwnIdentity(authority, identity)
        self.ports = {"inbound": 0, "outbound": 0}
        self.make(self.source)

    def make(self, source: OwnIdentity) -> None:
        self.source = source
        self.sink = FakeSink()
        self.jwks = JwksPublisher(TokenMint().jwks)
        self.order: list[str] = []
        self.listeners = tuple(self._listener(name) for name in ("inbound", "outbound"))
        keys = IssuerKeys(
            [JwksSettings(issuer=ISSUER, url="http://127.0.0.1/jwks")], source, fetcher_for=lambda _: self.jwks
        )
        snapshots = Snapshots(
            Setup(
                make_policy=make_policy,
                keys=keys,
                exchanges=Exchanges(),
                agent=None,
                needed_issuers=frozenset({ISSUER}),
            )
        )
        self.parts = Parts(
            source=source,
            snapshots=snapshots,
            log=AccessLog(self.sink, run="r", metrics=Metrics()),
            handles=Handles(clock=lambda: 0.0, monotonic=lambda: 0.0),
            tasks=Tasks(),
            watch=Watch(snapshots, source, wall=time.time, monotonic=time.monotonic),
            pools=(UpstreamPool(ClientLimits()),),
            listeners=self.listeners,
            drain_s=1.0,
            memory=self.memory,
        )
        self.server = Server(self.parts)
        self.stop = asyncio.Event()

    def _listener(self, name: str) -> Ordered:
        settings = ListenerSettings(host="127.0.0.1", port=self.ports.get(name, 0))
        listener = Ordered(
            settings, ServerLimits(), handler=Nobody(), shed=Nobody(), refused_connections=nobody_told, context=None
        )
        listener.order, listener.name = self.order, name
        return listener

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[bool]]:
        task = asyncio.get_running_loop().create_task(self.server.run(self.stop))
        try:
            yield task
        finally:
            self.sink.block(blocked=False)
            self.sink.fail(None)
            self.stop.set()
            await asyncio.wait([task], timeout=PATIENCE_S)

    async def wait_until_ready(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.server.ready.wait()

    async def wait_for_reasons(self, *reasons: str) -> None:
        """Wait until exactly these conditions are missing."""
        async with asyncio.timeout(PATIENCE_S):
            while self.server.missing() != list(reasons):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)

    async def wait_for_order(self, *order: str) -> None:
        """Wait until these were the listeners' last orders."""
        async with asyncio.timeout(PATIENCE_S):
            while self.order[-len(order) :] != list(order):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)

    def events(self) -> list[str]:
        return [str(record["event"]) for record in self.records()]

    def records(self) -> list[dict[str, object]]:
        return self.sink.wait_for_records(self.sink.data.count(b"\n"))


@pytest.fixture
def bench(authority: TrustDomainAuthority) -> Bench:
    return Bench(authority)


async def test_with_everything_there_it_is_ready_and_stops_when_told(bench: Bench) -> None:
    async with bench.running() as running:
        await bench.wait_until_ready()
        assert bench.server.missing() == []
        assert all(listener.address[1] for listener in bench.listeners)
        bench.source.become(WRITER)
        bench.stop.set()
        assert await asyncio.wait_for(running, PATIENCE_S) is True
    assert bench.events() == ["started", "identity.rotated", "stopped"]
    assert bench.order == ["inbound", "outbound"]


async def test_handles_are_judged_again_as_soon_as_other_keys_are_fetched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "TICK_S", 3600.0)  # nothing else looks
    suspected: list[bool] = []
    bench.parts.watch._on_change = lambda: suspected.append(True)
    async with bench.running():
        await bench.wait_until_ready()
        bench.source.become(WRITER)
        suspected.clear()
        bench.jwks.document = TokenMint(kid="next").jwks
        with pytest.raises(Denied):  # a token with an unknown key makes it fetch
            await bench.parts.snapshots.now().keys.wait_for_key(ISSUER, "unheard")
        assert suspected == [True]


async def test_it_looks_at_its_memory_while_it_runs_and_tells_both_listeners(authority: TrustDomainAuthority) -> None:
    used = [900]
    bench = Bench(authority, memory=Memory(1000, lambda: used[0]))
    assert value_of(bench, "sidecar_memory_short") == 0
    async with bench.running():
        await bench.wait_until_ready()
        await bench.wait_for_order("tightened inbound", "tightened outbound")
        assert value_of(bench, "sidecar_memory_short") == 1
        used[0] = 100
        await bench.wait_for_order("relaxed inbound", "relaxed outbound")
        assert value_of(bench, "sidecar_memory_short") == 0


async def test_without_a_limit_nobody_looks(bench: Bench) -> None:
    async with bench.running():
        await bench.wait_until_ready()
        assert value_of(bench, "sidecar_memory_short") == 0
    assert bench.order == ["inbound", "outbound"]


def value_of(bench: Bench, metric: str) -> float:
    """Return the one value of a metric without labels."""
    (family,) = [one for one in scrape(bench.server.metrics) if one.name == metric]
    (sample,) = family.samples
    return float(sample.value)


async def test_it_says_what_it_waits_for_and_goes_on_by_itself(authority: TrustDomainAuthority) -> None:
    bench = Bench(authority, identity=None)
    bench.jwks.error = EndpointError(Trouble.UNREACHABLE)
    async with bench.running():
        await bench.wait_for_reasons("identity: denied", f"keys of {ISSUER} (the connection failed)")
        bench.source.become(WRITER)
        await bench.wait_for_reasons(f"keys of {ISSUER} (the connection failed)")
        bench.jwks.error = None
        await bench.wait_until_ready()
        bench.source.become(None)
        assert bench.server.missing() == ["identity: denied"]
        with pytest.raises(Unavailable):
            bench.parts.snapshots.now()
        bench.source.become(WRITER)
        assert bench.server.missing() == []


async def test_it_is_not_ready_before_the_sink_has_taken_a_record(authority: TrustDomainAuthority) -> None:
    bench = Bench(authority, identity=None)
    bench.sink.block(blocked=True)
    async with bench.running():
        bench.source.become(WRITER)
        await bench.wait_for_reasons("listeners: not open yet")
        await bench.jwks.wait_for_fetches(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bench.server.ready.wait(), 0.1)  # it checks every 0.02 s
        bench.sink.block(blocked=False)
        await bench.wait_until_ready()


async def test_a_sink_that_fails_is_said_and_keeps_it_from_being_ready(bench: Bench) -> None:
    bench.sink.fail(OSError(28, "full"))
    async with bench.running():
        bench.source.become(WRITER)
        await bench.wait_for_reasons("records: the sink accepts none")
        assert not bench.server.ready.is_set()
        bench.sink.fail(None)
        await bench.wait_until_ready()


async def test_told_to_stop_before_it_was_ready_it_stops(authority: TrustDomainAuthority) -> None:
    bench = Bench(authority, identity=None)
    async with bench.running() as running:
        await bench.wait_for_reasons("identity: denied")
        bench.stop.set()
        assert await asyncio.wait_for(running, PATIENCE_S) is True
    assert bench.events() == ["stopped"]
    assert bench.server.missing()[0] == "stopping"


async def test_a_background_that_fails_ends_everything_and_opens_nothing(authority: TrustDomainAuthority) -> None:
    bench = Bench(authority)
    bench.make(BrokenSource(authority, WRITER))
    async with bench.running() as running:
        with pytest.raises(PartEndedError) as ended:
            await running
        assert isinstance(ended.value.__cause__, ZeroDivisionError)
    assert bench.events() == ["stopped"]
    assert [listener.address[1] for listener in bench.listeners] == [0, 0]


async def test_a_listener_that_could_not_drain_in_time_is_told(bench: Bench) -> None:
    bench.listeners[0].in_time = False
    async with bench.running() as running:
        await bench.wait_until_ready()
        bench.stop.set()
        assert await asyncio.wait_for(running, PATIENCE_S) is False
    assert bench.order == ["inbound", "outbound"]


async def test_a_record_that_was_not_written_is_told_at_the_end(bench: Bench) -> None:
    async with bench.running() as running:
        await bench.wait_until_ready()
        bench.parts.log.unwritten = 1
        bench.stop.set()
        assert await asyncio.wait_for(running, PATIENCE_S) is False


def test_a_call_around_the_sidecar_makes_it_unready(bench: Bench) -> None:
    assert "calls go around the sidecar" not in bench.server.missing()
    bench.parts.snapshots.closed = "calls go around the sidecar"
    assert "calls go around the sidecar" in bench.server.missing()


class LeakyNamespace:
    """A watch that finds a way round at each look, once there is one."""

    def __init__(self) -> None:
        self.leaks = True
        self.refusal: str | None = None

    def look(self) -> None:
        self.refusal = "calls go around the sidecar" if self.leaks else None


async def test_it_looks_for_ways_round_before_it_opens_and_while_it_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.server, "bypass", bypass := LeakyNamespace())
    async with bench.running():
        await bench.wait_for_reasons("calls go around the sidecar")
        assert not bench.server.ready.is_set()
        bypass.leaks = False
        await bench.wait_until_ready()
        bypass.leaks = True
        await bench.server._sweep_slowly()
        assert bench.server.missing() == ["calls go around the sidecar"]
        with pytest.raises(Unavailable):
            bench.parts.snapshots.now()


def test_one_that_leaves_is_not_ready_and_tells_its_callers_once(bench: Bench) -> None:
    assert "leaving" not in bench.server.missing()
    bench.listeners[0].direction = "inbound"
    bench.server.leave()
    bench.server.leave()
    assert bench.server.missing()[0] == "leaving"
    assert bench.order == ["left inbound"]


def test_another_process_gets_memory_where_there_is_some(authority: TrustDomainAuthority) -> None:
    server = Bench(authority, memory=Memory(1000, lambda: 100, enforced=True)).server
    assert server.room_for(10)
    assert not server.room_for(10_000)
    assert Bench(authority).server.room_for(10_000)  # no limit is known


class BrokenPool(UpstreamPool):
    """Has a bug that appears at the end."""

    async def close(self) -> NoReturn:
        raise ZeroDivisionError


async def test_records_are_written_also_where_a_part_does_not_end_in_order(authority: TrustDomainAuthority) -> None:
    bench = Bench(authority)
    bench.parts = replace(bench.parts, pools=(BrokenPool(ClientLimits()),))
    bench.server = Server(bench.parts)
    async with bench.running() as running:
        await bench.wait_until_ready()
        bench.stop.set()
        with pytest.raises(ZeroDivisionError):
            await running
    assert bench.events() == ["started", "stopped"]
    assert bench.parts.log.trouble == "the record stream is closed"


async def test_an_address_that_is_taken_ends_the_start(bench: Bench) -> None:
    taken = bench._listener("first")
    taken.open()
    try:
        bench.ports["outbound"] = taken.address[1]
        bench.make(bench.source)
        async with bench.running() as running:
            with pytest.raises(OSError, match=f"in use: 127.0.0.1:{taken.address[1]}"):
                await running
        assert not bench.server.ready.is_set()
        assert bench.events() == ["stopped"]
    finally:
        taken.close()


async def test_keys_that_are_followed_no_more_end_the_sidecar(bench: Bench) -> None:
    class Broken(IssuerKeys):
        async def run(self) -> None:
            raise ZeroDivisionError

    async with bench.running() as running:
        await bench.wait_until_ready()
        settings = [JwksSettings(issuer=ISSUER, url="http://127.0.0.1/jwks")]
        keys = Broken(settings, bench.source, fetcher_for=lambda _: bench.jwks)
        (await prepare(bench.server, changed(bench, keys=keys, needed_issuers=frozenset()))).commit()
        with pytest.raises(PartEndedError) as ended:
            await asyncio.wait_for(running, PATIENCE_S)
        assert isinstance(ended.value.__cause__, ZeroDivisionError)


async def test_keys_that_are_too_old_make_it_unready_until_new_ones_come(bench: Bench) -> None:
    now = [1000.0]
    async with bench.running():
        await bench.wait_until_ready()
        settings = [JwksSettings(issuer=ISSUER, url="http://127.0.0.1/jwks", max_age_s=3600, refresh_s=0.01)]
        keys = IssuerKeys(settings, bench.source, clock=lambda: now[0], fetcher_for=lambda _: bench.jwks)
        (await prepare(bench.server, changed(bench, keys=keys, needed_issuers=frozenset({ISSUER})))).commit()
        bench.jwks.error = EndpointError(Trouble.UNREACHABLE)
        await bench.jwks.wait_for_fetches(bench.jwks.fetches + 2)
        now[0] += 3599
        assert bench.server.missing() == []
        now[0] += 2
        assert bench.server.missing() == [f"keys of {ISSUER} (the connection failed)"]
        assert value_of(bench, "sidecar_ready") == 0
        bench.jwks.error = None
        await bench.wait_for_reasons()
        assert value_of(bench, "sidecar_ready") == 1


def changed(bench: Bench, **changes: Any) -> Setup:
    return replace(bench.parts.snapshots.setup, **changes)


async def test_a_new_setup_is_in_force_at_once_and_the_old_one_ends_later(bench: Bench) -> None:
    async with bench.running():
        await bench.wait_until_ready()
        bench.source.become(WRITER)
        before = bench.parts.snapshots.now()
        fresh = IssuerKeys(
            [JwksSettings(issuer=ISSUER, url="http://127.0.0.1/jwks")], bench.source, fetcher_for=lambda _: bench.jwks
        )
        (await prepare(bench.server, changed(bench, keys=fresh))).commit()
        now = bench.parts.snapshots.now()
        assert now.keys is fresh
        assert now.policy.number == before.policy.number + 1
        assert len(bench.parts.tasks) == 1  # keeps the old keys for requests in flight


async def test_a_setup_whose_issuer_gives_no_keys_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.reload._NEW_KEYS_S", 0.1)
    async with bench.running():
        await bench.wait_until_ready()
        bench.source.become(WRITER)
        before = bench.parts.snapshots.now()
        silent = IssuerKeys(
            [JwksSettings(issuer=ISSUER, url="http://127.0.0.1/jwks")],
            bench.source,
            fetcher_for=lambda _: JwksPublisher(b'{"keys":[]}'),
        )
        with pytest.raises(ConfigError) as refused:
            (await prepare(bench.server, changed(bench, keys=silent))).commit()
        assert refused.value.problems[0].field == f"keys of {ISSUER}"
        assert bench.parts.snapshots.now() is before
        assert bench.server.missing() == []


def with_all_new(bench: Bench, jwks: JwksPublisher) -> Setup:
    """Return a setup whose keys and exchange are all new."""
    issuer = JwksSettings(issuer=ISSUER, url="http://127.0.0.1/jwks")
    keys = IssuerKeys([issuer], bench.source, fetcher_for=lambda _: jwks)
    sts = ExchangeSettings(
        issuer=ISSUER, token_endpoint="https://127.0.0.1/token", peer=SpiffeId("spiffe://acme.example/sts")
    )
    exchange = TokenExchange(sts, bench.source, keys, bench.parts.log, bench.parts.log.metrics)
    return changed(bench, keys=keys, exchanges=Exchanges({ISSUER: exchange}))


async def wait_for_subscribers(bench: Bench, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while bench.source.subscribers != count:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)


async def test_many_reloads_leave_nobody_behind_who_follows_our_identity(bench: Bench) -> None:
    bench.server.parts = bench.parts = replace(bench.parts, drain_s=0.0)
    async with bench.running():
        await bench.wait_until_ready()
        (await prepare(bench.server, with_all_new(bench, bench.jwks))).commit()
        await wait_for_subscribers(bench, 4)  # server, keys, exchange, and its connections
        for _ in range(50):
            (await prepare(bench.server, with_all_new(bench, bench.jwks))).commit()
        await wait_for_subscribers(bench, 4)
    await wait_for_subscribers(bench, 1)


async def test_a_refused_reload_leaves_nobody_behind_who_follows_our_identity(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.reload._NEW_KEYS_S", 0.05)
    async with bench.running():
        await bench.wait_until_ready()
        before = bench.source.subscribers
        for _ in range(3):
            with pytest.raises(ConfigError):
                (await prepare(bench.server, with_all_new(bench, JwksPublisher(b'{"keys":[]}')))).commit()
        await wait_for_subscribers(bench, before)


async def test_identity_is_followed_in_policy_records_and_metrics(bench: Bench) -> None:
    async with bench.running():
        await bench.wait_until_ready()
        bench.source.become(WRITER)
        assert bench.parts.snapshots.now().policy.workload == WRITER
        assert bench.server.metrics.svid_expires_at > 0
        bench.source.become(None)
        assert bench.server.metrics.svid_expires_at == 0
    lost = [record for record in bench.records() if record["event"] == "identity.lost"]
    assert [record["reason"] for record in lost] == [Reason.NOT_READY]


async def test_what_becomes_missing_is_told_once_on_the_operations_log_and_so_is_its_return(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.proxy.listening.server.TICK_S", 0.01)
    caplog.set_level("INFO", "sidecar")
    looks = asyncio.Semaphore(0)
    monkeypatch.setattr(bench.parts.caches, "sweep", looks.release)  # called at each measurement

    async def wait_for_two_looks() -> None:
        while not looks.locked():
            await looks.acquire()
        for _ in range(2):
            await asyncio.wait_for(looks.acquire(), PATIENCE_S)

    def told() -> list[str]:
        return [record.message for record in caplog.records if "ready" in record.message]

    async def wait_until_told(message: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while told()[-1:] != [message]:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)

    async with bench.running():
        await bench.wait_until_ready()
        await wait_until_told("ready")
        await wait_for_two_looks()
        assert told()[-1] == "ready"
        bench.source.become(None)
        await wait_until_told("not ready")
        await wait_for_two_looks()
        bench.source.become(WRITER)
        await wait_until_told("ready again")
    assert told()[-3:] == ["ready", "not ready", "ready again"]
    changes = [(one["event"], one["detail"]) for one in bench.records() if one["event"] in {"ready", "not_ready"}]
    assert changes == [("not_ready", "identity: denied"), ("ready", None)]


class Looks:
    """Stands for the parts that look again at what was permitted, and writes down each look."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[object] = []
        parts = bench.parts
        monkeypatch.setattr(bench.server, "trust", SimpleNamespace(look=self._trust))
        monkeypatch.setattr(bench.server.recent_refusals, "look", lambda: self.seen.append("refusals"))
        monkeypatch.setattr(parts.log, "tell_lasting", lambda: self.seen.append("lasting"))
        monkeypatch.setattr(type(parts.caches), "sweep", lambda _: self.seen.append("caches"))
        monkeypatch.setattr(type(parts.caches), "carry", lambda _, renewal: self.seen.append(renewal))
        for listener in bench.listeners:
            monkeypatch.setattr(listener, "close_at_end", lambda _, name=listener.name: self.seen.append(f"end {name}"))
        for pool in parts.pools:
            monkeypatch.setattr(pool, "retire", lambda: self.seen.append("pool retired"))
        monkeypatch.setattr(parts.watch, "notice", lambda: self.seen.append("noticed"))
        monkeypatch.setattr(parts.watch, "drain", lambda seconds: self.seen.append(f"drains for {seconds} s"))

    async def _trust(self, connections: object) -> None:
        self.seen.append(connections)


async def test_once_a_second_connections_are_judged_again_and_what_has_ended_is_freed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(bench, monkeypatch)
    await bench.server._sweep_slowly()
    inbound, outbound = bench.listeners
    (pool,) = bench.parts.pools
    connections = [inbound.connections, outbound.connections, pool.connections]
    assert looks.seen == [
        "refusals", "caches", "end inbound", connections[0], "end outbound", connections[1], connections[2],
    ]  # fmt: skip


async def test_requests_that_last_are_told_at_each_tick_and_the_rest_at_each_fourth(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(bench, monkeypatch)
    monkeypatch.setattr("sidecar.proxy.listening.server.TICK_S", 0.0)

    async def slowly() -> None:
        looks.seen.append("slowly")
        if looks.seen.count("slowly") == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr(bench.server, "_sweep_slowly", slowly)
    with pytest.raises(asyncio.CancelledError):
        await bench.server._sweep()
    assert looks.seen == [*["lasting"] * 4, "slowly"] * 2


async def test_a_change_of_identity_judges_all_requests_again_and_its_loss_ends_connections(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(bench, monkeypatch)
    bench.source.become(WRITER)
    assert looks.seen == ["noticed"]
    bundles = bench.parts.log.metrics._bundles
    assert set(bundles) == {TRUST_DOMAIN}
    bench.source.become(None)
    assert set(bundles) == set()
    assert looks.seen == ["noticed", "noticed", "pool retired"]


async def test_new_revocations_are_in_force_for_requests_in_progress_and_for_what_is_cached(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(bench, monkeypatch)
    renewal = SimpleNamespace()
    for renewed, seen in ((renewal, [renewal, "noticed"]), (None, ["noticed"])):
        monkeypatch.setattr(type(bench.parts.snapshots), "renew", lambda _, one=renewed: one)
        looks.seen.clear()
        bench.server._on_revocations()
        assert looks.seen == seen
    async with bench.running():
        bench.stop.set()
    assert bench.events().count("revocations.changed") == 2


async def test_a_drain_gives_streams_half_of_its_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(bench, monkeypatch)
    async with bench.running() as running:
        await bench.wait_until_ready()
        bench.stop.set()
        await asyncio.wait_for(running, PATIENCE_S)
    assert "drains for 0.5 s" in looks.seen
