"""Schema of the token services that a sidecar asks, and of its authentication there."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from sidecar.config.field_types import FileText, Line, Seconds, SpiffeIdText, TokenEndpoints, UrlText
from sidecar.config.sections import Section, TlsSection
from sidecar.exchange.adapters.adapter import ClientAuth

# Registered by the certificate's subject or by the certificate itself (RFC 8705 sections 2.1.2 and 2.2).
_BY_NAME: Final = frozenset(
    {"tls_client_auth", "tls-client-auth", "tls-client-auth-subject-dn", "tls_client_auth_subject_dn"}
)
_BY_KEY: Final = frozenset({"self_signed_tls_client_auth", "self-signed-tls-client-auth"})


def _client_auth(text: str) -> str:
    if text in _BY_NAME:
        raise ValueError(
            "matches the certificate's subject, which all workloads of a SPIRE server share; register "
            "tls_client_auth_san_uri there, and write tls-client-auth-san-uri"
        )
    if text in _BY_KEY:
        raise ValueError("needs one certificate, and an SVID changes each hour; write jwt-svid or x509-svid")
    if text not in set(ClientAuth):
        raise ValueError(f"has an unknown value; write one of {', '.join(ClientAuth)}")
    return text


ClientAuthName = Annotated[
    str, AfterValidator(_client_auth), WithJsonSchema({"type": "string", "enum": list(map(str, ClientAuth))})
]


class ClientAuthSection(Section):
    """Authentication of the sidecar at an endpoint: by its SVID, or by a static credential that is allowed by name."""

    client_auth: ClientAuthName = Field(default=str(ClientAuth.X509_SVID), description="how the sidecar authenticates")
    client_id: Line | None = Field(
        default=None, description="the sidecar's name at the token service; its SPIFFE ID if not set"
    )
    assertion_audience: Line | None = Field(
        default=None, description="audience of a client assertion; the issuer if not set"
    )
    credential_file: FileText | None = Field(
        default=None, description="file of the client secret, or of the private key in PEM; read at each use"
    )
    key_id: Line | None = Field(default=None, description="`kid` of assertions that are signed with the private key")
    allow_static_credential: bool = Field(
        default=False,
        description=(
            "true: authenticate by a secret or key that somebody keeps. Exchanges record its fingerprint, and `sidecar "
            "audit credentials` counts it"
        ),
    )


class ExchangeEndpointSection(ClientAuthSection):
    """An endpoint that an adapter asks beside the token endpoint."""

    url: UrlText = Field(description="its URL")
    peer: SpiffeIdText | None = Field(
        default=None, description="SPIFFE ID of the workload that must answer there; or use `tls`"
    )
    tls: TlsSection | None = Field(default=None, description="the identity that must answer there")


class ExchangeSection(ClientAuthSection):
    """A token service that issues outbound tokens; at most one per issuer."""

    issuer: Line = Field(description="the issuer, exactly as in `iss`")
    token_endpoint: UrlText | None = Field(
        default=None, description="URL of the token endpoint; `{issuer}/token` if not set"
    )
    token_endpoints: TokenEndpoints | None = Field(
        default=None,
        description=(
            "in place of `token_endpoint`: the URLs of its replicas, at most four, the preferred first. All have the "
            "same `issuer` and identity; the next is asked while one fails"
        ),
    )
    peer: SpiffeIdText | None = Field(
        default=None, description="SPIFFE ID of the workload that must answer there; or use `tls`"
    )
    tls: TlsSection | None = Field(default=None, description="the identity that must answer there")
    adapter: Line = Field(
        default="rfc8693", description="its dialect: `rfc8693`, or another [adapter](adapters.md) by its name"
    )
    options: dict[Line, Line] = Field(default={}, description="options of the adapter")
    endpoints: dict[Line, ExchangeEndpointSection] = Field(
        default={}, description="further endpoints that the adapter asks, by the adapter's names"
    )
    authorization_endpoint: UrlText | None = Field(
        default=None,
        description="URL where a user logs in, for adapters that send a browser there; from the metadata if not set",
    )
    metadata: UrlText | None = Field(
        default=None,
        description=(
            "URL of the issuer's metadata (RFC 8414), on the host of the token endpoint; at its usual place if not "
            "set. Read only if the adapter needs an endpoint that is not set"
        ),
    )
    timeout_s: Seconds = Field(default=2.0, description="timeout of an exchange, retries included")
    max_response_bytes: int = Field(
        default=65536, ge=1024, le=1_048_576, description="the longest response that is read"
    )
    retries: int = Field(
        default=1,
        ge=0,
        le=3,
        description="retries after a failed connection; a pooled connection found closed is replaced once besides",
    )
