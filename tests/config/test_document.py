import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config.document import MAX_BYTES, MAX_DEPTH, DocumentError, parse_document

PLAIN = st.characters(min_codepoint=0x20, max_codepoint=0xD7FF, exclude_categories=["Cc", "Zl", "Zp"])


def parse(text: str) -> object:
    return parse_document(text, name="file")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("true", True, id="true"),
        pytest.param("false", False, id="false"),
        pytest.param("null", None, id="null"),
        pytest.param("~", None, id="tilde"),
        pytest.param("", None, id="nothing"),
        pytest.param("7443", 7443, id="integer"),
        pytest.param("-1", -1, id="negative"),
        pytest.param("2.5", 2.5, id="decimal"),
        pytest.param("'7443'", "7443", id="quoted-number"),
        pytest.param('"true"', "true", id="quoted-word"),
        pytest.param("off", "off", id="off-is-no-bool"),
        pytest.param("yes", "yes", id="yes-is-no-bool"),
        pytest.param("NO", "NO", id="norway"),
        pytest.param("True", "True", id="capital-true"),
        pytest.param("12:30:45", "12:30:45", id="sexagesimal-is-no-number"),
        pytest.param("2026-01-01", "2026-01-01", id="a-date-stays-text"),
        pytest.param("0777", "0777", id="octal-is-no-number"),
        pytest.param("0o17", "0o17", id="new-octal"),
        pytest.param("0x1F", "0x1F", id="hex"),
        pytest.param("1_000", "1_000", id="underscores"),
        pytest.param("1e3", "1e3", id="exponent"),
        pytest.param(".inf", ".inf", id="infinity"),
        pytest.param(".nan", ".nan", id="nan"),
        pytest.param("9" * 19, "9" * 19, id="too-large-for-64-bits"),
        pytest.param("=", "=", id="the-value-key-of-yaml-1.1"),
        pytest.param("{a: [1, {b: x}], c: {}}", {"a": [1, {"b": "x"}], "c": {}}, id="nested"),
        pytest.param("- a\n- - b\n", ["a", ["b"]], id="lists"),
        pytest.param("<<: {a: b}", {"<<": {"a": "b"}}, id="a-merge-key-is-just-a-key"),
    ],
)
def test_a_value_means_the_same_to_everybody(text: str, value: object) -> None:
    parsed = parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        pytest.param("a: 1\na: 2", "the key a appears twice", id="equal-keys"),
        pytest.param("a: {b: 1, b: 1}", "the key b appears twice", id="equal-keys-inside"),
        pytest.param("{a: 1, 'a': 2}", "the key a appears twice", id="equal-after-quotes"),
        pytest.param("1: a", "a key is not text", id="number-as-key"),
        pytest.param("true: a", "a key is not text", id="bool-as-key"),
        pytest.param("? [a]\n: b", "a key is not text", id="list-as-key"),
        pytest.param("a: &x 1", "anchors and aliases are not supported", id="anchor"),
        pytest.param("a: &x [1]\nb: *x", "anchors and aliases are not supported", id="alias"),
        pytest.param("a: *x", "anchors and aliases are not supported", id="alias-of-nothing"),
        pytest.param("a: !!python/object:os.system x", "tags are not supported", id="python-object"),
        pytest.param("a: !!binary aGk=", "tags are not supported", id="binary"),
        pytest.param("a: !!str 1", "tags are not supported", id="even-a-harmless-tag"),
        pytest.param("a: !x {b: 1}", "tags are not supported", id="tagged-mapping"),
        pytest.param("a: 1\n---\nb: 2", "a second document starts", id="two-documents"),
        pytest.param("a: [1", "is not valid YAML", id="broken"),
        pytest.param("a:\n\t- b", "is not valid YAML", id="tab"),
        pytest.param("a: \x00", "is not valid YAML", id="control"),
        pytest.param("[" * (MAX_DEPTH + 1), f"is nested deeper than {MAX_DEPTH} levels", id="deep"),
        pytest.param("[" * 100_000, "is not valid YAML", id="deeper-than-the-parser-itself-goes"),
        pytest.param("#" * (MAX_BYTES + 1), f"is larger than {MAX_BYTES} bytes", id="large"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(DocumentError) as refused:
        parse(text)
    assert refused.value.problem.wrong == wrong
    assert refused.value.problem.field.startswith("file")
    assert refused.value.problem.fix


def test_a_problem_names_the_line() -> None:
    with pytest.raises(DocumentError) as refused:
        parse("a: 1\nb: 2\na: 3\n")
    assert refused.value.problem.field == "file line 3"


def test_a_broken_document_is_not_quoted() -> None:
    with pytest.raises(DocumentError) as refused:
        parse("password: hunter2: [")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused_and_nothing_else(text: str) -> None:
    with contextlib.suppress(DocumentError):
        assert parse(text) is None or isinstance(parse(text), dict | list | str | int | float)


@settings(max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(PLAIN, max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(PLAIN, max_size=5), inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_is_read_as_json(value: object) -> None:
    assert parse(json.dumps(value, ensure_ascii=False)) == value
