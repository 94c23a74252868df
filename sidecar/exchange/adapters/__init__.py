"""Dialects of token services, one file each. Settings choose one by its name; others register by entry point.

A distribution of your own registers an ``Adapter`` under ``delegation_sidecar.adapters`` (docs/adapters.md). It is
loaded only if the settings name it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from sidecar.exchange.adapters.adapter import Adapter

GROUP: Final = "delegation_sidecar.adapters"
_MODULES: Final[Mapping[str, str]] = {
    "rfc8693": "rfc8693",
    "entra-agent-id": "entra_agent_id",
    "id-jag-04": "id_jag_04",
    "identity-chaining": "identity_chaining",
    "keycloak-26.7": "keycloak_26_7",
    "keycloak-26.8": "keycloak_26_8",
    "workload-authorization-grant-02": "workload_grant",
    "obo-draft-02": "obo",
    "agent-grant-draft": "agent_grant",
}


class _BuiltIn(Mapping[str, Adapter]):
    """The adapters of this distribution by name, each imported at its first lookup."""

    def __getitem__(self, name: str) -> Adapter:
        adapter: Adapter = import_module(f"{__name__}.{_MODULES[name]}").ADAPTER
        return adapter

    def __contains__(self, name: object) -> bool:
        return name in _MODULES

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


BUILT_IN: Final[Mapping[str, Adapter]] = _BuiltIn()


def find_adapter(name: str) -> Adapter:
    """Return the adapter of this name: a built-in one, or one that an installed distribution registers.

    Raises:
        ValueError: there is none, there are several, or it is not a loadable ``Adapter`` of this name.
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
        raise ValueError(f"adapter: {point.value} is not an Adapter of this name")
    return adapter


def names() -> list[str]:
    """Return the names of all adapters that are installed."""
    from importlib.metadata import entry_points

    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})
