from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from delegation_core.errors import Reason, SidecarError
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.kernel import receive_buffer
from sidecar.wire.limits import ClientLimits
from sidecar.wire.pool import Cancellable, UpstreamPool
from tests.wire.bench import Clock
from tests.wire.loopback import WAIT_S, Upstream
from tests.wire.test_h1_client import OK, Sink


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.listen()
    yield upstream
    await upstream.close()


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[UpstreamPool]:
    pool = UpstreamPool(ClientLimits(max_idle=2, idle_keep_s=10, max_age_s=100, connect_timeout_s=5), clock=Clock())
    yield pool
    await pool.close()


def to(upstream: Upstream, key: str = "b") -> Origin:
    return Origin("127.0.0.1", upstream.port, key=key)


async def connect(pool: UpstreamPool, origin: Origin) -> ClientConnection:
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    pool.connect(origin, found.set_result, found.set_exception)
    async with asyncio.timeout(WAIT_S):
        connection = await found
    assert isinstance(connection, ClientConnection)
    return connection


async def reason_of(pool: UpstreamPool, origin: Origin) -> Reason:
    with pytest.raises(SidecarError) as refused:
        await connect(pool, origin)
    return refused.value.reason


async def kept(pool: UpstreamPool, upstream: Upstream, *, count: int, key: str = "b") -> list[ClientConnection]:
    """So many connections that have served a request each and were given back in this order."""
    connections = [await connect(pool, to(upstream, key)) for _ in range(count)]
    for connection in connections:
        sink = Sink()
        connection.ask("GET", b"/", b"", sink)
        connection.data_received(OK)
        assert "end" in sink.events
    return connections


async def test_the_connection_given_back_last_is_taken_first(pool: UpstreamPool, upstream: Upstream) -> None:
    first, second = await kept(pool, upstream, count=2)
    assert [pool.take(to(upstream)) for _ in range(3)] == [second, first, None]


async def test_a_connection_counts_as_kept_once_it_was_idle(pool: UpstreamPool, upstream: Upstream) -> None:
    fresh = await connect(pool, to(upstream))
    (used,) = await kept(pool, upstream, count=1)
    assert (fresh.kept, used.kept) == (False, True)


async def test_connections_hold_so_much_unread_and_little_of_each_way_while_memory_is_short(upstream: Upstream) -> None:
    def held(connection: ClientConnection) -> tuple[int, int | None]:
        return connection.transport.get_write_buffer_limits()[1], receive_buffer(connection.transport)

    pool = UpstreamPool(ClientLimits(), unread=96 * 1024)
    first = await connect(pool, to(upstream))
    usual = held(first)
    pool.hold(little=True)
    second = await connect(pool, to(upstream))
    little = held(first), held(second)
    pool.hold(little=False)
    third = await connect(pool, to(upstream))
    assert usual == held(first) == held(second) == held(third) == (64 * 1024, 96 * 1024)
    assert little == ((16 * 1024, 32 * 1024),) * 2
    await pool.close()


async def test_connections_are_never_shared_between_keys(pool: UpstreamPool, upstream: Upstream) -> None:
    await kept(pool, upstream, count=1, key="generation 1")
    assert pool.take(to(upstream, "generation 2")) is None
    assert pool.take(to(upstream, "generation 1")) is not None


async def test_no_more_than_the_limit_are_kept(pool: UpstreamPool, upstream: Upstream) -> None:
    connections = await kept(pool, upstream, count=3)
    assert [connection.usable for connection in connections] == [True, True, False]


async def test_a_connection_whose_other_end_is_no_longer_good_is_closed_and_not_taken(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    (connection,) = await kept(pool, upstream, count=1)
    asked: list[object] = []

    def still_good(transport: asyncio.BaseTransport) -> bool:
        asked.append(transport)
        return False

    assert pool.take(replace(to(upstream), still_good=still_good)) is None
    assert asked == [connection.transport]
    assert not connection.usable


async def test_a_closed_connection_is_never_taken(pool: UpstreamPool, upstream: Upstream) -> None:
    first, second = await kept(pool, upstream, count=2)
    second.data_received(b"H")
    assert pool.take(to(upstream)) is first
    assert pool.take(to(upstream)) is None


async def test_a_connection_the_upstream_closed_is_forgotten(pool: UpstreamPool, upstream: Upstream) -> None:
    await kept(pool, upstream, count=1)
    await (await upstream.accept()).close()
    async with asyncio.timeout(WAIT_S):
        await pool.connections.wait_for_empty()
    assert pool.take(to(upstream)) is None


async def test_connections_end_at_a_random_age_below_the_limit(upstream: Upstream) -> None:
    clock = Clock()
    pool = UpstreamPool(ClientLimits(max_age_s=100, idle_keep_s=1000), clock=clock)
    await kept(pool, upstream, count=1)
    clock.now += 79
    pool.connections.sweep()
    young = len(pool.connections)
    clock.now += 22
    pool.connections.sweep()
    assert young == 1
    assert pool.take(to(upstream)) is None
    await pool.close()


async def test_connections_of_chosen_keys_can_be_retired(pool: UpstreamPool, upstream: Upstream) -> None:
    await kept(pool, upstream, count=1, key="old")
    await kept(pool, upstream, count=1, key="new")
    pool.retire(lambda key: key == "old")
    assert pool.take(to(upstream, "old")) is None
    assert pool.take(to(upstream, "new")) is not None


async def test_a_retired_connection_serves_its_request_to_the_end_and_then_closes(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    connection = await connect(pool, to(upstream))
    sink = Sink()
    connection.ask("GET", b"/", b"", sink)
    pool.retire()
    assert not connection.transport.is_closing()
    connection.data_received(OK)
    assert "end" in sink.events
    assert connection.transport.is_closing()
    assert pool.take(to(upstream)) is None


async def test_a_call_that_waits_when_its_key_is_retired_is_served_on_a_connection_for_it_alone(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    waiting = asyncio.ensure_future(connect(pool, to(upstream)))
    await asyncio.sleep(0)
    pool.retire()
    use(await waiting)
    assert pool.take(to(upstream)) is None


async def test_closing_ends_what_is_kept_what_runs_and_what_is_being_opened(upstream: Upstream) -> None:
    pool = UpstreamPool(ClientLimits())
    running = await connect(pool, to(upstream))
    sink = Sink()
    running.ask("GET", b"/", b"", sink)
    errors: list[SidecarError] = []
    pool.connect(to(upstream), lambda _: pytest.fail("closed"), errors.append)
    async with asyncio.timeout(WAIT_S):
        await pool.close()
    assert sink.reasons == [Reason.UPSTREAM_UNREACHABLE]
    assert [error.reason for error in errors] == [Reason.UPSTREAM_UNREACHABLE]
    assert len(pool.connections) == 0


async def test_after_that_no_more_connections_are_to_be_had(upstream: Upstream) -> None:
    pool = UpstreamPool(ClientLimits())
    await pool.close()
    assert await reason_of(pool, to(upstream)) == Reason.UPSTREAM_UNREACHABLE
    assert upstream.count == 0


async def test_the_far_end_of_a_tunnel_is_never_reused_and_ends_with_the_pool(upstream: Upstream) -> None:
    pool = UpstreamPool(ClientLimits())
    first, second = await pool.dial_raw(to(upstream)), await pool.dial_raw(to(upstream))
    assert first is not second
    assert (len(pool.raw), pool.counts["opened"], pool.take(to(upstream))) == (2, 2, None)
    async with asyncio.timeout(WAIT_S):
        await pool.close()
    assert len(pool.raw) == 0
    with pytest.raises(SidecarError) as refused:
        await pool.dial_raw(to(upstream))
    assert refused.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_a_tunnel_that_cannot_be_dialled_shows_as_a_failing_upstream(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    nobody = Origin("127.0.0.1", upstream.port, "b")
    await upstream.close()
    with pytest.raises(SidecarError) as refused:
        await pool.dial_raw(nobody)
    assert refused.value.reason is Reason.UPSTREAM_UNREACHABLE
    assert list(pool.failing) == [f"127.0.0.1:{upstream.port}"]


async def test_a_cancelled_wait_is_never_told(pool: UpstreamPool, upstream: Upstream) -> None:
    waiting = pool.connect(to(upstream), lambda _: pytest.fail("cancelled"), lambda _: pytest.fail("cancelled"))
    waiting.cancel()
    waiting.cancel()
    assert (await connect(pool, to(upstream))).usable
    assert pool.counts["opened"] == 1


async def test_a_connection_that_stands_when_its_wait_is_cancelled_is_closed(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    waiting = pool.connect(to(upstream), lambda _: pytest.fail("cancelled"), lambda _: pytest.fail("cancelled"))
    raw = await upstream.accept()
    waiting.cancel()
    assert await raw.read_to_end() == b""


# --- the queue of callers


def use(connection: ClientConnection) -> None:
    """One request and its answer."""
    connection.ask("GET", b"/", b"", Sink())
    connection.data_received(OK)


async def taken(pool: UpstreamPool, origin: Origin) -> ClientConnection:
    async with asyncio.timeout(WAIT_S):
        while (connection := pool.take(origin)) is None:  # noqa: ASYNC110 - what joins the pool tells nobody
            await asyncio.sleep(0.001)
    assert isinstance(connection, ClientConnection)
    return connection


class Line:
    """Calls that wait, and who was served with what, in order."""

    def __init__(self, pool: UpstreamPool, origin: Origin) -> None:
        self.pool = pool
        self.origin = origin
        self.served: list[tuple[str, Any]] = []
        self._changed = asyncio.Event()

    def join(self, name: str, *, fresh: bool = False) -> Cancellable:
        def told(what: Any) -> None:
            self.served.append((name, what))
            self._changed.set()

        return self.pool.connect(self.origin, told, lambda error: told(error.reason), fresh=fresh)

    async def wait_for(self, count: int) -> list[tuple[str, Any]]:
        async with asyncio.timeout(WAIT_S):
            while len(self.served) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.served


async def test_a_connection_that_comes_free_goes_to_the_call_that_has_waited_longest(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    free = await connect(pool, to(upstream))
    line = Line(pool, to(upstream))
    with hanging(pool):
        line.join("first")
        line.join("second")
        use(free)
        assert line.served == []  # not while the end of the last request is still being told
        assert await line.wait_for(1) == [("first", free)]
        use(free)
        assert await line.wait_for(2) == [("first", free), ("second", free)]


async def test_no_call_overtakes_those_that_wait(pool: UpstreamPool, upstream: Upstream) -> None:
    free = await connect(pool, to(upstream))
    line = Line(pool, to(upstream))
    with hanging(pool):
        line.join("first")
        line.join("second")
        for served in ("first", "second"):
            use(free)
            assert pool.take(to(upstream)) is None  # free, and promised
            assert (await line.wait_for(1))[-1][0] == served
            line.served.clear()
        use(free)
        assert pool.take(to(upstream)) is free


async def test_a_later_call_takes_a_connection_that_is_left_over_by_those_that_wait(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    free = [await connect(pool, to(upstream)) for _ in range(2)]
    line = Line(pool, to(upstream))
    with hanging(pool):
        line.join("first")
        for one in free:
            use(one)
        assert pool.take(to(upstream)) is free[1]
        assert pool.take(to(upstream)) is None
        assert await line.wait_for(1) == [("first", free[0])]


async def test_a_connection_that_has_died_is_not_what_is_left_for_a_call_that_waits(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    free, dead = await connect(pool, to(upstream)), await connect(pool, to(upstream))
    line = Line(pool, to(upstream))
    with hanging(pool):
        line.join("first")
        use(free)
        use(dead)
        dead.close()
        assert pool.take(to(upstream)) is None
        assert await line.wait_for(1) == [("first", free)]


async def test_only_calls_that_would_take_a_kept_connection_are_waited_for(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    free = await connect(pool, to(upstream))
    line = Line(pool, to(upstream))
    with hanging(pool):
        line.join("again", fresh=True)
        use(free)
        assert pool.take(to(upstream)) is free


async def test_who_leaves_the_line_leaves_the_order_of_the_others(upstream: Upstream) -> None:
    pool = UpstreamPool(ClientLimits(connect_timeout_s=WAIT_S, max_connecting=1))
    free = await connect(pool, to(upstream))
    line = Line(pool, to(upstream))
    with hanging(pool):
        waits = [line.join(name) for name in ("gone", "first", "gone too", "second")]
        for gone in (waits[0], waits[2]):
            gone.cancel()
        for count in (1, 2):
            use(free)
            await line.wait_for(count)
    assert [name for name, _ in line.served] == ["first", "second"]
    await pool.close()


async def test_a_connection_that_dies_as_it_comes_free_costs_nobody_its_place(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    dying, free = await connect(pool, to(upstream)), await connect(pool, to(upstream))
    line = Line(pool, to(upstream))
    with hanging(pool):
        line.join("first")
        line.join("second")
        use(dying)
        dying.close()
        await asyncio.sleep(0)
        assert line.served == []
        for count in (1, 2):
            use(free)
            await line.wait_for(count)
    assert line.served == [("first", free), ("second", free)]


async def test_connections_that_come_free_at_once_are_given_to_all_who_wait_however_few_are_kept(
    upstream: Upstream,
) -> None:
    pool = UpstreamPool(ClientLimits(max_idle=1))
    free = [await connect(pool, to(upstream)) for _ in range(3)]
    line = Line(pool, to(upstream))
    with hanging(pool):
        for name in ("first", "second", "third"):
            line.join(name)
        for one in free:
            use(one)
        await line.wait_for(3)
    assert [name for name, _ in line.served] == ["first", "second", "third"]
    assert {connection for _, connection in line.served} == set(free)
    await pool.close()


async def test_a_connection_that_is_no_longer_good_is_given_to_nobody(pool: UpstreamPool, upstream: Upstream) -> None:
    free = await connect(pool, to(upstream))
    line = Line(pool, replace(to(upstream), still_good=lambda _transport: False))
    with hanging(pool):
        line.join("first")
        use(free)
        await asyncio.sleep(0)
        assert line.served == []
        assert not free.usable


@pytest.mark.parametrize("good", [True, False])
async def test_a_new_connection_is_judged_before_it_is_used(pool: UpstreamPool, upstream: Upstream, good: bool) -> None:
    """Between its handshake and its use are some event-loop iterations, in which trust may be withdrawn."""
    line = Line(pool, replace(to(upstream), still_good=lambda _transport: good))
    line.join("first")
    ((_, served),) = await line.wait_for(1)
    assert isinstance(served, ClientConnection) is good
    assert good or served is Reason.UPSTREAM_IDENTITY
    assert pool.counts["opened"] == good
    assert pool.take(to(upstream)) is None


async def test_a_call_whose_kept_connection_was_stale_is_served_with_a_new_one_alone(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    free = await connect(pool, to(upstream))
    line = Line(pool, to(upstream))
    with hanging(pool):
        line.join("again", fresh=True)
        line.join("first")
        use(free)
        assert await line.wait_for(1) == [("first", free)]
    await pool.close()
    assert line.served[1:] == [("again", Reason.UPSTREAM_UNREACHABLE)]


async def served_otherwise(line: Line, free: ClientConnection) -> None:
    """A call that gets a free connection, while the one that is opened for it still hangs."""
    line.join("otherwise")
    await asyncio.sleep(0)
    use(free)
    assert await line.wait_for(1) == [("otherwise", free)]


async def test_a_connection_that_its_call_needs_no_more_joins_the_pool(pool: UpstreamPool, upstream: Upstream) -> None:
    free = await connect(pool, to(upstream))
    with hanging(pool) as released:
        await served_otherwise(Line(pool, to(upstream)), free)
        released.set()
        connection = await taken(pool, to(upstream))
    assert connection is not free
    assert connection.kept  # so that the upstream's closing it meanwhile is not a failure of the next call


async def test_an_attempt_whose_call_was_served_otherwise_serves_the_next_one(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    free = await connect(pool, to(upstream))
    line = Line(pool, to(upstream))
    with hanging(pool) as released:
        await served_otherwise(line, free)
        line.join("next")
        released.set()
        (_, (name, connection)) = await line.wait_for(2)
    assert name == "next"
    assert connection is not free
    assert pool.counts["opened"] == 2


async def test_a_call_does_not_count_on_an_attempt_that_was_given_up(upstream: Upstream) -> None:
    pool = UpstreamPool(ClientLimits(max_connecting=1))
    line = Line(pool, to(upstream))
    with hanging(pool) as released:
        line.join("first").cancel()
        line.join("second")
        released.set()
        ((name, _),) = await line.wait_for(1)
    assert name == "second"
    await pool.close()


async def test_a_call_that_goes_away_takes_no_attempt_that_another_needs(
    pool: UpstreamPool, upstream: Upstream
) -> None:
    line = Line(pool, to(upstream))
    with hanging(pool) as released:
        first = line.join("first")
        line.join("second")
        await asyncio.sleep(0)
        first.cancel()
        released.set()
        ((name, _),) = await line.wait_for(1)
    assert name == "second"
    assert pool.counts["opened"] == 1


async def test_an_attempt_that_has_stalled_is_not_counted_on(upstream: Upstream) -> None:
    clock = Clock()
    pool = UpstreamPool(ClientLimits(), clock=clock)
    free = await connect(pool, to(upstream))
    line = Line(pool, to(upstream))
    with hanging(pool) as released:
        await served_otherwise(line, free)
        clock.now += 2.4  # of 5 s
        line.join("second")
        await asyncio.sleep(0)
        assert released.asked == 1
        clock.now += 0.1
        line.join("third")
        await asyncio.sleep(0)
        assert released.asked == 3  # one for each who waits
    await pool.close()


async def test_so_many_connections_are_opened_at_a_time_and_each_that_stands_makes_room_for_the_next(
    upstream: Upstream,
) -> None:
    pool = UpstreamPool(ClientLimits(max_connecting=2))
    line = Line(pool, to(upstream))
    with hanging(pool) as released:
        for number in range(5):
            line.join(str(number))
        await asyncio.sleep(0)
        assert released.asked == 2
        released.set()
        served = await line.wait_for(5)
    assert [name for name, _ in served] == ["0", "1", "2", "3", "4"]
    assert len({connection for _, connection in served}) == pool.counts["opened"] == 5
    await pool.close()


async def test_a_connection_that_fails_fails_one_call_and_the_others_have_their_own(pool: UpstreamPool) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        line = Line(pool, Origin("127.0.0.1", unused.getsockname()[1], key="b"))
        for name in ("first", "second"):
            line.join(name)
        served = await line.wait_for(2)
    assert served == [("first", Reason.UPSTREAM_UNREACHABLE), ("second", Reason.UPSTREAM_UNREACHABLE)]
    assert pool.counts == {"opened": 0, "failed": 2, "retried": 0}


async def test_no_call_is_failed_by_an_attempt_that_began_before_it_came(upstream: Upstream) -> None:
    clock = Clock()
    pool = UpstreamPool(ClientLimits(), clock=clock)
    free = await connect(pool, to(upstream))
    line = Line(pool, to(upstream))
    with hanging(pool) as released:
        await served_otherwise(line, free)
        clock.now += 0.5
        line.join("later")
        await asyncio.sleep(0)
        assert released.asked == 1
        released.fail(ConnectionRefusedError())
        (_, (name, connection)) = await line.wait_for(2)
    assert name == "later"
    assert isinstance(connection, ClientConnection)
    assert pool.counts == {"opened": 2, "failed": 1, "retried": 0}
    await pool.close()


async def test_a_call_that_gets_no_attempt_still_has_its_deadline(upstream: Upstream) -> None:
    pool = UpstreamPool(ClientLimits(max_connecting=1, connect_timeout_s=0.05))
    line = Line(pool, to(upstream))
    with hanging(pool):
        for name in ("first", "second", "third"):
            line.join(name)
        served = await line.wait_for(3)
    assert [reason for _, reason in served] == [Reason.UPSTREAM_TIMEOUT] * 3
    await pool.close()


async def test_what_a_pool_knows_of_a_key_ends_with_its_last_connection(pool: UpstreamPool, upstream: Upstream) -> None:
    (connection,) = await kept(pool, upstream, count=1)
    assert len(pool.pools) == len(pool._all) == 1
    pool.take(to(upstream))
    connection.abort()
    async with asyncio.timeout(WAIT_S):
        await pool.connections.wait_for_empty()
    assert (pool.pools, pool._all) == ({}, set())


async def test_a_new_connection_lives_no_longer_than_those_at_its_ends(upstream: Upstream) -> None:
    clock = Clock()
    pool = UpstreamPool(ClientLimits(max_age_s=1000, idle_keep_s=1000), clock=clock)
    origin = replace(to(upstream), life_s=lambda _transport: 100.0)
    use(await connect(pool, origin))
    clock.now += 79
    pool.connections.sweep()
    young = len(pool.connections)
    clock.now += 22
    pool.connections.sweep()
    assert (young, pool.take(origin)) == (1, None)
    await pool.close()


async def test_a_new_connection_whose_ends_are_at_their_end_serves_one_call(upstream: Upstream) -> None:
    pool = UpstreamPool(ClientLimits(), clock=Clock())
    origin = replace(to(upstream), life_s=lambda _transport: 0.0)
    use(await connect(pool, origin))
    assert pool.take(origin) is None
    await pool.close()


class Hanging:
    """Attempts that go on when a test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: OSError | None = None
        self._released = asyncio.Event()

    def set(self) -> None:
        self._released.set()

    def fail(self, error: OSError) -> None:
        """This attempt fails; those after it go on at once."""
        self.error = error
        self._released.set()

    async def addresses(self, host: str) -> tuple[str, ...]:
        self.asked += 1
        await self._released.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error
        return (host,)


@contextmanager
def hanging(pool: UpstreamPool) -> Iterator[Hanging]:
    """New connections hang meanwhile."""
    resolver, hung = pool._dialer._resolver, Hanging()
    pool._dialer._resolver = hung  # type: ignore[assignment]
    yield hung
    pool._dialer._resolver = resolver


async def test_a_connection_that_is_closed_before_it_is_handed_over_is_unreachable(
    pool: UpstreamPool, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ClientConnection.connection_made

    def greeted(self: ClientConnection, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        self.data_received(b"220 hello")

    monkeypatch.setattr(ClientConnection, "connection_made", greeted)
    assert await reason_of(pool, to(upstream)) == Reason.UPSTREAM_UNREACHABLE
    assert len(pool.connections) == 0


async def test_a_port_nobody_listens_on_is_unreachable(pool: UpstreamPool) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        origin = Origin("127.0.0.1", unused.getsockname()[1], key="b")
        assert await reason_of(pool, origin) == Reason.UPSTREAM_UNREACHABLE


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64, "a..b"])
async def test_a_host_that_has_no_address_is_unreachable(pool: UpstreamPool, host: str) -> None:
    assert await reason_of(pool, Origin(host, 1, key="b")) == Reason.UPSTREAM_UNREACHABLE


async def test_a_bug_while_connecting_ends_the_wait_and_stays_visible(upstream: Upstream) -> None:
    bugs: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context.get("exception")))
    pool = UpstreamPool(ClientLimits())
    with hanging(pool) as released:
        released.fail(KeyError("bug"))  # type: ignore[arg-type]
        assert await reason_of(pool, to(upstream)) == Reason.INTERNAL
    assert [type(bug) for bug in bugs] == [KeyError]
    await pool.close()
