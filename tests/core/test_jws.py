"""A compact JWS has one spelling and a header without surprises (RFC 7515, RFC 8725)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from delegation_core.jws import TOKEN_PATTERN, CompactJws, parse_compact
from tests.fakes.tokens import ABSENT, TokenMint, base64url, encode, from_base64url

MINT = TokenMint()
LAWFUL = MINT.mint()
HEADER, PAYLOAD, SIGNATURE = LAWFUL.split(".")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def with_header(**changes: object) -> str:
    return MINT.mint(header=MINT.header(**changes))


def with_header_document(document: bytes) -> str:
    return MINT.mint_documents(document, b"{}")


def respelled(part: str) -> str:
    """Return the same bytes with other trailing bits in the last character; 64 bytes leave four of them unused."""
    return part[:-1] + ALPHABET[ALPHABET.index(part[-1]) + 1]


MALFORMED = {
    "empty": "",
    "one part": HEADER,
    "two parts": f"{HEADER}.{PAYLOAD}",
    "four parts": f"{LAWFUL}.{SIGNATURE}",
    "five parts, a JWE": f"{HEADER}.{PAYLOAD}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",
    "only dots": "..",
    "no header": f".{PAYLOAD}.{SIGNATURE}",
    "no payload": f"{HEADER}..{SIGNATURE}",
    "no signature": f"{HEADER}.{PAYLOAD}.",
    "padded header": f"{base64url(b'{}' * 2)}==.{PAYLOAD}.{SIGNATURE}",
    "padded payload": f"{HEADER}.{base64url(b'{ }x')}==.{SIGNATURE}",
    "padded signature": f"{HEADER}.{PAYLOAD}.{SIGNATURE}==",
    "a space before": f" {LAWFUL}",
    "a newline after": f"{LAWFUL}\n",
    "a newline inside": f"{HEADER}.\n{PAYLOAD}.{SIGNATURE}",
    "a null byte after": f"{LAWFUL}\x00",
    "the standard alphabet": f"{HEADER}.{PAYLOAD}.{'+/' * 43}",
    "a foreign character": f"{HEADER}.{PAYLOAD}!.{SIGNATURE}",
    "no ASCII": f"{HEADER}.{PAYLOAD}.{SIGNATURE}é",
    "digits of another script": f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-1]}\u0661",
    "other trailing bits in the signature": f"{HEADER}.{PAYLOAD}.{respelled(SIGNATURE)}",
    "other trailing bits in the header": f"{respelled(base64url(b'{}x!'))}.{PAYLOAD}.{SIGNATURE}",
    "an impossible length": f"{HEADER}.{PAYLOAD}.{SIGNATURE}AAA",
    "JSON serialization": '{"payload":"e30","protected":"e30","signature":"AA"}',
    "header no JSON": with_header_document(b"not json"),
    "header no object": with_header_document(b'["alg","ES256"]'),
    "header empty": with_header_document(b"{}"),
    "header with a byte order mark": with_header_document(b'\xef\xbb\xbf{"alg":"ES256"}'),
    "header in UTF-16": with_header_document('{"alg":"ES256"}'.encode("utf-16")),
    "header with trailing text": with_header_document(b'{"alg":"ES256"}x'),
    "alg missing": with_header(alg=ABSENT),
    "alg null": with_header(alg=None),
    "alg a list": with_header(alg=["ES256"]),
    "alg a number": with_header(alg=256),
    "alg an object": with_header(alg={"ES256": True}),
    "typ null": with_header(typ=None),
    "typ a number": with_header(typ=1),
    "typ a list": with_header(typ=["at+jwt"]),
    "kid null": with_header(kid=None),
    "kid a number": with_header(kid=1),
    "kid a list": with_header(kid=["k1"]),
    "kid of 257 characters": with_header(kid="k" * 257),
    "x5t a number": with_header(x5t=1),
    "jwk": with_header(jwk=MINT.jwk),
    "jku": with_header(jku="https://evil.example/jwks"),
    "x5u": with_header(x5u="https://evil.example/chain"),
    "x5c": with_header(x5c=["MIIB"]),
    "crit": with_header(crit=["exp"], exp=1),
    "crit naming b64": with_header(crit=["b64"], b64=True),
    "crit empty": with_header(crit=[]),
    "crit a string": with_header(crit="exp"),
    "crit null": with_header(crit=None),
    "b64 false": with_header(b64=False),
    "b64 true": with_header(b64=True),
    "zip": with_header(zip="DEF"),
    "cty": with_header(cty="JWT"),
    "enc": with_header(enc="A256GCM"),
    "nonce": with_header(nonce="n"),
    "an unknown member": with_header(foo="bar"),
    "alg in capitals as a second name": with_header(ALG="none"),
}
SPACES = {"a space": b" ", "a tab": b"\t", "a line feed": b"\n", "a carriage return": b"\r", "several": b" \r\n"}
NOT_ALLOWED = {
    "none": "none",
    "None": "None",
    "noNE": "noNE",
    "empty": "",
    "HS256": "HS256",
    "HS512": "HS512",
    "lower case": "es256",
    "a space after": "ES256 ",
    "an encryption": "RSA-OAEP",
    "RSA with SHA-1": "RS1",
    "the curve of coins": "ES256K",
    "Ed448": "Ed448",
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_a_header_begins_with_its_brace(space: bytes) -> None:
    with pytest.raises(Denied) as caught:
        parse_compact(with_header_document(space + b'{"alg":"ES256"}'))

    assert caught.value.reason is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize("space", [b"", *SPACES.values()], ids=["none", *SPACES.keys()])
def test_every_token_that_is_taken_is_known_inside_other_text(space: bytes) -> None:
    token = with_header_document(b"{" + space + b'"alg"' + space + b':"ES256"' + space + b"}" + space)

    parse_compact(token)
    assert [found[0] for found in re.finditer(TOKEN_PATTERN, f"/login;t={token}/x")] == [token]


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_plain_compact_jws_is_malformed(raw: str) -> None:
    with pytest.raises(Denied) as caught:
        parse_compact(raw)

    assert caught.value.reason is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize("alg", NOT_ALLOWED.values(), ids=NOT_ALLOWED.keys())
def test_an_algorithm_that_is_not_asymmetric_is_not_allowed(alg: str) -> None:
    with pytest.raises(Denied) as caught:
        parse_compact(with_header(alg=alg))

    assert caught.value.reason is Reason.ALG_NOT_ALLOWED


def test_an_unsecured_jws_is_told_as_what_it_is() -> None:
    with pytest.raises(Denied) as caught:
        parse_compact(f"{base64url(encode({'alg': 'none'}))}.{PAYLOAD}.")

    assert caught.value.reason is Reason.ALG_NOT_ALLOWED


@pytest.mark.parametrize(
    "document",
    [b'{"alg":"ES256","alg":"ES256"}', b'{"alg":"none","alg":"ES256"}', b'{"alg":"ES256","kid":"a","\\u006bid":"b"}'],
    ids=["equal", "different", "escaped"],
)
def test_two_header_members_of_one_name_are_ambiguous(document: bytes) -> None:
    with pytest.raises(Denied) as caught:
        parse_compact(with_header_document(document))

    assert caught.value.reason is Reason.DUPLICATE_CLAIM


def test_the_parts_are_what_was_signed() -> None:
    jws = parse_compact(LAWFUL)

    assert jws.signing_input == f"{HEADER}.{PAYLOAD}".encode()
    assert jws.payload == encode(MINT.claims())
    assert jws.signature == from_base64url(SIGNATURE)
    assert (jws.alg, jws.kid) == ("ES256", "k1")


@pytest.mark.parametrize(
    ("typ", "read"),
    [
        ("at+jwt", "at+jwt"),
        ("AT+JWT", "at+jwt"),
        ("application/at+jwt", "at+jwt"),
        ("Application/At+Jwt", "at+jwt"),
        ("JWT", "jwt"),
        ("text/at+jwt", "text/at+jwt"),
        (ABSENT, None),
    ],
)
def test_typ_is_a_media_type_without_case_and_prefix(typ: object, read: str | None) -> None:
    assert parse_compact(with_header(typ=typ)).typ == read


def test_a_certificate_thumbprint_in_the_header_is_ignored() -> None:
    assert parse_compact(with_header(**{"x5t": "AA", "x5t#S256": "AA"})).kid == "k1"


def test_a_token_without_kid_has_none() -> None:
    assert parse_compact(with_header(kid=ABSENT)).kid is None


def test_the_longest_kid_is_accepted() -> None:
    assert parse_compact(with_header(kid="k" * 256)).kid == "k" * 256


def test_the_largest_token_is_accepted_and_one_character_more_is_too_large() -> None:
    header = base64url(encode(MINT.header(kid="key")))
    room = 16384 - len(header) - len(SIGNATURE) - 2
    largest = f"{header}.{'A' * room}.{SIGNATURE}"

    with pytest.raises(Denied) as caught:
        parse_compact(largest + "A")

    assert len(parse_compact(largest).payload) == room * 3 // 4
    assert caught.value.reason is Reason.TOKEN_TOO_LARGE


def test_the_size_counts_before_the_grammar() -> None:
    with pytest.raises(Denied) as caught:
        parse_compact("!" * 16385)

    assert caught.value.reason is Reason.TOKEN_TOO_LARGE


def test_the_largest_header_is_accepted_and_one_byte_more_is_too_large() -> None:
    def token(header_bytes: int) -> str:
        document = encode({"alg": "ES256", "x5t": ""})
        return with_header_document(document[:-2] + b"x" * (header_bytes - len(document)) + document[-2:])

    with pytest.raises(Denied) as caught:
        parse_compact(token(3073))

    assert parse_compact(token(3072)).alg == "ES256"
    assert caught.value.reason is Reason.TOKEN_TOO_LARGE


def test_the_caller_says_which_header_members_may_appear() -> None:
    with pytest.raises(Denied) as caught:
        parse_compact(with_header(x5t="AA"), members=frozenset({"alg", "kid", "typ"}))

    assert caught.value.reason is Reason.MALFORMED_TOKEN


MUTATIONS = st.tuples(st.integers(0, len(LAWFUL)), st.sampled_from([*ALPHABET, ".", "=", " ", "\n", "é", ""]))


@given(MUTATIONS)
def test_a_changed_token_is_refused_or_another_value(mutation: tuple[int, str]) -> None:
    position, character = mutation
    raw = LAWFUL[:position] + character + LAWFUL[position + 1 :]
    original = parse_compact(LAWFUL)
    try:
        jws: CompactJws | None = parse_compact(raw)
    except Denied:
        jws = None

    assert raw == LAWFUL or jws != original


@given(st.text(max_size=60) | st.text(alphabet="eyJA.-_=", max_size=60))
def test_any_text_is_a_jws_or_a_refusal(raw: str) -> None:
    try:
        jws = parse_compact(raw)
    except Denied:
        return

    assert jws.signing_input.decode() == raw.rpartition(".")[0]


def test_the_header_of_one_token_is_not_that_of_another() -> None:
    """It is cached by its text, and immutable."""
    raw = with_header(kid="k1")
    first = parse_compact(raw)
    first.header["kid"] = "other"
    assert parse_compact(raw).header["kid"] == "k1"
