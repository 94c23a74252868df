from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.form import FormError, media_type, parse_form


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        pytest.param("application/json", "application/json", id="plain"),
        pytest.param("Application/JSON", "application/json", id="no case"),
        pytest.param("application/json;charset=utf-8", "application/json", id="charset"),
        pytest.param('application/json ; Charset="UTF-8"', "application/json", id="quoted charset"),
        pytest.param(" application/json; ", "application/json", id="an empty parameter"),
        pytest.param(None, None, id="none"),
        pytest.param("", None, id="empty"),
        pytest.param("application/json;charset=latin-1", None, id="another charset"),
        pytest.param("application/json;charset=utf-8;charset=utf-16", None, id="two charsets"),
        pytest.param("application/json;boundary=x", None, id="another parameter"),
        pytest.param("application/json, text/html", None, id="two types"),
        pytest.param("application", None, id="no subtype"),
        pytest.param("application/json\n", None, id="line feed"),
    ],
)
def test_a_media_type_is_read_with_utf_8_or_no_charset(field: str | None, expected: str | None) -> None:
    assert media_type(field) == expected


def parsed(body: bytes) -> dict[str, tuple[str, ...]]:
    return parse_form(body, repeatable={"audience"}, max_bytes=1000)


@pytest.mark.parametrize(
    ("body", "parameters"),
    [
        pytest.param(b"", {}, id="empty"),
        pytest.param(b"a=1&b=2", {"a": ("1",), "b": ("2",)}, id="pairs"),
        pytest.param(b"a=x+y%20z", {"a": ("x y z",)}, id="both spellings of a space"),
        pytest.param(b"a=%C3%A9&%61b=1", {"a": ("é",), "ab": ("1",)}, id="escapes"),
        pytest.param(b"a=b==", {"a": ("b==",)}, id="the first equals sign parts"),
        pytest.param(b"a=&b", {}, id="empty is absent"),
        pytest.param(b"a=1&", {"a": ("1",)}, id="nothing after the last ampersand"),
        pytest.param(b"audience=1&audience=2&audience=", {"audience": ("1", "2")}, id="repeatable"),
    ],
)
def test_a_form_has_one_meaning(body: bytes, parameters: dict[str, tuple[str, ...]]) -> None:
    assert parsed(body) == parameters


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"a=1&a=1", id="twice"),
        pytest.param(b"a=&a=1", id="twice, once empty"),
        pytest.param(b"a=1&%61=2", id="twice by two spellings"),
        pytest.param(b"a=%", id="bare percent sign"),
        pytest.param(b"a=%4", id="half an escape"),
        pytest.param(b"a=%zz", id="no escape"),
        pytest.param(b"a=%ff", id="no UTF-8"),
        pytest.param(b"a=%c0%ae", id="overlong UTF-8"),
        pytest.param(b"a=\xc3\xa9", id="raw octets"),
        pytest.param(b"a=b c", id="raw space"),
        pytest.param(b"a=b\r\n", id="line break"),
        pytest.param(b"a=\x00", id="NUL"),
        pytest.param(b"a=" + b"x" * 999, id="too large"),
        pytest.param(b"&".join(b"p%d=1" % number for number in range(101)), id="too many"),
    ],
)
def test_a_form_without_a_single_meaning_is_refused(body: bytes) -> None:
    with pytest.raises(FormError) as refusal:
        parsed(body)
    assert "é" not in str(refusal.value)


def test_a_form_may_be_as_large_as_its_limits() -> None:
    assert parsed(b"a=" + b"x" * 998) == {"a": ("x" * 998,)}
    assert len(parsed(b"&".join(b"p%d=1" % number for number in range(100)))) == 100


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"), min_size=1)))
def test_what_a_client_builds_is_read_as_it_meant(parameters: dict[str, str]) -> None:
    body = urlencode(parameters).encode()
    read = parse_form(body, repeatable=(), max_bytes=10**6)
    assert read == {name: (value,) for name, value in parameters.items()}
