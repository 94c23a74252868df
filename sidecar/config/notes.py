"""Notes on settings that are valid and may still surprise: each names its field, its effect and the cure. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.settings import SidecarSettings
from sidecar.errors import Problem


def sidecar_notes(settings: SidecarSettings) -> Iterator[Problem]:
    """Yield a note for each inbound route that is open wider, or closed tighter, than its author may think."""
    for number, route in enumerate(settings.inbound_routes.routes):
        where = f"inbound.routes[{number}]"
        if not route.scopes:
            yield Problem(
                f"{where}.scopes",
                f"is empty: on route {route.name} every delegated token for this workload is enough",
                "list the scopes that the call needs",
            )
        if not route.peers:
            yield Problem(
                f"{where}.peers",
                f"is empty: route {route.name} refuses every peer",
                "list the SPIFFE IDs that may call, or remove the route",
            )
