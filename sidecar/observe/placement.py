"""Location of a process, from Kubernetes' downward API: recorded once per run, which every record names."""

from __future__ import annotations

from collections.abc import Mapping
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
