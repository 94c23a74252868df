from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import TrustDomain
from sidecar.identity import bundle
from sidecar.identity.bounds import MAX_CERTIFICATES
from sidecar.identity.bundle import X509Bundle, parse_bundle
from sidecar.identity.svid import is_strong, parse_leaf, verify_chain
from tests.identity import shapes
from tests.identity.shapes import HOUR, NOW, Issued, authority, der_of, leaf, uris, usage

A = TrustDomain("a.test")
B = TrustDomain("b.test")
ROOT_A = authority("root a")
ROOT_B = authority("root b")


def bundles_of(**authorities: list[Issued]) -> dict[TrustDomain, X509Bundle]:
    named = {TrustDomain(f"{name}.test"): held for name, held in authorities.items()}
    return {domain: parse_bundle(domain, b"".join(der_of(*held))) for domain, held in named.items()}


BUNDLES = bundles_of(a=[ROOT_A], b=[ROOT_B])


def refusal_of(chain: tuple[bytes, ...], bundles: dict[TrustDomain, X509Bundle] = BUNDLES, now: int = NOW) -> Reason:
    with pytest.raises(Denied) as refused:
        verify_chain(chain, bundles, now=now)
    return refused.value.reason


def test_a_verified_chain_proves_the_spiffe_id_of_its_leaf() -> None:
    svid = leaf(ROOT_A, "spiffe://a.test/agent/writer")
    peer = verify_chain(der_of(svid), BUNDLES, now=NOW)
    assert (peer.spiffe_id, peer.trust_domain, peer.not_after) == ("spiffe://a.test/agent/writer", A, NOW + HOUR)
    assert len(peer.fingerprint) == 64


@dataclass(frozen=True)
class Shape:
    """A chain, and the bundle of a.test in which it should end."""

    chain: list[Issued]
    anchors: list[Issued] = field(default_factory=lambda: [ROOT_A])


MIDDLE = authority("middle", ROOT_A)
LOWER = authority("lower", MIDDLE)
ROOT_P384 = authority("p384", kind="p384")
ROOT_RSA = authority("rsa", kind="rsa")
NO_KU = authority("no ku", extensions={"ku": None})
NO_SKI = authority("no ski", extensions={"ski": None})
ONLY_BC = authority("only bc", extensions={"ku": None, "ski": None})
NAMED = authority("named", extensions={"san": (uris("spiffe://a.test"), False)})
PATHLEN_0 = authority("pathlen 0", extensions={"bc": (x509.BasicConstraints(ca=True, path_length=0), True)})
CRITICAL_SAN = {"san": (uris("spiffe://a.test/x"), True)}
OTHER_NAMES = x509.SubjectAlternativeName(
    [
        x509.DNSName("spiffe.example"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.RFC822Name("spiffe@a.test"),
        x509.UniformResourceIdentifier("spiffe://a.test/x"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
        x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    ]
)
NOT_CRITICAL = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")

LAWFUL = {
    "leaf under a root": Shape([leaf(ROOT_A)]),
    "one intermediate": Shape([leaf(MIDDLE), MIDDLE]),
    "two intermediates": Shape([leaf(LOWER), LOWER, MIDDLE]),
    "two intermediates, shuffled": Shape([leaf(LOWER), MIDDLE, LOWER]),
    "the root is sent too": Shape([leaf(MIDDLE), MIDDLE, ROOT_A]),
    "a stranger is sent too": Shape([leaf(ROOT_A), ROOT_B]),
    "bundle holds only the intermediate": Shape([leaf(MIDDLE)], [MIDDLE]),
    "bundle holds two roots": Shape([leaf(ROOT_A)], [ROOT_P384, ROOT_A]),
    "P-384 authority": Shape([leaf(ROOT_P384)], [ROOT_P384]),
    "RSA authority": Shape([leaf(ROOT_RSA)], [ROOT_RSA]),
    "P-384 leaf": Shape([leaf(ROOT_A, kind="p384")]),
    "P-521 leaf": Shape([leaf(ROOT_A, kind="p521")]),
    "RSA leaf": Shape([leaf(ROOT_A, kind="rsa")]),
    "Ed25519 leaf": Shape([leaf(ROOT_A, kind="ed25519")]),
    "leaf without EKU": Shape([leaf(ROOT_A, extensions={"eku": None})]),
    "leaf without basic constraints": Shape([leaf(ROOT_A, extensions={"bc": None})]),
    "leaf without AKI": Shape([leaf(ROOT_A, extensions={"aki": None})]),
    "leaf without subject, critical names": Shape([leaf(ROOT_A, subject="", extensions=CRITICAL_SAN)]),
    "leaf without subject": Shape([leaf(ROOT_A, subject="")]),
    "leaf with names of other kinds": Shape([leaf(ROOT_A, extensions={"san": (OTHER_NAMES, False)})]),
    "leaf with an unknown extension": Shape([leaf(ROOT_A, extensions={"x": (NOT_CRITICAL, False)})]),
    "leaf with digitalSignature only": Shape([leaf(ROOT_A, extensions={"ku": (usage("digital_signature"), True)})]),
    "ID of 2048 bytes": Shape([leaf(ROOT_A, "spiffe://a.test/" + "p" * 2032)]),
    "authority without key usage": Shape([leaf(NO_KU)], [NO_KU]),
    "authority without SKI": Shape([leaf(NO_SKI)], [NO_SKI]),
    "authority with basic constraints only": Shape([leaf(ONLY_BC)], [ONLY_BC]),
    "authority with its trust domain's name": Shape([leaf(NAMED)], [NAMED]),
    "authority with path length 0": Shape([leaf(PATHLEN_0)], [PATHLEN_0]),
}


@pytest.mark.parametrize("case", LAWFUL)
def test_a_lawful_chain_is_believed(case: str) -> None:
    shape = LAWFUL[case]
    bundles = bundles_of(a=shape.anchors, b=[ROOT_B])
    assert verify_chain(der_of(*shape.chain), bundles, now=NOW).trust_domain == A


EKU = ExtendedKeyUsageOID
BAD_LEAVES: dict[str, Issued] = {
    "no alternative name": leaf(ROOT_A, extensions={"san": None}),
    "no URI": leaf(ROOT_A, extensions={"san": (x509.SubjectAlternativeName([x509.DNSName("a.test")]), False)}),
    "two URIs": leaf(ROOT_A, extensions={"san": (uris("spiffe://a.test/x", "spiffe://a.test/y"), False)}),
    "the same URI twice": leaf(ROOT_A, extensions={"san": (uris("spiffe://a.test/x", "spiffe://a.test/x"), False)}),
    "a web URI beside": leaf(ROOT_A, extensions={"san": (uris("spiffe://a.test/x", "https://a.test/"), False)}),
    "web URI": leaf(ROOT_A, "https://a.test/x"),
    "empty URI": leaf(ROOT_A, ""),
    "trust domain without path": leaf(ROOT_A, "spiffe://a.test"),
    "root path": leaf(ROOT_A, "spiffe://a.test/"),
    "upper-case domain": leaf(ROOT_A, "spiffe://A.test/x"),
    "upper-case scheme": leaf(ROOT_A, "SPIFFE://a.test/x"),
    "port": leaf(ROOT_A, "spiffe://a.test:1/x"),
    "user": leaf(ROOT_A, "spiffe://u@a.test/x"),
    "query": leaf(ROOT_A, "spiffe://a.test/x?y"),
    "fragment": leaf(ROOT_A, "spiffe://a.test/x#y"),
    "percent-encoding": leaf(ROOT_A, "spiffe://a.test/%78"),
    "dot segment": leaf(ROOT_A, "spiffe://a.test/x/../y"),
    "empty segment": leaf(ROOT_A, "spiffe://a.test//x"),
    "slash at the end": leaf(ROOT_A, "spiffe://a.test/x/"),
    "newline at the end": leaf(ROOT_A, "spiffe://a.test/x\n"),
    "newline after the domain": leaf(ROOT_A, "spiffe://a.test\n/x"),
    "NUL": leaf(ROOT_A, "spiffe://a.test/x\0"),
    "2049 bytes": leaf(ROOT_A, "spiffe://a.test/" + "p" * 2033),
    "domain of 256 bytes": leaf(ROOT_A, "spiffe://" + "d" * 256 + "/x"),
    "is an authority": leaf(ROOT_A, extensions={"bc": (x509.BasicConstraints(ca=True, path_length=None), True)}),
    "no key usage": leaf(ROOT_A, extensions={"ku": None}),
    "key usage not critical": leaf(ROOT_A, extensions={"ku": (usage("digital_signature"), False)}),
    "no digitalSignature": leaf(ROOT_A, extensions={"ku": (usage("key_agreement"), True)}),
    "keyCertSign": leaf(ROOT_A, extensions={"ku": (usage("digital_signature", "key_cert_sign"), True)}),
    "cRLSign": leaf(ROOT_A, extensions={"ku": (usage("digital_signature", "crl_sign"), True)}),
    "serverAuth only": leaf(ROOT_A, extensions={"eku": (x509.ExtendedKeyUsage([EKU.SERVER_AUTH]), False)}),
    "clientAuth only": leaf(ROOT_A, extensions={"eku": (x509.ExtendedKeyUsage([EKU.CLIENT_AUTH]), False)}),
    "anyExtendedKeyUsage only": leaf(
        ROOT_A, extensions={"eku": (x509.ExtendedKeyUsage([EKU.ANY_EXTENDED_KEY_USAGE]), False)}
    ),
    "unknown critical extension": leaf(ROOT_A, extensions={"x": (NOT_CRITICAL, True)}),
    "RSA 1024": leaf(ROOT_A, kind="rsa-1024"),
    "P-192": leaf(ROOT_A, kind="p192"),
    "P-224": leaf(ROOT_A, kind="p224"),
    "secp256k1": leaf(ROOT_A, kind="k256"),
    "the authority itself": ROOT_A,
    "URI that is not ASCII": shapes.resigned(leaf(ROOT_A), ROOT_A, [(b"spiffe://a.test/x", b"spiffe://a.test/\xe4")]),
}


@pytest.mark.parametrize("case", BAD_LEAVES)
def test_a_leaf_that_breaks_a_rule_of_x509_svids_is_none(case: str) -> None:
    assert refusal_of(der_of(BAD_LEAVES[case])) is Reason.BAD_SVID


V1 = shapes.version_1("version 1")
ED_ROOT = authority("ed25519", kind="ed25519")
WEAK_ROOT = authority("weak", kind="rsa-1024")
NOT_CA = authority("not ca", ROOT_A, extensions={"bc": (x509.BasicConstraints(ca=False, path_length=None), True)})
NO_BC = authority("no bc", ROOT_A, extensions={"bc": None})
NO_SIGN = authority("no sign", ROOT_A, extensions={"ku": (usage("digital_signature"), True)})
PATHLEN_SUB = authority("sub", PATHLEN_0)
OF_B = authority("of b", ROOT_A, extensions={"san": (uris("spiffe://b.test"), False)})
WITH_PATH = authority("with path", ROOT_A, extensions={"san": (uris("spiffe://a.test/ca"), False)})
OLD_ROOT = authority("old", not_before=NOW - 9 * HOUR, not_after=NOW - HOUR)
OLD_MIDDLE = authority("old middle", ROOT_A, not_before=NOW - 9 * HOUR, not_after=NOW - HOUR)
SAME_NAME = authority("root a", key=shapes.new_key("p256", "another key"))
CONSTRAINED = authority(
    "constrained",
    ROOT_A,
    extensions={"nc": (x509.NameConstraints([x509.UniformResourceIdentifier("a.test")], None), True)},
)
SVID = leaf(ROOT_A)
LISTED = leaf(ROOT_P384)

UNTRUSTED: dict[str, Shape] = {
    "unknown authority": Shape([leaf(authority("stranger"))]),
    "authority of the same name, another key": Shape([leaf(SAME_NAME)]),
    "root is sent but not in the bundle": Shape([leaf(SAME_NAME), SAME_NAME]),
    "intermediate is missing": Shape([leaf(MIDDLE)]),
    "issued by a leaf": Shape([leaf(SVID, subject="second"), SVID]),
    "intermediate is not an authority": Shape([leaf(NOT_CA), NOT_CA]),
    "intermediate without basic constraints": Shape([leaf(NO_BC), NO_BC]),
    "intermediate may not sign certificates": Shape([leaf(NO_SIGN), NO_SIGN]),
    "path length violated": Shape([leaf(PATHLEN_SUB), PATHLEN_SUB], [PATHLEN_0]),
    "intermediate of another trust domain": Shape([leaf(OF_B), OF_B]),
    "intermediate with a workload's name": Shape([leaf(WITH_PATH), WITH_PATH]),
    "root expired": Shape([leaf(OLD_ROOT)], [OLD_ROOT]),
    "intermediate expired": Shape([leaf(OLD_MIDDLE), OLD_MIDDLE]),
    "version 1 authority": Shape([leaf(V1)], [V1]),
    "Ed25519 authority (the library cannot judge it)": Shape([leaf(ED_ROOT)], [ED_ROOT]),
    "RSA 1024 authority": Shape([leaf(WEAK_ROOT)], [WEAK_ROOT]),
    "URI name constraints (the library cannot judge them)": Shape([leaf(CONSTRAINED), CONSTRAINED]),
    "a leaf listed in the bundle, presented itself": Shape([LISTED], [LISTED]),
    "a leaf listed in the bundle, as issuer": Shape([leaf(SVID, subject="second")], [SVID]),
    "empty bundle": Shape([SVID], []),
    "expired, and of an unknown authority": Shape([leaf(authority("stranger"), not_after=NOW - 1)]),
}


@pytest.mark.parametrize("case", UNTRUSTED)
def test_a_chain_that_the_bundle_does_not_vouch_for_is_untrusted(case: str) -> None:
    shape = UNTRUSTED[case]
    assert refusal_of(der_of(*shape.chain), bundles_of(a=shape.anchors)) is Reason.UNTRUSTED_CHAIN


def test_a_signature_that_does_not_fit_is_untrusted() -> None:
    tampered = SVID.der[:-1] + bytes([SVID.der[-1] ^ 1])
    assert refusal_of((tampered,)) is Reason.UNTRUSTED_CHAIN


MIDDLE_B = authority("middle b", ROOT_B)
FOREIGN: dict[str, tuple[list[Issued], Reason]] = {
    "signed by another domain's root": ([leaf(ROOT_B, "spiffe://a.test/x")], Reason.WRONG_BUNDLE),
    "signed by another domain's intermediate": (
        [leaf(MIDDLE_B, "spiffe://a.test/x"), MIDDLE_B],
        Reason.WRONG_BUNDLE,
    ),
    "the same, with our root sent too": ([leaf(MIDDLE_B, "spiffe://a.test/x"), MIDDLE_B, ROOT_A], Reason.WRONG_BUNDLE),
    "the other way round": ([leaf(ROOT_A, "spiffe://b.test/x")], Reason.WRONG_BUNDLE),
    "a domain without a bundle": ([leaf(ROOT_A, "spiffe://c.test/x")], Reason.UNKNOWN_TRUST_DOMAIN),
    "a subdomain": ([leaf(ROOT_A, "spiffe://x.a.test/x")], Reason.UNKNOWN_TRUST_DOMAIN),
    "a longer domain": ([leaf(ROOT_A, "spiffe://a.test.b.test/x")], Reason.UNKNOWN_TRUST_DOMAIN),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_an_authority_vouches_for_its_own_trust_domain_only(case: str) -> None:
    chain, reason = FOREIGN[case]
    # Only the handshake knows that another domain's bundle vouched: no second path is searched.
    alone = Reason.UNTRUSTED_CHAIN if reason is Reason.WRONG_BUNDLE else reason
    assert refusal_of(der_of(*chain)) is alone


@pytest.mark.parametrize("case", ["signed by another domain's root", "signed by another domain's intermediate"])
def test_the_same_chain_is_believed_under_its_own_name(case: str) -> None:
    issuer = ROOT_B if case.endswith("root") else MIDDLE_B
    peer = verify_chain(der_of(leaf(issuer, "spiffe://b.test/x"), MIDDLE_B), BUNDLES, now=NOW)
    assert peer.trust_domain == B


TIMES = {
    "before the first second": (-HOUR - 1, Reason.SVID_EXPIRED),
    "in the first second": (-HOUR, None),
    "in the last but one second": (HOUR - 1, None),
    "in the last second": (HOUR, Reason.SVID_EXPIRED),
    "after the last second": (HOUR + 1, Reason.SVID_EXPIRED),
    "a day later": (24 * HOUR, Reason.SVID_EXPIRED),
}


@pytest.mark.parametrize("case", TIMES)
def test_there_is_no_leeway_in_an_svids_time(case: str) -> None:
    after, reason = TIMES[case]
    if reason is None:
        verify_chain(der_of(SVID), BUNDLES, now=NOW + after)
    else:
        assert refusal_of(der_of(SVID), now=NOW + after) is reason


def test_no_chain_is_no_certificate() -> None:
    assert refusal_of(()) is Reason.NO_CLIENT_CERT


def test_a_chain_of_ten_is_read_and_one_of_eleven_is_not() -> None:
    assert MAX_CERTIFICATES == 10
    verify_chain(der_of(SVID, *[ROOT_B] * 9), BUNDLES, now=NOW)
    assert refusal_of(der_of(SVID, *[ROOT_B] * 10)) is Reason.UNTRUSTED_CHAIN


@pytest.mark.parametrize("junk", [b"", b"\x30\x00", b"junk", SVID.der + b"\0", SVID.der[:-1]])
def test_what_is_no_certificate_is_no_svid(junk: bytes) -> None:
    assert refusal_of((junk,)) is Reason.BAD_SVID
    assert refusal_of((SVID.der, junk)) is Reason.BAD_SVID


def test_a_doubled_extension_is_no_svid() -> None:
    # The object identifier of extended key usage (2.5.29.37) becomes that of key usage (2.5.29.15).
    doubled = shapes.resigned(SVID, ROOT_A, [(b"\x06\x03\x55\x1d\x25", b"\x06\x03\x55\x1d\x0f")])
    assert refusal_of(der_of(doubled)) is Reason.BAD_SVID


def test_a_leaf_signed_with_sha1_is_no_svid() -> None:
    algorithm = bytes.fromhex("300a06082a8648ce3d040302"), bytes.fromhex("300906072a8648ce3d0401")
    der = SVID.der
    assert der.count(algorithm[0]) == 2
    tbs = SVID.certificate.tbs_certificate_bytes
    inner = tbs[4:].replace(algorithm[0], algorithm[1])
    rest = algorithm[1] + shapes.tlv(0x03, b"\0" + SVID.certificate.signature)
    with pytest.raises(Denied, match="hash"):
        parse_leaf(shapes.tlv(0x30, shapes.tlv(0x30, inner) + rest))


def test_a_chain_valid_in_two_domains_counts_for_the_named_one() -> None:
    bundles = bundles_of(a=[ROOT_A, ROOT_B], b=[ROOT_B])
    assert verify_chain(der_of(leaf(ROOT_B)), bundles, now=NOW).trust_domain == A


def test_a_detail_never_holds_what_a_stranger_wrote() -> None:
    with pytest.raises(Denied) as refused:
        verify_chain(der_of(leaf(ROOT_A, "spiffe://a.test/x\nforged line")), BUNDLES, now=NOW)
    assert "forged" not in str(refused.value)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(min_value=0, max_value=len(SVID.der) - 1), value=st.integers(min_value=0, max_value=255))
def test_no_changed_byte_yields_another_identity(position: int, value: int) -> None:
    changed = SVID.der[:position] + bytes([value]) + SVID.der[position + 1 :]
    if changed == SVID.der:
        return
    try:
        verify_chain((changed,), BUNDLES, now=NOW)
    except Denied:
        return
    # The signed bytes are the same: a signature that ends in a zero bit can be declared one bit shorter.
    assert position == SVID.der.rindex(b"\x00" + SVID.certificate.signature)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_anything_but_certificates_is_denied(chain: list[bytes]) -> None:
    with pytest.raises(Denied):
        verify_chain(tuple(chain), BUNDLES, now=NOW)


class Checked:
    """Counts the signatures that a bundle let the library check: at most one for each certificate of a path it was
    given.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.signatures = 0
        verified = bundle._verify

        def count(anchor: Any, leaf: Any, between: Any, at: int) -> Any:
            self.signatures += len(between) + 1
            return verified(anchor, leaf, between, at)

        monkeypatch.setattr(bundle, "_verify", count)


def ring(names: int, copies: int) -> list[Issued]:
    """Return authorities with one key that all sign each other: a naive path search is exponential."""
    key = shapes.new_key("p256", "explosion")
    above = [authority(f"ring {number}", key=key) for number in range(names)]
    return [authority(f"ring {number % names}", above[(number + 1) % names], key=key) for number in range(copies)]


@pytest.mark.parametrize(("names", "copies"), [(1, 9), (2, 9), (3, 9), (9, 9)])
def test_however_many_paths_there_are_few_signatures_are_checked(
    monkeypatch: pytest.MonkeyPatch, names: int, copies: int
) -> None:
    checked = Checked(monkeypatch)
    circle = ring(names, copies)
    anchored = bundles_of(a=[authority("ring 0", key=shapes.new_key("p256", f"anchor {n}")) for n in range(30)])
    assert refusal_of(der_of(leaf(circle[0]), *circle), anchored) is Reason.UNTRUSTED_CHAIN
    assert checked.signatures <= bundle.MAX_SIGNATURES
    assert refusal_of(der_of(leaf(circle[0]), *circle)) is Reason.UNTRUSTED_CHAIN


def test_a_bundle_of_many_authorities_of_one_name_costs_few_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = Checked(monkeypatch)
    many = [authority("one name", key=shapes.new_key("p256", f"many {n}"), extensions={"ski": None}) for n in range(30)]
    bundles = bundles_of(a=many)
    assert verify_chain(der_of(leaf(many[0])), bundles, now=NOW).trust_domain == A
    assert refusal_of(der_of(leaf(many[29])), bundles) is Reason.UNTRUSTED_CHAIN  # without key identifiers: exhausted
    assert checked.signatures <= bundle.MAX_SIGNATURES + 1
    told_apart = [authority("one name", key=shapes.new_key("p256", f"apart {n}")) for n in range(30)]
    assert verify_chain(der_of(leaf(told_apart[29])), bundles_of(a=told_apart), now=NOW).trust_domain == A


@pytest.mark.parametrize("serial", [b"\x00", b"\xff"], ids=["zero", "negative"])
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_serial_number_that_is_not_positive_is_refused(serial: bytes) -> None:
    tbs = SVID.certificate.tbs_certificate_bytes
    length = tbs[4 + 5 + 1]  # after the sequence's header and the version
    assert tbs[9] == 0x02
    changed = shapes.tlv(0x30, tbs[4:9] + shapes.tlv(0x02, serial) + tbs[11 + length :])
    assert refusal_of(der_of(shapes.signed(changed, SVID, ROOT_A))) is Reason.BAD_SVID


def rsa_key(bits: int) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) + 1).public_key()


STRENGTHS = {
    "RSA 2047": (rsa_key(2047), False),
    "RSA 2048": (rsa_key(2048), True),
    "RSA 8192": (rsa_key(8192), True),
    "RSA 8193": (rsa_key(8193), False),
    "P-521": (shapes.new_key("p521", "strength").public_key(), True),
    "P-224": (shapes.new_key("p224", "strength").public_key(), False),
    "Ed25519": (shapes.new_key("ed25519", "strength").public_key(), True),
    "X25519": (x25519.X25519PrivateKey.generate().public_key(), False),
}


@pytest.mark.parametrize("case", STRENGTHS)
def test_keys_are_strong_but_no_burden(case: str) -> None:
    key, strong = STRENGTHS[case]
    assert is_strong(key) is strong


# Four authorities, each certified by each: cross-signed roots, re-issued intermediates, overlapping bundles.
FOUR = [authority(f"ca {number}") for number in range(4)]
CROSS = {(below, above): authority(f"ca {below}", FOUR[above]) for below in range(4) for above in range(4)}
EDGES = st.lists(st.sampled_from(sorted(CROSS)), max_size=5, unique=True)


def reachable(start: int, presented: list[tuple[int, int]], anchors: list[tuple[int, int]]) -> bool:
    """Tell if the presented certificates lead from an issuer to an anchor: the definition, without any library."""
    seen, waiting = set[int](), [start]
    while waiting:
        here = waiting.pop()
        if here in {below for below, _ in anchors}:
            return True
        seen.add(here)
        waiting += [above for below, above in presented if below == here and above not in seen]
    return False


@settings(max_examples=60, deadline=None)
@given(
    issuer=st.integers(min_value=0, max_value=3),
    domain=st.sampled_from(["a", "b"]),
    presented=EDGES,
    in_a=EDGES,
    in_b=EDGES,
)
def test_exactly_the_paths_into_the_named_bundle_are_believed(
    issuer: int, domain: str, presented: list[tuple[int, int]], in_a: list[tuple[int, int]], in_b: list[tuple[int, int]]
) -> None:
    svid = leaf(FOUR[issuer], f"spiffe://{domain}.test/x")
    bundles = bundles_of(a=[CROSS[edge] for edge in in_a], b=[CROSS[edge] for edge in in_b])
    own = in_a if domain == "a" else in_b
    chain = der_of(svid, *(CROSS[edge] for edge in presented))
    if reachable(issuer, presented, own):
        assert verify_chain(chain, bundles, now=NOW).trust_domain == f"{domain}.test"
    else:
        assert refusal_of(chain, bundles) is Reason.UNTRUSTED_CHAIN


def test_an_issuers_name_that_cannot_be_read_is_untrusted() -> None:
    name = ROOT_A.certificate.subject.public_bytes()
    broken = name[:11] + b"\x00" + name[12:]  # a malformed value; values are only parsed on access
    assert refusal_of(der_of(shapes.resigned(SVID, ROOT_A, [(name, broken)]))) is Reason.UNTRUSTED_CHAIN


ALTERNATIVE_NAME = x509.ObjectIdentifier("2.5.29.17")
UNREADABLE_NAMES = {
    "an X.400 address": b"\x30\x02\xa3\x00",
    "no sequence": b"\x04\x00",
    "a URI that is not ASCII": b"\x30\x03\x86\x01\xff",
}


@pytest.mark.parametrize("case", UNREADABLE_NAMES)
def test_names_that_cannot_be_read_are_refused_wherever_they_are(case: str) -> None:
    odd = {"san": (x509.UnrecognizedExtension(ALTERNATIVE_NAME, UNREADABLE_NAMES[case]), False)}
    assert refusal_of(der_of(leaf(ROOT_A, extensions=odd))) is Reason.BAD_SVID
    middle = authority("odd", ROOT_A, extensions=odd)
    assert refusal_of(der_of(leaf(middle), middle)) is Reason.UNTRUSTED_CHAIN
