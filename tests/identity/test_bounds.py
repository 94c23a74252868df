from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from sidecar.identity import bounds
from sidecar.identity.bounds import check_chain, outline_of
from sidecar.identity.der import element_at
from tests.counting import MOST_AT_ONCE, bytecodes
from tests.identity.hostile import (
    EC,
    P256,
    RSA,
    alternative_names,
    authority_with,
    ec_spki,
    extension,
    integer,
    name_constraints,
    own_curve_spki,
    rsa_spki,
    with_spki,
)
from tests.identity.shapes import Issued, authority, der_of, leaf, name_of, tlv

ROOT = authority("root of bounds")
SVID = leaf(ROOT)
MIDDLE = authority("middle of bounds", ROOT)
NAMES, CONSTRAINTS = "2.5.29.17", "2.5.29.30"


def refusal_of(*chain: bytes) -> Denied:
    with pytest.raises(Denied) as denied:
        check_chain(chain)
    return denied.value


def with_names(count: int) -> bytes:
    return authority("names", ROOT, extensions=extension(NAMES, alternative_names(count))).der


def with_constraints(permitted: int, excluded: int = 0) -> bytes:
    return authority("constraints", ROOT, extensions=extension(CONSTRAINTS, name_constraints(permitted, excluded))).der


def with_values(oid: str, value: bytes) -> bytes:
    return authority("values", ROOT, extensions=extension(oid, value)).der


def with_key_ids(*, own: bytes | None = None, issuers: bytes | None = None) -> bytes:
    """Put values in SubjectKeyIdentifier and AuthorityKeyIdentifier."""
    values = {"ski": ("2.5.29.14", own), "aki": ("2.5.29.35", issuers)}
    changed = {name: extension(oid, value)[oid] for name, (oid, value) in values.items() if value is not None}
    return authority("key identifiers", ROOT, extensions=changed).der


def rsa_of(modulus: bytes, exponent: bytes) -> bytes:
    """Return an RSA key whose numbers have these bytes."""
    return spki(RSA, tlv(0x30, tlv(0x02, modulus) + tlv(0x02, exponent)))


def of_size(size: int) -> bytes:
    """Return a certificate of exactly this many bytes."""

    def made(padding: int) -> bytes:
        return with_spki(SPKI, authority("size", ROOT, extensions=extension("1.2.3", b"\0" * padding)))

    padding = size - len(made(3000)) + 3000
    return next(der for der in map(made, repeat(padding)) if len(der) == size)  # the serial number's length is random


SPKI = ec_spki(P256, b"\4" + bytes(64))
FEW = leaf(ROOT, "spiffe://a.test/x").der


def subject_of(size: int) -> bytes:
    name = name_of("n")
    long = tlv(0x31, tlv(0x30, bytes.fromhex("0603550403") + tlv(0x0C, b"n" * (size - 13 - 4))))
    edited = authority("n", ROOT).certificate.tbs_certificate_bytes[4:].replace(name.public_bytes(), tlv(0x30, long))
    return tlv(0x30, tlv(0x30, edited) + tlv(0x30, bytes.fromhex("06082a8648ce3d040302")) + tlv(0x03, b"\0"))


def with_extensions(count: int) -> bytes:
    """Add extensions to the four of every authority here."""
    more: dict[str, object] = {}
    for number in range(count - 4):
        more |= extension(f"1.2.3.{number}", b"\5\0")
    return authority("extensions", ROOT, extensions=more).der  # type: ignore[arg-type]


def edited(der: bytes, path: Sequence[int], *new: bytes) -> bytes:
    """Put elements in the place of one: ``path`` leads to it by its index in each sequence that holds it."""
    if not path:
        return b"".join(new)
    tag, at, end = element_at(der, 0, len(der))
    parts = []
    while at < end:
        part = der[at : element_at(der, at, end)[2]]
        parts.append(part)
        at += len(part)
    parts[path[0]] = edited(parts[path[0]], path[1:], *new)
    return tlv(tag, b"".join(parts))


def spki(algorithm: bytes, key: bytes) -> bytes:
    return tlv(0x30, tlv(0x30, algorithm) + tlv(0x03, b"\0" + key))


# Each limit: a value just within it, and one just beyond, above the leaf.
LIMITS: dict[str, tuple[Callable[[], Sequence[bytes]], Callable[[], Sequence[bytes]], str]] = {
    "certificates": (lambda: [MIDDLE.der] * 9, lambda: [MIDDLE.der] * 10, "more than 10 certificates"),
    "bytes of one": (lambda: [of_size(8192)], lambda: [of_size(8193)], "more than 8192 bytes"),
    "bytes of all": (
        lambda: [of_size(8000)] * 4,
        lambda: [of_size(8192)] * 4,
        "more than 32768 bytes",
    ),
    "RSA bits": (lambda: [authority_with(rsa_spki(8192))], lambda: [authority_with(rsa_spki(8193))], "8192 bits"),
    "RSA bits, in leading zeroes": (
        lambda: [authority_with(rsa_of(bytes(1024) + b"\3", b"\3"))],
        lambda: [authority_with(rsa_of(bytes(1025) + b"\3", b"\3"))],
        "8192 bits",
    ),
    "RSA exponent, in leading zeroes": (
        lambda: [authority_with(rsa_of(b"\3", b"\0\1\0\1"))],
        lambda: [authority_with(rsa_of(b"\3", b"\0\0\1\0\1"))],
        "exponent is more than 65537",
    ),
    "RSA bits, far beyond": (list, lambda: [authority_with(rsa_spki(16384))], "8192 bits"),
    "RSA exponent": (
        lambda: [authority_with(rsa_spki(3072, 65537))],
        lambda: [authority_with(rsa_spki(3072, 65538))],
        "exponent is more than 65537",
    ),
    "RSA exponent, as long as the key": (
        lambda: [authority_with(rsa_spki(3072, 3))],
        lambda: [authority_with(rsa_spki(3072, 2**3070 + 1))],
        "exponent is more than 65537",
    ),
    "curve": (
        lambda: [authority("of a named curve", kind="p521").der],
        lambda: [authority_with(own_curve_spki())],
        "curve is not P-256, P-384 or P-521 by name",
    ),
    "kind of key": (
        lambda: [authority("of Ed25519", kind="ed25519").der],
        lambda: [authority_with(tlv(0x30, tlv(0x30, bytes.fromhex("06032b6571")) + tlv(0x03, bytes(58))))],  # Ed448
        "not RSA, ECDSA or Ed25519",
    ),
    "kind of key, of the size of Ed25519": (
        lambda: [authority_with(spki(bytes.fromhex("06032b6570"), bytes(32)))],
        lambda: [authority_with(spki(bytes.fromhex("06032b656e"), bytes(32)))],  # X25519
        "not RSA, ECDSA or Ed25519",
    ),
    "size of Ed25519": (
        list,
        lambda: [authority_with(spki(bytes.fromhex("06032b6570"), bytes(31)))],
        "not RSA, ECDSA or Ed25519",
    ),
    "a curve at all": (list, lambda: [authority_with(spki(EC, b"\4" + bytes(64)))], "curve is not P-256"),
    "a curve by its name": (
        list,
        lambda: [authority_with(ec_spki(b"\x04" + P256[1:], b"\4" + bytes(64)))],
        "curve is not P-256",
    ),
    "an alternative name that goes on after its list": (
        lambda: [with_values(NAMES, tlv(0x30, b"\x82\1a"))],
        lambda: [with_values(NAMES, tlv(0x30, b"\x82\2a"))],
        "or unreadable ones",
    ),
    "a byte after the alternative names": (
        list,
        lambda: [with_values(NAMES, tlv(0x30, b"\x82\1a\x82"))],
        "or unreadable ones",
    ),
    "an alternative name of indefinite length": (
        lambda: [with_values(NAMES, tlv(0x30, tlv(0x82, bytes(200))))],
        lambda: [with_values(NAMES, tlv(0x30, b"\x82\x80" + bytes(128)))],
        "or unreadable ones",
    ),
    "alternative names that are cut short": (
        list,
        lambda: [with_values(NAMES, b"\x30\4\x82\1a")],
        "alternative names that cannot be read",
    ),
    "name constraints that are cut short": (
        list,
        lambda: [with_values(CONSTRAINTS, b"\x30\1")],
        "name constraints that cannot be read",
    ),
    "a key identifier that is cut short": (
        lambda: [with_key_ids(own=b"\4\1a")],
        lambda: [with_key_ids(own=b"\4\2a")],
        "a key identifier that cannot be read",
    ),
    "an alternative name with a tag of two bytes": (
        list,
        lambda: [with_values(NAMES, tlv(0x30, b"\x9f\1a"))],
        "or unreadable ones",
    ),
    "bytes of a name": (lambda: [subject_of(1024)], lambda: [subject_of(1025)], "name of more than 1024 bytes"),
    "extensions": (lambda: [with_extensions(32)], lambda: [with_extensions(33)], "more than 32 extensions"),
    "alternative names of one": (
        lambda: [with_names(255)],
        lambda: [with_names(257)],
        "more than 256 alternative names",
    ),
    "alternative names of all": (
        lambda: [with_names(127), with_names(128)],
        lambda: [with_names(128)] * 2,
        "more than 256 alternative names",
    ),
    "name constraints": (lambda: [with_constraints(32)], lambda: [with_constraints(33)], "32 name constraints"),
    "excluded subtrees count too": (
        lambda: [with_constraints(16, 16)],
        lambda: [with_constraints(16, 17)],
        "32 name constraints",
    ),
    "names times constraints": (
        lambda: [with_names(127), with_constraints(32)],
        lambda: [with_names(128), with_constraints(32)],
        "the product of names and name constraints",
    ),
    "names times constraints, by one": (
        list,
        lambda: [with_names(240), with_constraints(17)],  # and the name of the leaf: 241 times 17 are 4097
        "the product of names and name constraints",
    ),
}


@pytest.mark.parametrize("case", LIMITS)
def test_what_is_within_a_limit_passes_and_what_is_beyond_is_refused(case: str) -> None:
    within, beyond, detail = LIMITS[case]
    assert len(check_chain([SVID.der, *within()])) == 1 + len(within())
    refused = refusal_of(SVID.der, *beyond())
    assert refused.reason is Reason.UNTRUSTED_CHAIN
    assert detail in refused.detail


@pytest.mark.parametrize(
    "case", ["RSA bits", "RSA exponent", "curve", "kind of key", "name constraints", "bytes of one"]
)
def test_a_leaf_beyond_a_limit_is_no_svid(case: str) -> None:
    _, beyond, detail = LIMITS[case]
    refused = refusal_of(*beyond())
    assert refused.reason is Reason.BAD_SVID
    assert detail in refused.detail


KEY, EXTENSION = [0, 6], [0, 7, 0, 0]  # where they are in a certificate (RFC 5280 section 4.1)
UNREADABLE = {
    "nothing": b"",
    "an empty sequence": b"\x30\x00",
    "no sequence": b"\x31" + SVID.der[1:],
    "cut short": SVID.der[:-1],
    "one byte more": SVID.der + b"\0",
    "an RSA key of three numbers": authority_with(
        tlv(0x30, tlv(0x30, bytes.fromhex("06092a864886f70d0101010500")) + tlv(0x03, b"\0" + tlv(0x30, integer(3) * 3)))
    ),
    "a point of another size": authority_with(ec_spki(P256, b"\4" + bytes(63))),
    "a hybrid point": authority_with(ec_spki(P256, b"\6" + bytes(64))),
    "an RSA key that is not a sequence": authority_with(spki(RSA, tlv(0x31, integer(2**3071 + 1) + integer(65537)))),
    "an RSA key whose numbers are none": authority_with(
        spki(RSA, tlv(0x30, tlv(0x04, integer(2**3071 + 1)[4:]) + integer(65537)))
    ),
    "a key that is not a bit string": edited(SVID.der, [*KEY, 1], tlv(0x04, b"\0\4" + bytes(64))),
    "an algorithm that is not an identifier": edited(SVID.der, [*KEY, 0, 0], b"\x04" + EC[1:]),
    "no fields": edited(SVID.der, [0], tlv(0x30, b"")),
    "a serial number that is none": edited(SVID.der, [0, 1], tlv(0x04, b"\1")),
    "an empty extension": edited(SVID.der, EXTENSION, tlv(0x30, b"")),
    "an extension whose name is not an identifier": edited(SVID.der, [*EXTENSION, 0], tlv(0x04, b"\1")),
    "an extension whose value is not an octet string": edited(SVID.der, EXTENSION, tlv(0x30, EC + tlv(0x03, b"\0"))),
    "a key without algorithm": authority_with(tlv(0x30, tlv(0x30, b"") + tlv(0x03, b"\0"))),
    "an extension twice": authority("twice", ROOT).der.replace(
        bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d13")
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_no_certificate_is_no_svid_wherever_it_is(case: str) -> None:
    assert refusal_of(UNREADABLE[case]).reason is Reason.BAD_SVID
    assert refusal_of(SVID.der, UNREADABLE[case]).reason is Reason.BAD_SVID
    assert outline_of(UNREADABLE[case]) is None


def test_a_certificate_without_a_version_is_read_alike() -> None:
    assert outline_of(edited(SVID.der, [0, 0])) == outline_of(SVID.der)


def test_a_unique_identifier_before_the_extensions_is_no_extension() -> None:
    key = SVID.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert outline_of(edited(SVID.der, KEY, key, tlv(0x82, b"\0\1"))) == outline_of(SVID.der)


@pytest.mark.parametrize(
    ("own", "issuers", "key_id", "issuer_key_id"),
    [
        (b"\4\1a", tlv(0x30, b"\x80\1b"), b"a", b"b"),
        (b"\4\1a", b"\x30\0", b"a", None),
        (b"\4\1a", tlv(0x30, b"\xa1\0"), b"a", None),
        (b"\x30\1a", tlv(0x30, b"\x80\1b"), None, b"b"),
    ],
    ids=["both", "an empty sequence", "an issuer by its name", "another type"],
)
def test_a_key_identifier_counts_where_there_is_one(
    own: bytes, issuers: bytes, key_id: bytes | None, issuer_key_id: bytes | None
) -> None:
    outline = outline_of(with_key_ids(own=own, issuers=issuers))
    assert outline is not None
    assert (outline.key_id, outline.issuer_key_id) == (key_id, issuer_key_id)


def test_no_chain_is_no_certificate() -> None:
    assert refusal_of().reason is Reason.NO_CLIENT_CERT


def test_an_outline_says_by_what_a_path_is_found() -> None:
    svid, middle, root = check_chain(der_of(leaf(MIDDLE), MIDDLE, ROOT))
    assert (svid.issuer, middle.issuer) == (middle.subject, root.subject)
    assert (svid.issuer_key_id, middle.issuer_key_id) == (middle.key_id, root.key_id)
    assert svid.issuer_key_id is not None
    assert root.issuer_key_id is None
    assert svid.names == 1


def worst_chain(certificates: int) -> list[bytes]:
    """Return the chain that costs most within the limits."""
    more: dict[str, object] = extension(NAMES, alternative_names(256 // certificates))
    for number in range(27):
        more |= extension(f"1.2.3.{number}", b"\5\0")
    worst = authority("worst", ROOT, extensions=more)  # type: ignore[arg-type]
    return [worst.der] * certificates


def test_the_walk_is_short_and_grows_with_the_chain_alone() -> None:
    five = bytecodes(lambda: check_chain(worst_chain_5))
    ten = bytecodes(lambda: check_chain(worst_chain_10))
    assert ten < MOST_AT_ONCE
    assert ten < 2.1 * five


worst_chain_5, worst_chain_10 = worst_chain(5), worst_chain(10)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(min_value=0, max_value=len(SVID.der) - 1), value=st.integers(min_value=0, max_value=255))
def test_a_changed_byte_is_within_bounds_or_denied(position: int, value: int) -> None:
    changed = SVID.der[:position] + bytes([value]) + SVID.der[position + 1 :]
    try:
        check_chain([changed])
    except Denied:
        assert outline_of(changed) is None


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa", "ed25519"])
def test_keys_in_use_are_taken(kind: str) -> None:
    issued: Issued = leaf(ROOT, kind=kind)
    assert check_chain([issued.der])
    assert bounds.MAX_RSA_EXPONENT == 65537


def test_a_chain_of_the_most_bytes_is_taken_and_one_of_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_CHAIN_BYTES", 2 * len(SVID.der))
    assert len(check_chain([SVID.der, SVID.der])) == 2
    monkeypatch.setattr(bounds, "MAX_CHAIN_BYTES", 2 * len(SVID.der) - 1)
    with pytest.raises(Denied, match="the chain is too large") as denied:
        check_chain([SVID.der, SVID.der])
    assert denied.value.reason is Reason.UNTRUSTED_CHAIN
