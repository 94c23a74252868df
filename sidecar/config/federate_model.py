"""Schema of the section ``federate`` of an outbound route: one for each provider, told apart by ``provider``."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field, Tag, WithJsonSchema

from sidecar.config.field_types import FileText, Line, ScopeText, UrlText
from sidecar.config.sections import Section

_Word = Annotated[Line, Field(pattern=r"^[A-Za-z0-9._:/@+=,-]+$"), WithJsonSchema({"type": "string"})]


class FederateSection(Section):
    """A provider that trades our JWT-SVID for a short-lived token."""

    audience: Line = Field(
        description="the audience of the JWT-SVID: the one that the provider expects, and nobody else accepts"
    )
    token_endpoint: UrlText | None = Field(
        default=None, description="URL of the provider's token endpoint; if not set, the public one"
    )
    ca: FileText | None = Field(
        default=None,
        description="PEM file of the authorities that certify the token endpoint; if not set, the system's public ones",
    )


class FederateOpenaiSection(FederateSection):
    """OpenAI: token exchange (RFC 8693) for a service account."""

    provider: Literal["openai"] = Field(description="`openai`")
    identity_provider_id: _Word = Field(description="the workload identity provider at OpenAI that trusts our issuer")
    service_account_id: _Word = Field(description="the service account that is mapped to our SPIFFE ID")


class FederateAnthropicSection(FederateSection):
    """Anthropic: the jwt-bearer grant (RFC 7523) for a service account. Our JWT-SVIDs need `iss` and `iat` for it."""

    provider: Literal["anthropic"] = Field(description="`anthropic`")
    federation_rule_id: _Word = Field(description="the federation rule, `fdrl_…`")
    organization_id: _Word = Field(description="the organization, a UUID")
    service_account_id: _Word = Field(description="the service account, `svac_…`")
    workspace_id: _Word | None = Field(
        default=None, description="the workspace, `wrkspc_…` or `default`; needed if the rule has several"
    )


class FederateGoogleSection(FederateSection):
    """Google: token exchange (RFC 8693) by a workload identity pool, and perhaps a service account's token for it."""

    provider: Literal["google"] = Field(description="`google`")
    pool_provider: _Word = Field(
        description="the pool's provider, `//iam.googleapis.com/projects/…/locations/global/workloadIdentityPools/…`"
    )
    scopes: list[ScopeText] = Field(
        default=["https://www.googleapis.com/auth/cloud-platform"], min_length=1, description="scopes of the token"
    )
    service_account_impersonation_url: UrlText | None = Field(
        default=None,
        description="`…/serviceAccounts/EMAIL:generateAccessToken`, as in Google's file of the same key",
    )


class FederateAzureSection(FederateSection):
    """Microsoft Entra: client credentials with our JWT-SVID as the client's assertion (RFC 7523)."""

    provider: Literal["azure"] = Field(description="`azure`")
    tenant_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,128}$")] = Field(description="the tenant")
    client_id: _Word = Field(description="the application or managed identity that trusts our SPIFFE ID")
    scope: ScopeText = Field(description="the API, as `https://cognitiveservices.azure.com/.default`")


class FederateAwsSection(FederateSection):
    """AWS: a role's web identity, made into a short-term API key of Amazon Bedrock, the one service that takes it."""

    provider: Literal["aws"] = Field(description="`aws`")
    role_arn: _Word = Field(description="the role that trusts our SPIFFE ID")
    session_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_=,.@-]{2,64}$")] = Field(
        description="the name of its session in AWS's logs"
    )
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")] = Field(description="as `eu-central-1`")


def kind_of_provider(value: object) -> str:
    """Tag of a provider's section; an unknown provider is judged as the first, which refuses its name."""
    name = value.get("provider") if isinstance(value, dict) else getattr(value, "provider", None)
    return f"<{name}>" if f"<{name}>" in _TAGS else _OPENAI


_OPENAI: Final = "<openai>"
_ANTHROPIC: Final = "<anthropic>"
_GOOGLE: Final = "<google>"
_AZURE: Final = "<azure>"
_AWS: Final = "<aws>"
_TAGS: Final = (_OPENAI, _ANTHROPIC, _GOOGLE, _AZURE, _AWS)
AnyFederateSection = Annotated[
    Annotated[FederateOpenaiSection, Tag(_OPENAI)]
    | Annotated[FederateAnthropicSection, Tag(_ANTHROPIC)]
    | Annotated[FederateGoogleSection, Tag(_GOOGLE)]
    | Annotated[FederateAzureSection, Tag(_AZURE)]
    | Annotated[FederateAwsSection, Tag(_AWS)],
    Discriminator(kind_of_provider),
]
