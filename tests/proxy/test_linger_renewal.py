"""A lingering handle lives on with its chain: a new request of the same chain, and nothing else, renews it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from tests.core.world import FRONT, INBOUND_CLAIMS, NOW, SEARCH, delegation
from tests.fakes.guard import FakeGuard

LINGER_S = 30.0
REST_S = 290
TO = replace(SEARCH, linger_s=LINGER_S)


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Agent:
    """An agent that answers at once and works on. ``lives`` tells if its handle of a request still opens something."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.handles = Handles(clock=self.clock, monotonic=self.clock, **limits)

    def asked(self, *, linger_s: float = LINGER_S, route: str = "search", **claims: Any) -> str:
        """Serve one request, and return its handle."""
        made = {**INBOUND_CLAIMS, "jti": f"token-{self.clock.now}", **claims}
        came_by = replace(TO, name=route, path=f"/{route}").mark
        shown = delegation({name: value for name, value in made.items() if value is not None}, came_by=came_by)
        served = ServedRequest(shown, None, 0.0, call_in=None)
        handle = self.handles.open(served)
        if linger_s:
            self.handles.let_in(served, linger_s)
        self.handles.end(handle)
        return handle

    def lives(self, handle: str) -> bool:
        try:
            return self.handles.resolve(handle).ended_at is not None
        except Denied:
            return False

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.handles.sweep()


def test_a_new_request_of_the_chain_renews_the_handle_for_its_whole_linger() -> None:
    agent = Agent()
    handle = agent.asked()
    for _ in range(5):
        agent.later(LINGER_S - 1)
        agent.asked()
    agent.later(LINGER_S - 1)
    assert agent.lives(handle)
    agent.later(1)
    assert not agent.lives(handle)


def test_a_call_of_the_agent_renews_nothing() -> None:
    agent = Agent()
    handle = agent.asked()
    agent.later(LINGER_S - 1)
    assert agent.lives(handle)
    agent.later(1)
    assert not agent.lives(handle)


def test_a_later_call_is_still_after_its_request() -> None:
    agent = Agent()
    handle = agent.asked()
    agent.later(LINGER_S - 1)
    agent.asked()
    agent.later(LINGER_S - 1)
    assert agent.handles.resolve(handle).ended_at == NOW


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"txn": "txn-2"}, id="another chain"),
        pytest.param({"txn": None}, id="no chain"),
        pytest.param({"sub": "bob"}, id="another subject"),
        pytest.param({"iss": "https://other.example"}, id="another issuer's subject"),
        pytest.param({"act": {"sub": str(FRONT)}}, id="another peer"),
        pytest.param({"route": "other"}, id="another route"),
        pytest.param({"linger_s": 0.0}, id="the route lets nothing linger any more"),
    ],
)
def test_a_request_with_one_fact_changed_renews_nothing(other: dict[str, Any]) -> None:
    agent = Agent()
    handle, twin = agent.asked(), agent.asked(txn="a twin's")
    agent.later(LINGER_S - 1)
    agent.asked(**other)
    agent.asked(txn="a twin's")
    agent.later(1)
    assert (agent.lives(handle), agent.lives(twin)) == (False, True)


def test_requests_without_a_chain_renew_nothing() -> None:
    agent = Agent()
    handle = agent.asked(txn=None)
    agent.later(LINGER_S - 1)
    agent.asked(txn=None)
    agent.later(1)
    assert not agent.lives(handle)


def test_a_request_that_comes_too_late_does_not_bring_a_handle_back() -> None:
    agent = Agent()
    handle = agent.asked()
    agent.clock.now += LINGER_S
    agent.asked()
    assert not agent.lives(handle)


def test_however_many_have_ended_none_is_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delegation_core.bounded.SWEPT_AT_ONCE", 1)
    agent = Agent()
    ended = [agent.asked() for _ in range(3)]
    agent.clock.now += LINGER_S
    agent.asked()
    assert [agent.lives(handle) for handle in ended] == [False] * 3


def test_no_handle_outlives_its_own_token_however_young_the_new_one_is() -> None:
    agent = Agent()
    handle = agent.asked()
    while agent.clock.now < NOW + REST_S - 1:
        agent.later(min(LINGER_S - 1, NOW + REST_S - 1 - agent.clock.now))
        agent.asked(exp=NOW + 2 * REST_S)
    assert agent.lives(handle)
    agent.later(1)
    assert not agent.lives(handle)


def test_what_is_not_trusted_any_more_is_not_renewed_into_life() -> None:
    def judge(_served: ServedRequest) -> None:
        raise Denied(Reason.POLICY_DENIED)

    agent = Agent(judge=judge)
    handle = agent.asked()
    agent.handles.suspect()
    agent.asked()
    assert not agent.lives(handle)


def test_nothing_is_remembered_of_a_chain_without_handles() -> None:
    agent = Agent()
    agent.asked()
    agent.later(LINGER_S - 1)
    agent.asked(txn="txn-2")
    assert len(agent.handles.chains) == 2
    agent.later(1)
    assert len(agent.handles.chains) == 1
    agent.handles.shed(0)
    assert (len(agent.handles.chains), len(agent.handles), agent.handles.bytes) == (0, 0, 0)


def test_a_renewed_handle_keeps_the_proof_of_its_peer() -> None:
    agent = Agent()
    guard = FakeGuard()
    shown = delegation(came_by=TO.mark)
    handle = agent.handles.open(ServedRequest(shown, None, LINGER_S, call_in=None, guard=guard))
    agent.handles.end(handle)
    agent.later(LINGER_S - 1)
    agent.asked()
    agent.later(1)
    assert agent.handles.resolve(handle).guard is guard
