"""A control endpoint: a URL, the identity of its other end, and one bounded HTTP call to it.

Key sets are fetched this way, never a request of a peer; token exchanges use ``exchange/channel.py``. Only the settings
choose a URL: no redirect is followed, no proxy is taken from the environment, no cookie is kept. Each call has its own
connection. That costs a handshake every few minutes, and has three advantages: a late or second answer can never reach
the next caller, each call proves both ends again (after a rotation too), and a failure before the answer is a failure
of this call alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
from yarl import URL

from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Denied, Reason
from sidecar.identity.file_trust import FileTrust
from sidecar.identity.handshake import HandshakeRefused
from sidecar.identity.source import IdentitySource
from sidecar.identity.tls import client_context

# aiohttp would trust the system's authorities where a call names none, and holds them all (2.3 MiB). Our calls name
# theirs; one that does not shall trust nobody.
aiohttp.connector._SSL_CONTEXT_VERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "delegation-sidecar"}
_READ_BYTES: Final = 16384


class Trouble(StrEnum):
    """A reason why a call to an endpoint got no answer."""

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
    """A URL and the identity that answers: the SPIFFE ID ``peer``, a host certified by ``ca_file``, or (http) loopback.

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
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError("url: plain http is for loopback only; use https")

    @property
    def address(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return address_of(self.url)

    @property
    def authority(self) -> bytes:
        """The Host field of a request (RFC 9112 section 3.2)."""
        parts = split_url(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return (f"{host}" if parts.port is None else f"{host}:{parts.port}").encode("ascii")

    @property
    def target(self) -> bytes:
        """The request target: path and query."""
        parts = split_url(self.url)
        return f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}".encode("ascii")


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """A complete answer of any status. A repeated single-valued header is None, like an absent one."""

    status: int
    content_type: str | None
    cache_control: str | None
    body: bytes
    etag: str | None = None


def address_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL. Raises as ``split_url``."""
    parts = split_url(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def split_url(url: str) -> SplitResult:
    """Take an absolute http or https URL apart.

    Raises:
        ValueError: anything else, and what could hide another host or a secret: user info, fragment, unusual
        characters.
    """
    if not url.isascii() or any(character <= " " or character in '\\"<>\x7f' for character in url):
        raise ValueError("url: it holds characters a URL cannot have; encode them")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("url: it is not an absolute http or https URL; write https://host/path")
    if "@" in parts.netloc or "#" in url:
        raise ValueError("url: user info and fragments have no place here; remove them")
    return parts


def is_loopback(host: str) -> bool:
    """Tell if a host is this machine: ``localhost`` or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class EndpointClient:
    """Fetches from one endpoint, each time on a new connection."""

    def __init__(self, endpoint: Endpoint, source: IdentitySource, *, timeout_s: float, max_bytes: int) -> None:
        self._endpoint = endpoint
        self._source = source
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._url = URL(endpoint.url, encoded=True)
        self._pinned = client_context(source, expected=endpoint.peer) if endpoint.peer else None
        self._trust = FileTrust(endpoint.ca_file) if endpoint.ca_file else None
        self._session: aiohttp.ClientSession | None = None

    async def get(self, etag: str | None = None) -> EndpointAnswer:
        """Fetch the document, unless it still has this entity tag (status 304). Errors as ``post``."""
        return await self._ask("GET", None, {} if etag is None else {"If-None-Match": etag})

    async def post(self, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> EndpointAnswer:
        """Send a document, with more ``headers`` than its type.

        Raises:
            EndpointError: there is no complete answer within the size and the total deadline.
        """
        return await self._ask("POST", body, {**(headers or {}), "Content-Type": content_type})

    async def _ask(self, method: str, body: bytes | None, headers: Mapping[str, str]) -> EndpointAnswer:
        context = self._tls()
        session = self._open()
        answered = False
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                session.request(
                    method, self._url, data=body, headers=headers, ssl=context or True, allow_redirects=False
                ) as response,
            ):
                answered = True
                if "Content-Encoding" in response.headers:  # the body must be judged as it was sent
                    raise EndpointError(Trouble.ENCODED)
                return _answer(response, await self._read(response))
        except TimeoutError as error:
            raise EndpointError(Trouble.TIMEOUT) from error
        except aiohttp.ClientSSLError as error:
            raise _tls_error(error) from error
        except aiohttp.ClientResponseError as error:  # bytes arrived and were not HTTP
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
        if self._trust is None:
            return self._pinned
        try:
            return self._trust.context()
        except Denied as error:
            raise EndpointError(Trouble.IDENTITY, error.detail) from error

    def _open(self) -> aiohttp.ClientSession:
        """Return the session. It must be made inside the loop that uses it, so not before the first call."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the only deadline is ours
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
    content_type, cache_control, etag = (_single(response, name) for name in ("Content-Type", "Cache-Control", "ETag"))
    return EndpointAnswer(response.status, content_type, cache_control, body, etag)


def _single(response: aiohttp.ClientResponse, name: str) -> str | None:
    values = response.headers.getall(name, [])
    return values[0] if len(values) == 1 else None


def _tls_error(error: aiohttp.ClientSSLError) -> EndpointError:
    """Make the error with its cause: our identity can be lost between the first check and the handshake."""
    refused = error.__cause__
    if isinstance(refused, HandshakeRefused):
        if refused.refusal is Reason.NOT_READY:
            return EndpointError(Trouble.NOT_READY)
        return EndpointError(Trouble.IDENTITY, str(refused))
    message = refused.verify_message if isinstance(refused, ssl.SSLCertVerificationError) else ""
    return EndpointError(Trouble.IDENTITY, message)
