"""Issuers where users log in: the one kind of token that counts there, for whom it must be, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from sidecar.delegation.claims import names_no_other_client
from sidecar.delegation.scope import ScopeSet
from sidecar.delegation.verify import TrustedIssuer, VerifiedToken
from sidecar.errors import Denied, Reason

SCOPE_CLAIMS: Final = frozenset({"scope", "scp"})  # what a client asks for by name; groups and roles are given


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeFrom:
    """Maps a login token's ``claim`` to mesh scopes through ``map``, as the STS does."""

    claim: str
    map: Mapping[str, ScopeSet]

    def worth(self, claims: Mapping[str, object]) -> ScopeSet:
        """Return the mesh scopes of a verified login token. Values that are not in the map give none.

        The claim is a space-separated string (as ``scope``) or an array of strings (as ``groups``, ``roles``).

        Raises:
            Denied: MALFORMED_TOKEN, the claim is neither.
        """
        value = claims.get(self.claim, "")
        values = value.split(" ") if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise Denied(
                Reason.MALFORMED_TOKEN, "the claim with the scopes is neither a string nor an array of strings"
            )
        return frozenset().union(*(self.map.get(item, frozenset()) for item in values))


class LoginKind(StrEnum):
    """The one kind of token a user issuer's logins show. Configured, never guessed: an STS takes no other kind."""

    ID_TOKEN = "id_token"  # noqa: S105 - the name of a kind of token
    ACCESS_TOKEN = "access_token"  # noqa: S105 - the same


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIssuer:
    """A user issuer whose login tokens, all of one ``kind``, an entry takes.

    ``client_id`` is the OAuth client the entry is registered as. The profile says which claim must show it: ``aud`` of
    an ID token, ``azp`` or ``client_id`` of an access token. The STS puts ``subject_prefix`` before ``sub``, so that
    subjects of two issuers never collide. At a door the tokens are those for its ``resource``, of any client.
    """

    trusted: TrustedIssuer
    kind: LoginKind
    client_id: str
    scope_from: ScopeFrom
    subject_prefix: str = ""
    resource: str | None = None

    def at_door(self, resource: str) -> UserIssuer:
        """Return the same issuer at a door: ``aud`` must name its URL, and nothing else does in its place."""
        trusted = replace(self.trusted, profile=replace(self.trusted.profile, audience_claims=("aud",)))
        return replace(self, trusted=trusted, resource=resource)

    @property
    def audiences(self) -> frozenset[str]:
        """The audiences of which its login tokens here have exactly one."""
        return frozenset({self.client_id}) if self.resource is None else spellings(self.resource)

    def issued_for_us(self, token: VerifiedToken, claims: Mapping[str, object]) -> bool:
        """True if a verified login token is for this entry: by its audience, and by every claim that names a client."""
        if token.audience not in self.audiences:
            return False
        if self.resource is not None:
            return True
        return token.client_id in {None, self.client_id} and names_no_other_client(claims, self.client_id)

    def mesh_subject(self, sub: str) -> str:
        """Return the ``sub`` that a login token's subject has in the mesh."""
        return self.subject_prefix + sub


def spellings(resource: str) -> frozenset[str]:
    """Return the spellings of a door's URL: without a path a slash changes nothing (RFC 3986 section 6.2.3).

    The official clients of MCP add it, whatever the metadata says.
    """
    origin = resource.removesuffix("/")
    return frozenset({origin, f"{origin}/"}) if "/" not in origin.partition("://")[2] else frozenset({resource})
