from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delegation_audit.credentials import plain
from delegation_audit.credentials.fields import Exposure, Field
from delegation_audit.credentials.plain import MAX_LINE, is_lock, read_plain


def fields(path: str, text: str) -> list[tuple[str, str, int]]:
    return [(field.name, field.value, field.line) for field in read_plain(path, text).fields]


@pytest.mark.parametrize(
    "line",
    [
        *("KEY=value1", "export KEY=value1", "KEY: value1", "KEY = 'value1'", '"KEY": "value1",', "KEY := value1"),
        *("KEY => value1;", "  KEY='value1'  # comment", "set KEY=value1", 'ENV KEY="value1"', "a; KEY=value1"),
    ],
)
def test_an_assignment_is_a_field(line: str) -> None:
    assert ("KEY", "value1", 1) in fields("x.sh", line)


def test_code_needs_quotes_around_a_value() -> None:
    assert fields("x.py", "key = value1") == []
    assert fields("x.py", "key = 'value1'") == [("key", "value1", 1)]


def test_flags_headers_urls_and_tokens_are_fields_on_their_line() -> None:
    text = (
        "one\ncurl -u agent:passw0rd https://a:bcdef@host/x -H 'Authorization: Bearer abcdefghijkl' --api-key value1\n"
    )
    found = fields("x.sh", text)
    assert ("password", "passw0rd", 2) in found
    assert ("", "https://a:bcdef@host/x", 2) in found
    assert ("", "Bearer abcdefghijkl", 2) in found
    assert ("api-key", "value1", 2) in found


def test_a_section_is_the_object_of_the_fields_below_it() -> None:
    read = read_plain("config.toml", "aa = 'first'\n[mcp_servers.crm.env]\nKEY = 'second'\n")
    assert [(field.value, field.object) for field in read.fields] == [
        ("first", None),
        ("second", "[mcp_servers.crm.env]"),
    ]


def test_a_file_of_settings_is_exposed_as_one_and_its_folder_is_the_owner() -> None:
    for path, exposure in (("agents/crm/.env.local", Exposure.CONFIGURATION), ("agents/crm/a.py", Exposure.CODE)):
        (field,) = read_plain(path, "KEY='value1'").fields
        assert (field.exposure, field.owner) == (exposure, "folder crm")


def test_a_line_is_cut_at_the_limit() -> None:
    assert fields("x.sh", " " * MAX_LINE + "KEY=value1") == []
    assert fields("x.sh", " " * (MAX_LINE - 20) + "KEY=value1") != []


def test_a_hostile_line_costs_no_more_than_its_length() -> None:
    for line in (
        "a:" * 5000,
        "://" * 3000,
        "x://x" * 2000,
        "-a " * 3000,
        "'" * 9000,
        "eyJ" * 3000,
        "Host=" * 2000,
        "curl -u " * 999,
    ):
        fields("x.sh", line)  # a pattern that backtracks would run into the limit of time of a test


def test_a_line_without_a_value_costs_no_copy_of_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = 0

    def counted(field: Field, **changes: Any) -> Field:
        nonlocal copies
        copies += 1
        return replace(field, **changes)

    monkeypatch.setattr(plain, "replace", counted)
    assert read_plain("a.yaml", "# password: x\n# a\n" * 500).fields == ()
    assert copies == 1
    (field,) = read_plain("a.yaml", "# a\n" * 500 + "password: hunter22\n").fields
    assert (field.name, field.line) == ("password", 501)


def test_a_lock_file_is_known_by_its_name() -> None:
    assert is_lock("a/package-lock.json")
    assert not is_lock("a/package.json")
