"""Every probe decides a cell: with its answer lost, a verdict or its evidence is another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN
from sidecar.doctor.attempts import Attempt, Examination
from sidecar.doctor.cells import Cell
from sidecar.doctor.messages import Answer, Held
from sidecar.doctor.names import Probe
from sidecar.doctor.verdicts import verdicts_of
from tests.doctor.world import World, foreign_jwt
from tests.fakes.foreign_sts import KNOWN_RESOURCE, Knobs

WORLDS = (
    Knobs(),
    Knobs(actor="ignore", act="none"),
    Knobs(requester=False, without_actor="drop"),
    Knobs(audience="ignore", life="new"),
    Knobs(act="none"),
    Knobs(life="new", life_s=100, life_of_b_s=50),
)


def examined(knobs: Knobs) -> Examination:
    world = World(knobs, foreign=foreign_jwt(), resource=KNOWN_RESOURCE, subject={"aud": ["agent-a"]})
    held = Held(world.sts.user_token(may_act={"sub": "agent-a"}), "subject with may_act", TOKEN_TYPE_ACCESS_TOKEN)
    world.case = replace(world.case, may_act=held)
    return world.examine()


EXAMINED = [examined(knobs) for knobs in WORLDS]
SILENT = {Probe.OWN_FIRST, Probe.OWN_SECOND, Probe.FOR_TOOL}  # they only bring a token for another probe


@pytest.mark.parametrize("name", sorted(set(Probe) - SILENT))
def test_a_probe_whose_answer_is_lost_changes_a_cell(name: Probe) -> None:
    changed = []
    for found in EXAMINED:
        if name in found.attempts:
            before: list[Cell] = verdicts_of(found)
            lost = Attempt(name=name, draft=found.attempts[name].draft, answer=Answer(trouble="lost"))
            without = replace(found, attempts={**found.attempts, name: lost})
            changed.append(verdicts_of(without) != before)
    assert any(changed)


def test_nothing_is_concluded_without_a_lawful_exchange() -> None:
    world = World(Knobs(actor="refuse", plain=False))
    found = world.examine()
    assert found.lawful is None
    assert {request.name for request, _ in world.log} == {
        Probe.OWN_FIRST, Probe.OWN_SECOND, Probe.PLAIN, Probe.ACTOR, Probe.SUBJECT_AS_ACTOR,
    }  # fmt: skip


def test_a_probe_changes_one_fact_of_the_lawful_exchange() -> None:
    found = World().examine()
    lawful = found.lawful
    assert lawful is not None
    for name in (Probe.GARBAGE_ACTOR, Probe.OTHERS_ACTOR, Probe.DELEGATED_ACTOR):
        draft = found.attempts[name].draft
        assert draft is not None
        assert replace(draft, actor=lawful.actor) == lawful
    for name in (Probe.INVENTED_SCOPE, Probe.WIDER, Probe.NARROW):
        draft = found.attempts[name].draft
        assert draft is not None
        assert replace(draft, scope=lawful.scope) == lawful


def test_the_destructive_probe_is_the_last_but_its_readings() -> None:
    world = World()
    world.examine()
    names = [request.name for request, _ in world.log]
    assert names.index(Probe.REVOKE) > max(names.index(name) for name in Probe if name in names and "revo" not in name)
