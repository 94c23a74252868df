"""Each identity is counted once, whatever the sources; only verified claims name people and actors."""

from __future__ import annotations

from typing import Any

from delegation_audit.ratio import census as census_module
from delegation_audit.ratio.census import Census
from delegation_core.records.reading import record_of
from tests.audit.ratio.evidence import AGENT, ISSUER, record


def census(*records: dict[str, Any], **window: str) -> Census:
    counted = Census(lambda issuer, subject: f"{issuer} {subject}", **window)
    for one in records:
        counted.add_record(record_of(one))
    return counted


def test_workloads_and_people_count_once() -> None:
    counted = census(
        record(1, "alice", "front", "planner"),
        record(2, "alice", "front", "planner"),
        record(3, "bob", "planner", "crm"),
    )
    assert set(counted.machines) == {AGENT + name for name in ("front", "planner", "crm")}
    assert (counted.people.count, counted.people.exact) == (2, True)
    planner = counted.machines[AGENT + "planner"]
    assert (planner.records, planner.people_served, planner.last_seen) == (3, 2, "2026-01-01T00:00:03.000000Z")


def test_two_issuers_have_two_people_of_one_name() -> None:
    assert census(record(1, "alice", "a", "b"), record(2, "alice", "a", "b", subject_iss="x")).people.count == 2


def test_unverified_claims_name_nobody_but_the_proven_peer_counts() -> None:
    counted = census(record(1, "alice", "front", "planner", verified=False, actor=AGENT + "ghost"))
    assert counted.people.count == 0
    assert set(counted.machines) == {AGENT + "front", AGENT + "planner"}


def test_a_workload_that_acts_for_itself_is_no_person() -> None:
    counted = census(record(1, AGENT + "cron", "cron", "crm"))
    assert counted.people.count == 0
    assert AGENT + "cron" in counted.machines


def test_records_outside_the_window_are_told_and_not_counted() -> None:
    counted = census(
        record(1, "alice", "a", "b"),
        record(2, "bob", "a", "c"),
        record(3, "carol", "a", "d"),
        since="2026-01-01T00:00:02.000000Z",
        until="2026-01-01T00:00:03.000000Z",
    )
    assert (counted.people.count, counted.records, counted.outside) == (1, 1, 2)


def test_an_entry_is_joined_with_the_workload_that_was_seen() -> None:
    counted = census(record(1, "alice", "front", "planner"))
    counted.add_entry(AGENT + "planner")
    counted.add_entry(AGENT + "idle")
    assert counted.machines[AGENT + "planner"].sources == {"records", "entries"}
    assert counted.machines[AGENT + "idle"].people_served == 0
    assert len(counted.machines) == 3


def test_a_member_of_the_directory_who_was_seen_is_one_person() -> None:
    counted = census(record(1, "alice", "front", "planner"))
    counted.add_person(ISSUER, "alice")
    counted.add_person(ISSUER, "bob")
    assert (counted.people.count, counted.seen.count) == (2, 1)


def test_beyond_the_exact_number_people_are_estimated(monkeypatch: Any) -> None:
    monkeypatch.setattr(census_module, "EXACT", 100)
    counted = census()
    for number in range(1000):
        counted.add_person(ISSUER, str(number))
    assert not counted.people.exact
    assert 950 <= counted.people.count <= 1050


def test_calls_that_a_workload_made_for_itself_count_with_it_and_refused_ones_do_not() -> None:
    own = {"op": "own", "direction": "outbound", "workload": AGENT + "cron", "peer": AGENT + "crm", "decision": "allow"}
    made = record(1, AGENT + "cron", "cron", "crm", **own)
    refused = record(2, AGENT + "cron", "cron", "crm", **{**own, "decision": "deny"})
    operation = {**own, "op": "initialize", "actor": None, "chain": None}
    opened = record(4, AGENT + "cron", "cron", "crm", **operation)
    for_a_user = record(5, "alice", "cron", "crm", **operation)
    counted = census(made, refused, opened, for_a_user, record(3, "alice", "front", "cron"))
    assert {name.removeprefix(AGENT): one.own_calls for name, one in counted.machines.items()} == {
        "cron": 2, "crm": 0, "front": 0,
    }  # fmt: skip
