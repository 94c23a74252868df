"""Traces in settings: made from their section, and what they need."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from delegation_core.console.extras import install_command
from delegation_core.errors import Problem
from sidecar.config.addresses import parse_url
from sidecar.config.platform_file import Platform
from sidecar.config.sections import scalars
from sidecar.config.sidecar_model import SidecarFile
from sidecar.identity.endpoint import is_loopback
from sidecar.observe.telemetry.settings import TracingSettings

_NEEDED: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def tracing_of(file: SidecarFile) -> TracingSettings | None:
    """Make the settings of traces; None if there are none."""
    section = file.tracing
    if section is None:
        return None
    return TracingSettings(
        endpoint=section.endpoint,
        ca=None if section.ca is None else Path(section.ca),
        headers={name: Path(path) for name, path in section.headers.items()},
        subject_key=None if section.subject_key is None else Path(section.subject_key),
        service_name=section.service_name,
        **scalars(section, TracingSettings),
    )


def tracing_problems(file: SidecarFile, platform: Platform | None) -> Iterator[Problem]:
    """Report a missing library, settings that cannot hold, and a collector that the platform file does not list."""
    section = file.tracing
    if section is None:
        return
    if not all(map(_installed, _NEEDED)):
        yield Problem("tracing", "needs OpenTelemetry, which is not installed", install_command("otel"))
    url = parse_url(section.endpoint)
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        yield Problem("tracing.endpoint", "is plain http beyond loopback", "use https, or a collector on this machine")
    elif section.ca is not None and url.scheme == "http":
        yield Problem("tracing.ca", "has no effect: the endpoint has no TLS", "write https in endpoint, or remove it")
    if url.query or url.fragment:
        yield Problem("tracing.endpoint", "has a query or a fragment", "write the base URL; /v1/traces is added to it")
    if platform is not None and section.endpoint not in platform.collectors:
        yield Problem(
            "tracing.endpoint", "is not one of the platform's collectors", "list it there, or remove the section"
        )


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
