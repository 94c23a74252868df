"""TLS connections whose peer's certificates are bounded before OpenSSL parses them.

The event loop writes received bytes into the connection's incoming buffer; OpenSSL reads from a second buffer. Between
the two, all bytes pass through a ``RecordGate``, and those of the handshake through a ``Screen`` as well.
"""

from __future__ import annotations

import ssl
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.identity.bounds import check_chain
from sidecar.identity.certificate_screen import Screen
from sidecar.identity.record_gate import RecordGate, TooManyRecordsError
from sidecar.identity.records import Opener
from sidecar.identity.secrets_log import SecretsLog

# SSL_OP_NO_RX_CERTIFICATE_COMPRESSION of OpenSSL 3.2, unnamed in ``ssl``: compressed certificates are unbounded.
_NO_COMPRESSED_CERTIFICATES: Final = 1 << 33

# Most data of one record (RFC 8446 section 5.1), and so of one read. Event loops ask for 256 KiB: the C library would
# map and unmap as much for each read, which costs about 2 us.
_MOST_DATA: Final = 16 * 1024


class HandshakeRefused(ssl.SSLCertVerificationError):
    """Our refusal of a peer. On the client side: the server did not prove the expected identity."""

    def __init__(self, refusal: Reason, detail: str = "") -> None:
        text = f"{refusal}: {detail}" if detail else str(refusal)
        super().__init__(1, text)
        self.refusal = refusal
        self.detail = detail

    def __str__(self) -> str:
        return str(self.args[1])


class ScreenedSSLObject(ssl.SSLObject):
    """An SSL object of a ``ScreenedContext``. If another context made it, it refuses every peer."""

    _sslobj: Any  # the base class's own: on the warm path its methods cost a call each, and ``super()`` another
    _incoming: ssl.MemoryBIO
    _released: ssl.MemoryBIO
    _gate: RecordGate
    _secrets: SecretsLog | None = None
    _screen: Screen | None = None  # during the handshake: it holds a kilobyte
    _presented: tuple[bytes, ...] = ()

    def screen(self, incoming: ssl.MemoryBIO, released: ssl.MemoryBIO, secrets: SecretsLog | None) -> None:
        """Screen the bytes in ``incoming`` on their way to ``released``, which OpenSSL reads.

        Without ``secrets`` no certificates are requested.
        """
        self._incoming = incoming
        self._released = released
        self._gate = RecordGate()
        self._secrets = secrets
        self._screen = Screen(None if secrets is None else _checked_by(weakref.ref(self)))

    def check_certificates(self, certificates: tuple[bytes, ...]) -> None:
        """Check the presented certificates (DER, leaf first) before OpenSSL parses them.

        Raises:
            Denied: they are beyond a limit.
        """
        check_chain(certificates)

    @property
    def presented(self) -> tuple[bytes, ...]:
        """The checked certificates, DER, leaf first."""
        return self._presented if self._screen is None else self._screen.certificates

    def keep_presented(self, same: tuple[bytes, ...]) -> None:
        """Replace the stored certificates by equal bytes shared with other connections, to save memory."""
        if same == self._presented:
            self._presented = same

    def do_handshake(self) -> None:
        """Take the handshake one step further.

        Raises:
            HandshakeRefused: the peer's certificates are beyond a limit, it does not speak our TLS, or we lack a
                descriptor.
            ssl.SSLError: not over yet (SSLWantReadError), or refused by OpenSSL or the other end.
        """
        try:
            self.shake()
        except SidecarError as error:
            raise HandshakeRefused(error.reason, error.detail) from error

    def shake(self) -> None:
        """As ``do_handshake``.

        Raises:
            Denied: the peer's certificates are beyond a limit, or it does not speak our TLS.
            Unavailable: OVERLOADED, there is no descriptor for OpenSSL's key log.
            ssl.SSLError: as ``do_handshake``.
        """
        screen = self._screen
        if screen is None:
            raise Denied(Reason.NOT_READY, "the connection is not screened")
        received = self._incoming.read()
        if not received and not screen.heard and self._sslobj.server_side and not self._incoming.eof:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the client begins")  # OpenSSL could only wait as well
        while True:
            self._let_through(screen.take(received))
            received, blocked = b"", screen.wants_key
            try:
                self._step(screen)
            except ssl.SSLWantReadError:
                if not blocked:
                    if self._gate.held_bytes and (more := self._gate.more()):  # never bytes that were not screened
                        self._released.write(more)
                        continue
                    raise
                if screen.wants_key:
                    raise Denied(Reason.TLS_VERSION, "an encrypted record came too early") from None
            else:
                break
        if not screen.over and self._secrets is not None:
            raise Denied(Reason.UNTRUSTED_CHAIN, "the handshake ended without certificates")
        self._presented, self._screen = screen.certificates, None
        self._gate.establish()

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - the base class's signature
        """Read data as ``ssl.SSLObject.read`` does.

        Raises:
            TooManyRecordsError: the peer sends many records without data.
            ssl.SSLError: as the base class.
        """
        gate, released = self._gate, self._released
        if not (gate.busy or released.pending) and (received := self._incoming.read()):
            try:
                released.write(gate.take(received))
            except TooManyRecordsError as error:
                self.tell_refused(Reason.TLS_VERSION, error.reason)
                raise
            if not gate.busy:  # one record, as for most reads: they run no more code than this
                if buffer is None:  # its data is shorter than the record is: no larger buffer is allocated
                    size = received.__len__()
                    return self._sslobj.read(size if size < len else len)
                return self._sslobj.read(len, buffer)
        return self._read_more(len, buffer)

    def _read_more(self, len: int, buffer: Any) -> Any:  # noqa: A002 - as ``read``
        """Read like ``read``, for input other than a single new record."""
        gate = self._gate
        if buffer is None and len > _MOST_DATA:
            len = _MOST_DATA  # noqa: A001 - as above
        if not gate.busy:
            if self._incoming.eof:
                self._pass_eof()
            if not self._incoming.pending:
                return self._sslobj.read(len) if buffer is None else self._sslobj.read(len, buffer)
        while True:
            if not self._released.pending:
                self._guard(self._let_more_through)
            try:
                data: Any = self._sslobj.read(len) if buffer is None else self._sslobj.read(len, buffer)
            except ssl.SSLWantReadError:
                if not self._guard(self._let_more_through):
                    raise
            else:
                gate.count_data(data if isinstance(data, int) else data.__len__())
                return data

    def pending(self) -> int:
        """Return the number of bytes still to read, encrypted or not; event loops call it before another read."""
        gate = self._gate
        size: int = self._sslobj.pending() + self._released.pending
        return size + gate.held_bytes if gate.busy else size

    def unwrap(self) -> None:
        """Close the TLS connection as ``ssl.SSLObject.unwrap`` does. Errors as ``read``."""
        while True:
            try:
                super().unwrap()
            except ssl.SSLWantReadError:
                if not self._guard(self._let_more_through):
                    raise
            else:
                return

    def _guard(self, step: Callable[[], bool]) -> bool:
        """Take a step, and report the peer if the gate refuses it."""
        try:
            return step()
        except TooManyRecordsError as error:
            self.tell_refused(Reason.TLS_VERSION, error.reason)
            raise

    def tell_refused(self, reason: Reason, detail: str) -> None:
        """Report that the peer is refused after its handshake. The base class does nothing."""

    def _let_through(self, released: bytes) -> None:
        """Pass on bytes that the screen has released."""
        if released:
            self._released.write(self._gate.take(released))
        self._pass_eof()

    def _receive(self) -> bool:
        """Pass on received bytes. Returns True if OpenSSL has new bytes to read."""
        released = self._gate.take(self._incoming.read())
        self._released.write(released)
        self._pass_eof()
        return bool(released)

    def _let_more_through(self) -> bool:
        """Pass on the bytes that wait at the gate, then those received since. Returns as ``_receive``."""
        more = self._gate.more()
        if not more:
            return bool(self._incoming.pending or self._incoming.eof) and self._receive()
        self._released.write(more)
        return True

    def _pass_eof(self) -> None:
        if self._incoming.eof and not self._gate.held_bytes:
            self._released.write_eof()

    def _step(self, screen: Screen) -> None:
        """Run one step of OpenSSL, which may log the key of the records that the screen holds back."""
        secrets = self._secrets
        if secrets is None or screen.over or screen.keyed or not screen.heard:
            self._sslobj.do_handshake()
            return
        try:
            secrets.listen()
        except OSError as error:  # event loops expect TLS errors only, and would wait for the handshake's timeout
            raise Unavailable(Reason.OVERLOADED, "there is no descriptor for a handshake") from error
        try:
            self._sslobj.do_handshake()
        finally:
            secret, cipher = secrets.take(of_client=self.server_side), self.cipher()
            if secret is not None and cipher is not None:
                screen.open_with(Opener(cipher[0], secret))


def _checked_by(reference: weakref.ref[ScreenedSSLObject]) -> Callable[[tuple[bytes, ...]], None]:
    """Return the certificate check of a screen's connection; weakly referenced, so that no cycle arises."""

    def check(certificates: tuple[bytes, ...]) -> None:
        connection = reference()
        if connection is None:
            raise Denied(Reason.NOT_READY, "the connection is gone")
        connection.check_certificates(certificates)

    return check


class ScreenedContext(ssl.SSLContext):
    """SSL context for event loops that screens its connections. Call ``screen_certificates`` once, before the first."""

    _secrets: SecretsLog | None = None
    _offered: Sequence[str] = ()

    def offer(self, alpn: Sequence[str]) -> None:
        """Set the protocols that connections made from now on offer or choose from, unless they are set already."""
        if self._offered is not alpn:
            self.set_alpn_protocols(alpn)
            self._offered = alpn

    def screen_certificates(self) -> None:
        """Request and screen certificates of the peers."""
        self._secrets = SecretsLog(self)
        if ssl.OPENSSL_VERSION_INFO >= (3, 2):
            self.options |= _NO_COMPRESSED_CERTIFICATES

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the base class's signature
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ScreenedSSLObject:
        """Start a connection; see ``ssl.SSLContext.wrap_bio``."""
        released = ssl.MemoryBIO()
        connection = super().wrap_bio(released, outgoing, server_side, server_hostname, session)
        assert isinstance(connection, ScreenedSSLObject)  # noqa: S101 - for the type only
        connection.screen(incoming, released, self._secrets)
        return connection

    def wrap_socket(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Refuse blocking sockets: they would bypass the screen.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("only event loops use this context")
