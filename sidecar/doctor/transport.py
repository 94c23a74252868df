"""Sends the requests: aiohttp with our limits. No redirect is followed, no proxy is taken from the environment.

The server is verified with the system's authorities, or with those of ``--ca``. A client certificate is presented
to its endpoints if the client authenticates by it.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from sidecar.doctor.case import Server
from sidecar.doctor.clients import Credential, TestClient, credential_of
from sidecar.doctor.messages import MAX_ANSWER_BYTES, Answer, Place, Request, read_answer

_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "delegation-sidecar"}
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
_CHUNK_BYTES: Final = 16_384
_LONGEST_RETRY_S: Final = 5.0
_NONCE: Final = "DPoP-Nonce"
_BUSY: Final = frozenset({429, 503})


class Transport:
    """Connections to one server. Use it as an asynchronous context manager. ``told`` is called with each request's
    outcome.
    """

    def __init__(
        self,
        server: Server,
        *,
        ca_file: str | None = None,
        timeout_s: float = 10.0,
        assertion_audience: str | None = None,
        told: Callable[[Request, Answer], None] = lambda _request, _answer: None,
    ) -> None:
        self.server = server
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._audience = assertion_audience
        self._told = told
        self._contexts: dict[tuple[str, str] | None, ssl.SSLContext] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Transport:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            trust_env=False,
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def __call__(self, request: Request) -> Answer:
        """Send a request. Repeats it up to twice, if the server demands a nonce or is busy."""
        nonce: str | None = None
        for last in (False, False, True):
            answer, fields = await self._send(request, nonce)
            if request.proof is not None and nonce is None and answer.error == "use_dpop_nonce" and _NONCE in fields:
                nonce = fields[_NONCE]
            elif answer.status in _BUSY and not last:
                await asyncio.sleep(_patience(fields.get("Retry-After")))
            else:
                break
        self._told(request, answer)
        return answer

    async def fetch(self, url: str) -> bytes | None:
        """Return the body of a 200; None for anything else."""
        status, body, _, _ = await self._ask("GET", url, None, {}, None)
        return body if status == 200 else None

    async def _send(self, request: Request, nonce: str | None) -> tuple[Answer, Mapping[str, str]]:
        url = self._url(request.place)
        credential = self._credential(request.client, request)
        form = [*request.pairs, *credential.parameters]
        fields = dict(credential.fields)
        if request.proof is not None:
            fields["DPoP"] = request.proof.proof(url=url, now=int(time.time()), name=secrets.token_hex(8), nonce=nonce)
        status, body, headers, trouble = await self._ask("POST", url, form, fields, credential.certificate)
        if status == 0:
            return Answer(trouble=trouble, at=time.time()), headers
        return read_answer(status, body, at=time.time()), headers

    def _credential(self, client: TestClient, request: Request) -> Credential:
        return credential_of(
            client,
            audience=self._audience or self.server.issuer or self.server.token,
            now=int(time.time()),
            name=secrets.token_hex(8),
            wrong=request.wrong,
            bare=request.bare,
        )

    def _url(self, place: Place) -> str:
        url = {
            Place.TOKEN: self.server.token,
            Place.INTROSPECTION: self.server.introspection,
            Place.REVOCATION: self.server.revocation,
        }[place]
        if url is None:
            raise ValueError(f"the server has no {place} endpoint")
        return url

    async def _ask(
        self,
        method: str,
        url: str,
        form: list[tuple[str, str]] | None,
        fields: Mapping[str, str],
        certificate: tuple[str, str] | None,
    ) -> tuple[int, bytes, Mapping[str, str], str]:
        """Return status, body, header fields and error text; status 0 means no answer."""
        if self._session is None:
            raise RuntimeError("the transport is not open")
        context = self._context(certificate) if url.startswith("https:") else True
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                data=None if form is None else urlencode(form).encode("ascii"),
                headers={**fields, **({} if form is None else _FORM)},
                ssl=context,
                allow_redirects=False,
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        return 0, b"", {}, "the answer is too large"
                return response.status, bytes(body), response.headers, ""
        except TimeoutError:
            return 0, b"", {}, f"none within {self._timeout_s:g} s"
        except aiohttp.ClientSSLError:
            return 0, b"", {}, "the server's certificate is not trusted: see --ca"
        except (aiohttp.ClientError, OSError):
            return 0, b"", {}, "the connection failed"

    def _context(self, certificate: tuple[str, str] | None) -> ssl.SSLContext:
        context = self._contexts.get(certificate)
        if context is None:
            # No create_default_context: it reads SSLKEYLOGFILE, and that log opens recorded secrets and tokens.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._ca_file is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(cafile=self._ca_file)
            if certificate is not None:
                context.load_cert_chain(*certificate)
            self._contexts[certificate] = context
        return context


def _patience(told: str | None) -> float:
    """Return the seconds to wait by a ``Retry-After`` field, at most 5; 1 if the field has no number."""
    return min(float(told), _LONGEST_RETRY_S) if told is not None and told.isascii() and told.isdigit() else 1.0
