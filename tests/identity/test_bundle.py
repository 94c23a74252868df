from __future__ import annotations

import contextlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.spiffe_id import TrustDomain
from sidecar.identity import bundle
from sidecar.identity.bounds import Outline
from sidecar.identity.bundle import BundleError, parse_bundle, paths, with_ambiguous_names
from tests.identity.hostile import authority_with, extension, name_constraints, own_curve_spki, rsa_spki
from tests.identity.shapes import NOW, Issued, authority, der_of, leaf, new_key, presented, signed, usage, version_1

A = TrustDomain("a.test")
ROOT = authority("root a")
OTHER = authority("other")


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


def test_an_authority_whose_name_has_an_unknown_type_spoils_the_bundle() -> None:
    name = ROOT.certificate.subject.public_bytes()
    text = b"\x0c\x06root a"  # a UTF8String
    before, _, after = ROOT.der.rpartition(name)
    for found, readable in ((name, True), (name.replace(text, b"\x0f" + text[1:]), False)):
        with contextlib.nullcontext() if readable else pytest.raises(BundleError):
            assert len(parse_bundle(A, OTHER.der + before + found + after).authorities) == 2
    assert text in name


def test_an_authority_whose_key_is_no_point_of_its_curve_spoils_the_bundle() -> None:
    key = ROOT.certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    off_curve = key[:-1] + bytes([key[-1] ^ 1])
    with pytest.raises(BundleError):
        parse_bundle(A, OTHER.der + ROOT.der.replace(key, off_curve))
    assert len(parse_bundle(A, OTHER.der + ROOT.der).authorities) == 2


@settings(max_examples=100, deadline=None)
@given(position=st.integers(min_value=0, max_value=len(ROOT.der) - 1), value=st.integers(min_value=0, max_value=255))
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_changed_byte_yields_a_bundle_or_a_bundle_error(position: int, value: int) -> None:
    changed = ROOT.der[:position] + bytes([value]) + ROOT.der[position + 1 :]
    with contextlib.suppress(BundleError):
        assert with_ambiguous_names([parse_bundle(A, changed)]) == frozenset()


def test_a_bundle_shows_no_more_than_it_must() -> None:
    assert repr(ROOT.der)[:20] not in repr(parse_bundle(A, ROOT.der))


def test_an_authority_does_not_vouch_for_itself() -> None:
    with pytest.raises(VerificationError):
        parse_bundle(A, ROOT.der).verified_chain(presented(ROOT), [], at=NOW)


def test_a_path_runs_from_the_leaf_to_an_authority() -> None:
    middle = authority("middle", ROOT)
    svid = leaf(middle)
    path = parse_bundle(A, ROOT.der).verified_chain(presented(svid), [presented(middle)], at=NOW)
    assert path == (svid.certificate, middle.certificate, ROOT.certificate)


NAMELESS = authority("same name", extensions={"ski": None})
NAMESAKE = authority("same name", key=new_key("p256", "another"), extensions={"ski": None})
WITH_ID = authority("same name", key=new_key("p256", "a third"))
WITH_OTHER_ID = authority("same name", key=new_key("p256", "a fourth"))
COPIED_ID = x509.SubjectKeyIdentifier.from_public_key(WITH_ID.certificate.public_key())
WITH_COPIED_ID = authority("same name", key=new_key("p256", "a fourth"), extensions={"ski": (COPIED_ID, False)})
RENEWED = authority("same name", key=new_key("p256", "a third"), not_after=NOW + 1)
AMBIGUITIES = {
    "two domains": ([NAMELESS], [NAMESAKE], {"a.test", "b.test"}),
    "one domain": ([NAMELESS, NAMESAKE], [ROOT], {"a.test"}),
    "the same authority twice": ([NAMELESS], [NAMELESS], set()),
    "only one has a key identifier": ([NAMELESS], [WITH_ID], {"a.test", "b.test"}),
    "told apart by key identifiers": ([WITH_OTHER_ID], [WITH_ID], set()),
    "one key identifier for two keys": ([WITH_ID], [WITH_COPIED_ID], {"a.test", "b.test"}),
    "one key in two certificates": ([WITH_ID], [RENEWED], set()),
    "another name": ([NAMELESS], [ROOT, OTHER], set()),
}


@pytest.mark.parametrize("case", AMBIGUITIES)
def test_authorities_that_openssl_cannot_tell_apart_are_found(case: str) -> None:
    in_a, in_b, domains = AMBIGUITIES[case]
    bundles = [parse_bundle(A, b"".join(der_of(*in_a))), parse_bundle(TrustDomain("b.test"), b"".join(der_of(*in_b)))]
    assert with_ambiguous_names(bundles) == domains


def test_an_authority_with_a_key_of_an_unknown_kind_is_left_out() -> None:
    tbs = ROOT.certificate.tbs_certificate_bytes
    ec_key, unknown = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0277")
    odd = signed(tbs.replace(ec_key, unknown), ROOT, ROOT)
    assert odd.der != ROOT.der
    assert parse_bundle(A, odd.der + OTHER.der).authorities == (OTHER.certificate,)


def test_a_leaf_whose_names_cannot_be_read_has_no_path() -> None:
    x400 = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x02\xa3\x00")
    odd = leaf(ROOT, extensions={"san": (x400, False)})
    with pytest.raises(VerificationError):
        parse_bundle(A, ROOT.der).verified_chain(presented(odd), [], at=NOW)


BEYOND = {
    "a curve of its own making": lambda: authority_with(own_curve_spki()),
    "a full exponent": lambda: authority_with(rsa_spki(3072, 2**3070 + 1)),
    "RSA of 16384 bits": lambda: authority_with(rsa_spki(16384)),
    "too many constraints": lambda: authority("c", extensions=extension("2.5.29.30", name_constraints(33))).der,
}


@pytest.mark.parametrize("case", BEYOND)
def test_an_authority_beyond_a_limit_is_left_out_before_openssl_reads_it(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    given: list[x509.Certificate] = []
    monkeypatch.setattr(bundle, "_require_readable", given.extend)
    parsed = parse_bundle(A, BEYOND[case]() + OTHER.der)
    assert parsed.authorities == (OTHER.certificate,)
    assert given == [OTHER.certificate]


def test_an_authority_within_the_limits_stays() -> None:
    large = authority("c", extensions=extension("2.5.29.30", name_constraints(32)))
    assert parse_bundle(A, large.der).authorities == (large.certificate,)
    assert parse_bundle(A, large.der).holds(large.der)
    assert not parse_bundle(A, large.der).holds(OTHER.der)


def outline(subject: int, issuer: int) -> Outline:
    return Outline(
        issuer=bytes([issuer]), subject=bytes([subject]), key_id=None, issuer_key_id=None, names=0, constraints=0
    )


PATHS = {  # names of the others, each with its issuer's; the leaf's issuer is 1
    "nobody of that name": ([(2, 1), (3, 1)], [()]),
    "through two, in any order": ([(2, 3), (1, 2)], [(), (1,), (1, 0)]),
    "a name comes once in a path": ([(1, 1)], [(), (0,)]),
    "eight at most": ([(n, n + 1) for n in range(1, 11)], [tuple(range(n)) for n in range(9)]),
    "64 of them at most": ([(1, 2)] * 70, [(), *[(n,) for n in range(63)]]),
}


@pytest.mark.parametrize("case", PATHS)
def test_paths_lead_up_by_names_and_are_bounded(case: str) -> None:
    others, expected = PATHS[case]
    assert list(paths(outline(0, 1), [outline(*names) for names in others])) == expected


def test_as_many_signatures_are_checked_as_may_be_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, middle = parse_bundle(A, ROOT.der), authority("middle", ROOT)
    svid = leaf(middle)
    monkeypatch.setattr(bundle, "MAX_SIGNATURES", 2)
    assert parsed.verified_chain(presented(svid), [presented(middle)], at=NOW)
    monkeypatch.setattr(bundle, "MAX_SIGNATURES", 1)
    with pytest.raises(VerificationError, match="too many possible paths"):
        parsed.verified_chain(presented(svid), [presented(middle)], at=NOW)


OTHER_KEY = (x509.AuthorityKeyIdentifier(b"other", None, None), False)


@pytest.mark.parametrize(
    ("issuer", "svid", "found"),
    [
        (ROOT, leaf(ROOT), True),
        (ROOT, leaf(ROOT, extensions={"aki": None}), True),
        (NAMELESS, leaf(NAMELESS, extensions={"aki": OTHER_KEY}), True),
        (ROOT, leaf(ROOT, extensions={"aki": OTHER_KEY}), False),
    ],
    ids=["the same", "the leaf names none", "the authority has none", "another"],
)
def test_key_identifiers_exclude_an_authority_only_if_both_are_there_and_differ(
    issuer: Issued, svid: Issued, found: bool
) -> None:
    parsed = parse_bundle(A, issuer.der)
    with contextlib.nullcontext() if found else pytest.raises(VerificationError, match="no path"):
        assert parsed.verified_chain(presented(svid), [], at=NOW)[-1] == issuer.certificate
