"""A token service that is silent to some users: their calls hang, and cost nobody else a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from itertools import count
from typing import Final

import pytest

from delegation_core.errors import SidecarError
from sidecar.exchange.circuit import MAX_PAUSE_S, OPEN_AFTER
from sidecar.exchange.failover import AllOpen, Failover, Replica
from sidecar.identity.endpoint import EndpointAnswer
from tests.fakes.virtual_time import run

TIMEOUT_S: Final = 2.0
ANSWER_S: Final = 0.01
MINUTE_S: Final = 60.0
MALLORY: Final = "mallory"
_users: Final = count()


class Endpoint:
    """Answers soon, but never those whom it ``ignores``."""

    def __init__(self, ignores: Callable[[Hashable], bool]) -> None:
        self.ignores = ignores

    async def post_form(
        self, form: bytes, authorization: str | None = None, *, once: bool = False, subject: Hashable = None
    ) -> EndpointAnswer:
        if self.ignores(subject):
            await asyncio.Event().wait()
        await asyncio.sleep(ANSWER_S)
        return EndpointAnswer(200, "application/json", None, b"")

    async def close(self) -> None:
        pass


class Service:
    """A token service of several endpoints, asked as an exchange asks it."""

    def __init__(self, endpoints: int, ignores: Callable[[Hashable], bool], *, spread: float) -> None:
        self.now = asyncio.get_running_loop().time
        self.endpoints = [Endpoint(ignores) for _ in range(endpoints)]
        replicas = [Replica(str(number), "", one) for number, one in enumerate(self.endpoints)]
        for one in replicas:
            one.circuit.__init__(lambda: spread)  # type: ignore[misc]
        self.failover = Failover(replicas, timeout_s=TIMEOUT_S, monotonic=self.now)

    async def ask(self, subject: Hashable) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await self.failover.post_form(b"", subject=subject)

    async def ask_for_ever(self, subject: Hashable) -> None:
        """Ask again as soon as the last call has failed. A refusal takes its time too."""
        while True:
            try:
                await self.ask(subject)
            except (SidecarError, TimeoutError):
                await asyncio.sleep(5 * ANSWER_S)

    async def refused(self, *, every_s: float) -> list[float]:
        """Call for a new user each time, for a minute. Return the times of the calls that got no answer."""
        refused = []
        while (began := self.now()) < MINUTE_S:
            try:
                await self.ask(f"user {next(_users)}")
            except (SidecarError, TimeoutError):
                refused.append(began)
            await asyncio.sleep(every_s)
        return refused

    @property
    def open(self) -> list[bool]:
        return [state.open for state in self.failover.states]


async def beside(hanging: list[str], *, endpoints: int, every_s: float, spread: float, at_once: int) -> list[float]:
    """Return the refused calls of others while these hang."""
    service = Service(endpoints, lambda subject: subject in hanging, spread=spread)
    flights = [asyncio.ensure_future(service.ask_for_ever(one)) for one in hanging]
    refused = await asyncio.gather(*[service.refused(every_s=every_s) for _ in range(at_once)])
    for flight in flights:
        flight.cancel()
    await asyncio.gather(*flights, return_exceptions=True)
    return [began for one in refused for began in one]


LOAD: Final = pytest.mark.parametrize(("every_s", "spread"), [(12.0, 0.0), (4.0, 0.0), (0.7, 0.7)])


@LOAD
@pytest.mark.parametrize("endpoints", [1, 2])
@pytest.mark.parametrize(
    "hanging",
    [
        pytest.param([MALLORY], id="one flight"),
        pytest.param([MALLORY] * 4, id="four flights"),
        pytest.param([f"{MALLORY}-{number}" for number in range(OPEN_AFTER - 1)], id="four users"),
    ],
)
def test_calls_that_hang_cost_nobody_else_a_call(
    hanging: list[str], endpoints: int, every_s: float, spread: float
) -> None:
    assert run(beside(hanging, endpoints=endpoints, every_s=every_s, spread=spread, at_once=5)) == []


@LOAD
@pytest.mark.parametrize("endpoints", [1, 2])
def test_many_whose_calls_hang_open_the_circuit_and_leave_the_probe_to_others(
    endpoints: int, every_s: float, spread: float
) -> None:
    hanging = [f"{MALLORY}-{number}" for number in range(20)]
    assert run(beside(hanging, endpoints=endpoints, every_s=every_s, spread=spread, at_once=1)) == []


@pytest.mark.parametrize("endpoints", [1, 2])
def test_a_service_that_is_silent_to_all_is_asked_by_probes_alone_until_it_answers(endpoints: int) -> None:
    async def outage() -> None:
        service = Service(endpoints, lambda _subject: True, spread=0.5)
        calling = [asyncio.ensure_future(service.ask_for_ever(f"user {number}")) for number in range(OPEN_AFTER)]
        await asyncio.sleep(10 * TIMEOUT_S)
        assert service.open == [True] * endpoints
        for one in calling:
            one.cancel()
        await asyncio.gather(*calling, return_exceptions=True)
        began = service.now()
        outcomes = await asyncio.gather(*[service.ask(f"new {number}") for number in range(20)], return_exceptions=True)
        assert sum(isinstance(one, AllOpen) for one in outcomes) >= 20 - endpoints
        assert service.now() - began <= TIMEOUT_S
        for endpoint in service.endpoints:
            endpoint.ignores = lambda _subject: False
        began = service.now()
        while True:
            try:
                await service.ask("new")
                break
            except AllOpen:
                await asyncio.sleep(0.1)
        assert service.now() - began < TIMEOUT_S + 1.25 * MAX_PAUSE_S
        assert not all(service.open)

    run(outage())
