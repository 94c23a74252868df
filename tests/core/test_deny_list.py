"""The deny file says what ``deny`` of the settings says, or it is refused as a whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from delegation_core.deny_list import MAX_DENY_BYTES, MAX_DENY_ROWS, DenyListError, parse_deny_list
from delegation_core.policy import Deny
from delegation_core.steps import at_once
from sidecar.config.sidecar_checks import _deny as problems_of
from sidecar.config.sidecar_file import _deny as deny_of
from sidecar.config.sidecar_model import DenySection

ACTOR = "spiffe://acme.example/agent/planner"
ISSUER = "https://login.acme.example"


class _File:
    """Only what the check of inline rows reads."""

    def __init__(self, rows: list[DenySection]) -> None:
        self.deny = rows


def inline(rows: list[Any]) -> Deny | None:
    """Return the list as the settings read it; None if they refuse it."""
    try:
        sections = [DenySection.model_validate(row) for row in rows]
    except ValidationError:
        return None
    return None if list(problems_of(_File(sections))) else deny_of(sections)  # type: ignore[arg-type]


def of_file(rows: list[Any]) -> Deny | None:
    """Return the list as the file is read; None if it is refused."""
    try:
        return at_once(parse_deny_list(json.dumps({"deny": rows}).encode()))
    except DenyListError:
        return None


GOOD: list[list[dict[str, str]]] = [
    [],
    [{"subject": "alice"}],
    [{"subject": "alice", "issuer": ISSUER}],
    [{"actor": ACTOR}],
    [{"jti": "j-1"}],
    [{"txn": "t-1", "note": "INC-42: prompt injection"}],
    [{"subject": "älice"}, {"subject": "älice"}, {"actor": ACTOR}, {"jti": "j"}, {"txn": "t"}],
]
BAD: list[list[Any]] = [
    [{}],
    [{"note": "nothing"}],
    [{"subject": "alice", "actor": ACTOR}],
    [{"jti": "j", "txn": "t"}],
    [{"actor": "planner"}],
    [{"actor": ACTOR + "/"}],
    [{"actor": ACTOR, "issuer": ISSUER}],
    [{"subject": ""}],
    [{"subject": "a\nb"}],
    [{"subject": "x" * 2049}],
    [{"subject": 7}],
    [{"subject": ["alice"]}],
    [{"subject": "alice", "until": "tomorrow"}],
    ["alice"],
    [[]],
    [{"txn": "t"}, {}],
]


@pytest.mark.parametrize("rows", GOOD, ids=str)
def test_a_row_means_the_same_in_the_file_and_in_the_settings(rows: list[dict[str, str]]) -> None:
    found = of_file(rows)
    assert found is not None
    assert found == inline(rows)


@pytest.mark.parametrize("rows", BAD, ids=lambda rows: str(rows)[:40])
def test_a_wrong_row_is_refused_by_both(rows: list[Any]) -> None:
    assert inline(rows) is None
    assert of_file(rows) is None


def test_every_name_of_the_settings_rows_is_known_here() -> None:
    for name in DenySection.model_fields.keys() - {"issuer", "note"}:
        assert of_file([{name: ACTOR}]) == inline([{name: ACTOR}]) != Deny()


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "not an object"),
        (b"[]", "not an object"),
        (b"{}", "the document is not"),
        (b'{"deny": {}}', "the document is not"),
        (b'{"deny": [], "allow": []}', "the document is not"),
        (b'{"deny": [], "deny": []}', "two members"),
        (b'{"deny": [{"jti": "a", "jti": "b"}]}', "two members"),
        (b'{"deny": []} x', "not JSON"),
        (b'\xef\xbb\xbf{"deny": []}', "not an object"),
        (b'{"deny": [{"jti": "\xff"}]}', "not Unicode"),
        (b'{"deny": [{"jti": [[[[[]]]]]}]}', "nested"),
        (b'{"deny": []}' + b" " * MAX_DENY_BYTES, "too large"),
        (json.dumps({"deny": [{"jti": str(n)} for n in range(MAX_DENY_ROWS + 1)]}).encode(), "at most 10000"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_list_is_refused_and_the_reason_is_told(document: bytes, why: str) -> None:
    with pytest.raises(DenyListError, match=why):
        at_once(parse_deny_list(document))


def test_a_list_cut_short_anywhere_is_no_list() -> None:
    document = json.dumps({"deny": [{"actor": ACTOR}, {"subject": "alice", "issuer": ISSUER}]}).encode()
    for length in range(len(document)):
        with pytest.raises(DenyListError):
            at_once(parse_deny_list(document[:length]))
    assert at_once(parse_deny_list(document)).actors == {ACTOR}


def test_the_largest_list_is_read_in_many_steps() -> None:
    rows = [{"subject": f"user-{number}", "issuer": ISSUER, "note": "x" * 100} for number in range(MAX_DENY_ROWS)]
    document = json.dumps({"deny": rows}).encode()
    assert len(at_once(parse_deny_list(document)).subjects) == MAX_DENY_ROWS
    assert sum(1 for _ in parse_deny_list(document)) > 100


def test_two_lists_together_refuse_what_either_does() -> None:
    one, other = of_file([{"actor": ACTOR}, {"subject": "alice"}]), of_file([{"jti": "j"}, {"txn": "t"}])
    assert one is not None
    assert other is not None
    assert one.joined(other) == of_file([{"actor": ACTOR}, {"subject": "alice"}, {"jti": "j"}, {"txn": "t"}])


def test_hints_are_searched_for_a_few_short_members_only() -> None:
    row = {"actor" * 1000: "a", "actr": "a", "subjct": "a", "actorr": "a", "isuer": "a"}
    with pytest.raises(DenyListError) as refused:
        at_once(parse_deny_list(json.dumps({"deny": [row]}).encode()))
    assert str(refused.value).endswith("did you mean actor and subject?")
