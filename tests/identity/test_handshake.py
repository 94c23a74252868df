"""Handshakes in memory: our end by its delegating context, the other by a plain one that presents any certificate."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import handshake, tls
from sidecar.identity.bundle import parse_bundle
from sidecar.identity.generation import _file_in_memory, bare_context, with_bundles
from sidecar.identity.handshake import HandshakeRefused, VerifyingSSLObject
from sidecar.identity.peer_address import peer_address
from sidecar.identity.svid import verify_chain
from tests.identity.fixed_source import FixedSource, identity_of
from tests.identity.shapes import HOUR, NOW, Issued, authority, der_of, leaf, new_key
from tests.identity.test_svid import (
    BAD_LEAVES,
    FOREIGN,
    LAWFUL,
    ROOT_A,
    ROOT_B,
    UNTRUSTED,
    Shape,
)

SELF = "spiffe://a.test/self"
OWN = leaf(ROOT_A, SELF)
PEER = leaf(ROOT_A, "spiffe://a.test/x")


@dataclass
class Refusals:
    seen: list[tuple[Reason, str, str | None]] = field(default_factory=list)

    def __call__(self, reason: Reason, detail: str, address: str | None) -> None:
        self.seen.append((reason, detail, address))

    @property
    def reasons(self) -> list[Reason]:
        return [reason for reason, _, _ in self.seen]


def source_of(anchors: Iterable[Issued] = (), *, federated: Iterable[Issued] = (ROOT_B,)) -> FixedSource:
    bundles = {"a.test": [ROOT_A, *anchors], "b.test": list(federated)}
    return FixedSource(identity_of([OWN], SELF, bundles))


def plain(*, server: bool, chain: Sequence[Issued] = ()) -> ssl.SSLContext:
    """Return an end that trusts everybody and presents anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if chain:
        pem = b"".join(issued.certificate.public_bytes(serialization.Encoding.PEM) for issued in chain)
        form = serialization.PrivateFormat.PKCS8
        key = chain[0].key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        with _file_in_memory(key + pem) as path:
            context.load_cert_chain(path)
    return context


def shake(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    *,
    incoming: ssl.MemoryBIO | None = None,
    outgoing: ssl.MemoryBIO | None = None,
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Run both ends until both are done. The first error of either ends it. The buffers are the server's."""
    to_server, to_client = incoming or ssl.MemoryBIO(), outgoing or ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    for _ in range(10):
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    assert not waiting
    return ends[1], ends[0]


def admit(source: FixedSource, chain: Sequence[Issued]) -> VerifyingSSLObject:
    ours, _ = shake(tls.server_context(source), plain(server=False, chain=chain))
    assert isinstance(ours, VerifyingSSLObject)
    return ours


def refuse(source: FixedSource, client: ssl.SSLContext) -> HandshakeRefused:
    """Return the refusal of a client; the hook was called exactly once."""
    refusals = Refusals()
    with pytest.raises(HandshakeRefused) as refused:
        shake(tls.server_context(source, on_refused=refusals), client)
    assert refusals.reasons == [refused.value.refusal]
    return refused.value


@pytest.mark.parametrize("case", LAWFUL)
def test_a_lawful_client_is_admitted(case: str) -> None:
    shape = LAWFUL[case]
    guard = admit(source_of(shape.anchors), shape.chain).guard
    assert guard is not None
    assert guard.peer.trust_domain == "a.test"


# Keys that cannot be used in TLS 1.3.
NO_TLS_KEYS = {"P-192", "P-224", "secp256k1"}


@pytest.mark.parametrize("case", sorted(BAD_LEAVES.keys() - NO_TLS_KEYS))
def test_a_client_without_a_proper_svid_is_refused(case: str) -> None:
    assert refuse(source_of(), plain(server=False, chain=[BAD_LEAVES[case]])).refusal is Reason.BAD_SVID


@pytest.mark.parametrize("case", UNTRUSTED)
def test_a_client_whose_chain_ends_nowhere_is_refused(case: str) -> None:
    shape = UNTRUSTED[case]
    source = source_of([] if shape.anchors == [ROOT_A] else shape.anchors)
    if case == "empty bundle":  # our own is never empty, another domain's may be
        shape = Shape([leaf(ROOT_B, "spiffe://b.test/x")])
        source = source_of(federated=[])
    refused = refuse(source, plain(server=False, chain=shape.chain))
    assert refused.refusal is Reason.UNTRUSTED_CHAIN


@pytest.mark.parametrize("case", FOREIGN)
def test_a_client_with_a_name_of_another_trust_domain_is_refused(case: str) -> None:
    chain, reason = FOREIGN[case]
    assert refuse(source_of(), plain(server=False, chain=chain)).refusal is reason


@pytest.mark.parametrize(
    ("not_before", "not_after"), [(NOW - HOUR, NOW - 1), (NOW + HOUR, NOW + 2 * HOUR)], ids=["expired", "not yet"]
)
def test_a_client_out_of_its_time_is_refused(not_before: int, not_after: int) -> None:
    chain = [leaf(ROOT_A, not_before=not_before, not_after=not_after)]
    assert refuse(source_of(), plain(server=False, chain=chain)).refusal is Reason.SVID_EXPIRED


def test_an_expired_impostor_is_refused_by_what_openssl_said() -> None:
    chain = [leaf(ROOT_B, "spiffe://a.test/x", not_after=NOW - 1)]
    assert refuse(source_of(), plain(server=False, chain=chain)).refusal is Reason.SVID_EXPIRED
    with pytest.raises(Denied) as denied:
        verify_chain(der_of(*chain), source_of().current.bundles, now=NOW)  # type: ignore[union-attr]
    assert denied.value.reason is Reason.UNTRUSTED_CHAIN


def test_a_stranger_of_an_unknown_trust_domain_is_told_from_one_of_ours() -> None:
    stranger = leaf(authority("stranger"), "spiffe://c.test/x")
    assert refuse(source_of(), plain(server=False, chain=[stranger])).refusal is Reason.UNKNOWN_TRUST_DOMAIN


def test_a_client_without_a_certificate_is_refused() -> None:
    assert refuse(source_of(), plain(server=False)).refusal is Reason.NO_CLIENT_CERT


def test_a_client_without_tls_1_3_is_refused() -> None:
    client = plain(server=False, chain=[PEER])
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert refuse(source_of(), client).refusal is Reason.TLS_VERSION


def test_a_client_that_speaks_no_tls_is_refused() -> None:
    ours = tls.server_context(source_of()).wrap_bio(incoming := ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    incoming.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises(HandshakeRefused) as refused:
        ours.do_handshake()
    assert refused.value.refusal is Reason.TLS_VERSION


def test_a_client_that_leaves_midway_is_no_refusal_of_ours() -> None:
    refusals = Refusals()
    context = tls.server_context(source_of(), on_refused=refusals)
    ours = context.wrap_bio(incoming := ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    incoming.write_eof()
    with pytest.raises(ssl.SSLError) as left:
        ours.do_handshake()
    assert not isinstance(left.value, HandshakeRefused)
    assert refusals.seen == []


def test_a_refusal_carries_the_address_of_whoever_accepted() -> None:
    refusals = Refusals()
    token = peer_address.set("192.0.2.7:4711")
    try:
        with pytest.raises(HandshakeRefused):
            shake(tls.server_context(source_of(), on_refused=refusals), plain(server=False))
    finally:
        peer_address.reset(token)
    assert [address for _, _, address in refusals.seen] == ["192.0.2.7:4711"]


def test_without_an_identity_nobody_is_admitted() -> None:
    source = FixedSource(None)
    assert refuse(source, plain(server=False, chain=[PEER])).refusal is Reason.NOT_READY


def test_an_identity_withdrawn_during_the_handshake_admits_nobody() -> None:
    source = source_of()
    ours = tls.server_context(source).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        ours.do_handshake()
    source.current = None
    with pytest.raises(HandshakeRefused):
        ours.do_handshake()


def test_a_bundle_withdrawn_during_the_handshake_counts() -> None:
    source = source_of()
    server = tls.server_context(source)
    client = plain(server=False, chain=[leaf(ROOT_B, "spiffe://b.test/x")])
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs, ours = client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)
    for end in (theirs, ours):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
    theirs.do_handshake()
    source.current = identity_of([OWN], SELF, {"a.test": [ROOT_A]})
    with pytest.raises(HandshakeRefused) as refused:
        ours.do_handshake()
    assert refused.value.refusal is Reason.UNKNOWN_TRUST_DOMAIN


def test_an_ssl_object_that_nobody_bound_refuses_everybody() -> None:
    identity = source_of().current
    assert identity is not None
    with pytest.raises(HandshakeRefused):
        shake(identity.server_context, plain(server=False, chain=[PEER]))


def test_a_presented_chain_that_cannot_be_had_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "presented_chain", lambda _: [])
    assert refuse(source_of(), plain(server=False, chain=[PEER])).refusal is Reason.BAD_SVID


def test_a_chain_that_openssl_read_otherwise_than_it_was_bounded_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "presented_chain", lambda _: [PEER.der, ROOT_A.der])
    assert refuse(source_of(), plain(server=False, chain=[PEER])).refusal is Reason.BAD_SVID


def test_the_presented_chain_has_the_leaf_first_on_this_python() -> None:
    middle = authority("middle", ROOT_A)
    svid = leaf(middle)
    ours = admit(source_of(), [svid, middle])
    assert handshake.presented_chain(ours)[:2] == [svid.der, middle.der]


class PublicGetters:
    """The methods of ``SSLObject`` since Python 3.13."""

    def get_unverified_chain(self) -> list[bytes]:
        return [b"leaf", b"middle"]

    def get_verified_chain(self) -> None:
        return None


class NoGetters:
    pass


def test_the_public_getters_are_used_where_they_exist() -> None:
    newer: ssl.SSLObject = PublicGetters()  # type: ignore[assignment]
    assert handshake.presented_chain(newer) == [b"leaf", b"middle"]


def test_a_python_without_any_getter_yields_no_chain() -> None:
    unknown: ssl.SSLObject = NoGetters()  # type: ignore[assignment]
    assert handshake.presented_chain(unknown) == []


def test_the_text_rendering_of_a_certificate_is_never_made() -> None:
    ours = admit(source_of(), [PEER])
    assert ours.getpeercert() == {}
    assert ours.getpeercert(True) == PEER.der


# The client's side.


def call(server_chain: Sequence[Issued], expected: str, source: FixedSource | None = None) -> VerifyingSSLObject:
    client = tls.client_context(source or source_of(), expected=SpiffeId(expected))
    _, ours = shake(plain(server=True, chain=server_chain), client)
    assert isinstance(ours, VerifyingSSLObject)
    return ours


def test_a_client_that_reaches_the_expected_workload_is_content() -> None:
    guard = call([PEER], "spiffe://a.test/x").guard
    assert guard is not None
    assert guard.peer.spiffe_id == "spiffe://a.test/x"


SERVERS: dict[str, tuple[list[Issued], Reason]] = {
    "another workload": ([leaf(ROOT_A, "spiffe://a.test/y")], Reason.UPSTREAM_IDENTITY),
    "a workload below": ([leaf(ROOT_A, "spiffe://a.test/x/y")], Reason.UPSTREAM_IDENTITY),
    "another case": ([leaf(ROOT_A, "spiffe://a.test/X")], Reason.UPSTREAM_IDENTITY),
    "the same path in another trust domain": ([leaf(ROOT_B, "spiffe://b.test/x")], Reason.UPSTREAM_IDENTITY),
    "the name, signed by another domain": ([leaf(ROOT_B, "spiffe://a.test/x")], Reason.WRONG_BUNDLE),
    "the name, signed by a stranger": ([leaf(authority("stranger"))], Reason.UNTRUSTED_CHAIN),
    "expired": ([leaf(ROOT_A, not_after=NOW - 1)], Reason.SVID_EXPIRED),
    "two URIs": ([BAD_LEAVES["two URIs"]], Reason.BAD_SVID),
}


@pytest.mark.parametrize("case", SERVERS)
def test_a_client_tells_by_the_error_that_the_server_is_not_who_it_should_be(case: str) -> None:
    chain, reason = SERVERS[case]
    with pytest.raises(HandshakeRefused) as refused:
        call(chain, "spiffe://a.test/x")
    assert refused.value.refusal is reason
    assert isinstance(refused.value, ssl.SSLCertVerificationError)


def test_a_server_without_tls_1_3_does_not_prove_itself() -> None:
    server = plain(server=True, chain=[PEER])
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    client = tls.client_context(source_of(), expected=SpiffeId("spiffe://a.test/x"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        ours.do_handshake()
    with pytest.raises(ssl.SSLError):
        theirs.do_handshake()
    with pytest.raises(HandshakeRefused) as refused:
        ours.do_handshake()
    assert refused.value.refusal is Reason.TLS_VERSION


def test_a_client_without_an_identity_calls_nobody() -> None:
    with pytest.raises(HandshakeRefused) as refused:
        call([PEER], "spiffe://a.test/x", FixedSource(None))
    assert refused.value.refusal is Reason.NOT_READY


# Permissions of a context.


def test_a_session_is_never_resumed() -> None:
    """A resumed session would skip the certificates: expired and withdrawn peers would stay connected."""
    source = source_of()
    server, client = tls.server_context(source), plain(server=False, chain=[PEER])
    ours, theirs = shake(server, client)
    ours.write(b"hello")
    theirs.read(5)
    session = theirs.session
    assert session is None or not session.has_ticket
    assert ours.context.num_tickets == 0


@pytest.mark.parametrize("protocol", [ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT])
def test_contexts_have_the_same_rules_on_every_python(protocol: ssl._SSLMethod) -> None:
    context = bare_context(protocol)
    flags = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    assert context.verify_flags == flags
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.options & ssl.OP_NO_TICKET
    assert not context.check_hostname
    assert context.cert_store_stats() == {"x509": 0, "crl": 0, "x509_ca": 0}
    assert context.keylog_filename is None


def test_http_1_1_is_agreed_on() -> None:
    client = plain(server=False, chain=[PEER])
    client.set_alpn_protocols(["h2", "http/1.1"])
    ours, _ = shake(tls.server_context(source_of()), client)
    assert ours.selected_alpn_protocol() == "http/1.1"


def test_two_listeners_of_one_identity_choose_among_their_own_protocols() -> None:
    source = source_of()
    both, one = tls.server_context(source, alpn=["h2", "http/1.1"]), tls.server_context(source, alpn=["http/1.1"])
    client = plain(server=False, chain=[PEER])
    client.set_alpn_protocols(["h2", "http/1.1"])
    for context, chosen in ((both, "h2"), (both, "h2"), (one, "http/1.1"), (both, "h2")):
        ours, _ = shake(context, client)
        assert ours.selected_alpn_protocol() == chosen


def test_blocking_sockets_are_not_served() -> None:
    with socket.socket() as unused, pytest.raises(NotImplementedError):
        tls.server_context(source_of()).wrap_socket(unused)


# The guard of later requests.


def test_a_guard_lets_a_peer_in_until_its_last_second() -> None:
    guard = admit(source_of(), [PEER]).guard
    assert guard is not None
    assert guard.check(NOW + HOUR - 1) is guard.peer
    with pytest.raises(Denied) as denied:
        guard.check(NOW + HOUR)
    assert denied.value.reason is Reason.SVID_EXPIRED


@pytest.mark.parametrize("ends", ["root", "middle"])
def test_a_guard_lets_nobody_in_on_an_authority_that_has_ended(ends: str) -> None:
    before_leaf = HOUR // 2  # and long after this run: OpenSSL has its own clock
    root = authority(f"root that {ends}", not_after=NOW + (before_leaf if ends == "root" else 2 * HOUR))
    middle = authority(f"middle that {ends}", root, not_after=NOW + (before_leaf if ends == "middle" else 2 * HOUR))
    guard = admit(source_of([ROOT_A, root]), [leaf(middle), middle]).guard
    assert guard is not None
    assert guard.check(NOW + before_leaf - 1) is guard.peer
    with pytest.raises(Denied) as denied:
        guard.check(NOW + before_leaf + 1)
    assert denied.value.reason is Reason.UNTRUSTED_CHAIN


def test_a_guard_lets_nobody_in_when_our_own_identity_is_gone() -> None:
    source = source_of()
    guard = admit(source, [PEER]).guard
    assert guard is not None
    source.current = None
    with pytest.raises(Unavailable):
        guard.check(NOW)


def test_a_partner_with_an_authority_named_like_ours_does_not_shut_our_own_peers_out() -> None:
    key = new_key("p256", "of another who calls itself root a")
    namesake = authority("root a", key=key, extensions={"ski": None})  # OpenSSL separates issuers by name and key ID
    source = FixedSource(identity_of([OWN], SELF, {"b.test": [namesake, ROOT_B], "a.test": [ROOT_A]}))
    guard = admit(source, [PEER]).guard
    assert guard is not None
    assert guard.peer.spiffe_id == "spiffe://a.test/x"


@pytest.mark.parametrize("names", [["a.test", "b.test", "c.test"], ["a.test", "c.test", "b.test"]], ids=str)
def test_a_partner_whose_authority_has_no_key_identifier_shuts_no_other_partners_peers_out(names: list[str]) -> None:
    key = new_key("p256", "of another who calls itself root b")
    namesake = authority("root b", key=key, extensions={"ski": None})
    bundles = {"a.test": [ROOT_A], "b.test": [ROOT_B], "c.test": [namesake]}
    source = FixedSource(identity_of([OWN], SELF, {name: bundles[name] for name in names}))
    guard = admit(source, [leaf(ROOT_B, "spiffe://b.test/x")]).guard
    assert guard is not None
    assert guard.peer.spiffe_id == "spiffe://b.test/x"


def test_when_the_authority_of_our_own_svid_is_withdrawn_peers_of_it_are_refused_and_others_come_in() -> None:
    source = source_of()
    guard = admit(source, [PEER]).guard
    assert guard is not None
    assert source.current is not None
    successor = authority("successor of root a")
    bundles = {TrustDomain("a.test"): parse_bundle(TrustDomain("a.test"), successor.der)}
    source.current = with_bundles(2, source.current.svid, bundles)

    with pytest.raises(Denied) as denied:
        guard.check(NOW)
    assert denied.value.reason is Reason.UNTRUSTED_CHAIN
    assert refuse(source, plain(server=False, chain=[PEER])).refusal is Reason.UNTRUSTED_CHAIN
    ours, theirs = shake(tls.server_context(source), plain(server=False, chain=[leaf(successor, "spiffe://a.test/x")]))
    assert isinstance(ours, VerifyingSSLObject)
    assert ours.guard is not None
    assert theirs.getpeercert(binary_form=True) == OWN.der  # still presented: the peers decide if they trust it


def test_a_guard_follows_the_bundle_of_its_peer() -> None:
    source = source_of()
    guard = admit(source, [leaf(ROOT_B, "spiffe://b.test/x")]).guard
    assert guard is not None
    source.current = identity_of([OWN], SELF, {"a.test": [ROOT_A], "b.test": [authority("next b"), ROOT_B]})
    assert guard.check(NOW).spiffe_id == "spiffe://b.test/x"
    source.current = identity_of([OWN], SELF, {"a.test": [ROOT_A], "b.test": [authority("next b")]})
    with pytest.raises(Denied) as changed:
        guard.check(NOW)
    assert changed.value.reason is Reason.UNTRUSTED_CHAIN
    source.current = identity_of([OWN], SELF, {"a.test": [ROOT_A]})
    with pytest.raises(Denied) as gone:
        guard.check(NOW)
    assert gone.value.reason is Reason.UNKNOWN_TRUST_DOMAIN


def test_an_error_says_the_reason_and_no_more_than_the_detail() -> None:
    error = HandshakeRefused(Reason.BAD_SVID, "two URIs")
    assert str(error) == "bad_svid: two URIs"
    assert str(HandshakeRefused(Reason.NO_CLIENT_CERT)) == "no_client_cert"


def test_an_unknown_extension_value_is_not_read() -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"not der")
    assert admit(source_of(), [leaf(ROOT_A, extensions={"odd": (odd, False)})]).guard is not None


def test_a_resumed_session_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerifyingSSLObject, "session_reused", property(lambda _: True))
    assert refuse(source_of(), plain(server=False, chain=[PEER])).refusal is Reason.UNTRUSTED_CHAIN


def test_a_client_that_refuses_us_is_no_refusal_of_ours() -> None:
    refusals = Refusals()
    server = tls.server_context(source_of(), on_refused=refusals)
    client = plain(server=False, chain=[PEER])
    client.verify_mode = ssl.CERT_REQUIRED  # and it trusts nobody
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs, ours = client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)
    for end in (theirs, ours):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError):
        theirs.do_handshake()
    with pytest.raises(ssl.SSLError) as told:
        ours.do_handshake()
    assert not isinstance(told.value, HandshakeRefused)
    assert refusals.seen == []


@pytest.mark.parametrize("number", [10, 400], ids=["eleven certificates", "more than OpenSSL reads"])
def test_a_client_with_too_long_a_chain_is_refused(number: int) -> None:
    client = plain(server=False, chain=[PEER, *[ROOT_B] * number])
    assert refuse(source_of(), client).refusal is Reason.UNTRUSTED_CHAIN


def _openssl_error(reason: str, library: str = "SSL") -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason, error.library = reason, library
    return error


@pytest.mark.parametrize(
    ("reason", "library", "code"),
    [
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "SSL", Reason.NO_CLIENT_CERT),
        ("BAD_SIGNATURE", "SSL", Reason.BAD_SVID),  # the peer does not hold the key; no honest library sends one
        ("WRONG_SIGNATURE_TYPE", "SSL", Reason.BAD_SVID),
        ("EXCESSIVE_MESSAGE_SIZE", "SSL", Reason.UNTRUSTED_CHAIN),
        ("NESTED_ASN1_ERROR", "ASN1", Reason.BAD_SVID),
        ("UNSUPPORTED_PROTOCOL", "SSL", Reason.TLS_VERSION),
        ("NO_SHARED_CIPHER", "SSL", Reason.TLS_VERSION),
        ("", "", Reason.TLS_VERSION),
    ],
)
def test_openssls_reasons_have_codes(reason: str, library: str, code: Reason) -> None:
    assert handshake.reason_of(_openssl_error(reason, library)) is code
