"""JWT authorization grants (RFC 7523 section 2.1): one authorization server issues them, another accepts them.

The sidecar carries a grant from the first server to the second. It does not verify the grant's signature: that is for
the second server, which has the first one's keys. The resulting token is verified with the second server's keys, like
any other. The checks here prevent sending a grant for another server, client or user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delegation_core.bearer import Bearer, parse_bearer
from delegation_core.claims import audience_claim
from delegation_core.errors import Denied, Reason
from delegation_core.issued import sts_error
from delegation_core.scope import ScopeError, ScopeSet, parse_scope_claim
from sidecar.exchange.adapters.adapter import Step

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
NO_ACCESS_TOKEN: Final = "N_A"  # noqa: S105 - the token_type of a grant (RFC 8693 section 2.2.1)


def parse_grant(raw: str, *, typ: frozenset[str | None], issuer: str, audience: str) -> Bearer:
    """Parse a grant with one of the header types ``typ``, issued by ``issuer`` for ``audience`` alone, without ``cnf``.

    A bound grant (``cnf``, RFC 7800) needs a proof of possession of its key; without one the second server must refuse
    it (draft-ietf-oauth-identity-assertion-authz-grant-04). No adapter here has that key.

    Raises:
        Denied: STS_BAD_RESPONSE, STS_SIGNATURE (an algorithm that is not asymmetric), STS_TOKEN_TYPE, STS_ISSUER or
            STS_AUDIENCE_MISMATCH.
    """
    try:
        grant = parse_bearer(raw)
        named = audience_claim(grant.claims)
    except Denied as error:
        raise sts_error(error) from error
    if grant.typ not in typ:
        raise Denied(Reason.STS_TOKEN_TYPE, "the header's typ is not that of an authorization grant")
    if grant.issuer != issuer:
        raise Denied(Reason.STS_ISSUER, "the grant names another issuer")
    if named != audience:
        raise Denied(Reason.STS_AUDIENCE_MISMATCH, "the grant is for another authorization server")
    if "cnf" in grant.claims:
        raise Denied(
            Reason.STS_BAD_RESPONSE,
            "the grant is bound to a key (cnf), and the sidecar has no proof of possession for it; have the first"
            " server issue grants without cnf to this client",
        )
    return grant


def check_scope(claims: Mapping[str, object], scope: ScopeSet) -> None:
    """Refuse a grant wider than ``scope``. Without a ``scope`` claim the second server decides.

    Raises:
        Denied: STS_SCOPE_WIDENED or STS_BAD_RESPONSE.
    """
    if "scope" not in claims:
        return
    try:
        granted = parse_scope_claim(claims["scope"], shape="string")
    except ScopeError as error:
        raise Denied(Reason.STS_BAD_RESPONSE, "the grant's scope is not a valid scope") from error
    if not granted <= scope:
        raise Denied(Reason.STS_SCOPE_WIDENED, "scope of the grant")


def present(grant: Bearer, *more: tuple[str, str]) -> Step:
    """Return the step that sends the grant to the second server, with further parameters."""
    return Step(form=(("grant_type", JWT_BEARER), ("assertion", grant.raw), *more))
