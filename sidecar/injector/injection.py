"""The injected container and volumes, which the chart rendered from the library's one definition."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from delegation_core.errors import ConfigError, Problem
from delegation_core.strict_json import StrictJsonError, parse_object
from sidecar.injector.fields import MalformedError, flag, mapping, mappings, number, text
from sidecar.injector.sizes import SECONDS, Bound, Sizes, apply_sizes, bounds_of, misfits_of, sizes_of_namespace

SETTINGS_VOLUME: Final = "sidecar-settings"  # the volume whose ConfigMap differs for each workload
KEYS_VOLUME: Final = "sidecar-keys"  # a Secret that differs, in pods that ask for it
HANDLE_VOLUME: Final = "sidecar-handle"  # in pods that ask for it
DOOR_VOLUME: Final = "sidecar-door"  # the Secret of a door's certificate, in pods that ask for it
MAX_BYTES: Final = 65_536
_KEYS: Final = {"mode", "ports", "optOut", "container", "volumes", "agentEnv", "bounds", "namespaces"}

List = Literal["initContainers", "containers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """One definition of the sidecar, inserted first into the list ``goes_into`` of a pod's spec.

    ``agent_env`` are variables of every container beside it, such as the address for calls; ``ports`` are all that the
    sidecar listens on; ``opt_out`` allows pods without a sidecar; ``bounds`` limit what pods choose by annotations,
    ``namespaces`` are sizes for all pods of one; ``digest`` names the definition, 64 bits of its SHA-256 in hex.
    """

    goes_into: List
    container: Mapping[str, Any]
    volumes: Sequence[Mapping[str, Any]]
    agent_env: Sequence[Mapping[str, str]]
    ports: frozenset[int]
    opt_out: bool
    bounds: Mapping[str, Bound]
    namespaces: Mapping[str, Sizes]
    digest: str

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.container["name"])

    @property
    def uid(self) -> int:
        """The user that no other container may run as."""
        return int(self.container["securityContext"]["runAsUser"])

    @property
    def driver(self) -> str:
        """The CSI driver that provides the Workload API."""
        return next(str(volume["csi"]["driver"]) for volume in self.volumes if "csi" in volume)

    @property
    def probe_port(self) -> object:
        """The port for the kubelet's probes of the sidecar and, through it, of the agent."""
        return self.container["readinessProbe"]["httpGet"]["port"]

    def container_in(self, namespace: str) -> dict[str, Any]:
        """Return the container for a namespace's pods without annotations of their own."""
        return apply_sizes(self.container, self.namespaces.get(namespace, {}))

    def has(self, volume: str) -> bool:
        """Tell if the platform lets pods have this volume."""
        return any(one["name"] == volume for one in self.volumes)

    def container_for(self, namespace: str, *, keys: bool, handle: bool, door: bool) -> dict[str, Any]:
        """Return the container of ``container_in``, with the mounts that the pod asks for."""
        left_out = _left_out(keys=keys, handle=handle, door=door)
        container = self.container_in(namespace)
        kept = [mount for mount in container.get("volumeMounts", ()) if mount["name"] not in left_out]
        return {**container, "volumeMounts": kept} if kept else container

    def volumes_for(
        self, settings: str, *, keys: str = "", handle: bool = False, door: str = ""
    ) -> list[dict[str, Any]]:
        """Return the pod's volumes: the ConfigMap ``settings``, and the Secrets ``keys`` and ``door`` if named."""
        left_out = _left_out(keys=bool(keys), handle=handle, door=bool(door))
        volumes = copy.deepcopy([dict(volume) for volume in self.volumes if volume["name"] not in left_out])
        for volume in volumes:
            if volume["name"] == SETTINGS_VOLUME:
                volume["configMap"]["name"] = settings
            elif volume["name"] == KEYS_VOLUME:
                volume["secret"]["secretName"] = keys
            elif volume["name"] == DOOR_VOLUME:
                volume["secret"]["secretName"] = door
        return volumes


def _left_out(*, keys: bool, handle: bool, door: bool) -> set[str]:
    asked = ((KEYS_VOLUME, keys), (HANDLE_VOLUME, handle), (DOOR_VOLUME, door))
    return {name for name, wanted in asked if not wanted}


def parse_injection(document: bytes) -> Injection:
    """Parse the ConfigMap that the chart writes.

    Raises:
        ConfigError: the document does not have the chart's form.
    """
    try:
        members = parse_object(document, max_bytes=MAX_BYTES)
        injection = _injection(members, hashlib.sha256(document).hexdigest()[:16])
    except (StrictJsonError, MalformedError) as error:
        fix = "let the chart render it, of the version of this image"
        raise ConfigError([Problem("injection", str(error), fix)]) from error
    return injection


def _injection(members: dict[str, object], digest: str) -> Injection:
    if members.keys() != _KEYS:
        names = ", ".join(sorted(_KEYS))
        raise MalformedError(f"it has members other than {names}")
    modes: dict[str, List] = {"native": "initContainers", "classic": "containers"}
    goes_into = modes.get(text(members, "mode"))
    ports = members["ports"]
    container, volumes = mapping(members, "container"), mappings(members, "volumes")
    if goes_into is None:
        raise MalformedError("mode is neither native nor classic")
    if not isinstance(ports, list) or not all(isinstance(port, int) for port in ports):
        raise MalformedError("ports is not a list of integers")
    if not text(container, "name") or number(mapping(container, "securityContext"), "runAsUser") is None:
        raise MalformedError("container.name or container.securityContext.runAsUser is missing")
    variables = mappings(members, "agentEnv")
    if any(one.keys() != {"name", "value"} or not text(one, "name") or not text(one, "value") for one in variables):
        raise MalformedError("agentEnv is not a list of {name, value}")
    if number(mapping(mapping(container, "readinessProbe"), "httpGet"), "port") is None:
        raise MalformedError("container.readinessProbe.httpGet.port is missing")
    if not any(text(mapping(volume, "csi"), "driver") for volume in volumes):
        raise MalformedError("volumes: none has csi.driver, the Workload API")
    if not any(text(volume, "name") == SETTINGS_VOLUME and mapping(volume, "configMap") for volume in volumes):
        raise MalformedError(f"volumes: none is the ConfigMap {SETTINGS_VOLUME}")
    for volume in volumes:
        kind = {KEYS_VOLUME: "secret", HANDLE_VOLUME: "emptyDir", DOOR_VOLUME: "secret"}.get(text(volume, "name"))
        mounts = [text(mount, "name") for mount in mappings(container, "volumeMounts")]
        if kind is not None and (kind not in volume or mounts.count(text(volume, "name")) != 1):
            raise MalformedError(f"volumes: {text(volume, 'name')} is no {kind} that the container mounts once")
    if number(mapping(container, "startupProbe"), "failureThreshold") is None:
        raise MalformedError(f"container.startupProbe.failureThreshold is missing, which {SECONDS} sets")
    bounds = bounds_of(mapping(members, "bounds"))
    namespaces = mapping(members, "namespaces")
    injection = Injection(
        goes_into=goes_into,
        container=container,
        volumes=volumes,
        agent_env=[{"name": text(one, "name"), "value": text(one, "value")} for one in variables],
        ports=frozenset(ports),
        opt_out=flag(members, "optOut"),
        bounds=bounds,
        namespaces={name: sizes_of_namespace(mapping(namespaces, name), bounds) for name in namespaces},
        digest=digest,
    )
    for namespace in ("", *namespaces):
        whole = injection.container_in(namespace)
        for one in misfits_of(whole, whole, bounds):
            raise MalformedError(f"container in {namespace or 'other namespaces'}: {one.where}: {one.wrong}")
    return injection
