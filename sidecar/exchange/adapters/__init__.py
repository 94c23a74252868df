"""Dialects of token services, one file each. Settings choose one by its name; others register by entry point.

A distribution of your own registers an ``Adapter`` under ``delegation_sidecar.adapters`` (docs/adapters.md). It is
loaded only if the settings name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sidecar.exchange.adapters import (
    agent_grant,
    entra_agent_id,
    id_jag_04,
    identity_chaining,
    keycloak_26_7,
    keycloak_26_8,
    obo,
    rfc8693,
    workload_grant,
)
from sidecar.exchange.adapters.adapter import Adapter

GROUP: Final = "delegation_sidecar.adapters"
BUILT_IN: Final[Mapping[str, Adapter]] = MappingProxyType(
    {
        one.name: one
        for one in (
            rfc8693.ADAPTER,
            entra_agent_id.ADAPTER,
            id_jag_04.ADAPTER,
            identity_chaining.ADAPTER,
            keycloak_26_7.ADAPTER,
            keycloak_26_8.ADAPTER,
            workload_grant.ADAPTER,
            obo.ADAPTER,
            agent_grant.ADAPTER,
        )
    }
)


def find_adapter(name: str) -> Adapter:
    """Return the adapter of this name: a built-in one, or one that an installed distribution registers.

    Raises:
        ValueError: there is none, there are two, or it cannot be loaded. The text names the fix.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    from importlib.metadata import entry_points  # a running sidecar looks for none: settings come with their adapters

    found = entry_points(group=GROUP, name=name)
    if len(found) != 1:
        why = "several distributions register it" if found else f"it is unknown; choose one of {', '.join(names())}"
        raise ValueError(f"adapter: {why}")
    (point,) = found
    try:
        adapter = point.load()
    except Exception as error:  # whatever a foreign module does while it is imported
        raise ValueError(f"adapter: {point.value} cannot be loaded ({type(error).__name__})") from error
    if not isinstance(adapter, Adapter) or adapter.name != name:
        raise ValueError(f"adapter: {point.value} is no Adapter of this name")
    return adapter


def names() -> list[str]:
    """Return the names of all adapters that are installed."""
    from importlib.metadata import entry_points

    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})
