"""Checks of routes that only observe. Pure: the time of loading is an argument.

A past day is accepted: the route then enforces, and a restarting sidecar must come up.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from sidecar.config.field_types import start_of
from sidecar.config.outbound_model import OutboundRouteSection, PassthroughRouteSection
from sidecar.config.sidecar_model import SidecarFile
from sidecar.errors import Problem

MAX_DAYS: Final = 30
_DAY_S: Final = 86_400


def observe_problems(file: SidecarFile, now: float) -> Iterator[Problem]:
    """Report a day that is more than ``MAX_DAYS`` after ``now``, and a route whose unknown subjects would mix."""
    latest = start_of(datetime.fromtimestamp(now, UTC).date().isoformat()) + MAX_DAYS * _DAY_S
    for field, day in _days(file):
        if start_of(day) > latest:
            last_day = datetime.fromtimestamp(latest, UTC).date().isoformat()
            yield Problem(field, f"is more than {MAX_DAYS} days ahead", f"write {last_day} or an earlier day")
        if file.inbound is not None and file.inbound.subjects_at_once is not None and field.startswith("inbound"):
            yield Problem(field, "is set beside subjects_at_once, and an observed request has no subject", "remove one")


def _days(file: SidecarFile) -> Iterator[tuple[str, str]]:
    for where, route in file.inbound_routes():
        if route.observe_until is not None:
            yield f"{where}.observe_until", route.observe_until
    if file.inbound is not None and file.inbound.plain is not None:
        yield "inbound.plain.until", file.inbound.plain.until
    for where, target in file.outbound_routes():
        if isinstance(target, OutboundRouteSection | PassthroughRouteSection) and target.observe_until is not None:
            yield f"{where}.observe_until", target.observe_until
