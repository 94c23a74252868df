from typing import Any

import pytest

from delegation_audit.suggest import evidence as module
from delegation_audit.suggest.evidence import (
    A_LOGIN,
    BEYOND,
    MAX_DAYS,
    MAX_NAMES,
    MAX_PATHS,
    NOT_A_REQUEST,
    NOT_DELEGATED,
    OUTSIDE,
    REFUSED,
    UNUSABLE,
    Spot,
)
from delegation_core.records.reading import Record
from delegation_core.scope import ScopeSet
from tests.audit.evidence import CRM, PLANNER, WRITER
from tests.audit.suggest.observed import TUESDAY, call, evidence_of, on_both_sides, out

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
DELEGATED: dict[str, Any] = {
    "decision": "allow",
    "reason": "ok",
    "subject": "alice",
    "actor": WRITER,
    "chain": (WRITER,),
}


def test_calls_are_counted_by_place_method_and_caller_with_their_days() -> None:
    found = evidence_of(call(), call(TUESDAY), call(peer=PLANNER), call(method="POST"), call(path="/customers/1"))
    places = found.witnesses[CRM].inbound
    uses = places[Spot("/customers", ids=False)].uses
    assert {name: (use.seen.calls, len(use.seen.days)) for name, use in uses.items()} == {
        ("GET", WRITER): (2, 2), ("GET", PLANNER): (1, 1), ("POST", WRITER): (1, 1),
    }  # fmt: skip
    assert places[Spot("/customers", ids=True)].uses["GET", WRITER].seen.samples == ["/customers/1"]
    assert (found.calls, found.others) == (5, {})


def test_a_call_that_was_allowed_with_a_delegated_token_counts_too() -> None:
    ended = {"decision": "deny", "reason": "revoked", "permitted": True}  # by a later decision
    assert evidence_of(call(**DELEGATED), out(**DELEGATED), call(**{**DELEGATED, **ended})).calls == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"decision": "deny"}, REFUSED, id="refused"),
        pytest.param({"decision": None}, REFUSED, id="undecided"),
        pytest.param({"event": "request.opened"}, NOT_A_REQUEST, id="not-ended"),
        pytest.param({"direction": None}, NOT_A_REQUEST, id="no-direction"),
        pytest.param({"direction": "outbound", "op": "login"}, A_LOGIN, id="login"),
        pytest.param({"direction": "outbound", "path": "/.sidecar/subject"}, A_LOGIN, id="login-by-path"),
        pytest.param({**DELEGATED, "chain": None}, NOT_DELEGATED, id="allowed-without-a-chain"),
        pytest.param({**DELEGATED, "subject": WRITER}, NOT_DELEGATED, id="self"),
        pytest.param({**DELEGATED, "direction": "outbound", "peer": None}, NOT_DELEGATED, id="inject"),
        pytest.param({"direction": "outbound", "peer": None}, OUTSIDE, id="outside"),
        pytest.param({"direction": "outbound", "peer": None, "method": "CONNECT"}, OUTSIDE, id="tunnel"),
        pytest.param({"peer": "spiffe://acme.example/a\nb"}, UNUSABLE, id="peer"),
        pytest.param({"workload": "writer"}, UNUSABLE, id="workload"),
        pytest.param({"path": '/a" }\ninbound: {}'}, UNUSABLE, id="path"),
        pytest.param({"path": "/a//b"}, UNUSABLE, id="path-not-canonical"),
        pytest.param({"path": None}, UNUSABLE, id="no-path"),
        pytest.param({"path": "/" + "a" * 2000}, UNUSABLE, id="long-path"),
        pytest.param({"path": "/reset/…token:0123"}, UNUSABLE, id="a-path-that-held-a-token"),
        pytest.param({"path": f"/reset/{TOKEN}"}, UNUSABLE, id="a-path-with-a-token"),
        pytest.param({"method": "get\n"}, UNUSABLE, id="method"),
        pytest.param({"ts": "yesterday"}, UNUSABLE, id="time"),
    ],
)
def test_what_is_no_observed_call_is_counted_by_its_reason(changes: dict[str, Any], reason: str) -> None:
    found = evidence_of(call(**changes))
    assert (found.calls, found.others, found.witnesses) == (0, {reason: 1}, {})


def test_the_scopes_that_records_agree_on_are_kept() -> None:
    where: dict[str, Any] = {"path": "/a", "scope_needed": frozenset({"crm.read"})}
    assert scopes_of(call(**where), call(**where)) == frozenset({"crm.read"})
    assert scopes_of(call(**where), call(path="/a")) is None
    assert scopes_of(call(path="/a"), call(**where), call(**where)) is None
    for scope in ('a"b', "a b", "x" * 2000, "…truncated:2 more", TOKEN):
        assert scopes_of(call(path="/a", scope_needed=frozenset({scope}))) == frozenset()


def scopes_of(*records: Record) -> ScopeSet | None:
    place = evidence_of(*records).witnesses[CRM].inbound[Spot("/a", ids=False)]
    return place.uses["GET", WRITER].accepted.scopes


def test_memory_is_bounded_and_what_is_beyond_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_USES", 3)
    found = evidence_of(*(call(path=f"/p{letter}") for letter in "abcde"), call(path="/pa"), out(), out(method="POST"))
    assert (found.calls, found.others) == (4, {BEYOND: 4})
    assert CRM in found.witnesses
    assert WRITER not in found.witnesses


def test_paths_and_days_of_one_use_are_counted_up_to_a_limit() -> None:
    found = evidence_of(
        *(call(f"2026-{1 + n // 28:02}-{1 + n % 28:02}", path=f"/c/{n}") for n in range(MAX_PATHS + 50))
    )
    seen = found.witnesses[CRM].inbound[Spot("/c", ids=True)].uses["GET", WRITER].seen
    assert (seen.paths, len(seen.samples), seen.names) == (MAX_PATHS, 8, ["r/1"] * MAX_NAMES)
    assert (seen.calls, len(seen.days)) == (MAX_PATHS + 50, MAX_DAYS)


def test_calls_that_wait_for_their_caller_s_record_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [one for n in range(50) for one in on_both_sides(f"2026-11-{1 + n // 5:02}", f"c{n}")]
    (use,) = evidence_of(*many).witnesses[CRM].inbound[Spot("/customers", ids=False)].uses.values()
    assert (use.seen.calls, use.accepted.calls, len(use.accepted.days)) == (50, 16, 4)
    monkeypatch.setattr(module, "MAX_CLAIMS", 2)
    (use,) = evidence_of(*many).witnesses[CRM].inbound[Spot("/customers", ids=False)].uses.values()
    assert (use.seen.calls, use.accepted.calls) == (50, 2)


def test_a_run_of_any_length_takes_little_room() -> None:
    (use,) = evidence_of(call(run="x" * 9999)).witnesses[CRM].inbound[Spot("/customers", ids=False)].uses.values()
    assert use.seen.names == ["x" * 64 + "/1"]
