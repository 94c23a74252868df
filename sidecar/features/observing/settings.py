"""Settings of routes that only observe: section, builder and checks. Pure: the time of loading is an argument.

A past day is accepted: the route then enforces, and a restarting sidecar must come up.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pydantic import Field

from delegation_core.errors import Problem
from sidecar.config.addresses import parse_address
from sidecar.config.field_types import AddressText, Day, start_of
from sidecar.config.sections import Section
from sidecar.config.settings import PlainSettings
from sidecar.config.validation import forbidden

if TYPE_CHECKING:
    from sidecar.config.platform_file import Platform
    from sidecar.config.sidecar_model import SidecarFile

MAX_DAYS: Final = 30
_DAY_S: Final = 86_400


class PlainSection(Section):
    """A port without TLS, for callers that have no sidecar yet. It serves only routes that observe, without a peer and
    without a handle. The platform file must allow it.
    """

    listen: AddressText = Field(description="address where such callers connect, by plain HTTP")
    until: Day = Field(description="the day on which the port closes, at 00:00 UTC; at most 30 days from now")


def plain_of(section: PlainSection | None) -> PlainSettings | None:
    """Make the settings of the port without TLS; None without a section."""
    if section is None:
        return None
    return PlainSettings(listen=parse_address(section.listen), until=start_of(section.until))


def observe_problems(file: SidecarFile, now: float) -> Iterator[Problem]:
    """Report a day that is more than ``MAX_DAYS`` after ``now``, and a route whose unknown subjects would mix."""
    latest = start_of(datetime.fromtimestamp(now, UTC).date().isoformat()) + MAX_DAYS * _DAY_S
    for field, day in _days(file):
        if start_of(day) > latest:
            last_day = datetime.fromtimestamp(latest, UTC).date().isoformat()
            yield Problem(field, f"is more than {MAX_DAYS} days ahead", f"write {last_day} or an earlier day")
        if file.inbound is not None and file.inbound.subjects_at_once is not None and field.startswith("inbound"):
            yield Problem(field, "is set beside subjects_at_once, and an observed request has no subject", "remove one")


def plain_problems(file: SidecarFile, platform: Platform | None) -> Iterator[Problem]:
    """Report a port without TLS that no platform file allows, or that would serve nothing."""
    inbound = file.inbound
    if inbound is None or inbound.plain is None:
        return
    if platform is None:
        yield Problem(
            "inbound.plain", "needs a platform file that says plain: true", "start with --platform, or remove it"
        )
    elif not platform.plain:
        yield forbidden("inbound.plain")
    if all(route.observe_until is None for route in inbound.routes):
        yield Problem("inbound.plain", "serves routes that observe, and none does", "set observe_until, or remove it")


def _days(file: SidecarFile) -> Iterator[tuple[str, str]]:
    for where, route in file.inbound_routes():
        if route.observe_until is not None:
            yield f"{where}.observe_until", route.observe_until
    if file.inbound is not None and file.inbound.plain is not None:
        yield "inbound.plain.until", file.inbound.plain.until
    for where, target in file.outbound_routes():
        day: str | None = getattr(target, "observe_until", None)  # keyed routes and tunnels have no such key
        if day is not None:
            yield f"{where}.observe_until", day
