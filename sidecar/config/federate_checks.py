"""Checks and builder of the section ``federate`` of a route. Pure; each problem has its field and its fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from sidecar.config.endpoints import token_endpoint_of, token_endpoints_of
from sidecar.config.federate_model import (
    AnyFederateSection,
    FederateAnthropicSection,
    FederateAwsSection,
    FederateAzureSection,
    FederateGoogleSection,
    FederateOpenaiSection,
)
from sidecar.config.outbound_model import FederateRouteSection
from sidecar.config.sidecar_model import SidecarFile
from sidecar.delegation.outside import PRESETS, FederatedKey, makes_credentials
from sidecar.errors import Problem
from sidecar.identity.files import FileSettings
from sidecar.identity.source_factory import IdentitySettings

# The official clients send this header; the API accepts a bearer token only with it.
_ANTHROPIC_CALLS: Final = (("anthropic-beta", "oauth-2025-04-20"),)

# A token with the scope cloud-platform can get credentials here that outlive the request.
_GOOGLE_CREDENTIALS: Final = {
    f"{name}.googleapis.com" for name in ("apikeys", "iam", "iamcredentials", "oauth2", "sts")
}


def federate_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report audiences that others accept too, plain http, and hosts or paths that give out credentials."""
    ours = mesh_names(file)
    routes = [(field, route) for field, route in file.outside_routes() if isinstance(route, FederateRouteSection)]
    taken: dict[str, str] = {}
    for field, route in routes:
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


def mesh_names(file: SidecarFile) -> set[str]:
    """Return the audiences, without a trailing slash, for which a server of the mesh may accept our JWT-SVID."""
    names = set(file.inbound.audiences if file.inbound else ())
    for section in file.issuers:
        names |= {section.issuer, token_endpoint_of(section.issuer)}
    for _, exchange in file.exchange_sections():
        names |= {exchange.issuer, *token_endpoints_of(exchange)}
    return {name.rstrip("/") for name in names}


def audience_of_mesh(field: str) -> Problem:
    """Return the problem of a route whose provider receives a JWT-SVID that the mesh accepts."""
    return Problem(
        f"{field}.federate.audience",
        "is an audience of the mesh: with the JWT-SVID the provider could act as this workload here",
        "use an audience that only the provider accepts",
    )


def provider_svid_problems(file: SidecarFile, identity: IdentitySettings) -> Iterator[Problem]:
    """Report each provider without a JWT-SVID file, for an identity from files."""
    for field, route in file.outside_routes():
        if not isinstance(route, FederateRouteSection) or not isinstance(identity, FileSettings):
            continue
        if route.federate.audience not in identity.jwt_svids:
            yield Problem(
                f"{field}.federate.audience",
                "has no file in identity.files.jwt_svids, but the provider needs a JWT-SVID for it",
                "let spiffe-helper write one (jwt_svids, jwt_audience) and name it, or use the Workload API",
            )


def trading_hosts(section: AnyFederateSection) -> list[tuple[str, str]]:
    """Return settings key and host of each URL that receives a JWT-SVID or a token in a token exchange."""
    return [(name, urlsplit(url).netloc) for name, url in _urls(section)]


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
