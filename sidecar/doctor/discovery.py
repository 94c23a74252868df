"""The server's metadata (RFC 8414, OpenID Connect Discovery) and its keys.

Metadata is fetched and checked, and its endpoints are printed, before the first request to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

from delegation_core.keyset import KeySet, KeySetError, parse_jwks
from delegation_core.strict_json import StrictJsonError, parse_object
from sidecar.doctor.case import Server
from sidecar.identity.endpoint import Endpoint, split_url

MAX_METADATA_BYTES: Final = 262_144

_PORTS: Final = {"http": 80, "https": 443}


class DiscoveryError(Exception):
    """There is no usable metadata. The message has the error and the fix."""


class Fetch(Protocol):
    """Fetches a document."""

    async def __call__(self, url: str, /) -> bytes | None:
        """Return the body of a 200; None for anything else."""


def usable(url: str, name: str) -> str:
    """Return ``url`` if secrets and tokens may be sent to it: https, or http on loopback.

    Raises:
        ValueError: any other URL. The message has the ``name`` and the fix.
    """
    try:
        if split_url(url).scheme == "http":
            Endpoint(url=url)
    except ValueError as error:
        raise ValueError(f"{name}: {str(error).removeprefix('url: ')}") from None
    return url


def places_of(issuer: str) -> tuple[str, ...]:
    """Return the possible URLs of an issuer's metadata: RFC 8414 section 3.1, and OpenID Connect Discovery."""
    parts, path = urlsplit(issuer), urlsplit(issuer).path.rstrip("/")
    origin = f"{parts.scheme}://{parts.netloc}"
    return tuple(
        dict.fromkeys(
            (
                f"{origin}/.well-known/oauth-authorization-server{path}",
                f"{origin}{path}/.well-known/openid-configuration",
                f"{origin}{path}/.well-known/oauth-authorization-server",
            )
        )
    )


async def discover(issuer: str, fetch: Fetch) -> Server:
    """Return the endpoints of an issuer.

    Raises:
        DiscoveryError: there is no metadata, or as ``server_of``.
    """
    for place in places_of(issuer):
        document = await fetch(place)
        if document is None:
            continue
        try:
            members = parse_object(document, max_bytes=MAX_METADATA_BYTES, max_depth=32)
        except StrictJsonError:
            continue
        return server_of(members, issuer)
    raise DiscoveryError(f"no metadata under {issuer}/.well-known/: check the issuer, or give --token-endpoint")


def server_of(members: Mapping[str, object], issuer: str) -> Server:
    """Return the endpoints of a metadata document. Only the origin of its token endpoint gets credentials and tokens.

    Raises:
        DiscoveryError: the metadata is another issuer's, has no token endpoint, or has an unusable URL. An https
            issuer's endpoints must be https, so that metadata cannot direct a request to a plain local server.
    """
    told = members.get("issuer")
    if not isinstance(told, str) or told.rstrip("/") != issuer.rstrip("/"):
        raise DiscoveryError("the metadata is of another issuer (RFC 8414 section 3.3): give its own URL")
    endpoints: dict[str, str | None] = {}
    for name, member in (
        ("token", "token_endpoint"),
        ("introspection", "introspection_endpoint"),
        ("revocation", "revocation_endpoint"),
        ("jwks", "jwks_uri"),
    ):
        value = members.get(member)
        try:
            endpoints[name] = usable(value, member) if isinstance(value, str) else None
        except ValueError as error:
            raise DiscoveryError(str(error)) from error
        if isinstance(value, str) and _origin(issuer)[0] == "https" and _origin(value)[0] != "https":
            raise DiscoveryError(f"{member}: plain http in an https issuer's metadata; give --token-endpoint instead")
    token = endpoints["token"]
    if token is None:
        raise DiscoveryError("the metadata names no token_endpoint: give --token-endpoint")
    elsewhere = tuple(
        (name, url)
        for name in ("introspection", "revocation")
        if (url := endpoints[name]) is not None and _origin(url) != _origin(token)
    )
    endpoints |= dict.fromkeys(name for name, _ in elsewhere)
    listed = members.get("scopes_supported")
    supported = tuple(one for one in listed if isinstance(one, str)) if isinstance(listed, list) else ()
    return Server(
        token=token,
        issuer=told,
        introspection=endpoints["introspection"],
        revocation=endpoints["revocation"],
        jwks=endpoints["jwks"],
        supported=supported,
        elsewhere=elsewhere,
    )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = split_url(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


async def keys_of(server: Server, fetch: Fetch) -> KeySet | None:
    """Return the issuer's keys; None if they cannot be read."""
    document = None if server.jwks is None else await fetch(server.jwks)
    try:
        return None if document is None else parse_jwks(document)
    except KeySetError:
        return None
