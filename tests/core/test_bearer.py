"""One bearer token from one Authorization field, then a JWT with one meaning."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.bearer import MAX_TOKEN_BYTES, Bearer, bearer_of, fingerprint_of, parse_bearer, parse_jwt_svid
from delegation_core.errors import Denied, Reason
from tests.core.test_act import nested
from tests.core.test_strict_json import JSON
from tests.fakes.tokens import ABSENT, ISSUER, PLANNER, SvidMint, TokenMint, encode

MINT = TokenMint()
SVIDS = SvidMint()
TOKEN = b"aaa.bbb.ccc"

FIELDS: dict[str, tuple[list[bytes], Reason]] = {
    "no field": ([], Reason.NO_TOKEN),
    "not Bearer": ([b"Basic dXNlcjpwYXNz"], Reason.NO_TOKEN),
    "DPoP": ([b"DPoP " + TOKEN], Reason.NO_TOKEN),
    "a scheme with parameters": ([b'Digest username="a", realm="b"'], Reason.NO_TOKEN),
    "two fields": ([b"Bearer " + TOKEN, b"Bearer " + TOKEN], Reason.HEADER_MALFORMED),
    "two fields, one empty": ([b"Bearer " + TOKEN, b""], Reason.HEADER_MALFORMED),
    "two fields of two schemes": ([b"Basic eA==", b"Bearer " + TOKEN], Reason.HEADER_MALFORMED),
    "a list": ([b"Bearer " + TOKEN + b", Bearer " + TOKEN], Reason.HEADER_MALFORMED),
    "a list without spaces": ([b"Bearer " + TOKEN + b",Bearer " + TOKEN], Reason.HEADER_MALFORMED),
    "a list of two schemes": ([b"Basic eA==, Bearer " + TOKEN], Reason.HEADER_MALFORMED),
    "two tokens": ([b"Bearer " + TOKEN + b" " + TOKEN], Reason.HEADER_MALFORMED),
    "a comma after": ([b"Bearer " + TOKEN + b","], Reason.HEADER_MALFORMED),
    "empty": ([b""], Reason.HEADER_MALFORMED),
    "only the scheme": ([b"Bearer"], Reason.HEADER_MALFORMED),
    "only the scheme and a space": ([b"Bearer "], Reason.HEADER_MALFORMED),
    "not Bearer alone": ([b"Basic"], Reason.HEADER_MALFORMED),
    "only a token": ([TOKEN], Reason.HEADER_MALFORMED),
    "a colon": ([b"Bearer: " + TOKEN], Reason.HEADER_MALFORMED),
    "a tab": ([b"Bearer\t" + TOKEN], Reason.HEADER_MALFORMED),
    "a space before": ([b" Bearer " + TOKEN], Reason.HEADER_MALFORMED),
    "garbage": ([b"\xff\xfe Bearer"], Reason.HEADER_MALFORMED),
    "a JWS in JSON": ([b'Bearer {"payload":"e30", "signature":"AA"}'], Reason.MALFORMED_TOKEN),
    "no ASCII": ([b"Bearer \xc3\xa9"], Reason.MALFORMED_TOKEN),
    "no ASCII, unusually spaced": ([b"bearer  \xc3\xa9"], Reason.MALFORMED_TOKEN),
    "too large": ([b"Bearer " + b"a" * (MAX_TOKEN_BYTES + 1)], Reason.TOKEN_TOO_LARGE),
    "too large and a list": ([b"Bearer " + b"a," * MAX_TOKEN_BYTES], Reason.TOKEN_TOO_LARGE),
    "too large, unusually spaced": ([b"bearer  " + b"a" * (MAX_TOKEN_BYTES + 1)], Reason.TOKEN_TOO_LARGE),
}


@pytest.mark.parametrize(("values", "reason"), FIELDS.values(), ids=FIELDS.keys())
def test_anything_but_one_bearer_token_is_refused(values: list[bytes], reason: Reason) -> None:
    with pytest.raises(Denied) as caught:
        bearer_of(values)

    assert caught.value.reason is reason


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"Bearer   "])
def test_the_scheme_has_no_case_and_any_number_of_spaces(scheme: bytes) -> None:
    assert bearer_of([scheme + TOKEN]) == TOKEN.decode()


def test_the_largest_token_is_taken() -> None:
    assert len(bearer_of([b"Bearer " + b"a" * MAX_TOKEN_BYTES])) == MAX_TOKEN_BYTES


@given(st.lists(st.binary(max_size=30), max_size=3))
def test_any_fields_are_a_token_or_a_refusal(values: list[bytes]) -> None:
    try:
        token = bearer_of(values)
    except Denied:
        return

    assert len(values) == 1
    assert values[0].endswith(token.encode())


def test_a_lawful_token_is_read_whole() -> None:
    raw = MINT.mint()

    bearer = parse_bearer(raw)

    assert bearer.raw == raw
    assert bearer.claims == MINT.claims()
    assert bearer.header == MINT.header()
    assert (bearer.alg, bearer.kid, bearer.typ, bearer.issuer) == ("ES256", "k1", "at+jwt", ISSUER)


def payload(document: bytes) -> str:
    return MINT.mint_documents(encode(MINT.header()), document)


MALFORMED = {
    "payload no JSON": payload(b"not json"),
    "payload an array": payload(b"[]"),
    "payload a string": payload(b'"x"'),
    "payload empty object": payload(b"{}"),
    "payload with a byte order mark": payload(b"\xef\xbb\xbf" + encode(MINT.claims())),
    "payload in UTF-16": payload(encode(MINT.claims()).decode().encode("utf-16")),
    "payload with trailing text": payload(encode(MINT.claims()) + b"{}"),
    "payload with NaN": payload(encode(MINT.claims(x=float("nan")))),
    "payload with Infinity": payload(encode(MINT.claims(x=float("inf")))),
    "payload with a huge integer": payload(encode(MINT.claims(x=10**400))),
    "payload with a lone surrogate": payload(encode(MINT.claims(sub="\ud800"))),
    "payload nested 17 deep": payload(encode(MINT.claims(x=[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]))),
    "payload nested beyond reason": payload(encode(MINT.claims(act=nested(*["a"] * 600)))),
    "iss missing": MINT.mint(MINT.claims(iss=ABSENT)),
    "iss null": MINT.mint(MINT.claims(iss=None)),
    "iss a number": MINT.mint(MINT.claims(iss=1)),
    "iss an array": MINT.mint(MINT.claims(iss=[ISSUER])),
    "no JWT": "not-a-token",
}
DUPLICATES = {
    "iss": b'{"iss":"a","iss":"b"}',
    "equal values": b'{"iss":"a","aud":"b","aud":"b"}',
    "escaped": b'{"iss":"a","\\u0061ct":{"sub":"a"},"act":{"sub":"b"}}',
    "inside act": b'{"iss":"a","act":{"sub":"a","sub":"b"}}',
    "inside a prior actor": b'{"iss":"a","act":{"sub":"a","act":{"sub":"b","sub":"b"}}}',
    "inside an unknown claim": b'{"iss":"a","x":[{"y":1,"y":2}]}',
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_claims_that_are_no_plain_object_with_an_issuer_are_malformed(raw: str) -> None:
    with pytest.raises(Denied) as caught:
        parse_bearer(raw)

    assert caught.value.reason is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize("document", DUPLICATES.values(), ids=DUPLICATES.keys())
def test_two_claims_of_one_name_are_ambiguous_at_any_level(document: bytes) -> None:
    with pytest.raises(Denied) as caught:
        parse_bearer(payload(document))

    assert caught.value.reason is Reason.DUPLICATE_CLAIM


def test_claims_are_nested_at_most_sixteen_deep() -> None:
    assert parse_bearer(MINT.mint(MINT.claims(x=[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]))).issuer == ISSUER


def test_a_long_actor_chain_is_left_to_be_told_as_one() -> None:
    assert parse_bearer(MINT.mint(MINT.claims(act=nested(*["a"] * 100)))).issuer == ISSUER


def test_a_token_that_is_too_large_is_told_so() -> None:
    with pytest.raises(Denied) as caught:
        parse_bearer(MINT.mint(MINT.claims(x="x" * 16384)))

    assert caught.value.reason is Reason.TOKEN_TOO_LARGE


def test_the_fingerprint_is_the_first_half_of_the_hash() -> None:
    raw = MINT.mint()

    assert parse_bearer(raw).fingerprint == fingerprint_of(raw) == hashlib.sha256(raw.encode()).hexdigest()[:32]


def test_the_representation_shows_nothing_of_the_token() -> None:
    bearer = parse_bearer(MINT.mint(MINT.claims(sub="secret-subject")))

    assert repr(bearer) == "Bearer(alg='ES256')"


@given(st.dictionaries(st.sampled_from(["iss", "sub", "aud", "exp", "act", "x"]), JSON, max_size=4))
def test_any_claims_are_a_bearer_or_a_refusal(claims: dict[str, object]) -> None:
    try:
        bearer: Bearer | None = parse_bearer(payload(encode(claims)))
    except Denied:
        bearer = None

    assert (bearer is not None) == isinstance(claims.get("iss"), str)


SVID_REFUSED: dict[str, tuple[dict[str, object], Reason]] = {
    "no kid": ({"kid": ABSENT}, Reason.MALFORMED_TOKEN),
    "a thumbprint": ({"x5t": "AA"}, Reason.MALFORMED_TOKEN),
    "an unknown member": ({"foo": "bar"}, Reason.MALFORMED_TOKEN),
    "jwk": ({"jwk": {}}, Reason.MALFORMED_TOKEN),
    "EdDSA": ({"alg": "EdDSA"}, Reason.ALG_NOT_ALLOWED),
    "Ed25519": ({"alg": "Ed25519"}, Reason.ALG_NOT_ALLOWED),
    "HS256": ({"alg": "HS256"}, Reason.ALG_NOT_ALLOWED),
    "none": ({"alg": "none"}, Reason.ALG_NOT_ALLOWED),
    "an access token": ({"typ": "at+jwt"}, Reason.TOKEN_TYPE),
    "a workload identity token": ({"typ": "wit+jwt"}, Reason.TOKEN_TYPE),
}


@pytest.mark.parametrize(("changes", "reason"), SVID_REFUSED.values(), ids=SVID_REFUSED.keys())
def test_a_jwt_svid_has_a_header_of_its_own(changes: dict[str, object], reason: Reason) -> None:
    with pytest.raises(Denied) as caught:
        parse_jwt_svid(SVIDS.mint(header=SVIDS.header(**changes)))

    assert caught.value.reason is reason


@pytest.mark.parametrize("typ", ["JWT", "JOSE", "jwt", ABSENT])
def test_a_jwt_svid_is_untyped_or_plain(typ: object) -> None:
    bearer = parse_jwt_svid(SVIDS.mint(header=SVIDS.header(typ=typ)))

    assert bearer.issuer == ""
    assert bearer.claims["sub"] == PLANNER


def test_a_jwt_svid_with_two_subjects_is_ambiguous() -> None:
    with pytest.raises(Denied) as caught:
        parse_jwt_svid(SVIDS.mint_documents(encode(SVIDS.header()), b'{"sub":"a","sub":"b"}'))

    assert caught.value.reason is Reason.DUPLICATE_CLAIM
