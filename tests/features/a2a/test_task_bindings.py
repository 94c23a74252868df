from __future__ import annotations

import tracemalloc

import pytest

from delegation_core.a2a_tasks import Named, Shown
from delegation_core.errors import Denied, Reason
from sidecar.features.a2a.task_bindings import (
    BOUND_S,
    MAX_BOUND,
    MAX_OF_ONE,
    UNSEEN,
    UNSEEN_CONTEXT,
    Bindings,
    Making,
    Principal,
    TaskBindings,
)

ALICE = Principal("https://sts.acme.example", "alice", "spiffe://acme.example/agent/planner")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


BOB = ALICE._replace(subject="bob")


def named(*tasks: str) -> Named:
    return Named(tasks, about_one=True)


def test_a_task_is_for_whoever_it_was_made_for() -> None:
    bindings = TaskBindings(Clock())
    bindings.tasks.bind("7", ALICE)
    assert bindings.check(named("7"), ALICE, strict=True) is None
    for field in Principal._fields:
        with pytest.raises(Denied) as refused:
            bindings.check(named("7"), ALICE._replace(**{field: "other"}), strict=False)
        assert refused.value.reason is Reason.TASK_UNKNOWN
    bindings.tasks.bind("7", ALICE._replace(subject="bob"))  # an id that comes again stays whose it is
    assert bindings.check(named("7"), ALICE, strict=True) is None


@pytest.mark.parametrize("strict", [False, True])
def test_a_known_task_of_another_refuses_wherever_it_is_named_and_an_unknown_text_does_not(strict: bool) -> None:
    bindings = TaskBindings(Clock())
    bindings.tasks.bind("7", ALICE)
    bindings.tasks.bind("8", BOB)
    for foreign in (("8",), ("c", "8"), ("tasks/8", "tasks", "8")):
        with pytest.raises(Denied) as refused:
            bindings.check(named("7")._replace(beside=foreign), ALICE, strict=strict)
        assert refused.value.reason is Reason.TASK_UNKNOWN
    for beside in ((), ("c",), ("7", "tasks")):
        assert bindings.check(named("7")._replace(beside=beside), ALICE, strict=strict) is None


@pytest.mark.parametrize("strict", [False, True])
def test_two_places_that_disagree_refuse_and_a_known_task_of_another_is_told_first(strict: bool) -> None:
    bindings = TaskBindings(Clock())
    bindings.tasks.bind("7", ALICE)
    bindings.tasks.bind("8", BOB)
    for beside, reason in (("9", Reason.OPERATION_MALFORMED), ("8", Reason.TASK_UNKNOWN)):
        asked = named("7")._replace(beside=(beside,))
        with pytest.raises(Denied) as refused:
            bindings.check(asked._replace(differs=True), ALICE, strict=strict)
        assert refused.value.reason is reason
    assert bindings.check(named("7")._replace(beside=("9",)), ALICE, strict=strict) is None


def test_a_task_that_was_not_seen_passes_and_is_told_or_is_refused_where_the_route_is_strict() -> None:
    bindings = TaskBindings(Clock())
    bindings.tasks.bind("7", ALICE)
    for unknown in (named("8"), named(), named("7", "8")):
        assert bindings.check(unknown, ALICE, strict=False) == UNSEEN
        with pytest.raises(Denied):
            bindings.check(unknown, ALICE, strict=True)
    assert bindings.check(Named((), about_one=False), ALICE, strict=True) is None


def test_a_binding_ends_a_day_after_its_principal_named_it_last() -> None:
    clock = Clock()
    bindings = TaskBindings(clock)
    bindings.tasks.bind("7", ALICE)
    bindings.tasks.bind("8", ALICE)
    clock.now += BOUND_S - 1
    assert bindings.check(named("7"), ALICE, strict=True) is None
    clock.now += 2
    assert bindings.check(named("8"), ALICE, strict=False) == UNSEEN
    assert bindings.check(named("7"), ALICE, strict=True) is None
    clock.now += BOUND_S + 1
    bindings.tasks.sweep(clock.now)
    assert bindings.tasks.bytes == 0


def test_one_principal_has_only_its_own_tasks_forgotten() -> None:
    bindings = TaskBindings(Clock())
    bindings.tasks.bind("of-bob", ALICE._replace(subject="bob"))
    for number in range(MAX_OF_ONE + 1):
        bindings.tasks.bind(str(number), ALICE)
    assert bindings.check(named("0"), ALICE, strict=False) == UNSEEN
    assert bindings.check(named("1"), ALICE, strict=True) is None
    with pytest.raises(Denied):
        bindings.check(named("of-bob"), ALICE, strict=False)
    assert bindings.tasks.evicted == 1


def test_a_peer_with_many_users_has_none_forgotten_but_its_own() -> None:
    bindings = TaskBindings(Clock())
    victim = ALICE._replace(peer="spiffe://acme.example/agent/reviewer")
    bindings.tasks.bind("of-victim", victim)
    for user in range(20):
        for number in range(MAX_OF_ONE):
            bindings.tasks.bind(f"{user}-{number}", ALICE._replace(subject=str(user)))
    assert bindings.tasks.evicted == 4 * MAX_OF_ONE + 1
    assert bindings.check(named("of-victim"), victim, strict=True) is None
    assert bindings.check(named("0-0"), ALICE._replace(subject="0"), strict=False) == UNSEEN
    assert bindings.check(named("19-0"), ALICE._replace(subject="19"), strict=True) is None


def test_all_together_have_a_limit_and_memory_that_is_short_takes_the_oldest() -> None:
    bindings = TaskBindings(Clock())
    for number in range(MAX_BOUND + 1):
        bindings.tasks.bind(str(number), ALICE._replace(subject=str(number)))
    assert bindings.tasks.evicted == 1
    assert bindings.check(named("0"), ALICE, strict=False) == UNSEEN
    before = bindings.tasks.bytes
    bindings.tasks.shed(before // 2)
    assert bindings.tasks.bytes <= before // 2
    with pytest.raises(Denied):
        bindings.check(named(str(MAX_BOUND)), ALICE, strict=False)


def said(*contexts: str, tasks: tuple[str, ...] = ()) -> Named:
    """Return what a message names that belongs to no task."""
    return Named(tasks, contexts=contexts, begins=True)


def begun(bindings: TaskBindings, message: Named, principal: Principal = ALICE, *, strict: bool = False) -> Making:
    bindings.check(message, principal, strict=strict)
    making = Making(bindings, message, principal)
    making.begin()
    return making


def owner(bindings: TaskBindings, context: str) -> Principal | None:
    return bindings.contexts.owner(context)


def test_a_context_is_for_whoever_it_was_made_for() -> None:
    bindings = TaskBindings(Clock())
    begun(bindings, said()).show(Shown("7", "c"))
    assert bindings.check(said("c"), ALICE, strict=True) is None
    for field in Principal._fields:
        with pytest.raises(Denied) as refused:
            bindings.check(said("c"), ALICE._replace(**{field: "other"}), strict=False)
        assert refused.value.reason is Reason.CONTEXT_UNKNOWN
    assert bindings.tasks.owner("7") == ALICE


def test_a_context_that_its_sender_chose_is_bound_before_it_is_answered() -> None:
    bindings = TaskBindings(Clock())
    making = begun(bindings, said("c"))
    with pytest.raises(Denied):
        bindings.check(said("c"), BOB, strict=False)
    making.show(Shown("7", "c"))
    making.fail()  # as of an answer that is cut: the context was answered
    assert owner(bindings, "c") == ALICE


@pytest.mark.parametrize("shown", [Shown(failed=True), Shown(None, "another"), None])
def test_a_context_that_the_agent_did_not_take_is_released(shown: Shown | None) -> None:
    bindings = TaskBindings(Clock())
    making = begun(bindings, said("c"), BOB)
    if shown is None:
        making.fail()
    else:
        making.show(shown)
    assert owner(bindings, "c") is None
    assert bindings.check(said("c"), ALICE, strict=False) == UNSEEN_CONTEXT
    assert owner(bindings, "another") == (BOB if shown == Shown(None, "another") else None)


def test_one_message_that_fails_does_not_release_what_another_was_answered_in() -> None:
    bindings = TaskBindings(Clock())
    first, second = begun(bindings, said("c")), begun(bindings, said("c"))
    second.show(Shown("7", "c"))
    first.fail()
    assert owner(bindings, "c") == ALICE
    begun(bindings, said("c")).show(Shown(failed=True))
    assert owner(bindings, "c") == ALICE


def test_a_context_that_was_not_seen_passes_and_is_told_or_is_refused_where_the_route_is_strict() -> None:
    bindings = TaskBindings(Clock())
    assert bindings.check(said("c"), ALICE, strict=False) == UNSEEN_CONTEXT
    both = bindings.check(Named(("7",), contexts=("c",)), ALICE, strict=False)
    assert both == f"{UNSEEN}; {UNSEEN_CONTEXT}"
    for message, reason in (
        (said("c"), Reason.CONTEXT_UNKNOWN),
        (Named(contexts=("c",)), Reason.CONTEXT_UNKNOWN),
        (Named(("7",), contexts=("c",)), Reason.TASK_UNKNOWN),
    ):
        with pytest.raises(Denied) as refused:
            bindings.check(message, ALICE, strict=True)
        assert refused.value.reason is reason


def test_what_a_message_only_refers_to_does_not_become_its_own() -> None:
    bindings = TaskBindings(Clock())
    refers = said(tasks=("of-alice",))
    begun(bindings, refers, BOB).show(Shown("of-alice", "of-alice-too"))  # an agent that answers in that task
    assert bindings.tasks.owner("of-alice") is None
    assert owner(bindings, "of-alice-too") is None
    begun(bindings, refers, BOB).show(Shown("new", "of-alice-too"))
    assert bindings.tasks.owner("new") == BOB
    assert owner(bindings, "of-alice-too") is None
    begun(bindings, said(tasks=("new",)), BOB).show(Shown("newer", "c"))
    assert (bindings.tasks.owner("newer"), owner(bindings, "c")) == (BOB, BOB)


def test_a_list_shows_ones_own_and_what_is_nobodys() -> None:
    bindings = TaskBindings(Clock())
    begun(bindings, said()).show(Shown("7", "c"))
    for task, context, strict, alice, bob in (
        ("7", "c", False, True, False),
        ("7", None, True, True, False),
        ("8", "c", False, True, False),  # of before, in a context of hers
        ("8", "d", False, True, True),
        ("8", None, False, True, True),
        ("8", "c", True, False, False),
    ):
        assert bindings.may_see(task, context, ALICE, strict=strict) is alice
        assert bindings.may_see(task, context, BOB, strict=strict) is bob


def test_contexts_have_a_table_of_their_own() -> None:
    bindings = TaskBindings(Clock())
    begun(bindings, said()).show(Shown("7", "of-alice"))
    for number in range(MAX_OF_ONE + 1):
        begun(bindings, said(str(number)), BOB)
    assert bindings.contexts.evicted == 1
    assert (bindings.tasks.owner("7"), owner(bindings, "of-alice")) == (ALICE, ALICE)


def test_a_binding_takes_no_more_memory_than_is_accounted() -> None:
    tracemalloc.start()
    try:
        bindings = Bindings(Clock())
        before = tracemalloc.get_traced_memory()[0]
        for number in range(MAX_BOUND):
            bindings.bind(str(number), ALICE._replace(subject=f"user-{number}"))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used <= bindings.bytes
