"""Schema of an entry's door."""

from __future__ import annotations

from pydantic import Field

from sidecar.config.field_types import AddressText, FileText, Line, RouteName, UrlText
from sidecar.config.limits import ConnectionLimitsSection, ServerLimitsSection
from sidecar.config.sections import Section


class DoorSection(Section):
    """A listener with public TLS for people's own clients, such as IDEs and browsers. They log in for `resource`."""

    listen: AddressText = Field(description="address where they connect")
    certificate: FileText = Field(
        description="PEM file: certificate of the host in `resource`, and its intermediates; followed as it changes"
    )
    key: FileText = Field(
        description="PEM file of its private key, mode 0600, or 0640 of another user; followed as it changes"
    )
    resource: UrlText = Field(
        description="the URL that clients are given; a login token must name it, and nothing else, in `aud`"
    )
    routes: list[RouteName] = Field(
        min_length=1, description="the outbound routes of MCP that the door opens, by their prefixes"
    )
    authorization_servers: list[Line] = Field(
        default=[], description="the `entry.issuers` whose login tokens it takes; if empty, all with access tokens"
    )
    origins: list[Line] = Field(
        default=[], description="origins of pages that may call it from a browser; all others are refused"
    )
    connections: ConnectionLimitsSection = Field(
        default=ConnectionLimitsSection(),
        description="limits on the number of its connections; `max_connections` is an eighth if not set",
    )
    limits: ServerLimitsSection = Field(default=ServerLimitsSection(), description="limits of its connections")
