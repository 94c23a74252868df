"""Tests of the definition of the record stream: recorded runs keep to it, audit and entries read by it."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from delegation_core.records.reading import Record
from delegation_core.records.record import EVENTS, FIELDS, KEYS, RecordFields
from delegation_core.records.record_schema import record_schema
from sidecar.observe import entry
from tests.observe.schema import violations

RECORDED = Path(__file__).parents[1] / "audit" / "recorded"
GONE = {"tls_ms"}  # keys of older releases, always null

EMPTY: dict[str, object] = dict.fromkeys(FIELDS)
LEAST = {**EMPTY, "event": "started", "ts": "2026-11-24T21:04:05.123456Z", "run": "r1", "seq": 1}


def test_the_keys_of_the_first_release_are_there_and_the_others_say_since_when() -> None:
    promised = (
        "event, ts, run, seq, decision, reason, direction, workload, peer, subject, subject_iss, actor, chain, "
        "chain_depth, client_id, audience, scope, scope_needed, route, op, method, path, status, upstream_status, "
        "jti_in, jti_out, parent_jti, txn, fp, call_in, call_out, request_id, trace_id, span_id, bytes_in, bytes_out, "
        "decide_ms, exchange_ms, upstream_ms, total_ms, after_request, verified, source, detail, suppressed"
    )
    first = [name for name in FIELDS if not KEYS[name].since]
    assert first == promised.split(", "), (
        'core/delegation_core/records/record.py: give a new key since="the next release"'
    )
    assert FIELDS[-1] == "prev", "the hash chain's key is the last of a line"


def test_a_record_with_nothing_but_the_writers_keys_fits_the_schema() -> None:
    assert violations(LEAST, record_schema()) == []


@pytest.mark.parametrize(
    ("change", "at"),
    [
        pytest.param({"seq": "1"}, "seq", id="text-for-a-number"),
        pytest.param({"seq": True}, "seq", id="a-bool-is-no-number"),
        pytest.param({"event": "something"}, "event", id="unknown-event"),
        pytest.param({"ts": "2026-11-24 21:04:05"}, "ts", id="another-time-format"),
        pytest.param({"scope": "a b"}, "scope", id="scope-as-text"),
        pytest.param({"extra": None}, "extra", id="another-key"),
        pytest.param({"bytes_in": -1}, "bytes_in", id="negative"),
    ],
)
def test_a_record_of_another_shape_does_not_fit_the_schema(change: dict[str, object], at: str) -> None:
    assert [where for where, _ in violations({**LEAST, **change}, record_schema())] == [at]


@pytest.mark.parametrize("name", FIELDS)
def test_every_key_is_required_by_the_schema(name: str) -> None:
    without = {key: value for key, value in LEAST.items() if key != name}
    assert [where for where, _ in violations(without, record_schema())] == [name]


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_set_by_events_that_there_are(name: str) -> None:
    assert KEYS[name].means
    assert set(KEYS[name].events) <= set(EVENTS)
    assert KEYS[name].events


@pytest.mark.parametrize(
    ("name", "kind", "choices"),
    [
        ("seq", "count", ()),
        ("decision", "text", ("allow", "deny", "observed_deny")),
        ("chain", "texts", ()),
        ("status", "count", ()),
        ("total_ms", "milliseconds", ()),
        ("verified", "flag", ()),
        ("detail", "text", ()),
    ],
)
def test_the_kind_of_a_key_comes_from_its_annotation(name: str, kind: str, choices: tuple[str, ...]) -> None:
    assert (KEYS[name].kind, KEYS[name].choices) == (kind, choices)


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for file in RECORDED.glob("*.records") for line in file.read_text().splitlines()]


def test_no_event_of_a_recorded_run_sets_a_key_that_the_page_denies_it() -> None:
    for one in recorded():
        for name, value in one.items():
            if value is not None:
                assert one["event"] in KEYS[name].events, (one["event"], name)


def test_records_of_older_releases_have_no_key_that_is_unknown() -> None:
    assert {name for one in recorded() for name in one} <= {*FIELDS, *GONE}


def test_audit_reads_keys_of_the_schema_and_what_it_derives() -> None:
    assert {field.name for field in fields(Record)} - set(FIELDS) == {"digest", "permitted", "scope_cut"}


def test_the_attributes_of_an_entry_have_the_types_of_their_keys() -> None:
    declared = get_type_hints(RecordFields)
    for name, hint in get_type_hints(entry.Entry, vars(entry) | {"AccessLog": object}).items():
        if name not in {"ts", "_log", *entry.Entry.__slots__}:
            assert declared[name] in (hint, hint | None), name
