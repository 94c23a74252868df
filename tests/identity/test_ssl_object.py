"""Real handshakes with the most expensive inputs. OpenSSL's input is counted: the bounds refuse first."""

from __future__ import annotations

import collections
import errno
import gc
import os
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity import tls
from sidecar.identity.file_trust import FileTrust
from sidecar.identity.generation import bare_context
from sidecar.identity.handshake import PEER_LEFT, HandshakeRefused
from sidecar.identity.record_gate import BATCH, MAX_WITHOUT_DATA, TooManyRecordsError
from sidecar.identity.records import Opener
from sidecar.identity.secrets_log import SecretsLog, file_of_thread
from sidecar.identity.ssl_object import ScreenedContext, ScreenedSSLObject
from sidecar.identity.svid import verify_chain
from tests.counting import MOST_AT_ONCE, bytecodes
from tests.identity.fixed_source import FixedSource
from tests.identity.hostile import (
    alternative_names,
    authority_with,
    extension,
    name_constraints,
    offer_group,
    own_curve_spki,
    presenting,
    rsa_spki,
    with_spki,
)
from tests.identity.sealing import Sealer
from tests.identity.shapes import NOW, Issued, authority, der_of, leaf, new_key
from tests.identity.test_handshake import PEER, admit, plain, shake, source_of
from tests.identity.test_svid import ROOT_A, ROOT_B

NAMES, CONSTRAINTS = "2.5.29.17", "2.5.29.30"
_FULL_EXPONENT = rsa_spki(3072, 2**3070 + 1)


class Given:
    """Counts the encrypted records that OpenSSL got before the handshake was over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.released = b""
        let_through = ScreenedSSLObject._let_through

        def record(connection: ScreenedSSLObject, released: bytes) -> None:
            self.released += released
            let_through(connection, released)

        monkeypatch.setattr(ScreenedSSLObject, "_let_through", record)

    @property
    def encrypted(self) -> int:
        """Number of encrypted records."""
        count = at = 0
        while at < len(self.released):
            count += self.released[at] == 23
            at += 5 + int.from_bytes(self.released[at + 3 : at + 5], "big")
        return count


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    return Given(monkeypatch)


def federated_chain(certificates: int, spki: bytes) -> list[bytes]:
    """Return a chain under a trusted authority, each key expensive to verify with."""
    above = [authority(f"dear {n}", ROOT_B, key=new_key("p256", "dear")) for n in range(certificates)]
    return [with_spki(spki, one) for one in above]


HOSTILE: dict[str, Callable[[], Sequence[bytes]]] = {
    "a curve of its own making": lambda: [PEER.der, authority_with(own_curve_spki())],
    "nine full exponents": lambda: [PEER.der, *[authority_with(_FULL_EXPONENT)] * 9],
    "nine full exponents, federated": lambda: [
        leaf(ROOT_B, "spiffe://b.test/x").der,
        *federated_chain(9, _FULL_EXPONENT),
    ],
    "RSA of 16384 bits": lambda: [PEER.der, *[authority_with(rsa_spki(16384))] * 5],
    "names times constraints": lambda: [
        PEER.der,
        authority("names", ROOT_A, extensions=extension(NAMES, alternative_names(250))).der,
        authority("constraints", ROOT_A, extensions=extension(CONSTRAINTS, name_constraints(30))).der,
    ],
    "two hundred certificates": lambda: [PEER.der, *[ROOT_B.der] * 200],
}


@cache
def hostile(case: str) -> tuple[bytes, ...]:
    return tuple(HOSTILE[case]())


@pytest.mark.parametrize("server", [False, True], ids=["from a client", "from a server"])
@pytest.mark.parametrize("case", HOSTILE)
def test_openssl_is_never_given_certificates_that_are_beyond_a_limit(given: Given, case: str, server: bool) -> None:
    other = presenting(hostile(case), server=server)
    client = tls.client_context(source_of(), expected=SpiffeId("spiffe://a.test/x"))
    ends = (other, client) if server else (tls.server_context(source_of()), other)
    with pytest.raises(HandshakeRefused) as refused:
        shake(*ends)
    assert refused.value.refusal is Reason.UNTRUSTED_CHAIN
    assert refused.value.detail
    # A server's certificates come after two harmless messages: EncryptedExtensions, CertificateRequest.
    assert given.encrypted <= (1 if server else 0)


def test_openssl_is_given_what_is_within_the_limits(given: Given) -> None:
    admit(source_of(), [PEER])
    assert given.encrypted == 3  # Certificate, CertificateVerify, Finished


@pytest.mark.parametrize("group", ["ffdhe2048", "ffdhe8192"])
def test_a_key_share_of_a_finite_field_is_refused_before_anything_is_computed(given: Given, group: str) -> None:
    client = plain(server=False, chain=[PEER])
    offer_group(client, group)
    with pytest.raises(HandshakeRefused, match="ffdhe") as refused:
        shake(tls.server_context(source_of()), client)
    assert refused.value.refusal is Reason.TLS_VERSION
    assert given.released == b""


@pytest.mark.parametrize("group", ["ffdhe2048", "ffdhe8192"])
def test_a_server_that_chooses_a_finite_field_is_refused_before_anything_is_computed(given: Given, group: str) -> None:
    server = plain(server=True, chain=[PEER])
    offer_group(server, group)
    with pytest.raises(HandshakeRefused, match="ffdhe"):
        shake(server, tls.client_context(source_of(), expected=SpiffeId("spiffe://a.test/x")))
    assert given.released == b""


@pytest.mark.parametrize("group", ["X25519", "prime256v1", "secp384r1", "secp521r1"])
def test_other_groups_are_agreed_on_after_a_retry_too(group: str) -> None:
    client = plain(server=False, chain=[PEER])
    offer_group(client, group)
    ours, _ = shake(tls.server_context(source_of()), client)
    assert isinstance(ours, ScreenedSSLObject)
    server = plain(server=True, chain=[PEER])
    offer_group(server, group)
    shake(server, tls.client_context(source_of(), expected=SpiffeId("spiffe://a.test/x")))


def test_after_openssls_refusal_no_path_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bundles hold authorities with the name and key identifier of the issuer of a stranger's chain."""
    key = new_key("p256", "one CA name")
    names = [authority("one CA name", key=new_key("p256", f"one CA name {n}")) for n in range(3)]
    stranger = authority("one CA name", key=key)
    middles = [authority("middle", stranger, key=key) for _ in range(9)]
    source = source_of(names, federated=names)
    monkeypatch.setattr("sidecar.identity.bundle._verify", lambda *_: pytest.fail("a path was verified"))
    with pytest.raises(HandshakeRefused) as refused:
        shake(tls.server_context(source), plain(server=False, chain=[leaf(middles[0]), *middles]))
    assert refused.value.refusal is Reason.UNTRUSTED_CHAIN


# A chain may be within every limit and still long: this is the maximum for interpreted code.


def handshake_with(chain: Sequence[Issued], source: FixedSource) -> int:
    server, client = tls.server_context(source), plain(server=False, chain=chain)
    return bytecodes(lambda: shake(server, client), ssl.SSLError)


def test_a_handshake_of_the_largest_lawful_chain_takes_few_steps() -> None:
    more: dict[str, Any] = extension(NAMES, alternative_names(25))
    middles = [authority(f"long {n}", ROOT_A, extensions=more) for n in range(9)]
    assert handshake_with([PEER, *middles], source_of()) < MOST_AT_ONCE


def test_a_certificate_that_has_proven_its_peer_is_not_walked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server = tls.server_context(source_of())
    shake(server, plain(server=False, chain=[PEER]))
    monkeypatch.setattr("sidecar.identity.ssl_object.check_chain", lambda _: pytest.fail("walked again"))
    assert bytecodes(lambda: shake(server, plain(server=False, chain=[PEER]))) < MOST_AT_ONCE / 50
    with pytest.raises(pytest.fail.Exception):
        shake(server, plain(server=False, chain=[leaf(ROOT_A, "spiffe://a.test/y")]))


# The key log.


def test_a_handshake_leaves_nothing_in_the_key_log() -> None:
    ours = admit(source_of(), [PEER])
    assert os.fstat(file_of_thread().descriptor).st_size == 0
    assert not ours.context.keylog_filename
    assert "memfd:handshake" in str(Path(f"/proc/self/fd/{file_of_thread().descriptor}").readlink())


class Updating:
    """A proven peer that changes its key with every record, and the sidecar's end of the connection."""

    def __init__(self, server: ssl.SSLContext) -> None:
        client = plain(server=False, chain=[PEER])
        descriptor = os.memfd_create("client")
        client.keylog_filename = f"/proc/self/fd/{descriptor}"
        self.incoming = ssl.MemoryBIO()
        self.ours, theirs = shake(server, client, incoming=self.incoming, outgoing=ssl.MemoryBIO())
        told = os.pread(descriptor, 65536, 0).decode()
        os.close(descriptor)
        cipher = theirs.cipher()
        assert cipher is not None
        self._suite = cipher[0]
        self._sealer = self._keyed(bytes.fromhex(told.partition("CLIENT_TRAFFIC_SECRET_0 ")[2].split()[1]))

    def _keyed(self, secret: bytes) -> Sealer:
        return Sealer(self._suite, secret)

    def updates(self, number: int) -> None:
        for _ in range(number):
            self.incoming.write(self._sealer.seal(22, b"\x18\0\0\1\0"))
            self._sealer = self._keyed(self._sealer.next_secret())

    def data(self, content: bytes) -> None:
        self.incoming.write(self._sealer.seal(23, content))


def test_key_updates_of_a_peer_are_not_told_and_keep_no_other_peer_out() -> None:
    """OpenSSL logs the secrets of each: unread they would fill the memory, and hide the next handshake's."""
    server = tls.server_context(source_of())
    peer = Updating(server)
    for _ in range(5):
        peer.updates(20)
        peer.data(b"hello")
        assert peer.ours.read(5) == b"hello"
    assert os.fstat(file_of_thread().descriptor).st_size == 0
    shake(server, plain(server=False, chain=[PEER]))


@pytest.mark.parametrize("between", [0, 31], ids=["alone", "with data between"])
def test_a_flood_of_key_updates_is_cut_after_a_few_and_told(between: int) -> None:
    told: list[tuple[Reason, str, str | None]] = []
    peer = Updating(tls.server_context(source_of(), on_refused=lambda *refusal: told.append(refusal)))
    for _ in range(200):
        peer.updates(between or 100)
        if between:
            peer.data(b"x")
    given = Counted(peer.ours)
    with pytest.raises(TooManyRecordsError):
        collections.deque(iter(lambda: peer.ours.read(65536), b""), maxlen=0)
    assert given.records <= MAX_WITHOUT_DATA + 3 * BATCH
    assert told == [(Reason.TLS_VERSION, "many records without data", None)]


def test_a_flood_of_key_updates_is_cut_and_told_while_the_connection_is_closed() -> None:
    told: list[tuple[Reason, str, str | None]] = []
    peer = Updating(tls.server_context(source_of(), on_refused=lambda *refusal: told.append(refusal)))
    peer.updates(2000)
    with pytest.raises(TooManyRecordsError):
        peer.ours.unwrap()
    assert [reason for reason, _, _ in told] == [Reason.TLS_VERSION]


def in_tiny_records(flight: bytes, suite: str, secret: bytes) -> bytes:
    """Return the same flight with everything after the certificate in records of one byte."""
    opener, sealer = Opener(suite, secret), Sealer(suite, secret)
    clear = messages = b""
    for record in records_of(flight):
        if record[0] == 23:
            messages += opener.open(record)[1]
        else:
            clear += record
    end = 4 + int.from_bytes(messages[1:4], "big")
    sealed = [sealer.seal(22, messages[:end])]
    rest = b"\x0f" + (3000).to_bytes(3, "big") + bytes(3000)
    return clear + b"".join([*sealed, *(sealer.seal(22, bytes([byte])) for byte in rest)])


def records_of(sent: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(sent):
        end = at + 5 + int.from_bytes(sent[at + 3 : at + 5], "big")
        yield sent[at:end]
        at = end


def test_a_flood_of_records_within_the_handshake_is_cut_and_told() -> None:
    """After the certificates nothing is screened, and their presenter need not hold their key."""
    told: list[tuple[Reason, str, str | None]] = []
    context = tls.server_context(source_of(), on_refused=lambda *refusal: told.append(refusal))
    client = plain(server=False, chain=[PEER])
    descriptor = os.memfd_create("client")
    client.keylog_filename = f"/proc/self/fd/{descriptor}"
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = context.wrap_bio(to_server, to_client, server_side=True), client.wrap_bio(to_client, to_server)
    for end in (theirs, ours):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
    theirs.do_handshake()
    logged = os.pread(descriptor, 65536, 0).decode()
    os.close(descriptor)
    cipher = theirs.cipher()
    assert cipher is not None
    secret = bytes.fromhex(logged.partition("CLIENT_HANDSHAKE_TRAFFIC_SECRET ")[2].split()[1])
    to_server.write(in_tiny_records(to_server.read(), cipher[0], secret))
    with pytest.raises(HandshakeRefused) as refused:
        ours.do_handshake()
    assert refused.value.refusal is Reason.TLS_VERSION
    assert told == [(Reason.TLS_VERSION, "many records without data", None)]


TICKET: Final = b"\0\0\x1c\x20" + b"\0\0\0\1" + b"\1\0" + b"\0\1x" + b"\0\0"  # a day, no nonce, one byte


@pytest.mark.parametrize(("records", "tickets", "cut"), [(16, 800, True), (2, 1, False)])
def test_tickets_that_share_a_record_are_counted_by_their_bytes(records: int, tickets: int, cut: bool) -> None:
    context = plain(server=True, chain=[PEER])
    descriptor = os.memfd_create("server")
    context.keylog_filename = f"/proc/self/fd/{descriptor}"
    incoming = ssl.MemoryBIO()
    ours = tls.client_context(source_of(), expected=SpiffeId("spiffe://a.test/x"))
    server, client = shake(context, ours, incoming=ssl.MemoryBIO(), outgoing=incoming)
    logged = os.pread(descriptor, 65536, 0).decode()
    os.close(descriptor)
    cipher = server.cipher()
    assert cipher is not None
    with pytest.raises(ssl.SSLWantReadError):
        client.read(100)
    sealer = Sealer(cipher[0], bytes.fromhex(logged.partition("SERVER_TRAFFIC_SECRET_0 ")[2].split()[1]))
    sealer.skip(2)  # OpenSSL's server sends two at once
    given = Counted(client)
    for _ in range(records):
        incoming.write(sealer.seal(22, (b"\4" + len(TICKET).to_bytes(3, "big") + TICKET) * tickets))
    with pytest.raises(TooManyRecordsError if cut else ssl.SSLWantReadError):
        client.read(65536)
    assert given.records == 2


def test_many_small_records_of_data_are_all_read_and_counted_as_pending() -> None:
    """Event loops read on only while something is pending."""
    peer = Updating(tls.server_context(source_of()))
    for number in range(3000):
        peer.data(b"%40d" % number)
    peer.updates(60)
    received = b""
    while peer.incoming.pending or peer.ours.pending():
        try:
            received += peer.ours.read(65536)
        except ssl.SSLWantReadError:
            break
    assert received == b"".join(b"%40d" % number for number in range(3000))
    assert not peer.ours.pending()


@pytest.mark.parametrize(("wanted", "asked"), [(256 * 1024, 16 * 1024), (16 * 1024, 16 * 1024), (100, 100)])
def test_a_read_asks_for_one_record_at_most_and_loses_nothing(wanted: int, asked: int) -> None:
    """Event loops ask for 256 KiB, and OpenSSL's answer is made in as much memory."""
    peer = Updating(tls.server_context(source_of()))
    whole = bytes(range(256)) * 64
    peer.data(whole)
    peer.data(b"end")
    openssl = peer.ours._sslobj  # type: ignore[attr-defined]
    sizes: list[int] = []

    def read(size: int) -> bytes:
        sizes.append(size)
        data: bytes = openssl.read(size)
        return data

    peer.ours._sslobj = SimpleNamespace(read=read, pending=openssl.pending)  # type: ignore[attr-defined]
    received = peer.ours.read(wanted)
    assert (sizes, len(received)) == ([asked], asked)
    while peer.ours.pending():
        received += peer.ours.read(wanted)
    assert received == whole + b"end"
    assert set(sizes) == {asked}


class Counted:
    """Counts the records that OpenSSL receives from now on, all within one window."""

    def __init__(self, connection: ssl.SSLObject) -> None:
        assert isinstance(connection, ScreenedSSLObject)
        self._gate = connection._gate
        since = self._gate._since
        self._gate._clock = lambda: since  # a busy machine takes longer than a window
        self.records = 0
        connection._gate = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gate, name)

    def take(self, received: bytes) -> bytes:
        return self._count(self._gate.take(received))

    def more(self) -> bytes:
        return self._count(self._gate.more())

    def _count(self, released: bytes) -> bytes:
        at = 0
        while at < len(released):
            at += 5 + int.from_bytes(released[at + 3 : at + 5], "big")
            self.records += 1
        return released


def test_a_secret_is_taken_once_and_only_if_it_is_the_only_one() -> None:
    context = bare_context(ssl.PROTOCOL_TLS_SERVER, ScreenedContext)
    log = SecretsLog(context)
    assert log.take(of_client=True) is None
    log.listen()
    assert context.keylog_filename
    line = b"CLIENT_HANDSHAKE_TRAFFIC_SECRET 00 0102\n"
    os.pwrite(file_of_thread().descriptor, b"# comment\nSERVER_HANDSHAKE_TRAFFIC_SECRET 00 0304\n" + line, 0)
    assert log.take(of_client=True) == b"\1\2"
    assert not context.keylog_filename
    assert log.take(of_client=True) is None
    os.pwrite(file_of_thread().descriptor, line + line, 0)
    assert log.take(of_client=True) is None


def test_each_thread_has_a_file_of_its_own_that_ends_with_it() -> None:
    seen: list[tuple[int, weakref.ref[object]]] = []
    own = file_of_thread().descriptor
    thread = threading.Thread(target=lambda: seen.append((file_of_thread().descriptor, weakref.ref(file_of_thread()))))
    thread.start()
    thread.join()
    descriptor, file = seen[0]
    assert descriptor != own
    assert file() is None


def test_a_child_never_writes_into_its_parents_file(monkeypatch: pytest.MonkeyPatch) -> None:
    before = file_of_thread()
    assert file_of_thread() is before
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert file_of_thread() is not before


def test_a_connection_keeps_no_screen_after_its_handshake_and_begins_no_other() -> None:
    ours = admit(source_of(), [PEER])
    assert ours._screen is None
    assert ours.presented == (PEER.der,)
    with pytest.raises(HandshakeRefused, match="not screened"):
        ScreenedSSLObject.do_handshake(ours)


def test_a_connection_keeps_its_peers_certificates_once() -> None:
    ours = admit(source_of(), [PEER])
    assert ours.guard is not None
    assert ours.guard.chain is ours.presented


def test_a_connection_leaves_no_circle() -> None:
    ours = admit(source_of(), [PEER])
    gone = weakref.ref(ours)
    gc.disable()
    try:
        del ours
        assert gone() is None
    finally:
        gc.enable()


def test_a_connection_that_is_not_screened_refuses() -> None:
    bare = bare_context(ssl.PROTOCOL_TLS_SERVER)
    bare.sslobject_class = ScreenedSSLObject
    with pytest.raises(HandshakeRefused) as refused:
        bare.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True).do_handshake()
    assert refused.value.refusal is Reason.NOT_READY


def test_compressed_certificates_are_not_offered() -> None:
    source = source_of()
    assert source.current is not None
    offered = not source.current.server_context.options & (1 << 33)
    assert offered is (ssl.OPENSSL_VERSION_INFO < (3, 2))


def test_without_a_descriptor_for_the_key_log_a_handshake_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event loops do not expect an OSError from TLS, and a client would wait for the handshake's timeout."""
    refused: list[Reason] = []
    server = tls.server_context(source_of(), on_refused=lambda reason, *_: refused.append(reason))
    client = tls.client_context(source_of(), expected=SpiffeId("spiffe://a.test/x"))
    for context in (server, client):  # the step of each end in which it receives the other's hello
        serves = context is server
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            (plain(server=False, chain=[PEER]) if serves else client).wrap_bio(to_client, to_server),
            (server if serves else plain(server=True, chain=[PEER])).wrap_bio(to_server, to_client, server_side=True),
        ]
        for end in ends if not serves else ends[:1]:
            with pytest.raises(ssl.SSLWantReadError):
                end.do_handshake()
        with monkeypatch.context() as limited:
            limited.setattr("sidecar.identity.secrets_log.file_of_thread", _no_descriptor)
            with pytest.raises(HandshakeRefused) as error:
                ends[serves].do_handshake()
        assert error.value.refusal is Reason.OVERLOADED
    assert refused == [Reason.OVERLOADED]
    shake(server, plain(server=False, chain=[PEER]))  # with a descriptor it is accepted


def test_before_a_hello_there_is_no_key_to_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file would be opened for nothing, and a server has nothing to say before its client."""
    server = tls.server_context(source_of()).wrap_bio(incoming := ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    client = tls.client_context(source_of(), expected=SpiffeId("spiffe://a.test/x"))
    theirs = client.wrap_bio(ssl.MemoryBIO(), to_server := ssl.MemoryBIO())
    with monkeypatch.context() as limited:
        limited.setattr("sidecar.identity.secrets_log.file_of_thread", _no_descriptor)
        for end in (server, theirs, server):
            with pytest.raises(ssl.SSLWantReadError):
                end.do_handshake()
        incoming.write(to_server.read())
        with pytest.raises(HandshakeRefused):
            server.do_handshake()


def test_a_peer_that_leaves_before_its_hello_is_not_waited_for() -> None:
    server = tls.server_context(source_of()).wrap_bio(incoming := ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    incoming.write_eof()
    with pytest.raises(PEER_LEFT):
        server.do_handshake()


def _no_descriptor() -> None:
    raise OSError(errno.EMFILE, "Too many open files")


# Hosts that a CA file certifies.


@pytest.fixture
def host_trust(tmp_path: Path) -> ssl.SSLContext:
    file = tmp_path / "ca.pem"
    file.write_text(ssl.DER_cert_to_PEM_cert(ROOT_A.der))
    context = FileTrust(str(file)).context()
    context.check_hostname = False
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_host_of_the_file_is_believed(host_trust: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    server = plain(server=True, chain=[PEER])
    server.maximum_version = version
    _, ours = shake(server, host_trust)
    assert ours.version() == version.name.replace("_", ".")
    assert isinstance(ours, ScreenedSSLObject)
    assert ours.presented == (PEER.der,)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hosts_certificates_are_bounded_as_well(
    host_trust: ssl.SSLContext, given: Given, version: ssl.TLSVersion, case: str
) -> None:
    server = presenting(hostile(case), server=True)
    server.maximum_version = version
    with pytest.raises(HandshakeRefused) as refused:
        shake(server, host_trust)
    assert refused.value.refusal is Reason.UNTRUSTED_CHAIN
    assert given.encrypted <= 1


def test_a_host_may_not_choose_the_group_of_tls_1_2_key_agreement(host_trust: ssl.SSLContext) -> None:
    assert not [cipher for cipher in host_trust.get_ciphers() if cipher["kea"] == "kx-dhe"]


def test_a_host_may_not_show_other_certificates_in_a_second_handshake(host_trust: ssl.SSLContext) -> None:
    """In TLS 1.2; the screen is gone by then."""
    assert host_trust.options & ssl.OP_NO_RENEGOTIATION


def test_the_limits_hold_without_a_handshake_too() -> None:
    """In an update from the Workload API, and for a peer that is judged again."""
    source = source_of()
    assert source.current is not None
    chain = (*der_of(PEER), authority_with(own_curve_spki()))
    with pytest.raises(Denied) as denied:
        verify_chain(chain, source.current.bundles, now=NOW)
    assert denied.value.reason is Reason.UNTRUSTED_CHAIN


def test_a_connection_is_freed_when_it_ends_without_a_collection() -> None:
    """Otherwise thousands of closed connections would hold memory until a collection, which an idle process does not
    run.
    """
    gc.collect()
    gc.disable()
    try:
        admitted = weakref.ref(admit(source_of(), [leaf(ROOT_A, "spiffe://a.test/y")]))
        assert admitted() is None
    finally:
        gc.enable()
