"""Endpoints of issuers and token services, and the TLS identity expected of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from delegation_core.errors import Problem
from delegation_core.spiffe_id import SpiffeId
from sidecar.config.exchange_model import ClientAuthSection, ExchangeEndpointSection, ExchangeSection
from sidecar.config.sections import PlatformIssuerSection, TlsSection
from sidecar.exchange.adapters.adapter import ClientAuth
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.identity.endpoint import Endpoint

if TYPE_CHECKING:
    from sidecar.config.sidecar_model import SidecarFile


def endpoint_of(url: str, tls: TlsSection | None) -> Endpoint:
    """Make an endpoint. Raises ValueError as ``Endpoint``."""
    return Endpoint(
        url=url,
        peer=SpiffeId(tls.peer) if tls is not None and tls.peer is not None else None,
        ca_file=tls.ca if tls is not None else None,
    )


def tls_of(section: ExchangeSection | ExchangeEndpointSection) -> TlsSection:
    """Return the TLS identity expected at an endpoint, from either of its two notations."""
    return section.tls if section.tls is not None else TlsSection(peer=section.peer)


def token_endpoint_of(issuer: str) -> str:
    """Return the default token endpoint of an issuer: ``token`` below the issuer's URL."""
    return f"{issuer.rstrip('/')}/token"


def token_endpoints_of(section: ExchangeSection | PlatformIssuerSection) -> tuple[str, ...]:
    """Return the URLs of an issuer's token endpoints, the preferred first."""
    return tuple(section.token_endpoints or (section.token_endpoint or token_endpoint_of(section.issuer),))


def token_endpoint_problems(section: ExchangeSection | PlatformIssuerSection, field: str) -> Iterator[Problem]:
    """Report ``token_endpoint`` and ``token_endpoints`` in one section."""
    if section.token_endpoints is not None and section.token_endpoint is not None:
        yield Problem(f"{field}.token_endpoint", "is set beside token_endpoints", "keep one of them")


def client_auth_of(section: ClientAuthSection, audience: str) -> ClientAuthSettings:
    """Make the authentication at one endpoint. Raises ValueError as ``ClientAuthSettings`` does."""
    return ClientAuthSettings(
        method=ClientAuth(section.client_auth),
        audience=section.assertion_audience or audience,
        client_id=section.client_id,
        credential_file=section.credential_file,
        key_id=section.key_id,
        allow_static=section.allow_static_credential,
    )


def static_problem(field: str, name: str) -> Problem:
    """Return the problem of a static credential that the platform file does not list for this name."""
    return Problem(
        f"{field}.client_auth",
        f"is a static credential, and the platform's static_client_auth does not list {name}",
        "write jwt-svid or x509-svid, or list it there",
    )


def mesh_names(file: SidecarFile) -> set[str]:
    """Return the audiences, without a trailing slash, for which a server of the mesh may accept our JWT-SVID."""
    names = set(file.inbound.audiences if file.inbound else ())
    for section in file.issuers:
        names |= {section.issuer, token_endpoint_of(section.issuer)}
    for _, exchange in file.exchange_sections():
        names |= {exchange.issuer, *token_endpoints_of(exchange)}
    return {name.rstrip("/") for name in names}


def same_origin(first: str, second: str) -> bool:
    """Return True if two URLs have the same scheme, host and port."""
    one, other = urlsplit(first), urlsplit(second)
    return (one.scheme, one.hostname, one.port) == (other.scheme, other.hostname, other.port)


@contextmanager
def rename_member(member: str, setting: str) -> Iterator[None]:
    """Replace ``member`` by ``setting`` at the first ``member: `` in the text of a ValueError from the body."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace(f"{member}: ", f"{setting}: ", 1)) from error
