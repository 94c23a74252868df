from __future__ import annotations

from dataclasses import replace

import pytest

from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN
from sidecar.doctor.cells import Value
from sidecar.doctor.messages import Held
from tests.doctor.world import World, cells
from tests.fakes.foreign_sts import Knobs

YES, NO, REFUSED, NARROWED = Value.YES, Value.NO, Value.REFUSED, Value.NARROWED
CANNOT_SEE, NOT_TESTED = Value.CANNOT_SEE, Value.NOT_TESTED

ROWS: list[tuple[str, Knobs, Value, str]] = [
    ("nests-act", Knobs(), YES, ""),
    ("nests-act", Knobs(act="flat"), NO, "the first actor is dropped"),
    ("nests-act", Knobs(act="reverse"), NO, "wrong order"),
    ("nests-act", Knobs(act="none"), NO, "there is no act"),
    ("nests-act", Knobs(act="constant"), NO, "act is constant"),
    ("nests-act", Knobs(actor="refuse"), NO, "there is no act"),
    ("nests-act", Knobs(opaque="jwe", introspects=False), CANNOT_SEE, "cannot be read"),
    ("inherited-act", Knobs(), YES, ""),
    ("inherited-act", Knobs(act="rewrite"), NO, "rewritten"),
    ("inherited-act", Knobs(act="flat"), NOT_TESTED, "nothing is nested"),
    ("third-hop", Knobs(), YES, ""),
    ("third-hop", Knobs(max_actors=2), NO, "dropped"),
    ("third-hop", Knobs(loops=False), REFUSED, "a loop, or a limit"),
    ("third-hop", Knobs(act="none"), NOT_TESTED, "there is no act"),
    ("third-hop", Knobs(act="flat"), NOT_TESTED, "nothing is nested"),
    ("chain-without-actor", Knobs(), REFUSED, "400 invalid_request"),
    ("chain-without-actor", Knobs(without_actor="drop"), NO, "the chain is dropped"),
    ("chain-without-actor", Knobs(without_actor="keep"), YES, "stays as it was"),
    ("chain-without-actor", Knobs(without_actor="client"), YES, "the client became the actor"),
    ("chain-without-actor", Knobs(without_actor="rewrite"), NO, "rewritten"),
    ("chain-without-actor", Knobs(act="none"), NOT_TESTED, "there is no act"),
    ("delegated-actor", Knobs(), REFUSED, ""),
    ("delegated-actor", Knobs(delegated_actor=True), YES, "wrong act"),
    ("delegated-actor", Knobs(actor="ignore"), NOT_TESTED, "refused or ignored"),
    ("keeps-sub", Knobs(), YES, ""),
    ("keeps-sub", Knobs(sub="client"), NO, "another sub"),
    ("keeps-sub", Knobs(opaque="opaque"), YES, ""),
    ("keeps-sub", Knobs(opaque="opaque", introspects=False), CANNOT_SEE, ""),
    ("keeps-sub", Knobs(actor="refuse", plain=False), NOT_TESTED, ""),
]


@pytest.mark.parametrize(("cell", "knobs", "value", "detail"), ROWS)
def test_a_behaviour_has_its_verdict(cell: str, knobs: Knobs, value: Value, detail: str) -> None:
    found = cells(knobs)[cell]
    assert found.value is value
    assert detail in found.detail


@pytest.mark.parametrize(
    ("knobs", "value", "detail"),
    [
        (Knobs(), YES, ""),
        (Knobs(may_act="ignore"), NO, "another actor"),
        (Knobs(may_act="broken"), REFUSED, "the named actor too"),
        (Knobs(may_act="ignore", bind="no"), NO, "another actor"),
        (Knobs(actor="ignore"), NO, "another actor"),
    ],
)
def test_may_act_is_tried_with_the_named_actor_another_and_none(knobs: Knobs, value: Value, detail: str) -> None:
    own = cells(knobs, subject={"may_act": {"sub": "agent-a"}})["checks-may-act"]
    world = World(knobs)
    held = Held(world.sts.user_token(may_act={"sub": "agent-b"}), "subject with may_act", TOKEN_TYPE_ACCESS_TOKEN)
    world.case = replace(world.case, may_act=held)
    beside = world.cells()["checks-may-act"]
    assert beside.value is value
    assert detail in beside.detail
    assert own.value is (NOT_TESTED if knobs.may_act == "broken" else value)  # then client 1 has no lawful exchange


def test_a_subject_without_may_act_tells_nothing_of_it() -> None:
    assert cells()["checks-may-act"].value is NOT_TESTED


def test_a_may_act_for_neither_client_tells_little() -> None:
    """Both of ours are refused: because of may_act, or for another reason. There is no actor that may."""
    alone = cells(subject={"may_act": {"sub": "agent-c"}})["checks-may-act"]
    assert (alone.value, alone.detail) == (NOT_TESTED, "no exchange was accepted")
    world = World()
    held = Held(world.sts.user_token(may_act={"sub": "agent-c"}), "subject with may_act", TOKEN_TYPE_ACCESS_TOKEN)
    world.case = replace(world.case, may_act=held)
    assert world.cells()["checks-may-act"].value is CANNOT_SEE


def test_a_server_that_refuses_the_second_hop_ends_chains() -> None:
    assert cells(Knobs(audience="ignore"))["nests-act"].value is REFUSED  # no token is for client 2
    assert cells(Knobs(audience="ignore", requester=False))["nests-act"].value is YES


def test_an_opaque_subject_is_compared_over_two_hops() -> None:
    world = World(Knobs(introspects=False))
    world.sts.known["opaque-user-token"] = world.sts.known[world.case.subject.value]
    world.case = replace(world.case, subject=Held("opaque-user-token", "subject", TOKEN_TYPE_ACCESS_TOKEN))
    found = world.cells()["keeps-sub"]
    assert (found.value, found.detail) == (YES, "over two hops")
