"""Failover without a network: which endpoint is asked, for how long, and what counts as its failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable

import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.exchange.circuit import FIRST_PAUSE_S, FORGET_AFTER_S, OPEN_AFTER, Circuit
from sidecar.exchange.failover import CANNOT_SERVE, AllOpen, Failover, Replica, Unsent
from sidecar.identity.endpoint import EndpointAnswer
from tests.exchange.world import Clock

Behaviour = Callable[[], Awaitable[EndpointAnswer]]


def answer(status: int = 200, body: bytes = b"") -> EndpointAnswer:
    return EndpointAnswer(status, "application/json", None, body)


class Endpoint:
    """Answers with its name, or as ``behaves`` says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[tuple[bytes, str | None, bool]] = []
        self.behaves: Behaviour | None = None
        self.closed = False

    async def post_form(
        self, form: bytes, authorization: str | None = None, *, once: bool = False, subject: Hashable = None
    ) -> EndpointAnswer:
        self.calls.append((form, authorization, once))
        return answer(body=self.name.encode()) if self.behaves is None else await self.behaves()

    async def close(self) -> None:
        self.closed = True

    def says(self, status: int) -> None:
        async def say() -> EndpointAnswer:
            return answer(status, self.name.encode())

        self.behaves = say

    def fails(self, error: SidecarError) -> None:
        async def fail() -> EndpointAnswer:
            raise error

        self.behaves = fail

    def hangs(self) -> None:
        async def hang() -> EndpointAnswer:
            await asyncio.Event().wait()
            raise AssertionError

        self.behaves = hang


GONE = Unavailable(Reason.STS_UNAVAILABLE, "the connection failed")


class Service:
    """A failover over named endpoints, and what it counted."""

    def __init__(self, *names: str, timeout_s: float = 0.3) -> None:
        self.clock = Clock(0.0)
        self.endpoints = {name: Endpoint(name) for name in names}
        self.counted: list[tuple[str, Reason]] = []
        self.failover = Failover(
            [Replica(name, f"https://{name}", one, Circuit(lambda: 0.0)) for name, one in self.endpoints.items()],
            timeout_s=timeout_s,
            on_failure=lambda label, reason: self.counted.append((label, reason)),
            monotonic=self.clock,
        )

    def __getitem__(self, name: str) -> Endpoint:
        return self.endpoints[name]

    async def ask(self, *, once: bool = False, subject: str = "alice") -> str:
        return (await self.failover.post_form(b"f", "auth", once=once, subject=subject)).body.decode()

    async def reason(self, *, once: bool = False, subject: str = "alice") -> Reason:
        with pytest.raises(SidecarError) as caught:
            await self.ask(once=once, subject=subject)
        return caught.value.reason

    def asked(self) -> str:
        """Return the number of calls of each, and forget them."""
        counts = "".join(f"{name}{len(one.calls)}" for name, one in self.endpoints.items())
        for one in self.endpoints.values():
            one.calls.clear()
        return counts


async def test_while_the_preferred_one_works_no_other_is_asked() -> None:
    service = Service("a", "b")
    for _ in range(5):
        assert await service.ask() == "a"
    assert service["a"].calls[0] == (b"f", "auth", False)
    assert service.asked() == "a5b0"


@pytest.mark.parametrize(
    "failure",
    [
        GONE,
        Unsent(Reason.STS_UNAVAILABLE),
        Unavailable(Reason.STS_TIMEOUT),
        Denied(Reason.STS_IDENTITY),
    ],
    ids=lambda error: f"{type(error).__name__} {error.reason}",
)
async def test_the_next_one_is_asked_where_no_answer_came(failure: SidecarError) -> None:
    service = Service("a", "b", "c")
    service["a"].fails(failure)
    assert await service.ask() == "b"
    assert service.asked() == "a1b1c0"
    assert service.counted == [("a", failure.reason)]


@pytest.mark.parametrize("status", sorted(CANNOT_SERVE))
async def test_the_next_one_is_asked_where_one_cannot_serve(status: int) -> None:
    service = Service("a", "b")
    service["a"].says(status)
    assert await service.ask() == "b"
    assert service.counted == [("a", Reason.STS_UNAVAILABLE)]


@pytest.mark.parametrize("status", [200, 301, 307, 400, 401, 403, 404, 429, 500, 501, 505])
async def test_any_other_answer_is_final(status: int) -> None:
    service = Service("a", "b")
    service["a"].says(status)
    assert await service.ask() == "a"
    assert (service.asked(), service.counted) == ("a1b0", [])


@pytest.mark.parametrize(
    "failure",
    [
        Denied(Reason.STS_BAD_RESPONSE),
        Denied(Reason.STS_TOO_LARGE),
        Denied(Reason.STS_REDIRECT),
        Unavailable(Reason.NOT_READY),
        Unavailable(Reason.OVERLOADED),
    ],
    ids=lambda error: str(error.reason),
)
async def test_a_broken_answer_or_a_shortage_of_our_own_is_final(failure: SidecarError) -> None:
    service = Service("a", "b")
    service["a"].fails(failure)
    assert await service.reason() is failure.reason
    assert (service.asked(), service.counted) == ("a1b0", [])


async def test_where_none_can_serve_the_last_word_counts() -> None:
    service = Service("a", "b")
    service["a"].fails(GONE)
    service["b"].says(503)
    assert (await service.failover.post_form(b"f")).status == 503
    service = Service("a", "b")
    service["a"].says(503)
    service["b"].fails(Unavailable(Reason.STS_TIMEOUT))
    assert await service.reason() is Reason.STS_TIMEOUT


async def test_one_that_failed_is_asked_last_until_its_pause_is_over() -> None:
    service = Service("a", "b")
    service["a"].fails(GONE)
    await service.ask()
    assert await service.ask() == "b"
    assert service.asked() == "a1b2"
    service.clock.now = FIRST_PAUSE_S
    service["a"].behaves = None
    assert [await service.ask(), await service.ask()] == ["a", "a"]
    assert service.asked() == "a2b0"


async def test_one_that_failed_is_the_last_resort() -> None:
    service = Service("a", "b")
    service["a"].fails(GONE)
    await service.ask()
    service["a"].behaves = None
    service["b"].fails(GONE)
    assert await service.ask() == "a"


async def test_a_replica_that_hangs_leaves_time_for_the_others() -> None:
    service = Service("a", "b", "c")
    service["a"].hangs()
    service["b"].hangs()
    async with asyncio.timeout(0.3):  # the exchange's own
        assert await service.ask() == "c"
    assert service.counted == [("a", Reason.STS_TIMEOUT), ("b", Reason.STS_TIMEOUT)]


async def test_a_slow_one_gets_more_time_where_only_failed_ones_are_left() -> None:
    service = Service("a", "b")
    service["a"].fails(GONE)
    await service.ask()

    async def slow() -> EndpointAnswer:
        await asyncio.sleep(0.15)  # a third of the time is 0.1
        return answer(body=b"slow")

    service["b"].behaves = slow
    assert await service.ask() == "slow"


async def test_a_call_that_its_exchange_gave_up_counts_unless_it_was_young() -> None:
    service = Service("a")
    service["a"].hangs()
    for waited, counted in ((0.0, []), (0.3, [("a", Reason.STS_TIMEOUT)])):
        call = asyncio.ensure_future(service.ask())
        await asyncio.sleep(0)
        service.clock.now += waited
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert service.counted == counted


async def test_a_form_for_once_goes_elsewhere_only_if_nothing_of_it_was_sent() -> None:
    unsent: list[SidecarError] = [Unsent(Reason.STS_UNAVAILABLE), Unsent(Reason.STS_TIMEOUT)]
    for failure in (*unsent, Denied(Reason.STS_IDENTITY)):
        service = Service("a", "b")
        service["a"].fails(failure)
        assert await service.ask(once=True) == "b"
        assert service["b"].calls == [(b"f", "auth", True)]
    for sent in (GONE, Unavailable(Reason.STS_TIMEOUT)):
        service = Service("a", "b")
        service["a"].fails(sent)
        assert await service.reason(once=True) is sent.reason
        assert service.asked() == "a1b0"
    service = Service("a", "b")
    service["a"].says(503)
    assert await service.ask(once=True) == "a"
    assert service.asked() == "a1b0"


async def test_a_form_for_once_is_not_cut_short_for_others() -> None:
    service = Service("a", "b", timeout_s=0.03)

    async def slow() -> EndpointAnswer:
        await asyncio.sleep(0.05)
        return answer(body=b"slow")

    service["a"].behaves = slow
    assert await service.ask(once=True) == "slow"


async def fail_for(
    service: Service, name: str, seconds: float, failure: SidecarError = GONE, *, users: int = OPEN_AFTER
) -> None:
    """Let calls of several users fail; ``seconds`` are between the second call and the last."""
    service[name].fails(failure)
    for number in range(OPEN_AFTER):
        await service.reason(subject=f"user {number % users}")
        service.clock.now += seconds / (OPEN_AFTER - 2)


@pytest.mark.parametrize(
    ("failure", "users", "is_open"),
    [
        pytest.param(GONE, OPEN_AFTER, True, id="sent, and no answer to five users"),
        pytest.param(GONE, OPEN_AFTER - 1, False, id="sent, and no answer to four"),
        pytest.param(Unavailable(Reason.STS_TIMEOUT), OPEN_AFTER - 1, False, id="too late for four"),
        pytest.param(Unsent(Reason.STS_UNAVAILABLE), 1, True, id="no connection"),
        pytest.param(Unsent(Reason.STS_TIMEOUT), 1, True, id="no connection in time"),
        pytest.param(Denied(Reason.STS_IDENTITY), OPEN_AFTER, False, id="another identity"),
        pytest.param(Denied(Reason.STS_BAD_RESPONSE), OPEN_AFTER, False, id="a broken answer"),
    ],
)
async def test_what_opens_a_circuit(failure: SidecarError, users: int, is_open: bool) -> None:
    service = Service("a")
    await fail_for(service, "a", 1.0, failure, users=users)
    assert [state.open for state in service.failover.states] == [is_open]


async def test_an_endpoint_without_answers_is_left_alone_but_for_one_probe() -> None:
    service = Service("a")
    await fail_for(service, "a", 1.0)
    assert [state.open for state in service.failover.states] == [True]
    service.asked()
    service.clock.now += 10.0
    service["a"].hangs()
    probe = asyncio.ensure_future(service.ask())
    await asyncio.sleep(0)
    with pytest.raises(AllOpen) as caught:
        await service.ask()
    assert caught.value.reason is Reason.STS_UNAVAILABLE
    assert caught.value.detail == "the connection failed; the circuit is open, and it is asked again within seconds"
    assert service.asked() == "a1"
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    service.clock.now += 10.0
    service["a"].behaves = None
    assert await service.ask() == "a"
    assert [state.open for state in service.failover.states] == [False]


async def test_a_wrong_identity_never_hides_behind_an_open_circuit() -> None:
    service = Service("a")
    service["a"].fails(Denied(Reason.STS_IDENTITY))
    for _ in range(4 * OPEN_AFTER):
        assert await service.reason() is Reason.STS_IDENTITY
        service.clock.now += 1.0


async def test_answers_that_one_cannot_serve_stop_no_other_call() -> None:
    service = Service("a")
    service["a"].says(503)
    for _ in range(4 * OPEN_AFTER):
        await service.ask()
        service.clock.now += 1.0
    service["a"].behaves = None
    assert await service.ask() == "a"


async def test_states_tell_since_when_and_why() -> None:
    service = Service("a", "b")
    assert [(one.label, one.failing_s, one.failure) for one in service.failover.states] == [
        ("a", None, None),
        ("b", None, None),
    ]
    service["a"].fails(GONE)
    await service.ask()
    service.clock.now = 7.5
    first, _ = service.failover.states
    assert (first.url, first.open, first.failing_s, first.failure) == ("https://a", False, 7, GONE)
    service["a"].behaves = None
    await service.ask()
    assert service.failover.states[0].failure is None


async def test_one_that_is_not_asked_any_more_is_not_called_failing_for_ever() -> None:
    service = Service("a", "b")
    await fail_for_all(service)
    service.clock.now += FORGET_AFTER_S + 1.0
    assert [(one.open, one.failing_s, one.failure) for one in service.failover.states] == [(False, None, None)] * 2
    await fail_for_all(service)
    service["a"].behaves = None
    service.clock.now += FORGET_AFTER_S + 1.0
    assert await service.ask() == "a"


async def fail_for_all(service: Service) -> None:
    service["b"].fails(GONE)
    await fail_for(service, "a", 1.0)
    assert [state.open for state in service.failover.states] == [True, True]


async def test_closing_closes_all() -> None:
    service = Service("a", "b")
    await service.failover.close()
    assert all(one.closed for one in service.endpoints.values())
