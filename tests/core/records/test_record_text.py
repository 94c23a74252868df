import json
import re

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.bearer import fingerprint_of
from delegation_core.records.record import FIELDS, MAX_ITEMS, RecordFields
from delegation_core.records.record_schema import record_schema
from delegation_core.records.record_text import CUT, CUT_PATH, INSTEAD, MAX_TEXT, encode, escape, masked, refused_path
from tests.fakes.tokens import TokenMint, base64url
from tests.observe.schema import violations

EMPTY: dict[str, object] = dict.fromkeys(FIELDS)
LEAST = {**EMPTY, "event": "started", "ts": "2026-11-24T21:04:05.123456Z", "run": "r1", "seq": 1}


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        pytest.param("user-4711", "user-4711", id="plain"),
        pytest.param("Jörg Müller 人", "Jörg Müller 人", id="letters-of-any-script-stay"),
        pytest.param("ACME\\joe", "ACME\\joe", id="a-backslash-stays"),
        pytest.param("a\nb\rc\td", "a\\u{a}b\\u{d}c\\u{9}d", id="line-breaks-and-tab"),
        pytest.param("\x1b[31mred\x07", "\\u{1b}[31mred\\u{7}", id="terminal-escape"),
        pytest.param("\x00\x7f\x9b", "\\u{0}\\u{7f}\\u{9b}", id="nul-del-and-c1"),
        pytest.param("a\u202eb\u2066c\u200f", "a\\u{202e}b\\u{2066}c\\u{200f}", id="bidi"),
        pytest.param("a\u2028b\u2029c\x85", "a\\u{2028}b\\u{2029}c\\u{85}", id="line-separators"),
        pytest.param("a\ud800b", "a\\u{d800}b", id="lone-surrogate"),
        pytest.param("\ufeffa\u200bb", "\\u{feff}a\\u{200b}b", id="invisible"),
        pytest.param("a\u00a0b", "a\\u{a0}b", id="a-space-that-is-none"),
        pytest.param("\\u{202e}", "\\u{5c}u{202e}", id="what-looks-like-an-escape"),
    ],
)
def test_text_that_acts_is_made_visible(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@settings(max_examples=60)
@given(st.text(st.characters(), max_size=40))
def test_escaped_text_is_printable_and_tells_what_it_was(text: str) -> None:
    escaped = escape(text)
    assert escaped.isprintable()
    assert re.sub(r"\\u\{([0-9a-f]+)\}", lambda match: chr(int(match[1], 16)), escaped) == text


@pytest.mark.parametrize("length", [MAX_TEXT + 1, 10 * MAX_TEXT])
def test_long_text_is_cut_with_a_mark_and_two_long_texts_stay_two(length: int) -> None:
    one, other = escape("a" * length + "1"), escape("a" * length + "2")
    assert len(one) == len(other) == MAX_TEXT
    assert CUT in one
    assert one != other


def test_text_at_the_limit_is_not_cut() -> None:
    assert escape("a" * MAX_TEXT) == "a" * MAX_TEXT


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["subject", "path", "jti_in"]), st.text(max_size=60)))
def test_a_line_is_one_line_of_harmless_json(fields: dict[str, str]) -> None:
    (line,) = encode([{**LEAST, **fields}])
    assert line.decode().isprintable()
    read = json.loads(line)
    assert {name: read[name] for name in fields} == {name: escape(text) for name, text in fields.items()}


def test_a_plain_record_and_a_cleaned_one_look_alike() -> None:
    plain = {**LEAST, "subject": "user", "scope": ["a", "b"], "status": 200, "total_ms": 1.5, "verified": True}
    long = {**plain, "path": "/" + "a" * MAX_TEXT}
    assert orjson.loads(*encode([plain])) == plain
    assert {**orjson.loads(*encode([long])), "path": None} == plain


@pytest.mark.parametrize(
    ("value", "written"),
    [
        pytest.param(2**64, None, id="number-beyond-64-bits"),
        pytest.param(-(2**63) - 1, None, id="negative-number-beyond-64-bits"),
        pytest.param(float("nan"), None, id="nan"),
        pytest.param(frozenset({"a"}), ["a"], id="a-set"),
        pytest.param(object(), None, id="what-json-has-not"),
        pytest.param(["x\n"], ["x\\u{a}"], id="text-in-a-list"),
    ],
)
def test_an_odd_value_never_costs_the_record(value: object, written: object) -> None:
    assert orjson.loads(*encode([{**LEAST, "scope": value}]))["scope"] == written


def test_a_long_list_is_cut_with_a_mark() -> None:
    written = orjson.loads(*encode([{**LEAST, "scope": [f"s{number:04}" * 10 for number in range(500)]}]))["scope"]
    assert len(written) == MAX_ITEMS + 1
    assert written[-1] == f"{CUT}{500 - MAX_ITEMS} more"
    assert violations({**LEAST, "scope": written}, record_schema()) == []


SIGNED = TokenMint().mint()
HEADERS = [b'{"alg":"ES256"}', b'{ "alg":"ES256"}', b'{\n"alg":"ES256"}', b'{\r\n"alg":"ES256"}', b'{\t"alg":"ES256"}']


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(SIGNED, id="signed"),
        pytest.param(SIGNED.rpartition(".")[0] + ".", id="without-a-signature"),
        pytest.param(f"{base64url(HEADERS[0])}.a.b.c.d", id="encrypted"),
        pytest.param(f"{base64url(HEADERS[0])}=.e30=.c2ln", id="padded"),
        pytest.param(f"{base64url(HEADERS[0])}%3D%3D.e30%3D.c2ln", id="padded-and-escaped"),
        pytest.param(SIGNED.replace(".", "%2E"), id="escaped-points"),
        pytest.param(SIGNED.replace(".", "%25252e"), id="points-escaped-three-times"),
        *(
            pytest.param(TokenMint().mint_documents(header, b'{"sub":"alice"}'), id=f"header-{number}")
            for number, header in enumerate(HEADERS)
        ),
    ],
)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"path": "/x/%s/y"}, id="path"),
        pytest.param({"path": "/x/%s/y", "decision": "allow"}, id="path-of-an-allowed-request"),
        pytest.param({"path": "/login;access_token=%s"}, id="parameter"),
        pytest.param({"method": "%s"}, id="method"),
        pytest.param({"subject": "Jörg %s"}, id="claim"),
        pytest.param({"scope": ["a", "%s"]}, id="item"),
        pytest.param({"path": "/" + "a" * MAX_TEXT, "detail": "%s"}, id="long-record"),
    ],
)
def test_a_token_that_somebody_put_where_none_belongs_is_written_as_its_fingerprint(
    change: dict[str, object], token: str
) -> None:
    filled = json.loads(json.dumps(change).replace("%s", token))
    line = encode([{**LEAST, **filled}])[0].decode()
    assert not any(part in line for part in token.split(".") if len(part) > 9)
    assert f"{INSTEAD}{fingerprint_of(token)}" in line


@pytest.mark.parametrize(
    ("target", "path"),
    [
        pytest.param(b"/a//b", "/a//b", id="nothing-to-cut"),
        pytest.param(b"/a/../b?token=s3cret", "/a/../b" + CUT_PATH, id="query"),
        pytest.param(b"/a#s3cret", "/a" + CUT_PATH, id="fragment"),
        pytest.param(b"/a;s3cret=1/b", "/a" + CUT_PATH, id="parameter"),
        pytest.param(b"/a%3Fs3cret", "/a" + CUT_PATH, id="escaped-query"),
        pytest.param(b"/a%3fs3cret", "/a" + CUT_PATH, id="escaped-query-in-lower-case"),
        pytest.param(b"/a%23s3cret", "/a" + CUT_PATH, id="escaped-fragment"),
        pytest.param(b"/a%3bs3cret", "/a" + CUT_PATH, id="escaped-parameter"),
        pytest.param(b"/a%253Fs3cret", "/a" + CUT_PATH, id="escaped-twice"),
        pytest.param(b"/a%25252523s3cret", "/a" + CUT_PATH, id="escaped-four-times"),
        pytest.param(b"/a%25%33%66s3cret", "/a" + CUT_PATH, id="escaped-digits"),
        pytest.param(b"/a%2525%33fs3cret", "/a" + CUT_PATH, id="escaped-digit-of-an-escape"),
        pytest.param(b"/a%%33fs3cret", "/a" + CUT_PATH, id="escape-within-an-escape"),
        pytest.param(b"/a%3%46s3cret", "/a" + CUT_PATH, id="escape-of-its-last-digit"),
        pytest.param(b"/a%u003fs3cret", "/a" + CUT_PATH, id="escaped-as-IIS-does"),
        pytest.param(b"/a%c0%bfs3cret", "/a" + CUT_PATH, id="overlong"),
        pytest.param(b"/a%252e%252E%2F%e2%82%ac", "/a%252e%252E%2F%e2%82%ac", id="escapes-of-anything-else"),
        pytest.param(b"?s3cret", CUT_PATH, id="nothing-before"),
        pytest.param(b"/\xff%2e?s3cret", "/\xff%2e" + CUT_PATH, id="not-ascii"),
    ],
)
def test_the_path_of_a_refused_target_ends_where_a_secret_may_begin(target: bytes, path: str) -> None:
    assert refused_path(target) == path


def test_tokens_are_masked_in_every_text_of_the_facts() -> None:
    facts: RecordFields = {"subject": f"x {SIGNED}", "chain": ("a", SIGNED), "status": 200, "actor": None}
    mark = f"{INSTEAD}{fingerprint_of(SIGNED)}"
    assert masked(facts) == {"subject": f"x {mark}", "chain": ("a", mark), "status": 200, "actor": None}
    plain: RecordFields = {"subject": "alice", "chain": ("a", "b")}
    assert masked(plain) is plain


@pytest.mark.parametrize(
    "text", ["eyA" * 400_000, "eyA." * 300_000, "eyA" * 200_000 + "." + "eyA" * 200_000, "eyA" + "%25" * 400_000]
)
def test_text_of_many_beginnings_of_tokens_takes_no_longer_than_another(text: str) -> None:
    """A search that tries each beginning to the end takes minutes; the time limit of every test ends it."""
    assert len(escape(text)) == MAX_TEXT


@pytest.mark.parametrize(
    "text", ["eyewear-production.some-namespace.svc", "/framework/new.view.x", "eyJ.a.b", "eyJhbGci"]
)
def test_text_that_is_no_token_stays(text: str) -> None:
    assert orjson.loads(*encode([{**LEAST, "path": text}]))["path"] == text


PLAIN = {**LEAST, "event": "request", "decision": "allow", "path": "/search", "subject": "alice", "status": 200}


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"subject": "Jörg"}, id="not-ascii"),
        pytest.param({"subject": "a\nb"}, id="a-line-break"),
        pytest.param({"subject": "\x7f"}, id="del"),
        pytest.param({"subject": "\ud800"}, id="a-lone-surrogate"),
        pytest.param({"path": f"/x/{SIGNED}"}, id="a-token-in-an-allowed-path"),
        pytest.param({"decision": "deny", "method": SIGNED}, id="a-token-in-a-refused-record"),
        pytest.param({"decision": None, "path": None, "detail": SIGNED}, id="a-token-in-an-event"),
        pytest.param({"path": "/" + "a" * MAX_TEXT}, id="a-long-text"),
        pytest.param({"scope": [f"{number}" for number in range(2 * MAX_ITEMS)]}, id="a-list-that-fits"),
    ],
)
@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_record_that_needs_care_changes_no_other(at: int, odd: dict[str, object]) -> None:
    records = [{**PLAIN, "seq": number} for number in range(1, 7)]
    records[at] |= odd
    assert encode(records) == [encode([record])[0] for record in records]


@pytest.mark.parametrize("text", ["\x7f", "a\nb", "a\\u{b", "a\u202eb", "\ud800", SIGNED])
def test_a_text_that_acts_is_made_visible_in_a_record(text: str) -> None:
    (line,) = encode([{**PLAIN, "decision": "deny", "subject": text}])
    assert orjson.loads(line)["subject"] == escape(text) != text


TEXT = st.one_of(st.sampled_from(["alice", "/search", SIGNED, "a" * MAX_TEXT]), st.text(st.characters(), max_size=9))


@settings(max_examples=60)
@given(st.lists(st.fixed_dictionaries({"path": TEXT, "subject": TEXT, "decision": st.sampled_from(["allow", "deny"])})))
def test_records_look_alike_whether_encoded_together_or_one_by_one(several: list[dict[str, object]]) -> None:
    records = [{**LEAST, **one} for one in several]
    assert encode(records) == [encode([record])[0] for record in records]
