"""Settings in pods of the chart: the variables that ``helm/sidecar`` supplies, and the settings files in its values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from delegation_core.errors import ConfigError, Problem
from sidecar.config.document import read_text
from sidecar.config.kinds import Kind
from sidecar.config.settings import SidecarSettings

Document = Mapping[str, Any]

_SOCKET: Final = "unix:///spiffe-workload-api/spire-agent.sock"
SIDECAR: Final[Mapping[str, str]] = {  # of the container that the chart renders
    "SIDECAR__PROBE__LISTEN": "0.0.0.0:7090",
    "SIDECAR__ADMIN__SOCKET": "/run/sidecar/admin.sock",
    "SPIFFE_ENDPOINT_SOCKET": _SOCKET,
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",  # every pod has it
}
_STS: Final[Mapping[str, str]] = {  # what the chart writes into sts.settings
    "SIDECAR__LISTEN": "0.0.0.0:7444",
    "SIDECAR__PROBE__LISTEN": "0.0.0.0:7090",
    "SIDECAR__KEYS__DIRECTORY": "/etc/sidecar/sts-keys",
    "SIDECAR__IDENTITY__WORKLOAD_API": _SOCKET,
}
_REVOCATION: Final[Mapping[str, str]] = {
    "SIDECAR__REVOCATION__FILE": "/var/lib/sidecar/revocations.json",
    "SIDECAR__REVOCATION__REPLICAS": '["https://sts-replicas:7444"]',
}
_EVENTS: Final[Mapping[str, str]] = {"SIDECAR__REVOCATION__EVENTS__LISTEN": "0.0.0.0:7446"}
PORTS: Final[Mapping[str, int]] = {"inbound": 7443, "outbound": 7080, "probe": 7090, "plain": 0, "door": 0}
VALUES: Final = frozenset({  # top-level keys of the chart that no settings file has
    "sidecar", "sts", "workloads", "platforms", "injector", "admissionPolicy", "networkPolicy", "spiffeIDs",
    "podMonitor", "prometheusRule", "dashboards", "nameOverride", "imagePullSecrets", "global",
})  # fmt: skip
_OF_CHART: Final = (
    "listen", "probe", "identity", "keys.directory",
    "revocation.file", "revocation.replicas", "revocation.events.listen",
)  # fmt: skip


class PodFile(NamedTuple):
    """One settings file of a pod: its place in the values, and the variables, ports and platform from the chart."""

    where: str
    kind: Kind
    settings: Document
    environ: Mapping[str, str]
    ports: Mapping[str, int]
    platform: Document | None = None


class _Loader(yaml.SafeLoader):
    """YAML loader that reads dates as text, as Helm does."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:timestamp"]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def values_in(path: Path) -> Document | None:
    """Read a values file of the chart; None for any other file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        document = yaml.load(read_text(path), _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        return None  # the reader of settings reports the error
    return document if isinstance(document, dict) and document.keys() & VALUES else None


def pod_files(values: Document) -> Iterator[PodFile]:
    """Yield every settings file in the chart's values.

    Raises:
        ConfigError: a part does not have the form of the chart's values.
    """
    sidecar, sts = _mapping(values, "sidecar"), _mapping(values, "sts")
    ports = {**PORTS, **{name: port for name, port in _mapping(sidecar, "ports").items() if isinstance(port, int)}}
    variables = {str(one.get("name")): str(one.get("value")) for one in _mappings(sidecar, "extraEnv")}
    environ = {**SIDECAR, "SIDECAR__PROBE__LISTEN": f"0.0.0.0:{ports['probe']}", **variables}
    platforms = _mappings(values, "platforms")
    for at, one in enumerate(platforms):
        yield PodFile(f"platforms[{at}].settings", "platform", _mapping(one, "settings"), {}, ports)
    for at, one in enumerate(_mappings(values, "workloads")):
        above = [
            _mapping(ceiling, "settings")
            for ceiling in platforms
            if (ceiling.get("name"), ceiling.get("namespace")) == (sidecar.get("platform"), one.get("namespace"))
        ]
        where, settings = f"workloads[{at}].settings", _mapping(one, "settings")
        yield PodFile(where, "sidecar", settings, environ, ports, above[0] if above else None)
    if sts.get("settings"):
        settings = _mapping(sts, "settings")
        yield PodFile("sts.settings", "sts", settings, sts_variables(settings), ports)


def sts_variables(settings: Document) -> Mapping[str, str]:
    """Return, as environment variables, the settings that the chart writes for its token service."""
    revocation = settings.get("revocation")
    kept = _REVOCATION if isinstance(revocation, dict) else {}
    return {**_STS, **kept, **(_EVENTS if kept and isinstance(revocation, dict) and revocation.get("events") else {})}


def supplied_twice(kind: Kind, settings: Document) -> Iterator[Problem]:
    """Yield a problem for each key in ``settings`` that the chart sets itself."""
    for place in _OF_CHART if kind == "sts" else ():
        at: Any = settings
        for part in place.split("."):
            at = at.get(part) if isinstance(at, dict) else None
        if at is not None:
            yield Problem(place, "is set by the chart", "leave it out")


def port_problems(settings: SidecarSettings, ports: Mapping[str, int]) -> Iterator[Problem]:
    """Yield a problem for each listener whose port differs from the pod's, so that no caller would reach it."""
    sides = {
        "inbound": settings.inbound,
        "outbound": settings.outbound,
        "plain": None if settings.inbound is None else settings.inbound.plain,
        "door": settings.door,
    }
    fields = {"plain": "inbound.plain.listen", "door": "entry.door.listen"}
    for name, side in sides.items():
        if side is not None and side.listen.port != ports[name]:
            wrong = f"has the port {side.listen.port}; sidecar.ports.{name} of the chart is {ports[name]}"
            yield Problem(fields.get(name, f"{name}.listen"), wrong, "write the same port in both")


def _mapping(parent: Document, name: str) -> Document:
    value = parent.get(name)
    if value is not None and not isinstance(value, dict):
        raise ConfigError([Problem(name, "is not a mapping", "write it as in the chart's values.yaml")])
    return value or {}


def _mappings(parent: Document, name: str) -> list[Document]:
    value = parent.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ConfigError([Problem(name, "is not a list of mappings", "write it as in the chart's values.yaml")])
    return value
