"""Key sets keep only usable keys (RFC 7517; SPIFFE Trust Domain and Bundle section 4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.keyset import KeySet, KeySetError, parse_jwks, parse_jwt_bundle
from tests.core.test_strict_json import JSON
from tests.fakes.tokens import ABSENT, SvidMint, TokenMint, encode, private_key, public_jwk

FIRST = public_jwk(private_key("ES256"), kid="k1", use="sig")
SECOND = public_jwk(private_key("ES256", 1), kid="k2", use="sig")
RSA = public_jwk(private_key("RS256"), kid="r1")
Reader = Callable[[bytes], KeySet]


def keys(*jwks: object) -> KeySet:
    return parse_jwks(encode({"keys": jwks}))


def bundle(*jwks: object) -> KeySet:
    return parse_jwt_bundle(encode({"spiffe_sequence": 1, "keys": jwks}))


UNUSABLE: dict[str, object] = {
    "no object": "key",
    "for encryption": {**FIRST, "use": "enc"},
    "for X.509-SVIDs": {**FIRST, "use": "x509-svid"},
    "for JWT-SVIDs": {**FIRST, "use": "jwt-svid"},
    "use null": {**FIRST, "use": None},
    "use an array": {**FIRST, "use": ["sig"]},
    "operations without verify": {**FIRST, "key_ops": ["encrypt"]},
    "operations empty": {**FIRST, "key_ops": []},
    "operations a string": {**FIRST, "key_ops": "verify"},
    "a private key": {**FIRST, "d": "AAAA"},
    "a private RSA prime": {**RSA, "p": "AAAA"},
    "a symmetric key": {"kty": "oct", "kid": "k1", "k": "AAAA"},
    "kid a number": {**FIRST, "kid": 1},
    "kid empty": {**FIRST, "kid": ""},
    "kid of 257 characters": {**FIRST, "kid": "k" * 257},
    "alg of another type": {**FIRST, "alg": "RS256"},
    "alg of another curve": {**FIRST, "alg": "ES384"},
    "alg symmetric": {**RSA, "alg": "HS256"},
    "alg of encryption": {**RSA, "alg": "RSA-OAEP"},
    "alg an array": {**FIRST, "alg": ["ES256"]},
    "an unknown type": {"kty": "LWE", "kid": "k1"},
}


@pytest.mark.parametrize("jwk", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_key_that_cannot_be_used_is_left_out_alone(jwk: object) -> None:
    assert keys(jwk, SECOND).kids == {"k2"}


@pytest.mark.parametrize(
    "changes", [{}, {"use": "sig"}, {"key_ops": ["verify"]}, {"key_ops": ["sign", "verify"]}, {"alg": "ES256"}]
)
def test_a_key_for_signatures_is_found_by_its_kid(changes: dict[str, object]) -> None:
    key = keys({**public_jwk(private_key("ES256"), kid="k1"), **changes}, SECOND).find("k1")

    assert key is not None
    assert key.kid == "k1"
    assert key.algorithms == {"ES256"}
    assert key.public_key == private_key("ES256").public_key()


@pytest.mark.parametrize(
    ("alg", "algorithms"),
    [("PS256", {"PS256"}), ("RS512", {"RS512"}), (None, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})],
)
def test_a_keys_own_alg_is_the_only_one_it_is_used_with(alg: str | None, algorithms: set[str]) -> None:
    key = keys({**RSA, "alg": alg}).find("r1")

    assert key is not None
    assert key.algorithms == algorithms


@pytest.mark.parametrize("kid", ["K1", "k1 ", "k", "", "k3", "../k1"])
def test_a_kid_is_compared_whole(kid: str) -> None:
    assert keys(FIRST, SECOND).find(kid) is None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({**SECOND, "kid": "k1"}, id="another-key"),
        pytest.param({**public_jwk(private_key("RS256"), kid="k1"), "alg": "RS256"}, id="of-another-type"),
    ],
)
def test_different_keys_of_one_kid_are_all_left_out_and_told(other: dict[str, object]) -> None:
    found = keys(FIRST, other, FIRST, RSA)

    assert found.find("k1") is None
    assert found.kids == {"r1"}
    assert found.ambiguous == {"k1"}


def test_one_key_for_two_sets_of_algorithms_is_ambiguous_too() -> None:
    both = [{**RSA, "alg": "RS256"}, {**RSA, "alg": "PS256"}]
    assert keys(*both).find("r1") is None
    assert keys(*both).ambiguous == {"r1"}


@pytest.mark.parametrize("again", [FIRST, {**FIRST, "x5c": ["unread"]}, dict(reversed(FIRST.items()))])
def test_a_key_that_is_published_twice_is_one_key(again: dict[str, object]) -> None:
    found = keys(FIRST, SECOND, again)

    assert found.find("k1") == keys(FIRST).find("k1")
    assert found.kids == {"k1", "k2"}
    assert (len(found), len(found.ambiguous)) == (2, 0)
    assert keys(FIRST, again).find(None) == keys(FIRST).find(None)


def test_a_token_without_kid_means_the_only_key() -> None:
    assert keys(FIRST).find(None) is not None
    assert keys({**FIRST, "kid": "k1"}, {"kty": "unknown"}).find(None) is not None


@pytest.mark.parametrize("jwks", [[], [FIRST, SECOND], [FIRST, RSA], [FIRST, {**SECOND, "kid": "k1"}, RSA]])
def test_a_token_without_kid_means_no_key_where_there_are_none_or_several(jwks: list[object]) -> None:
    assert keys(*jwks).find(None) is None


def test_a_key_without_kid_serves_only_tokens_without_kid() -> None:
    alone = keys(public_jwk(private_key("ES256")))

    assert alone.find(None) is not None
    assert alone.find("k1") is None
    assert (len(alone), alone.kids) == (1, frozenset())


def test_an_empty_set_means_no_keys() -> None:
    assert len(keys()) == 0
    assert keys().find("k1") is None


def test_the_length_counts_keys_that_can_be_found() -> None:
    assert len(keys(FIRST, SECOND, {**RSA, "kid": "k2"})) == 1


REFUSED = {
    "no JSON": b"<html>",
    "an array": b"[]",
    "no keys": b"{}",
    "keys null": b'{"keys":null}',
    "keys an object": b'{"keys":{}}',
    "two members keys": b'{"keys":[],"keys":[]}',
    "a key with two kids": b'{"keys":[{"kid":"a","kid":"b"}]}',
    "a byte order mark": b'\xef\xbb\xbf{"keys":[]}',
    "too large": b'{"keys":[],"x":"' + b"x" * 262144 + b'"}',
    "too many": encode({"keys": [{}] * 101}),
}


@pytest.mark.parametrize("reader", [parse_jwks, parse_jwt_bundle])
@pytest.mark.parametrize("document", REFUSED.values(), ids=REFUSED.keys())
def test_a_document_that_cannot_be_read_is_refused_whole(document: bytes, reader: Reader) -> None:
    with pytest.raises(KeySetError):
        reader(document)


def test_a_hundred_keys_are_read() -> None:
    assert len(keys(FIRST, *[{}] * 99)) == 1


def test_a_bundle_has_only_the_keys_for_jwt_svids() -> None:
    signing = {**SECOND, "use": "jwt-svid"}

    assert bundle({**FIRST, "use": "x509-svid", "x5c": ["MIIB"]}, signing, {**RSA, "use": "sig"}).kids == {"k2"}


def test_a_bundle_of_the_workload_api_may_leave_the_use_out() -> None:
    assert bundle(public_jwk(private_key("ES256"), kid="k1")).kids == {"k1"}


def test_a_bundles_keys_have_a_kid() -> None:
    assert len(bundle(public_jwk(private_key("ES256"), use="jwt-svid", kid=ABSENT))) == 0


def test_neither_kind_of_document_is_taken_for_the_other() -> None:
    assert len(parse_jwks(SvidMint().jwks)) == 0
    assert len(parse_jwt_bundle(TokenMint().jwks)) == 0


def test_the_representation_shows_no_key() -> None:
    assert repr(keys(FIRST)) == "KeySet(1 keys)"
    assert "public_key" not in repr(keys(FIRST).find("k1"))


@given(
    st.binary(max_size=40)
    | st.lists(
        JSON | st.dictionaries(st.sampled_from(["kty", "kid", "use", "alg", "key_ops", "crv"]), JSON), max_size=3
    ).map(lambda value: encode({"keys": value}))
)
def test_any_document_is_a_key_set_or_an_error(document: bytes) -> None:
    try:
        found = parse_jwks(document)
    except KeySetError:
        return

    assert len(found) == 0
