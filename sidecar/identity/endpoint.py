"""A control endpoint: a URL, who its other end must be, and one bounded HTTP call to it.

Key sets go this way, never a request of a peer; token exchanges have a way of their own (``exchange/channel.py``).
Nobody but the settings chooses a URL: no redirect is followed, no proxy is taken from the environment, no cookie is
kept. Each call has its own connection. That costs a handshake every few minutes, and buys three things: an answer that
comes late or twice can never be taken for the next caller's, each call proves both ends anew (after a rotation too),
and a failure before the answer is a failure of this call alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
from yarl import URL

from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Reason
from sidecar.identity.handshake import HandshakeRefused
from sidecar.identity.source import IdentitySource
from sidecar.identity.ssl_object import ScreenedContext, ScreenedSSLObject
from sidecar.identity.tls import client_context

_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "delegation-sidecar"}
_READ_BYTES: Final = 16384
# Of TLS 1.2. Without DHE: a server chooses its group freely, and a large one keeps its client busy for a second.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class Trouble(StrEnum):
    """Why a call to an endpoint gave no answer."""

    NOT_READY = "this workload has no identity"
    IDENTITY = "the other end did not prove the expected identity"
    UNREACHABLE = "the connection failed"
    TIMEOUT = "no complete answer in time"
    BROKEN = "the answer is not whole, valid HTTP"
    ENCODED = "the answer's content is encoded, though identity was asked for"
    TOO_LARGE = "the answer is too large"


class EndpointError(Exception):
    """There is no answer. The text is ours, with ``detail`` for the record: nothing that an answer says is quoted.

    ``may_retry``: the connection failed before one byte of an answer came.
    """

    def __init__(self, trouble: Trouble, detail: str = "", *, may_retry: bool = False) -> None:
        super().__init__(f"{trouble.value}: {detail}" if detail else trouble.value)
        self.trouble = trouble
        self.may_retry = may_retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL and who answers there: the SPIFFE ID ``peer``, a host certified by ``ca_file``, or (http) loopback.

    Raises:
        ValueError: the URL is unusable, or does not say who its other end must be. The text names field and cure.
    """

    url: str
    peer: SpiffeId | None = None
    ca_file: str | None = None

    def __post_init__(self) -> None:
        parts = split_url(self.url)
        if self.peer and self.ca_file:
            raise ValueError("tls: both peer and ca are set; keep the one that says who answers")
        proven = bool(self.peer or self.ca_file)
        if parts.scheme == "https" and not proven:
            raise ValueError("tls: nobody is named; set peer (a SPIFFE ID) or ca (a file)")
        if parts.scheme == "http" and proven:
            raise ValueError("tls: plain http proves nobody; use https")
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise ValueError("url: plain http is for loopback only; use https")


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """A whole answer of any status. Single-valued headers that came twice are None, like absent ones."""

    status: int
    content_type: str | None
    cache_control: str | None
    body: bytes


def split_url(url: str) -> SplitResult:
    """Take an absolute http or https URL apart.

    Raises:
        ValueError: anything else, and what could hide another host or a secret: user info, fragment, odd characters.
    """
    if not url.isascii() or any(character <= " " or character in '\\"<>\x7f' for character in url):
        raise ValueError("url: it holds characters a URL cannot have; encode them")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("url: it is no absolute http or https URL; write https://host/path")
    if "@" in parts.netloc or "#" in url:
        raise ValueError("url: user info and fragments have no place here; remove them")
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class EndpointClient:
    """Fetches from one endpoint, each time on a connection of its own."""

    def __init__(self, endpoint: Endpoint, source: IdentitySource, *, timeout_s: float, max_bytes: int) -> None:
        self._endpoint = endpoint
        self._source = source
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._url = URL(endpoint.url, encoded=True)
        self._pinned = client_context(source, expected=endpoint.peer) if endpoint.peer else None
        self._trust = FileTrust(endpoint.ca_file) if endpoint.ca_file else None
        self._session: aiohttp.ClientSession | None = None

    async def get(self) -> EndpointAnswer:
        """Fetch the document.

        Raises:
            EndpointError: there is no whole answer within the size and the total deadline.
        """
        context = self._tls()
        session = self._open()
        answered = False
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                session.get(self._url, ssl=context or True, allow_redirects=False) as response,
            ):
                answered = True
                if "Content-Encoding" in response.headers:  # what is judged must be what was sent
                    raise EndpointError(Trouble.ENCODED)
                return _answer(response, await self._read(response))
        except TimeoutError as error:
            raise EndpointError(Trouble.TIMEOUT) from error
        except aiohttp.ClientSSLError as error:
            raise _tls_error(error) from error
        except aiohttp.ClientResponseError as error:  # bytes came, and were no HTTP
            raise EndpointError(Trouble.BROKEN) from error
        except (aiohttp.ClientError, OSError) as error:
            trouble = Trouble.BROKEN if answered else Trouble.UNREACHABLE
            raise EndpointError(trouble, may_retry=not answered) from error

    async def close(self) -> None:
        """End the calls in flight. The client may be used again."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _tls(self) -> ssl.SSLContext | None:
        if self._pinned is not None and self._source.current is None:
            raise EndpointError(Trouble.NOT_READY)
        return self._trust.context() if self._trust is not None else self._pinned

    def _open(self) -> aiohttp.ClientSession:
        """The session. It must be made inside the loop that uses it, hence not before the first call."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # one deadline is enough: ours
                trust_env=False,
                auto_decompress=False,
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(_READ_BYTES):
            body += chunk
            if len(body) > self._max_bytes:
                raise EndpointError(Trouble.TOO_LARGE)
        return bytes(body)


def _answer(response: aiohttp.ClientResponse, body: bytes) -> EndpointAnswer:
    return EndpointAnswer(response.status, _single(response, "Content-Type"), _single(response, "Cache-Control"), body)


def _single(response: aiohttp.ClientResponse, name: str) -> str | None:
    values = response.headers.getall(name, [])
    return values[0] if len(values) == 1 else None


def _tls_error(error: aiohttp.ClientSSLError) -> EndpointError:
    """The error with its cause: our identity can be lost between the first look and the handshake."""
    refused = error.__cause__
    if isinstance(refused, HandshakeRefused):
        if refused.refusal is Reason.NOT_READY:
            return EndpointError(Trouble.NOT_READY)
        return EndpointError(Trouble.IDENTITY, str(refused))
    message = refused.verify_message if isinstance(refused, ssl.SSLCertVerificationError) else ""
    return EndpointError(Trouble.IDENTITY, message)


class FileTrust:
    """Trusts the hosts certified by the CAs of one file, which is read again when it changes."""

    def __init__(self, ca_file: str) -> None:
        self._ca_file = ca_file
        self._seen: tuple[int, int, int] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The context for a connection that is opened now: the same one until the file changes.

        Raises:
            EndpointError: IDENTITY, the file cannot be used.
        """
        try:
            facts = Path(self._ca_file).stat()
            seen = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if self._context is None or seen != self._seen:
                self._context = self._load()
                self._seen = seen
        except OSError as error:  # ssl.SSLError is one
            why = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or type(error).__name__
            raise EndpointError(Trouble.IDENTITY, f"the CA file cannot be used ({why})") from error
        return self._context

    def _load(self) -> ssl.SSLContext:
        # No create_default_context: it would add the system's CAs and read SSLKEYLOGFILE.
        context = ScreenedContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
        context.sslobject_class = ScreenedSSLObject
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # its certificates would come after the screen is gone
        context.set_ciphers(_CIPHERS)
        context.screen_certificates()
        context.load_verify_locations(cafile=self._ca_file)
        return context
