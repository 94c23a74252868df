"""Location of a process, from Kubernetes' downward API: recorded once per run, which every record names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

_VARIABLES: Final = {
    "pod": "POD_NAME",
    "namespace": "POD_NAMESPACE",
    "service_account": "POD_SERVICE_ACCOUNT",
    "node": "NODE_NAME",
}


def placement(environ: Mapping[str, str]) -> str | None:
    """``pod=planner-5d9f namespace=agents service_account=planner node=node-1``; None outside of Kubernetes."""
    facts = [f"{name}={environ[variable]}" for name, variable in _VARIABLES.items() if environ.get(variable)]
    return " ".join(facts) or None


def network_namespace(proc: Path = Path("/proc")) -> str | None:
    """Return a name of this process's network namespace, unique across machines; None if unknown.

    Processes of one namespace reach each other's loopback addresses.
    """
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {(proc / 'self/ns/net').readlink()}"
    except (OSError, ValueError):
        return None
