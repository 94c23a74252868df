"""Logins that wait: each its session's, once, not long, and not too many."""

from __future__ import annotations

from typing import Any

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.login import LoginPlan
from sidecar.exchange.adapters.login import Started, WantedLogin
from sidecar.exchange.login_conversation import MAX_STARTED_BYTES, Begun
from sidecar.exchange.sts_settings import ExchangeSettings
from sidecar.features.logins.pending_logins import (
    LIFE_S,
    LOGIN_BYTES,
    MAX_BYTES,
    MAX_LIFE_S,
    MAX_LOGINS,
    TOLD_S,
    PendingLogin,
    PendingLogins,
    Phase,
)
from tests.core.test_login import MAIL, ROUTE
from tests.core.world import WRITER
from tests.exchange.world import Clock

ALICE, MALLORY = "session-of-alice-1", "session-of-mallory"
SETTINGS = ExchangeSettings(issuer="https://sts.acme.example", token_endpoint="http://127.0.0.1/token")


class World:
    def __init__(self, **options: Any) -> None:
        self.clock = Clock(1000.0)
        self.logins = PendingLogins(monotonic=self.clock, **options)

    def begin(self, session: str = ALICE, plan: LoginPlan | None = None, **started: Any) -> PendingLogin:
        plan = plan or LoginPlan(route=ROUTE, actor=WRITER, life_s=300)
        login = self.logins.reserve(session, plan, SETTINGS)
        wanted = WantedLogin(plan=plan, client_id="c", options={}, reason="r", state="s", verifier="v")
        begun = Begun(wanted=wanted, started=Started(**(started or {"url": "https://l.example"})), names_issuer=False)
        self.logins.open(login, begun)
        return login

    def reason(self, name: str, session: str = ALICE) -> Reason:
        with pytest.raises(SidecarError) as caught:
            self.logins.find(name, session)
        return caught.value.reason


def test_a_login_is_found_by_its_name_and_its_session_together() -> None:
    world = World()
    login = world.begin()
    assert world.logins.find(login.name, ALICE) is login
    assert world.reason(login.name, MALLORY) is Reason.LOGIN_SESSION_MISMATCH
    assert world.reason("x" * 43) is Reason.LOGIN_UNKNOWN
    assert len({world.begin(f"{ALICE}{number}").name for number in range(50)}) == 50
    assert ALICE not in repr(login)


def test_a_login_that_still_begins_is_nobodys() -> None:
    world = World()
    plan = LoginPlan(route=ROUTE, actor=WRITER, life_s=300)
    login = world.logins.reserve(ALICE, plan, SETTINGS)
    assert world.reason(login.name) is Reason.LOGIN_UNKNOWN
    world.logins.drop(login)
    assert len(world.logins) == 0


def test_a_login_is_not_long_and_then_known_by_its_reason_for_a_while() -> None:
    world = World()
    login = world.begin()
    world.clock.now += LIFE_S - 1
    assert world.logins.find(login.name, ALICE) is login
    world.clock.now += 1
    assert world.reason(login.name) is Reason.LOGIN_EXPIRED
    assert login.begun is None
    assert world.reason(login.name, MALLORY) is Reason.LOGIN_SESSION_MISMATCH
    world.clock.now += TOLD_S
    assert world.reason(login.name) is Reason.LOGIN_UNKNOWN
    world.begin(MALLORY)
    assert len(world.logins) == 1


@pytest.mark.parametrize(("told_s", "lasts_s"), [(60, 60), (10**6, MAX_LIFE_S)])
def test_a_login_lasts_as_long_as_its_token_service_says_within_limits(told_s: int, lasts_s: float) -> None:
    world = World()
    login = world.begin(code="r", expires_in_s=told_s)
    world.clock.now += lasts_s - 1
    assert world.logins.find(login.name, ALICE) is login
    world.clock.now += 1
    assert world.reason(login.name) is Reason.LOGIN_EXPIRED


def test_a_login_ends_once() -> None:
    world = World()
    login = world.begin()
    login.end()
    assert world.reason(login.name) is Reason.LOGIN_USED
    assert (login.begun, login.phase) == (None, Phase.OVER)


def test_a_new_login_of_a_session_ends_the_last_for_the_same_route_and_nobody_elses() -> None:
    world = World()
    first, other = world.begin(), world.begin(MALLORY)
    mail = world.begin(plan=LoginPlan(route=MAIL, actor=WRITER, life_s=300))
    second = world.begin()
    assert world.reason(first.name) is Reason.LOGIN_USED
    for login, session in ((second, ALICE), (mail, ALICE), (other, MALLORY)):
        assert world.logins.find(login.name, session) is login


def test_a_login_that_cannot_begin_leaves_the_one_before_as_it_is() -> None:
    world = World(most=2)
    first = world.begin()
    for _ in range(2):
        failed = world.logins.reserve(ALICE, LoginPlan(route=ROUTE, actor=WRITER, life_s=300), SETTINGS)
        assert world.logins.find(first.name, ALICE) is first
        world.logins.drop(failed)
    world.begin(MALLORY)
    with pytest.raises(SidecarError):  # no room for a third
        world.begin()
    assert world.logins.find(first.name, ALICE) is first


@pytest.mark.parametrize("phase", [Phase.ASKING, Phase.REDEEMING])
def test_a_login_that_a_new_one_ended_while_it_was_asked_for_does_not_come_back(phase: Phase) -> None:
    world = World()
    first = world.begin()
    first.phase = phase
    second = world.begin()
    world.logins.wait_longer(first)
    assert world.reason(first.name) is Reason.LOGIN_USED
    assert world.logins.find(second.name, ALICE) is second
    second.phase = phase
    world.logins.wait_longer(second)
    assert world.logins.find(second.name, ALICE) is second


def test_one_login_too_many_is_refused_and_no_other_one_ends_for_it() -> None:
    world = World(most=3)
    logins = [world.begin(f"{ALICE}{number}") for number in range(3)]
    with pytest.raises(SidecarError) as caught:
        world.begin(MALLORY)
    assert caught.value.reason is Reason.OVERLOADED
    for number, login in enumerate(logins):
        assert world.logins.find(login.name, f"{ALICE}{number}") is login
    logins[0].end()
    assert world.begin(MALLORY).phase is Phase.OPEN


def test_a_login_whose_time_is_over_takes_nobodys_place() -> None:
    world = World(most=1)
    world.begin()
    world.clock.now += LIFE_S - 1
    with pytest.raises(SidecarError):
        world.begin(MALLORY)
    world.clock.now += 1
    assert world.begin(MALLORY).phase is Phase.OPEN


@pytest.mark.parametrize("waits_with", ["url", "code"])
def test_pending_logins_are_bounded_by_what_they_hold(waits_with: str) -> None:
    began = LOGIN_BYTES + 1024
    world = World(max_bytes=2 * began + LOGIN_BYTES + MAX_STARTED_BYTES)
    started: dict[str, Any] = {waits_with: "x" * 1024}
    logins = [world.begin(f"{ALICE}{number}", **started) for number in range(3)]
    assert world.logins.bytes == 3 * began
    with pytest.raises(SidecarError) as caught:
        world.begin(MALLORY, **started)
    assert caught.value.reason is Reason.OVERLOADED
    for number, login in enumerate(logins):
        assert world.logins.find(login.name, f"{ALICE}{number}") is login
    logins[0].end()
    assert world.begin(MALLORY, **started).phase is Phase.OPEN


def test_those_that_are_over_or_expired_are_not_alive() -> None:
    world = World()
    assert world.logins.alive == 0
    first = world.begin()
    world.clock.now += 1
    world.begin(MALLORY)
    assert world.logins.alive == 2
    first.end()
    assert (world.logins.alive, len(world.logins)) == (1, 2)
    world.clock.now += LIFE_S
    assert (world.logins.alive, len(world.logins)) == (0, 2)


def test_a_login_that_begins_has_room_for_the_largest_answer() -> None:
    world = World()
    plan = LoginPlan(route=ROUTE, actor=WRITER, life_s=300)
    login = world.logins.reserve(ALICE, plan, SETTINGS)
    assert world.logins.bytes == LOGIN_BYTES + MAX_STARTED_BYTES
    world.logins.drop(login)
    assert world.logins.bytes == 0


def test_as_many_logins_as_there_may_be_have_room_at_the_usual_size() -> None:
    assert MAX_LOGINS * (LOGIN_BYTES + 1024) + MAX_STARTED_BYTES < MAX_BYTES


def test_a_token_service_is_asked_no_sooner_than_it_wants() -> None:
    world = World()
    login = world.begin(code="r", poll_s=2)
    assert (world.logins.may_ask(login), world.logins.poll_after_s(login)) == (False, 2)
    world.clock.now += 2
    assert world.logins.may_ask(login)
    login.phase = Phase.ASKING
    assert not world.logins.may_ask(login)
    world.logins.wait_longer(login, 5)
    assert (world.logins.may_ask(login), world.logins.poll_after_s(login)) == (False, 7)


def test_without_a_word_from_it_five_seconds_pass() -> None:
    world = World()
    assert world.logins.poll_after_s(world.begin(code="r")) == 5
