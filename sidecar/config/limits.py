"""Sections of limits, made from the settings dataclasses of ``wire`` and ``proxy``.

A limit that is added there, with its meaning, is a setting at once (docs/contributing/setting.md).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

from pydantic import Field, create_model

from sidecar.config.sections import Section
from sidecar.proxy.listening.connection_limits import ConnectionLimits
from sidecar.proxy.listening.memory_pressure import MemoryLimits
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.resolver import ResolverSettings


def _section(name: str, settings: type) -> type[Section]:
    """Make a section with the fields and defaults of a settings dataclass; numbers must be above zero.

    Each field is ``Annotated[TYPE, "its meaning"]``, and may have a mapping of further bounds: ``{"le": 60}``.

    Raises:
        TypeError: a field has no meaning.
    """
    hints = get_type_hints(settings, include_extras=True)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        if field.default is dataclasses.MISSING:
            continue
        if get_origin(hints[field.name]) is not Annotated:
            at = f"{settings.__module__}: {settings.__name__}.{field.name}"
            raise TypeError(f'{at} has no meaning; write {field.name}: Annotated[{field.type}, "the longest …"]')
        kind, meaning, *bounds = get_args(hints[field.name])
        above = {"gt": 0} if isinstance(field.default, int | float | None) else {}
        found[field.name] = (kind, Field(field.default, description=meaning, **{**above, **(bounds or [{}])[0]}))
    return create_model(name, __base__=Section, __doc__=settings.__doc__, **found)


if TYPE_CHECKING:
    ConnectionLimitsSection: TypeAlias = Section
    ServerLimitsSection: TypeAlias = Section
    ClientLimitsSection: TypeAlias = Section
    DnsSection: TypeAlias = Section
    MemorySection: TypeAlias = Section
else:
    ConnectionLimitsSection = _section("ConnectionLimitsSection", ConnectionLimits)
    ServerLimitsSection = _section("ServerLimitsSection", ServerLimits)
    ClientLimitsSection = _section("ClientLimitsSection", ClientLimits)
    DnsSection = _section("DnsSection", ResolverSettings)
    MemorySection = _section("MemorySection", MemoryLimits)
