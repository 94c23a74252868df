"""JSON that two parsers could understand differently is refused."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.message_json import parse_message_object
from delegation_core.strict_json import StrictJsonError, may_nest, nesting_of, parse_object
from tests.counting import MOST_AT_ONCE, bytecodes

DUPLICATES = {
    "two equal members": b'{"a":1,"a":1}',
    "two members with one name": b'{"a":1,"b":2,"a":3}',
    "the same name, escaped": b'{"a":1,"\\u0061":2}',
    "deep inside": b'{"a":[{"b":{"c":1,"c":1}}]}',
}
REFUSED = {
    "nothing": b"",
    "white space": b" ",
    "an array": b"[]",
    "a string": b'"a"',
    "a number": b"1",
    "null": b"null",
    "cut off": b'{"a":1',
    "trailing text": b"{} x",
    "two objects": b"{}{}",
    "a trailing comma": b'{"a":1,}',
    "a comment": b'{"a":1/**/}',
    "single quotes": b"{'a':1}",
    "a name without quotes": b"{a:1}",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "negative Infinity": b'{"a":-Infinity}',
    "an infinite float": b'{"a":1e400}',
    "an integer of 17 digits": b'{"a":12345678901234567}',
    "a negative integer of 17 digits": b'{"a":-12345678901234567}',
    "an integer of 5000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "a float of 41 characters": b'{"a":0.' + b"1" * 39 + b"}",
    "a leading zero": b'{"a":01}',
    "a plus sign": b'{"a":+1}',
    "a hexadecimal number": b'{"a":0x10}',
    "digits of another script": '{"a":\u0661}'.encode(),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without a mark": '{"a":1}'.encode("utf-16-le"),
    "UTF-32": '{"a":1}'.encode("utf-32"),
    "invalid UTF-8": b'{"a":"\xff"}',
    "an overlong encoding": b'{"a":"\xc0\xaf"}',
    "an encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "a lone high surrogate": b'{"a":"\\ud800"}',
    "a lone low surrogate": b'{"a":"\\uDC00x"}',
    "a surrogate in a name": b'{"\\ud800":1}',
    "surrogates in the wrong order": b'{"a":"\\udc00\\ud800"}',
    "a control character in a string": b'{"a":"\x01"}',
    "a newline in a string": b'{"a":"\n"}',
    "a null byte after it": b"{}\x00",
    "no-break space around it": "\u00a0{}".encode(),
    "too deep": b'{"a":' * 17 + b"1" + b"}" * 17,
    "too deep by arrays": b'{"a":' + b"[" * 16 + b"]" * 16 + b"}",
    "absurdly deep": b'{"a":' * 9000 + b"1" + b"}" * 9000,
    "absurdly deep and cut off": b"[" * 60000,
    "too large": b'{"a":"' + b"x" * 65536 + b'"}',
}
ACCEPTED = {
    "empty": (b"{}", {}),
    "white space around": (b' \t\r\n{ "a" : 1 }\n', {"a": 1}),
    "all types": (b'{"a":[true,false,null,"x",1,-1,1.5]}', {"a": [True, False, None, "x", 1, -1, 1.5]}),
    "an integer of 16 digits": (b'{"a":9007199254740992}', {"a": 2**53}),
    "a negative integer of 16 digits": (b'{"a":-9007199254740992}', {"a": -(2**53)}),
    "a surrogate pair": (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    "a backslash before what looks like a surrogate": (b'{"a":"\\\\ud800"}', {"a": "\\ud800"}),
    "names that differ in case": (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
    "one name at two levels": (b'{"a":{"a":1}}', {"a": {"a": 1}}),
    "16 levels": (b'{"a":' * 15 + b"{}" + b"}" * 15, None),
}


@pytest.mark.parametrize("document", DUPLICATES.values(), ids=DUPLICATES.keys())
def test_duplicate_members_are_told_apart_from_other_faults(document: bytes) -> None:
    with pytest.raises(StrictJsonError) as caught:
        parse_object(document)

    assert caught.value.duplicate


@pytest.mark.parametrize("document", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_ambiguous_or_no_json_object_is_refused(document: bytes) -> None:
    with pytest.raises(StrictJsonError) as caught:
        parse_object(document)

    assert not caught.value.duplicate


@pytest.mark.parametrize(("document", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_plain_objects_are_read(document: bytes, value: object) -> None:
    assert parse_object(document) == (json.loads(document) if value is None else value)


def test_the_limits_are_the_callers() -> None:
    assert parse_object(b'{"a":[[]]}', max_bytes=10, max_depth=3)
    with pytest.raises(StrictJsonError):
        parse_object(b'{"a":[[]]}', max_bytes=9)
    with pytest.raises(StrictJsonError):
        parse_object(b'{"a":[[]]}', max_depth=2)


@pytest.mark.parametrize("document", [b'{"secret-name":', b'{"a":"secret-value"', b'{"a":"\xff secret"}'])
def test_an_error_quotes_nothing(document: bytes) -> None:
    with pytest.raises(StrictJsonError) as caught:
        parse_object(document)

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("value", "depth"), [("x", 0), (1, 0), ({}, 1), ([], 1), ({"a": 1}, 1), ({"a": [{}], "b": {}}, 3)]
)
def test_nesting_counts_objects_and_arrays(value: object, depth: int) -> None:
    assert nesting_of(value) == depth


@given(
    st.binary(max_size=60)
    | st.text(alphabet='{}[]",:\\u0dcae1-. \ud800\n', max_size=40).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
)
def test_any_bytes_are_an_object_or_an_error(document: bytes) -> None:
    try:
        value = parse_object(document)
    except StrictJsonError:
        return

    assert value == json.loads(document)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), JSON, max_size=4))
def test_what_a_writer_writes_is_read_back(value: dict[str, object]) -> None:
    assert parse_object(json.dumps(value).encode(), max_depth=64) == value


@pytest.mark.parametrize("document", [b'{"a": [{"b": []}]}', b'{"a": {}, "b": {}, "c": {}}', b'{"a": "[[[{{{"}', b"{}"])
def test_what_may_not_nest_deeper_does_not(document: bytes) -> None:
    depth = nesting_of(json.loads(document))
    assert may_nest(document, depth - 1)
    for limit in range(depth, 10):
        assert may_nest(document, limit) or nesting_of(json.loads(document)) <= limit
    assert not may_nest(document, 10)


def test_brackets_in_strings_are_no_nesting() -> None:
    assert parse_object(b'{"a": "' + b"[" * 100 + b'"}') == {"a": "[" * 100}


CROWDED = {
    "objects": (b'{"a":[', b"{},", b"{}]}"),
    "objects in objects": (b'{"a":[', b'{"":{}},', b"{}]}"),
    "arrays": (b'{"a":[', b"[],", b"[]]}"),
    "integers": (b'{"a":[', b"1,", b"1]}"),
    "fractions": (b'{"a":[', b"1e1,", b"1]}"),
    "strings": (b'{"a":[', b'"",', b'""]}'),
    "escapes": (b'{"a":"', b"\\u0041", b'"}'),
    "one member again": (b"{", b'"a":1,', b'"a":1}'),
    "digits": (b'{"a":', b"1", b"}"),
    "depth": (b'{"a":', b"[", b""),
}


@pytest.mark.parametrize("case", CROWDED)
def test_reading_takes_work_in_proportion_to_the_document(case: str) -> None:
    before, unit, after = CROWDED[case]

    def work(size: int) -> int:
        document = before + unit * (size // len(unit)) + after
        return bytecodes(lambda: parse_object(document), StrictJsonError)

    assert work(8192) < 2.1 * work(4096)
    assert work(8192) < MOST_AT_ONCE


@pytest.mark.parametrize(
    ("document", "equal_members"),
    [
        (rb'{"a":1,"a":"\u003a"}', True),
        (rb'{"a":1,"a":"\\u003a"}', True),
        (rb'{"a":{"b":1,"b":2},"c":"\u003A"}', True),
        (rb'{"a":1,"\u0061":":"}', True),
        (rb'{"a":1,"b":"\u003a"}', False),
        (rb'{"a":1,"b":"\\u003a"}', False),
        (rb'{"a":1,"b":"\\\u003a:\u003c\u003A"}', False),
        (rb'{"a":{"b:":1},"c":{"b\u003a":1}}', False),
    ],
)
def test_two_equal_members_of_a_message_are_found_whatever_its_strings_hold(
    document: bytes, equal_members: bool
) -> None:
    assert document.count(b":") >= 2
    if not equal_members:
        assert parse_message_object(document, max_bytes=100) == json.loads(document)
        return
    with pytest.raises(StrictJsonError, match="two members"):
        parse_message_object(document, max_bytes=100)


def test_a_message_refuses_what_any_signed_document_refuses() -> None:
    """All but the limits on numbers and nesting is one rule for both parsers."""
    random = Random(21)
    pieces = [
        b'"a"',
        b'"b"',
        b":",
        b",",
        b"{",
        b"}",
        b"[",
        b"]",
        b"1",
        b"-",
        b"1e999",
        b"01",
        b"NaN",
        b'"\\ud800"',
        b"\xff",
    ]
    for _ in range(20_000):
        document = b'{"a":' + b"".join(random.choices(pieces, k=random.randint(1, 7))) + b"}"
        try:
            expected = parse_object(document)
        except StrictJsonError:
            with pytest.raises(StrictJsonError):
                parse_message_object(document, max_bytes=1000)
        else:
            assert parse_message_object(document, max_bytes=1000) == expected


def test_a_message_has_a_bounded_number_of_objects() -> None:
    some = b'{"a":[' + b",".join([b"{}"] * 1000) + b"]}"
    assert len(str(parse_message_object(some, max_bytes=1 << 20))) > 3000
    with pytest.raises(StrictJsonError, match="too many"):
        parse_message_object(b'{"a":[' + b",".join([b"{}"] * 100_000) + b"]}", max_bytes=1 << 20)
