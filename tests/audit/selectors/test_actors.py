from __future__ import annotations

import json
from pathlib import Path

from delegation_audit.selectors.actors import Actor, actors_in
from delegation_audit.selectors.grades import Grade, Strength
from tests.audit.evidence import lawful

STRONG = Grade(Strength.STRONG, "an image")
WEAK = Grade(Strength.WEAK, "a label")
BY_ACCOUNT = "spiffe://{{ .TrustDomain }}/agent/{{ .PodSpec.ServiceAccountName }}"


def records(tmp_path: Path) -> list[str]:
    file = tmp_path / "records"
    numbered = ({**one, "seq": number} for number, one in enumerate(lawful().values(), 1))
    file.write_text("".join(f"{json.dumps(one)}\n" for one in numbered) + "no record\n")
    return [str(file)]


def named(path: str) -> str:
    return f"spiffe://acme.example{path}"


def test_each_hop_has_the_grade_of_its_actor(tmp_path: Path) -> None:
    grades = {named("/agent/front"): STRONG, named("/agent/planner"): WEAK, named("/agent/writer"): STRONG}
    hops, missing = actors_in(records(tmp_path), grades)
    assert missing == []
    assert {(one.actor, one.audience, one.grade) for one in hops} >= {
        (named("/agent/planner"), named("/agent/writer"), WEAK),
        (named("/agent/writer"), named("/tool/crm"), STRONG),
    }
    assert all(one.calls == 1 for one in hops)


def test_an_actor_without_an_entry_is_a_weakness(tmp_path: Path) -> None:
    hops, missing = actors_in(records(tmp_path), {named("/agent/front"): STRONG, named("/agent/writer"): STRONG})
    assert [one.text for one in missing] == [f"{named('/agent/planner')} has no entry"]
    assert [one.rule.id for one in missing] == ["actor-without-entry"]
    assert {one.grade for one in hops if one.actor == named("/agent/planner")} == {None}


def test_a_template_stands_for_its_ids_and_the_weakest_grade_counts(tmp_path: Path) -> None:
    hops, missing = actors_in(records(tmp_path), {BY_ACCOUNT: STRONG, named("/agent/planner"): WEAK})
    assert missing == []
    assert {one.grade for one in hops if one.actor == named("/agent/planner")} == {WEAK}
    assert {one.grade for one in hops if one.actor == named("/agent/writer")} == {STRONG}


def test_without_records_there_are_no_actors() -> None:
    empty: tuple[list[Actor], list[object]] = ([], [])
    assert actors_in([], {}) == empty
