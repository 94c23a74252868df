import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_audit.attribution.splitting import (
    MAX_FIELDS,
    SplitError,
    flatten,
    names_somebody,
    parse_json,
    split_cef,
    split_logfmt,
)


def test_json_is_flat_with_dots_and_lower_case_names() -> None:
    members = parse_json('{"A":{"b":1,"c":[{"D":"x"},true,null]},"e.f":12345678901234567890}')
    assert flatten(members) == {"a.b": "1", "a.c.0.d": "x", "a.c.1": "true", "a.c.2": "", "e.f": "12345678901234567890"}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param('{"act":{"sub":"a"},"act":{"sub":"b"}}', id="a-member-twice"),
        pytest.param('{"x":{"act":"a","act":"b"}}', id="further-in"),
        pytest.param('{"Act":"a","act":"b"}', id="in-another-case"),
        pytest.param('{"act":{"sub":"a"},"act.sub":"b"}', id="dotted-and-nested"),
        pytest.param('{"a":' * 5000 + "1" + "}" * 5000, id="deep"),
        pytest.param('{"a":' * 60 + "1" + "}" * 60, id="deeper-than-any-log"),
        pytest.param('{"a":NaN}', id="not-a-number"),
        pytest.param("[]", id="a-list"),
        pytest.param('{"a":', id="half"),
        pytest.param(json.dumps({str(n): "x" for n in range(MAX_FIELDS + 1)}), id="too-many"),
    ],
)
def test_a_document_that_can_be_read_in_two_ways_is_refused(document: str) -> None:
    with pytest.raises(SplitError):
        flatten(parse_json(document))


def test_logfmt_has_words_quotes_and_objects() -> None:
    assert split_logfmt('2026\tinfo  request a=1 b="x \\"y\\"", c={"sub":"z","act":{"sub":"w"}} d= e=/p?q=1') == (
        "2026 info request",
        {"a": "1", "b": 'x "y"', "c.sub": "z", "c.act.sub": "w", "d": "", "e": "/p?q=1"},
    )


def test_a_comma_in_a_path_begins_no_field() -> None:
    assert split_logfmt("http.path=/a,jwt.act.sub=writer status=200") == (
        "",
        {"http.path": "/a,jwt.act.sub=writer", "status": "200"},
    )


def test_a_key_with_two_values_is_refused() -> None:
    assert split_logfmt("a=1 a=1") == ("", {"a": "1"})
    with pytest.raises(SplitError):
        split_logfmt("a=1 a=2")


def test_cef_has_a_header_and_values_with_spaces() -> None:
    found = split_cef(r"CEF:0|Ex\|ample|G|1|9|re q|3|suser=A. User act=allowed cs1Label=Actor cs1=w x request=/a\=b")
    assert (found["cef.vendor"], found["cef.name"]) == ("Ex|ample", "re q")
    assert (found["suser"], found["act"], found["label.actor"], found["request"]) == (
        "A. User",
        "allowed",
        "w x",
        "/a=b",
    )


def test_cef_may_have_no_extension() -> None:
    assert split_cef("CEF:0|a|b|c|d|e|1|nothing here")["cef.vendor"] == "a"


@pytest.mark.parametrize("line", ["CEF:0|a|b", "LEEF:1.0|", "CEF:0|a|b|c|d|e|1|suser=a suser=b"])
def test_what_is_no_cef_is_refused(line: str) -> None:
    with pytest.raises(SplitError):
        split_cef(line)


@pytest.mark.parametrize("value", ["Bearer eyJhbGciOi", "eyJhbGciOi", "ewogImFsZyI6IkVTMjU2In0.e30.c2ln", "Basic YTpi"])
def test_a_credential_is_no_name(value: str) -> None:
    assert not names_somebody(value)


def test_a_name_is_a_name() -> None:
    assert names_somebody("ewolf-of-the.north")


@given(st.text(max_size=80))
def test_any_text_splits_or_is_refused(text: str) -> None:
    for split in (split_logfmt, split_cef, lambda line: flatten(parse_json(line))):
        try:
            split(text)
        except SplitError:
            continue


def test_a_hostile_line_ends() -> None:
    """Matching that gave characters back would outlast the limit of a test by far."""
    for hostile in ('a="' + "\\" * 100_001, "a=" * 50_000, "x" * 100_000, 'a="x" ' * 1000, "CEF:0|" + "\\|" * 50_000):
        for split in (split_logfmt, split_cef):
            try:
                split(hostile)
            except SplitError:
                continue
