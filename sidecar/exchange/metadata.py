"""Metadata of an authorization server (RFC 8414), from the identity that answers at its token endpoint.

The document names where a user logs in, and where an adapter asks. It decides nothing else: the issuer, its keys and
the token endpoint are settings.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.form import media_type
from delegation_core.strict_json import StrictJsonError, parse_object
from sidecar.identity.endpoint import EndpointAnswer, is_loopback, split_url

KEPT_S: Final = 3600.0
MAX_BYTES: Final = 262_144  # some list every algorithm they know
MAX_URL_CHARS: Final = 2048  # of an endpoint: each login waits with the one that its user is sent to
_WELL_KNOWN: Final = "/.well-known/oauth-authorization-server"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMetadata:
    """The members that are used. ``names_issuer``: answers of its authorization endpoint have ``iss`` (RFC 9207)."""

    endpoints: Mapping[str, str]
    names_issuer: bool

    def endpoint(self, member: str) -> str:
        """Return the URL in a member.

        Raises:
            Denied: STS_BAD_RESPONSE, there is none.
        """
        url = self.endpoints.get(member)
        if url is None:
            raise Denied(Reason.STS_BAD_RESPONSE, f"the issuer's metadata has no valid {member}")
        return url


def metadata_url(issuer: str) -> str:
    """Return the URL of an issuer's metadata: well-known path between host and path (RFC 8414 section 3.1)."""
    parts = urlsplit(issuer)
    return f"{parts.scheme}://{parts.netloc}{_WELL_KNOWN}{parts.path.rstrip('/')}"


def parse_metadata(body: bytes, *, issuer: str, pkce: bool = True) -> ServerMetadata:
    """Parse the metadata of ``issuer``. ``pkce``: require S256 in ``code_challenge_methods_supported``.

    Raises:
        Denied: STS_ISSUER, it is another's; STS_BAD_RESPONSE, it is no strict JSON, or its server has no PKCE by S256.
    """
    try:
        document = parse_object(body, max_bytes=MAX_BYTES)
    except StrictJsonError as error:
        raise Denied(Reason.STS_BAD_RESPONSE, f"the issuer's metadata: {error}") from error
    if document.get("issuer") != issuer:
        raise Denied(Reason.STS_ISSUER, "the metadata is another issuer's")
    methods = document.get("code_challenge_methods_supported")  # without it there is none (RFC 8414 section 2)
    if pkce and (not isinstance(methods, list) or "S256" not in methods):
        raise Denied(Reason.STS_BAD_RESPONSE, "the issuer's metadata: no PKCE by S256")
    endpoints = {
        member: url
        for member, url in document.items()
        if member.endswith("_endpoint") and isinstance(url, str) and len(url) <= MAX_URL_CHARS and is_web_url(url)
    }
    return ServerMetadata(
        endpoints=endpoints, names_issuer=document.get("authorization_response_iss_parameter_supported") is True
    )


def is_web_url(url: str) -> bool:
    """True if a URL is https, or http on loopback, without the parts that ``split_url`` refuses."""
    try:
        parts = split_url(url)
    except ValueError:
        return False
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


class Fetcher(Protocol):
    """Fetches a document (`StsChannel` is the real one)."""

    async def get(self, etag: str | None) -> EndpointAnswer:
        """Return the answer, whatever its status. Raises SidecarError."""

    async def close(self) -> None:
        """Close its connections."""


class MetadataSource:
    """One issuer's metadata: fetched on demand, once for concurrent callers, and cached for an hour.

    Metadata without all ``needed`` members is not cached, so that a correction takes effect at once.
    """

    def __init__(
        self,
        issuer: str,
        fetcher: Fetcher,
        *,
        needed: Iterable[str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._needed = tuple(needed)
        self._fetcher = fetcher
        self._monotonic = monotonic
        self._asking = asyncio.Lock()
        self._kept: tuple[float, ServerMetadata] | None = None

    async def get(self) -> ServerMetadata:
        """Return the metadata.

        Raises:
            SidecarError: as ``parse_metadata``; STS_REDIRECT; STS_UNAVAILABLE, and any reason for a call without a
                whole answer.
        """
        async with self._asking:
            if self._kept is not None and self._monotonic() < self._kept[0]:
                return self._kept[1]
            answer = await self._fetcher.get(None)
            if 300 <= answer.status < 400:
                raise Denied(Reason.STS_REDIRECT, "the issuer's metadata")
            if answer.status != 200:
                raise Unavailable(Reason.STS_UNAVAILABLE, f"the issuer's metadata: status {answer.status}")
            if media_type(answer.content_type) != "application/json":
                raise Denied(Reason.STS_BAD_RESPONSE, "the issuer's metadata: the media type is not JSON")
            pkce = "authorization_endpoint" in self._needed
            found = parse_metadata(answer.body, issuer=self._issuer, pkce=pkce)
            for member in self._needed:
                found.endpoint(member)
            self._kept = (self._monotonic() + KEPT_S, found)
            return found

    async def close(self) -> None:
        """End the call in flight."""
        await self._fetcher.close()
