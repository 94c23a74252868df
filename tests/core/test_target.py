from __future__ import annotations

import contextlib
import posixpath
import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from delegation_core.target import CanonicalTarget, canonical_target


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        pytest.param(b"/", "/", b"", id="root"),
        pytest.param(b"/search", "/search", b"", id="plain"),
        pytest.param(b"/search/", "/search/", b"", id="a slash at the end is another path"),
        pytest.param(b"/a.b/.hidden/...", "/a.b/.hidden/...", b"", id="dots that are not a dot segment"),
        pytest.param(b"/a-b_c~d!$&'()*+,=:@", "/a-b_c~d!$&'()*+,=:@", b"", id="all that needs no escape"),
        pytest.param(b"/%73earch", "/search", b"", id="a needless escape"),
        pytest.param(b"/a%40b%2cc%3D", "/a@b,c=", b"", id="an escaped sub-delimiter"),
        pytest.param(b"/caf%c3%a9", "/caf%C3%A9", b"", id="escapes are upper case"),
        pytest.param(b"/a%20b%22%3c%7C", "/a%20b%22%3C%7C", b"", id="what must be escaped stays so"),
        pytest.param(b"/100%25", "/100%25", b"", id="a percent sign"),
        pytest.param(b"/100%25zz", "/100%25zz", b"", id="a percent sign before what is not an escape"),
        pytest.param(b"/a?b=c", "/a", b"b=c", id="a query"),
        pytest.param(b"/a?", "/a", b"", id="an empty query is none"),
        pytest.param(b"/a?b?c/../d;%2e%zz\\", "/a", b"b?c/../d;%2e%zz\\", id="the query is opaque"),
    ],
)
def test_a_target_has_one_canonical_form(target: bytes, path: str, query: bytes) -> None:
    assert canonical_target(target) == CanonicalTarget(path, query)


@pytest.mark.parametrize("octet", range(256))
def test_a_query_holds_printable_ascii_without_a_space_or_a_fragment(octet: int) -> None:
    query = b"a" + bytes([octet]) + b"b"
    if re.fullmatch(rb"[!-~]*", query) and b"#" not in query:
        assert canonical_target(b"/a?" + query).query == query
    else:
        with pytest.raises(Denied):
            canonical_target(b"/a?" + query)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"*", id="asterisk form"),
        pytest.param(b"search", id="no slash"),
        pytest.param(b"http://crm.mesh/search", id="absolute form"),
        pytest.param(b"crm.mesh:443", id="authority form"),
        pytest.param(b"?a", id="only a query"),
        pytest.param(b"//search", id="empty first segment"),
        pytest.param(b"/a//b", id="empty segment"),
        pytest.param(b"/a//", id="empty segments at the end"),
        pytest.param(b"/.", id="dot"),
        pytest.param(b"/..", id="dot dot"),
        pytest.param(b"/a/../admin", id="dot dot inside"),
        pytest.param(b"/a/./b", id="dot inside"),
        pytest.param(b"/a/..", id="dot dot at the end"),
        pytest.param(b"/a/../", id="dot dot before the last slash"),
        pytest.param(b"/a/..?q", id="dot dot before the query"),
        pytest.param(b"/a/%2e%2e/b", id="escaped dots"),
        pytest.param(b"/a/.%2E/b", id="one escaped dot"),
        pytest.param(b"/a%2ehtml", id="an escaped dot in a name"),
        pytest.param(b"/a%2fb", id="an escaped slash"),
        pytest.param(b"/a%2Fb", id="an escaped slash, upper case"),
        pytest.param(b"/a\\b", id="backslash"),
        pytest.param(b"/a%5cb", id="an escaped backslash"),
        pytest.param(b"/a;v=1/b", id="parameter"),
        pytest.param(b"/a%3bv=1", id="an escaped parameter"),
        pytest.param(b"/a/..;/admin", id="dot dot with a parameter"),
        pytest.param(b"/a#b", id="fragment"),
        pytest.param(b"/a?b#c", id="fragment after the query"),
        pytest.param(b"/a%23b", id="an escaped fragment"),
        pytest.param(b"/a%3fb", id="an escaped question mark"),
        pytest.param(b"/a%252e%252e/b", id="escaped twice"),
        pytest.param(b"/a%25%32%65", id="escaped twice, in pieces"),
        pytest.param(b"/%2%35%32e", id="an escape inside an escape"),
        pytest.param(b"/a%", id="a bare percent sign"),
        pytest.param(b"/a%4", id="half an escape"),
        pytest.param(b"/a%zz", id="no escape"),
        pytest.param(b"/a%00", id="NUL"),
        pytest.param(b"/a%0d%0aX:y", id="line break"),
        pytest.param(b"/a%09", id="tab"),
        pytest.param(b"/a%7f", id="DEL"),
        pytest.param(b"/a%c2%85", id="C1 control"),
        pytest.param(b"/a%c0%ae", id="overlong dot"),
        pytest.param(b"/a%c0%af", id="overlong slash"),
        pytest.param(b"/a%ed%a0%80", id="lone surrogate"),
        pytest.param(b"/a%ff", id="no UTF-8"),
        pytest.param(b"/caf\xc3\xa9", id="raw octets"),
        pytest.param(b"/a b", id="space"),
        pytest.param(b"/a\tb", id="raw tab"),
        pytest.param(b"/a\n", id="raw line feed at the end"),
        pytest.param(b"/a\x00", id="raw NUL"),
        pytest.param(b"/a\x7f", id="raw DEL"),
        pytest.param(b"/a[0]", id="brackets"),
        pytest.param(b'/a{b}|c^`<>"', id="what a path may not hold"),
        pytest.param(b"/a?b c", id="space in the query"),
        pytest.param(b"/a?b\n", id="line feed in the query"),
        pytest.param(b"/a?b\x7f", id="DEL in the query"),
        pytest.param(b"/a?\xff", id="raw octets in the query"),
    ],
)
def test_a_target_without_a_single_safe_meaning_is_refused(target: bytes) -> None:
    with pytest.raises(Denied) as refusal:
        canonical_target(target)
    assert refusal.value.reason is Reason.PATH_REFUSED


TRICKY = st.lists(
    st.sampled_from(
        [b"/", b".", b"..", b"%2e", b"%2F", b"%25", b"%", b"2e", b";", b"a", b"%61", b"%c3%a9", b"?", b"#"]
    ),
    max_size=12,
).map(lambda pieces: b"/" + b"".join(pieces))


def canonical_or_refused(target: bytes) -> CanonicalTarget | None:
    with contextlib.suppress(Denied):
        return canonical_target(target)
    return None


@given(st.binary(max_size=40) | TRICKY)
@example(b"/%25%32%65")
@settings(max_examples=120)
def test_any_target_is_canonical_or_refused(target: bytes) -> None:
    canonical = canonical_or_refused(target)
    if canonical is None:
        return
    assert canonical_target(canonical.encode()) == canonical, "what is forwarded is what was decided on"
    # A server that decodes once sees the same octets, and one that resolves dot segments finds none.
    path = target.partition(b"?")[0]
    decoded = unquote_to_bytes(canonical.path)
    assert decoded == unquote_to_bytes(path)
    assert posixpath.normpath(decoded) == (decoded.rstrip(b"/") or b"/")
    assert unquote_to_bytes(decoded) == decoded, "decoding twice is decoding once"
    assert re.fullmatch(rb"/[!-~]*", canonical.encode())


PLAIN_TEXT = st.text(st.characters(codec="utf-8", min_codepoint=33, exclude_characters="?"), min_size=1, max_size=5)


@given(st.lists(PLAIN_TEXT, max_size=4), st.data())  # no question mark: a query is opaque, in any spelling
@settings(max_examples=60)
def test_all_spellings_of_one_path_have_one_form(segments: list[str], data: st.DataObject) -> None:
    octets = ("/" + "/".join(segments)).encode()
    forms = set()
    for _ in range(2):
        spelt = b"".join(
            bytes([octet]) if octet == 0x2F or data.draw(st.booleans()) else b"%%%02x" % octet for octet in octets
        )
        forms.add(canonical_or_refused(spelt))
    assert len(forms - {None}) <= 1
