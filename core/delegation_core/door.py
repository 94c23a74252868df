"""The door of an entry: a listener for users' own clients, such as IDEs and browsers, with tokens of its own.

A login token for the door has the door's URL as its only audience (RFC 8707), for any OAuth client. So tokens of the
front app are refused at the door, and tokens for the door are refused elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from delegation_core.door_url import without_default_port
from delegation_core.errors import Denied, Reason
from delegation_core.login_issuer import SCOPE_CLAIMS, LoginKind, UserIssuer, spellings
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.resource_metadata import WELL_KNOWN, ProtectedResource
from delegation_core.route import OutboundRoute
from delegation_core.scope import ScopeSet
from delegation_core.target import OWN_PATHS, CanonicalTarget

METHODS: Final = ("DELETE", "GET", "POST")  # those of MCP
METADATA_METHODS: Final = ("GET",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Settings of a door: its URL (``resource``), token ``issuers``, allowed outbound ``routes``, browser ``origins``.

    Raises:
        ValueError: no issuer, one for another resource, or one with ID tokens; no route; the URL is not https.
    """

    resource: ProtectedResource
    issuers: Mapping[str, UserIssuer]
    routes: frozenset[str]
    origins: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.issuers or any(user.resource != self.resource.url for user in self.issuers.values()):
            raise ValueError("a door needs issuers of the entry, each with the door's resource")
        if any(user.kind is not LoginKind.ACCESS_TOKEN for user in self.issuers.values()):
            raise ValueError("a door accepts only access tokens")
        if not self.routes or not self.resource.url.startswith("https:"):
            raise ValueError("a door needs routes and an https URL")

    @property
    def authority(self) -> str:
        """Host of the door's URL, with the port unless it is 443."""
        return without_default_port(urlsplit(self.resource.url).netloc, "https")

    def is_named_by(self, authority: str) -> bool:
        """True if ``authority`` (lower case) is the door's, with or without the default port."""
        return without_default_port(authority, "https") == self.authority

    def is_meant_by(self, audiences: Iterable[str]) -> bool:
        """True if ``audiences`` include the door's URL, in either spelling."""
        return not spellings(self.resource.url).isdisjoint(audiences)

    def tells_metadata_at(self, path: str) -> bool:
        """True if ``path`` is the well-known metadata path (RFC 9728), with or without the resource path."""
        return path in {WELL_KNOWN, self.resource.metadata_path}

    def covers(self, target: CanonicalTarget) -> bool:
        """True if ``target`` is at or below the path of the resource."""
        base = self.resource.path.rstrip("/")
        return target.path == base or target.path.startswith(f"{base}/")

    def route_of(self, target: CanonicalTarget, outbound: OutboundRoutes) -> OutboundRoute:
        """Return the route of a path at the door.

        Raises:
            Denied: NO_ROUTE if ``target`` is outside the resource, or no route of the door covers it.
        """
        if not target.path.startswith(OWN_PATHS) and self.covers(target):
            try:
                route, _ = outbound.find(None, target, own_authorities=())
            except Denied:
                raise Denied(Reason.NO_ROUTE) from None
            if isinstance(route, OutboundRoute) and route.name in self.routes:
                return route
        raise Denied(Reason.NO_ROUTE)

    def words_for(self, scopes: ScopeSet) -> frozenset[str]:
        """Return the issuers' scope values that map to any of ``scopes``, for a client to request.

        Issuers that map groups or roles contribute none, since a client cannot request those.
        """
        return frozenset(
            word
            for user in self.issuers.values()
            if user.scope_from.claim in SCOPE_CLAIMS
            for word, worth in user.scope_from.map.items()
            if worth & scopes
        )

    def check_origin(self, origins: Iterable[bytes]) -> str | None:
        """Return the origin in ``origins``, the values of all Origin fields; None without any.

        Raises:
            Denied: ORIGIN_REFUSED if the origin is not listed, or there are several.
        """
        shown = [origin.decode("latin-1") for origin in origins]
        if not shown:
            return None
        if len(shown) > 1 or shown[0] not in self.origins:
            raise Denied(Reason.ORIGIN_REFUSED)
        return shown[0]
