"""The door of an entry: a listener for people's own clients, such as IDEs and browsers. It needs tokens of its own.

A login token for the door names the door's URL as its one audience (RFC 8707), whoever its OAuth client is. So a token
of the front app opens nothing at the door, and one for the door opens nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from sidecar.delegation.door_url import without_default_port
from sidecar.delegation.login_issuer import SCOPE_CLAIMS, LoginKind, UserIssuer, spellings
from sidecar.delegation.outbound_routes import OutboundRoutes
from sidecar.delegation.resource_metadata import WELL_KNOWN, ProtectedResource
from sidecar.delegation.route import OutboundRoute
from sidecar.delegation.scope import ScopeSet
from sidecar.delegation.target import OWN_PATHS, CanonicalTarget
from sidecar.errors import Denied, Reason

METHODS: Final = ("DELETE", "GET", "POST")  # those of MCP
METADATA_METHODS: Final = ("GET",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """``resource`` is the door's URL, ``issuers`` are those of its tokens, ``routes`` the outbound routes it opens.

    Browsers may call it from pages of ``origins``.

    Raises:
        ValueError: no issuer, or one whose logins show ID tokens; no route; the URL is not https.
    """

    resource: ProtectedResource
    issuers: Mapping[str, UserIssuer]
    routes: frozenset[str]
    origins: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.issuers or any(user.resource != self.resource.url for user in self.issuers.values()):
            raise ValueError("a door takes tokens for its resource, of issuers of the entry")
        if any(user.kind is not LoginKind.ACCESS_TOKEN for user in self.issuers.values()):
            raise ValueError("an ID token names no resource")
        if not self.routes or not self.resource.url.startswith("https:"):
            raise ValueError("a door has routes, and an https URL")

    @property
    def authority(self) -> str:
        """The host, and the port if it is not the scheme's own."""
        return without_default_port(urlsplit(self.resource.url).netloc, "https")

    def is_named_by(self, authority: str) -> bool:
        """True if the Host of a request (lower case) is the door's."""
        return without_default_port(authority, "https") == self.authority

    def is_meant_by(self, audiences: Iterable[str]) -> bool:
        """True if the door is among the audiences of a token."""
        return not spellings(self.resource.url).isdisjoint(audiences)

    def tells_metadata_at(self, path: str) -> bool:
        """True if the metadata of the door is served at a path: below the well-known one, and at its root."""
        return path in {WELL_KNOWN, self.resource.metadata_path}

    def covers(self, target: CanonicalTarget) -> bool:
        """True if a path is that of the resource, or below it."""
        base = self.resource.path.rstrip("/")
        return target.path == base or target.path.startswith(f"{base}/")

    def route_of(self, target: CanonicalTarget, outbound: OutboundRoutes) -> OutboundRoute:
        """Return the route of a path at the door. Whatever else the workload may call does not exist there.

        Raises:
            Denied: NO_ROUTE.
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
        """Return the words to ask an issuer for, so that a token of it is worth some of these scopes.

        None where the issuers tell no scopes but groups or roles: a client cannot ask for those.
        """
        return frozenset(
            word
            for user in self.issuers.values()
            if user.scope_from.claim in SCOPE_CLAIMS
            for word, worth in user.scope_from.map.items()
            if worth & scopes
        )

    def check_origin(self, origins: Iterable[bytes]) -> str | None:
        """Return the page's origin, None if the request names none.

        Raises:
            Denied: ORIGIN_REFUSED, the page is not listed.
        """
        shown = [origin.decode("latin-1") for origin in origins]
        if not shown:
            return None
        if len(shown) > 1 or shown[0] not in self.origins:
            raise Denied(Reason.ORIGIN_REFUSED)
        return shown[0]
