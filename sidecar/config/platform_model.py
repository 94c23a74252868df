"""Schema of a platform file: the ceiling that every workload's settings must stay below."""

from __future__ import annotations

from pydantic import Field

from sidecar.config.field_types import UrlText
from sidecar.config.sections import IssuerSection, Section, UserIssuerSection


class PlatformIssuerSection(IssuerSection):
    """An issuer that workloads may trust, and ask for tokens.

    ``tls`` applies to the URLs of keys and tokens.
    """

    token_endpoint: UrlText | None = Field(
        default=None, description="URL of the token endpoint; `{issuer}/token` if not set"
    )


class PlatformFile(Section):
    """Ceiling of the settings of workloads. Anything not listed is denied to every workload."""

    issuers: list[PlatformIssuerSection] = Field(
        default=[], description="issuers that workloads may trust, and their limits"
    )
    login_issuers: list[UserIssuerSection] = Field(
        default=[], description="issuers where users of workloads may log in"
    )
    allow_self: bool = Field(default=False, description="true: a route may set it")
    pass_token: bool = Field(default=False, description="true: a route may set it")
    passthrough: bool = Field(default=False, description="true: a route may pass tokens through")
    inject: bool = Field(default=False, description="true: a route may inject a credential")
    observe_until: bool = Field(default=False, description="true: a route may only observe")
    refuse_other_listeners: bool = Field(
        default=False, description="serve no call while the agent can be reached past its sidecar"
    )
    linger_s: float = Field(default=0.0, ge=0, le=86_400, description="the largest `linger_s` of a route")
