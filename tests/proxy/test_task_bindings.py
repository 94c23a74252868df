from __future__ import annotations

import pytest

from sidecar.delegation.a2a_tasks import Named
from sidecar.errors import Denied, Reason
from sidecar.proxy.task_bindings import BOUND_S, MAX_OF_ONE, MAX_TASKS, UNSEEN, Principal, TaskBindings

ALICE = Principal("https://sts.acme.example", "alice", "spiffe://acme.example/agent/planner")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def named(*tasks: str) -> Named:
    return Named(tasks, about_one=True)


def test_a_task_is_for_whoever_it_was_made_for() -> None:
    tasks = TaskBindings(Clock())
    tasks.bind("7", ALICE)
    assert tasks.check(named("7"), ALICE, strict=True) is None
    for field in Principal._fields:
        with pytest.raises(Denied) as refused:
            tasks.check(named("7"), ALICE._replace(**{field: "other"}), strict=False)
        assert refused.value.reason is Reason.TASK_UNKNOWN
    tasks.bind("7", ALICE._replace(subject="bob"))  # an id that comes again stays whose it is
    assert tasks.check(named("7"), ALICE, strict=True) is None


def test_a_task_that_was_not_seen_passes_and_is_told_or_is_refused_where_the_route_is_strict() -> None:
    tasks = TaskBindings(Clock())
    tasks.bind("7", ALICE)
    for unknown in (named("8"), named(), named("7", "8")):
        assert tasks.check(unknown, ALICE, strict=False) == UNSEEN
        with pytest.raises(Denied):
            tasks.check(unknown, ALICE, strict=True)
    assert tasks.check(Named((), about_one=False), ALICE, strict=True) is None


def test_a_binding_ends_a_day_after_its_principal_named_it_last() -> None:
    clock = Clock()
    tasks = TaskBindings(clock)
    tasks.bind("7", ALICE)
    tasks.bind("8", ALICE)
    clock.now += BOUND_S - 1
    assert tasks.check(named("7"), ALICE, strict=True) is None
    clock.now += 2
    assert tasks.check(named("8"), ALICE, strict=False) == UNSEEN
    assert tasks.check(named("7"), ALICE, strict=True) is None
    clock.now += BOUND_S + 1
    tasks.sweep(clock.now)
    assert tasks.bytes == 0


def test_one_principal_has_only_its_own_tasks_forgotten() -> None:
    tasks = TaskBindings(Clock())
    tasks.bind("of-bob", ALICE._replace(subject="bob"))
    for number in range(MAX_OF_ONE + 1):
        tasks.bind(str(number), ALICE)
    assert tasks.check(named("0"), ALICE, strict=False) == UNSEEN
    assert tasks.check(named("1"), ALICE, strict=True) is None
    with pytest.raises(Denied):
        tasks.check(named("of-bob"), ALICE, strict=False)
    assert tasks.evicted == 1


def test_a_peer_with_many_users_has_none_forgotten_but_its_own() -> None:
    tasks = TaskBindings(Clock())
    victim = ALICE._replace(peer="spiffe://acme.example/agent/reviewer")
    tasks.bind("of-victim", victim)
    for user in range(20):
        for number in range(MAX_OF_ONE):
            tasks.bind(f"{user}-{number}", ALICE._replace(subject=str(user)))
    assert tasks.evicted == 4 * MAX_OF_ONE + 1
    assert tasks.check(named("of-victim"), victim, strict=True) is None
    assert tasks.check(named("0-0"), ALICE._replace(subject="0"), strict=False) == UNSEEN
    assert tasks.check(named("19-0"), ALICE._replace(subject="19"), strict=True) is None


def test_all_together_have_a_limit_and_memory_that_is_short_takes_the_oldest() -> None:
    tasks = TaskBindings(Clock())
    for number in range(MAX_TASKS + 1):
        tasks.bind(str(number), ALICE._replace(subject=str(number)))
    assert tasks.evicted == 1
    assert tasks.check(named("0"), ALICE, strict=False) == UNSEEN
    before = tasks.bytes
    tasks.shed(before // 2)
    assert tasks.bytes <= before // 2
    with pytest.raises(Denied):
        tasks.check(named(str(MAX_TASKS)), ALICE, strict=False)
