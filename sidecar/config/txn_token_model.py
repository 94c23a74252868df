"""Schema of transaction tokens: the service that issues those of the trust domain."""

from __future__ import annotations

from pydantic import Field

from sidecar.config.exchange_model import ClientAuthSection
from sidecar.config.field_types import Line, Seconds, TrustDomainText, UrlText
from sidecar.config.sections import TlsSection


class TxnTokensSection(ClientAuthSection):
    """The transaction token service of a trust domain: its keys, and where chains begin, its token endpoint."""

    trust_domain: TrustDomainText = Field(description="the trust domain: `aud` of its transaction tokens")
    issuer: Line = Field(description="name of the service; a token's `iss`, if it has one")
    jwks: UrlText = Field(description="URL of its keys; https, or http on loopback")
    token_endpoint: UrlText | None = Field(
        default=None, description="URL of its token endpoint; needed where a chain begins on a route with `txn_token`"
    )
    subject_issuer: Line | None = Field(
        default=None,
        description="the issuer of the access tokens that the service is shown, whose `sub` its tokens repeat; "
        "may be absent where `issuers` has one",
    )
    tls: TlsSection | None = Field(default=None, description="the identity that must answer at both")
    timeout_s: Seconds = Field(default=2.0, description="timeout of a request for a token, retries included")
