from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from delegation_core.spiffe_id import TrustDomain
from sidecar.identity import generation
from sidecar.identity.bundle import X509Bundle, parse_bundle
from sidecar.identity.generation import IdentityError, _file_in_memory, new_identity, parse_x509_svid, present
from sidecar.identity.handshake import presented_chain
from sidecar.identity.source import X509Svid
from tests.identity.shapes import HOUR, NOW, Issued, authority, der_of, leaf, new_key
from tests.identity.test_handshake import plain, shake

A, B = TrustDomain("a.test"), TrustDomain("b.test")
ROOT_A = authority("root a")
ROOT_B = authority("root b")
SELF = "spiffe://a.test/self"
OWN = leaf(ROOT_A, SELF)


def descriptors() -> set[str]:
    """Return the open descriptors, without the one of this check."""
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def svid_of(issued: Issued = OWN, spiffe_id: str = SELF) -> X509Svid:
    return parse_x509_svid(spiffe_id, [issued.der], issued.key_der)


def bundles(*authorities: Issued) -> dict[TrustDomain, X509Bundle]:
    return {A: parse_bundle(A, b"".join(der_of(*authorities))), B: parse_bundle(B, ROOT_B.der)}


def test_an_svid_is_read_with_its_times_and_hint() -> None:
    svid = parse_x509_svid(SELF, [OWN.der], OWN.key_der, hint="internal")
    assert (svid.spiffe_id, svid.not_before, svid.not_after, svid.hint) == (SELF, NOW - HOUR, NOW + HOUR, "internal")


def test_an_svid_never_shows_its_key() -> None:
    svid = svid_of()
    assert repr(svid.key_der) not in repr(svid)
    assert "key_der" not in repr(new_identity(1, svid, bundles(ROOT_A), now=NOW))


BAD_SVIDS = {
    "no certificate": (SELF, [], OWN.key_der),
    "junk for a certificate": (SELF, [b"junk"], OWN.key_der),
    "another SPIFFE ID than announced": ("spiffe://a.test/other", [OWN.der], OWN.key_der),
    "a SPIFFE ID that is none": ("self", [OWN.der], OWN.key_der),
    "no key": (SELF, [OWN.der], b""),
    "junk for a key": (SELF, [OWN.der], b"junk"),
    "another key": (SELF, [OWN.der], ROOT_A.key_der),
    "a key of another kind": (SELF, [OWN.der], leaf(ROOT_A, kind="rsa").key_der),
    "an authority's certificate": (SELF, [ROOT_A.der], ROOT_A.key_der),
}


@pytest.mark.parametrize("case", BAD_SVIDS)
def test_parts_that_do_not_belong_together_are_no_svid(case: str) -> None:
    spiffe_id, chain, key_der = BAD_SVIDS[case]
    with pytest.raises(IdentityError) as refused:
        parse_x509_svid(spiffe_id, chain, key_der)
    assert "junk" not in str(refused.value)


def test_a_generation_has_contexts_for_both_sides() -> None:
    identity = new_identity(7, svid_of(), bundles(ROOT_A), now=NOW)
    assert identity.number == 7
    assert identity.spiffe_id == SELF
    assert identity.server_context.protocol is ssl.PROTOCOL_TLS_SERVER
    assert identity.client_context.protocol is ssl.PROTOCOL_TLS_CLIENT
    for context in (identity.server_context, identity.client_context):
        assert context.cert_store_stats()["x509_ca"] == 2


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa", "ed25519"])
def test_every_kind_of_key_is_taken(kind: str) -> None:
    assert new_identity(1, svid_of(leaf(ROOT_A, SELF, kind=kind)), bundles(ROOT_A), now=NOW).number == 1


SELF_DOUBTS = {
    "expired": (svid_of(), bundles(ROOT_A), NOW + HOUR),
    "not valid yet": (svid_of(), bundles(ROOT_A), NOW - 2 * HOUR),
    "our bundle does not vouch": (svid_of(), bundles(authority("stranger")), NOW),
    "another domain's bundle would vouch": (svid_of(leaf(ROOT_B, SELF)), bundles(ROOT_A), NOW),
    "our bundle is empty": (svid_of(), bundles(), NOW),
    "our bundle is missing": (svid_of(), {B: parse_bundle(B, ROOT_B.der)}, NOW),
}


@pytest.mark.parametrize("case", SELF_DOUBTS)
def test_we_do_not_use_what_we_would_not_believe(case: str) -> None:
    svid, trusted, now = SELF_DOUBTS[case]
    with pytest.raises(IdentityError):
        new_identity(1, svid, trusted, now=now)


def test_an_empty_foreign_bundle_is_no_obstacle() -> None:
    trusted = bundles(ROOT_A) | {B: parse_bundle(B, b"")}
    assert new_identity(1, svid_of(), trusted, now=NOW).server_context.cert_store_stats()["x509_ca"] == 1


def test_one_authority_in_two_bundles_is_no_obstacle() -> None:
    trusted = {A: parse_bundle(A, ROOT_A.der), B: parse_bundle(B, ROOT_A.der)}
    assert new_identity(1, svid_of(), trusted, now=NOW).bundles == trusted


def test_the_key_is_in_memory_only_and_only_as_long_as_needed() -> None:
    before = descriptors()
    with _file_in_memory(b"secret") as path:
        assert path.startswith("/proc/self/fd/")
        assert not os.get_inheritable(int(Path(path).name))
        assert "memfd:" in str(Path(path).readlink())
        assert Path(path).read_bytes() == b"secret"
    assert descriptors() <= before


def test_a_kernel_without_the_newest_flag_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    create = os.memfd_create

    def old_kernel(name: str, flags: int) -> int:
        if flags != os.MFD_CLOEXEC:
            raise OSError
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", old_kernel)
    with _file_in_memory(b"content") as path:
        assert Path(path).read_bytes() == b"content"


def test_intermediates_are_presented_too() -> None:
    middle = authority("middle", ROOT_A)
    own = leaf(middle, SELF)
    svid = parse_x509_svid(SELF, der_of(own, middle), own.key_der)
    identity = new_identity(1, svid, bundles(ROOT_A), now=NOW)
    assert [x509.load_der_x509_certificate(der).subject for der in identity.svid.chain] == [
        own.certificate.subject,
        middle.certificate.subject,
    ]


def presented(svid: X509Svid, *authorities: Issued) -> list[bytes]:
    """Return the certificates that reach the other end, of a context in which OpenSSL finds no authority."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    present(server, svid, parse_bundle(A, b"".join(der_of(*authorities))))
    _, theirs = shake(server, plain(server=False))
    return presented_chain(theirs)


OTHER_KEY_OF_ROOT_A = authority("root a", key=new_key("p256", "another key under the name of root a"))
RENEWED_ROOT_A = authority("root a", key=ROOT_A.key, not_after=NOW + 2 * HOUR)
ABOVE: dict[str, tuple[list[Issued], list[Issued]]] = {
    "the authority": ([ROOT_A], [ROOT_A]),
    "behind another one": ([ROOT_B, ROOT_A], [ROOT_A]),
    "behind one of its name": ([OTHER_KEY_OF_ROOT_A, ROOT_A], [ROOT_A]),
    "twice, renewed with the same key": ([RENEWED_ROOT_A, ROOT_A], [RENEWED_ROOT_A]),
    "another one": ([ROOT_B], []),
    "another one of its name": ([OTHER_KEY_OF_ROOT_A], []),
}


@pytest.mark.parametrize("case", ABOVE)
def test_a_leaf_alone_is_presented_with_our_authority_which_openssl_need_not_search(case: str) -> None:
    trusted, above = ABOVE[case]
    assert presented(svid_of(), *trusted) == list(der_of(OWN, *above))


def test_a_leaf_of_an_authority_below_another_is_presented_with_both() -> None:
    middle = authority("middle", ROOT_A)
    own = leaf(middle, SELF)
    assert presented(svid_of(own), ROOT_A, middle) == list(der_of(own, middle, ROOT_A))
    assert presented(svid_of(own), middle) == list(der_of(own, middle))


def test_an_svid_with_intermediates_is_presented_as_it_is() -> None:
    middle = authority("middle", ROOT_A)
    own = leaf(middle, SELF)
    svid = parse_x509_svid(SELF, der_of(own, middle), own.key_der)
    assert presented(svid, ROOT_A) == list(der_of(own, middle))


def test_both_contexts_of_a_generation_present_the_authorities_of_our_own_domain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[X509Bundle | None] = []
    monkeypatch.setattr(generation, "present", lambda _context, _svid, bundle: given.append(bundle))
    trusted = bundles(ROOT_A)
    new_identity(1, svid_of(), trusted, now=NOW)
    assert given == [trusted[A]] * 2


def test_keys_of_one_run_differ() -> None:
    assert new_key("p256", "one") is not new_key("p256", "two")
