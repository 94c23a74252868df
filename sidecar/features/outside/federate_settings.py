"""Settings of ``federate`` on a route outside: one section for each provider, told apart by ``provider``.

Sections, builder and checks. Pure; each problem has its field and its fix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, WithJsonSchema

from delegation_core.errors import Problem
from delegation_core.outside import PRESETS, FederatedKey, makes_credentials
from sidecar.config.endpoints import mesh_names
from sidecar.config.field_types import FileText, Line, ScopeText, UrlText
from sidecar.config.sections import Section
from sidecar.identity.files import FileSettings

if TYPE_CHECKING:
    from sidecar.config.sidecar_model import SidecarFile
    from sidecar.identity.source_factory import IdentitySettings

# The official clients send this header; the API accepts a bearer token only with it.
_ANTHROPIC_CALLS: Final = (("anthropic-beta", "oauth-2025-04-20"),)

# A token with the scope cloud-platform can get credentials here that outlive the request.
_GOOGLE_CREDENTIALS: Final = {
    f"{name}.googleapis.com" for name in ("apikeys", "iam", "iamcredentials", "oauth2", "sts")
}

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


def federated_key(section: AnyFederateSection) -> FederatedKey:
    """Make the key of a route."""
    common = {"provider", "audience", "token_endpoint", "ca", "tenant_id", "scopes"}
    terms = {name: str(one) for name, one in section.model_dump().items() if name not in common and one is not None}
    if isinstance(section, FederateGoogleSection):
        terms["scope"] = " ".join(section.scopes)
    return FederatedKey(
        provider=section.provider,
        audience=section.audience,
        endpoint=section.token_endpoint or _public_endpoint(section),
        terms=tuple(sorted(terms.items())),
        ca_file=section.ca,
        also=_ANTHROPIC_CALLS if isinstance(section, FederateAnthropicSection) else (),
        makes_credentials=_makes_credentials(section),
    )


def federate_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report audiences that others accept too, plain http, and hosts or paths that give out credentials."""
    ours = mesh_names(file)
    taken: dict[str, str] = {}
    for field, route in file.federate_routes():
        section = route.federate
        endpoint = federated_key(section).endpoint
        if taken.setdefault(section.audience, endpoint) != endpoint:
            yield Problem(
                f"{field}.federate.audience",
                "is also the audience of another token endpoint: each could use the JWT-SVID sent to the other",
                "use a different audience for each provider",
            )
        if section.audience.rstrip("/") in ours or section.audience.startswith("spiffe://"):
            yield audience_of_mesh(field)
        for name, url in _urls(section):
            if urlsplit(url).scheme != "https":
                yield Problem(
                    f"{field}.federate.{name}", "is plain http, which does not verify the server", "use https"
                )
        host = urlsplit(route.upstream).hostname
        if isinstance(section, FederateAwsSection) and host != f"bedrock-runtime.{section.region}.amazonaws.com":
            yield Problem(
                f"{field}.upstream",
                "is not Amazon Bedrock of that region: other AWS services require signed requests",
                f"write https://bedrock-runtime.{section.region}.amazonaws.com",
            )
        if isinstance(section, FederateGoogleSection) and host in _GOOGLE_CREDENTIALS:
            yield Problem(
                f"{field}.upstream", "gives out credentials", "name the API that the agent calls, or remove it"
            )
        patterns = _makes_credentials(section)
        for name, paths in (("paths", route.paths), ("path_prefixes", route.path_prefixes)):
            for path in paths:
                if makes_credentials(path, patterns):
                    yield Problem(f"{field}.{name}", f"{path} gives out credentials", "remove it")


def audience_of_mesh(field: str) -> Problem:
    """Return the problem of a route whose provider receives a JWT-SVID that the mesh accepts."""
    return Problem(
        f"{field}.federate.audience",
        "is an audience of the mesh: with the JWT-SVID the provider could act as this workload here",
        "use an audience that only the provider accepts",
    )


def provider_svid_problems(file: SidecarFile, identity: IdentitySettings) -> Iterator[Problem]:
    """Report each provider without a JWT-SVID file, for an identity from files."""
    for field, route in file.federate_routes():
        if isinstance(identity, FileSettings) and route.federate.audience not in identity.jwt_svids:
            yield Problem(
                f"{field}.federate.audience",
                "has no file in identity.files.jwt_svids, but the provider needs a JWT-SVID for it",
                "let spiffe-helper write one (jwt_svids, jwt_audience) and name it, or use the Workload API",
            )


def trading_hosts(section: AnyFederateSection) -> list[tuple[str, str]]:
    """Return settings key and host of each URL that receives a JWT-SVID or a token in a token exchange."""
    return [(name, urlsplit(url).netloc) for name, url in _urls(section)]


def _public_endpoint(section: AnyFederateSection) -> str:
    match section:
        case FederateOpenaiSection():
            return "https://auth.openai.com/oauth/token"
        case FederateAnthropicSection():
            return "https://api.anthropic.com/v1/oauth/token"
        case FederateGoogleSection():
            return "https://sts.googleapis.com/v1/token"
        case FederateAzureSection():
            return f"https://login.microsoftonline.com/{section.tenant_id}/oauth2/v2.0/token"
        case FederateAwsSection():
            return f"https://sts.{section.region}.amazonaws.com/"


def _urls(section: AnyFederateSection) -> list[tuple[str, str]]:
    found = [("token_endpoint", section.token_endpoint)]
    if isinstance(section, FederateGoogleSection):
        url = section.service_account_impersonation_url
        found.append(("service_account_impersonation_url", url))
    return [(name, url) for name, url in found if url is not None]


def _makes_credentials(section: AnyFederateSection) -> tuple[str, ...]:
    preset = PRESETS.get(section.provider)
    token_paths = ("/v1/oauth",) if isinstance(section, FederateAnthropicSection) else ()
    return (*(preset.makes_credentials if preset is not None else ()), *token_paths)
