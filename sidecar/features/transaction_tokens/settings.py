"""Settings of transaction tokens: section, builder and checks. Pure; each problem has its field and its fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from delegation_core.errors import Problem
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from delegation_core.txn_token import TxnSource
from sidecar.config.endpoints import client_auth_of, endpoint_of, rename_member, static_problem
from sidecar.config.exchange_model import ClientAuthSection
from sidecar.config.field_types import Line, Seconds, TrustDomainText, UrlText
from sidecar.config.sections import TlsSection
from sidecar.exchange.adapters.adapter import STATIC
from sidecar.exchange.txn_service import TxnTokenSettings

if TYPE_CHECKING:
    from sidecar.config.outbound_model import OutboundRouteSection
    from sidecar.config.platform_file import Platform
    from sidecar.config.sidecar_model import SidecarFile


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


def txn_tokens_of(file: SidecarFile) -> TxnTokenSettings | None:
    """Make the settings of the service; None if there is none. Raises ValueError for an unusable one."""
    section = file.txn_tokens
    if section is None:
        return None
    subject_issuer = _subject_issuer(file, section)
    if subject_issuer is None:
        raise ValueError("subject_issuer: it is missing, and issuers has not exactly one; name the one whose sub it is")
    with rename_member("url", "token_endpoint"):
        endpoint = None if section.token_endpoint is None else endpoint_of(section.token_endpoint, section.tls)
    return TxnTokenSettings(
        source=TxnSource(
            trust_domain=TrustDomain(section.trust_domain), issuer=section.issuer, subject_issuer=subject_issuer
        ),
        endpoint=endpoint,
        client_auth=client_auth_of(section, section.issuer),
        timeout_s=section.timeout_s,
    )


def txn_token_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report transaction-token settings without effect, and routes that cannot carry the tokens."""
    section = file.txn_tokens
    carried = [(field, route) for field, route in file.mesh_routes() if route.txn_token]
    verified = file.inbound is not None and file.inbound.txn_token
    if section is None:
        where = [f"{field}.txn_token" for field, _ in carried] + (["inbound.txn_token"] if verified else [])
        for field in where:
            yield Problem(field, "needs txn_tokens", "add that section, or remove this")
        return
    if not carried and not verified:
        yield Problem(
            "txn_tokens", "has no effect: no route uses it", "set txn_token under inbound or on a route, or remove it"
        )
    if section.subject_issuer is not None and section.subject_issuer not in {one.issuer for one in file.issuers}:
        yield Problem("txn_tokens.subject_issuer", "is not one of the issuers", "add it there, or correct it")
    for field, route in carried:
        yield from _route(file, section, route, f"{field}.txn_token", verified=verified)


def txn_ceiling_problems(file: SidecarFile, platform: Platform, made: TxnTokenSettings | None) -> Iterator[Problem]:
    """Report an endpoint, an issuer or a static credential that the platform file does not list."""
    if made is None or made.endpoint is None:
        return
    where, listed = "txn_tokens.token_endpoint", platform.exchange_endpoints.get(made.endpoint)
    if listed is None:
        yield Problem(where, "is not one of the platform's exchange_endpoints", "list it there, with tls")
    else:
        shown = {file.issuer_of(route) for _, route in file.mesh_routes() if route.txn_token}
        for issuer in sorted(one for one in shown if one is not None and one not in listed):
            yield Problem(where, f"would receive tokens of {issuer}", "list that issuer there")
    if made.client_auth.method in STATIC and made.endpoint.url not in platform.static_client_auth:
        yield static_problem("txn_tokens", made.endpoint.url)


def _route(
    file: SidecarFile, section: TxnTokensSection, route: OutboundRouteSection, where: str, *, verified: bool
) -> Iterator[Problem]:
    domain, subject_issuer, issuer = section.trust_domain, _subject_issuer(file, section), file.issuer_of(route)
    if route.peer is None or SpiffeId(route.peer).trust_domain != domain:
        yield Problem(where, f"leads out of {domain}, where its transaction tokens do not count", "remove it")
    if route.crossings:
        yield Problem(where, "is beside crossings, which change the subject", "remove it, or use another route")
    if subject_issuer is not None and issuer is not None and issuer != subject_issuer:
        yield Problem(
            where, f"is beside access tokens of {issuer}, and the sub is a name of {subject_issuer}", "remove it"
        )
    begins = route.token == "self" or (file.entry is not None and route.name in file.entry.may_call)  # noqa: S105
    if begins and section.token_endpoint is None:
        yield Problem("txn_tokens.token_endpoint", f"is missing, and chains begin on {route.name}", "add it")
    if not begins and not verified:
        yield Problem(where, "carries what no request brings", "set inbound.txn_token too, or remove it")


def _subject_issuer(file: SidecarFile, section: TxnTokensSection) -> str | None:
    """Return the issuer of the tokens' subjects: the one set, else the only issuer; None if ambiguous."""
    if section.subject_issuer is not None:
        return section.subject_issuer
    return file.issuers[0].issuer if len(file.issuers) == 1 else None
