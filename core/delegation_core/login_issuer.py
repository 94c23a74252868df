"""User issuers of an entry: the accepted kind of login token, its audience, and the mapping of its scopes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from delegation_core.claims import names_no_other_client
from delegation_core.errors import Denied, Reason
from delegation_core.scope import ScopeSet
from delegation_core.verify import TrustedIssuer, VerifiedToken

SCOPE_CLAIMS: Final = frozenset({"scope", "scp"})  # values that a client can request, unlike groups and roles


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeFrom:
    """Mapping of a login token's ``claim`` to mesh scopes; must equal the STS's."""

    claim: str
    map: Mapping[str, ScopeSet]

    def worth(self, claims: Mapping[str, object]) -> ScopeSet:
        """Return the mesh scopes of a verified login token. Values outside the map grant nothing.

        The claim is a space-separated string (such as ``scope``) or an array of strings (such as ``groups``).

        Raises:
            Denied: MALFORMED_TOKEN for a claim of another type.
        """
        value = claims.get(self.claim, "")
        values = value.split(" ") if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise Denied(
                Reason.MALFORMED_TOKEN, "the claim with the scopes is neither a string nor an array of strings"
            )
        return frozenset().union(*(self.map.get(item, frozenset()) for item in values))


class LoginKind(StrEnum):
    """Kind of a user issuer's login tokens. Configured, never inferred from a token."""

    ID_TOKEN = "id_token"  # noqa: S105 - the name of a kind of token
    ACCESS_TOKEN = "access_token"  # noqa: S105 - the same


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIssuer:
    """A user issuer of an entry; all its login tokens are of one ``kind``.

    ``client_id``: the OAuth client that the entry is registered as. The profile selects the claim that must name it:
    ``aud`` of an ID token, ``azp`` or ``client_id`` of an access token. ``subject_prefix``: the STS puts it before
    ``sub``, so subjects of two issuers never collide. ``resource``: the door's URL for tokens of a door, of any client.
    """

    trusted: TrustedIssuer
    kind: LoginKind
    client_id: str
    scope_from: ScopeFrom
    subject_prefix: str = ""
    resource: str | None = None

    def at_door(self, resource: str) -> UserIssuer:
        """Return a copy for a door: ``aud``, and no other claim, must name ``resource``."""
        trusted = replace(self.trusted, profile=replace(self.trusted.profile, audience_claims=("aud",)))
        return replace(self, trusted=trusted, resource=resource)

    @property
    def audiences(self) -> frozenset[str]:
        """Accepted audiences; a login token must name exactly one."""
        return frozenset({self.client_id}) if self.resource is None else spellings(self.resource)

    def issued_for_us(self, token: VerifiedToken, claims: Mapping[str, object]) -> bool:
        """True if the audience of a verified login token and, except at a door, every client claim are this entry's."""
        if token.audience not in self.audiences:
            return False
        if self.resource is not None:
            return True
        return token.client_id in {None, self.client_id} and names_no_other_client(claims, self.client_id)

    def mesh_subject(self, sub: str) -> str:
        """Return the ``sub`` in mesh tokens for the login subject ``sub``."""
        return self.subject_prefix + sub


def spellings(resource: str) -> frozenset[str]:
    """Return the equivalent spellings of a door's URL: an empty path equals ``/`` (RFC 3986 section 6.2.3).

    The official MCP clients add the slash, whatever the metadata says.
    """
    origin = resource.removesuffix("/")
    return frozenset({origin, f"{origin}/"}) if "/" not in origin.partition("://")[2] else frozenset({resource})
