from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.verification import VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.delegation.spiffe_id import TrustDomain
from sidecar.identity import bundle
from sidecar.identity.bundle import BundleError, parse_bundle, split_der
from tests.identity.shapes import NOW, authority, der_of, leaf, tlv, usage, version_1

A = TrustDomain("a.test")
ROOT = authority("root a")
OTHER = authority("other")

PIECES = {
    "nothing": [],
    "one": [tlv(0x30, b"x")],
    "empty sequence": [b"\x30\x00"],
    "short and long": [tlv(0x30, b"x" * 127), tlv(0x30, b"x" * 128), tlv(0x30, b"x" * 70000)],
}


@pytest.mark.parametrize("case", PIECES)
def test_concatenated_sequences_are_cut_apart(case: str) -> None:
    assert split_der(b"".join(PIECES[case])) == PIECES[case]


NO_PIECES = {
    "another type": b"\x31\x00",
    "only a tag": b"\x30",
    "cut in the content": b"\x30\x05abc",
    "cut in the length": b"\x30\x82\x01",
    "indefinite length": b"\x30\x80\x00\x00",
    "long form of a short length": b"\x30\x81\x05hello",
    "leading zero in the length": b"\x30\x82\x00\x90" + b"x" * 0x90,
    "length of five octets": b"\x30\x85\x01\x00\x00\x00\x00",
    "reserved length": b"\x30\xff" + b"\xff" * 127,
    "junk behind": b"\x30\x00junk",
    "zeroes behind": b"\x30\x00\x00",
}


@pytest.mark.parametrize("case", NO_PIECES)
def test_what_is_no_whole_sequence_is_refused(case: str) -> None:
    with pytest.raises(BundleError):
        split_der(NO_PIECES[case])


@settings(max_examples=200)
@given(st.binary(max_size=64))
def test_whatever_is_cut_apart_can_be_put_together_again(der: bytes) -> None:
    try:
        pieces = split_der(der)
    except BundleError:
        return
    assert b"".join(pieces) == der


def test_size_and_number_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BUNDLE_BYTES", 8)
    monkeypatch.setattr(bundle, "MAX_BUNDLE_CERTIFICATES", 3)
    assert len(split_der(b"\x30\x00" * 3)) == 3
    with pytest.raises(BundleError, match="certificates"):
        split_der(b"\x30\x00" * 4)
    with pytest.raises(BundleError, match="bytes"):
        split_der(b"\x30\x07" + b"x" * 7)


def test_a_bundle_holds_its_authorities() -> None:
    parsed = parse_bundle(A, b"".join(der_of(ROOT, OTHER)))
    assert parsed.trust_domain == A
    assert parsed.authorities == (ROOT.certificate, OTHER.certificate)


def test_nothing_at_all_is_a_bundle_that_trusts_nobody() -> None:
    assert parse_bundle(A, b"").authorities == ()


NO_AUTHORITIES = {
    "a leaf": leaf(ROOT),
    "cA false": authority("x", extensions={"bc": (x509.BasicConstraints(ca=False, path_length=None), True)}),
    "no basic constraints": authority("x", extensions={"bc": None}),
    "no keyCertSign": authority("x", extensions={"ku": (usage("crl_sign"), True)}),
    "version 1": version_1("x"),
}


@pytest.mark.parametrize("case", NO_AUTHORITIES)
def test_a_certificate_that_may_not_sign_is_left_out(case: str) -> None:
    parsed = parse_bundle(A, b"".join(der_of(NO_AUTHORITIES[case], ROOT)))
    assert parsed.authorities == (ROOT.certificate,)


def test_an_authority_without_key_usage_may_sign() -> None:
    free = authority("free", extensions={"ku": None})
    assert parse_bundle(A, free.der).authorities == (free.certificate,)


@pytest.mark.parametrize("junk", [b"\x30\x00", b"junk", ROOT.der[:-1], ROOT.der + b"\x00"])
def test_one_thing_that_is_no_certificate_spoils_the_bundle(junk: bytes) -> None:
    with pytest.raises(BundleError):
        parse_bundle(A, OTHER.der + junk)


@settings(max_examples=100, deadline=None)
@given(position=st.integers(min_value=0, max_value=len(ROOT.der) - 1), value=st.integers(min_value=0, max_value=255))
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_changed_byte_yields_a_bundle_or_a_bundle_error(position: int, value: int) -> None:
    changed = ROOT.der[:position] + bytes([value]) + ROOT.der[position + 1 :]
    try:
        parse_bundle(A, changed)
    except BundleError:
        return


def test_a_bundle_shows_no_more_than_it_must() -> None:
    assert repr(ROOT.der)[:20] not in repr(parse_bundle(A, ROOT.der))


def test_an_authority_does_not_vouch_for_itself() -> None:
    with pytest.raises(VerificationError):
        parse_bundle(A, ROOT.der).verified_chain(ROOT.certificate, [], at=NOW)


def test_a_path_runs_from_the_leaf_to_an_authority() -> None:
    middle = authority("middle", ROOT)
    svid = leaf(middle)
    path = parse_bundle(A, ROOT.der).verified_chain(svid.certificate, [middle.certificate], at=NOW)
    assert path == (svid.certificate, middle.certificate, ROOT.certificate)
