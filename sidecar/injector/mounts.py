"""Mounts that differ between pods: the settings, Secrets of static keys and of a door, the workload handle's directory.

A pod requests each by an annotation, or has the volume already because its own chart includes the library. Only the
sidecar may mount the Secrets. The sidecar and one other container, read-only, may mount the handle. This module also
sets the variables of the other containers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.injector.fields import mapping, mappings, number, text
from sidecar.injector.injection import DOOR_VOLUME, HANDLE_VOLUME, KEYS_VOLUME, SETTINGS_VOLUME, Injection
from sidecar.injector.rules import SETTINGS_ANNOTATION, Container, Pod, Refusal, other_containers, printable

KEYS_ANNOTATION: Final = "delegation-sidecar.io/keys"
HANDLE_ANNOTATION: Final = "delegation-sidecar.io/workload-handle"
DOOR_ANNOTATION: Final = "delegation-sidecar.io/door"
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_READER_FIX: Final = "leave it to the sidecar, or put it in another Secret"
_HANDLE_FIX: Final = "leave the annotation out; the platform sets injector.allowWorkloadHandle"


@dataclass(frozen=True, slots=True)
class SecretMount:
    """A Secret that only the sidecar may mount, named by an annotation. ``rule`` refuses pods, ``what`` describes the
    content, and ``value`` is the chart's value that allows the mount.
    """

    rule: str
    volume: str
    annotation: str
    what: str
    value: str


KEYS: Final = SecretMount("keys", KEYS_VOLUME, KEYS_ANNOTATION, "keys", "injector.allowKeys")
DOOR: Final = SecretMount("door", DOOR_VOLUME, DOOR_ANNOTATION, "door", "sidecar.ports.door")


@dataclass(frozen=True, slots=True)
class Mounts:
    """A pod's own mounts: the ConfigMap ``settings``, the Secrets ``keys`` and ``door`` (empty: none), if the sidecar
    has the ``handle``, and the container ``agent`` that gets it (empty: none).
    """

    settings: str
    keys: str
    door: str
    handle: bool
    agent: str


def mounts_of(pod: Pod, injection: Injection) -> Mounts:
    """Return the mounts that a pod requests. If annotation and volume differ, the volume's name counts."""
    annotation, mounted = _settings_of(pod)
    volumes = {text(volume, "name") for volume in mappings(mapping(pod, "spec"), "volumes")}
    agent = _annotation(pod, HANDLE_ANNOTATION)
    return Mounts(
        settings=mounted or annotation,
        keys=_named(KEYS, pod, injection),
        door=_named(DOOR, pod, injection),
        handle=injection.has(HANDLE_VOLUME) and (bool(agent) or HANDLE_VOLUME in volumes),
        agent=agent,
    )


def mount_refusals(pod: Pod, injection: Injection) -> Iterator[Refusal]:
    """Yield refusals of missing, ambiguous or unsupported mounts, and of mounts open to other containers."""
    annotation, mounted = _settings_of(pod)
    if not _NAME.fullmatch(annotation or mounted):
        wrong = f"{SETTINGS_ANNOTATION} names no ConfigMap"
        yield Refusal("no_settings", "annotation", wrong, "name the one with the workload's sidecar.yaml")
    elif annotation and mounted and annotation != mounted:
        wrong = f"{SETTINGS_ANNOTATION} and the volume {SETTINGS_VOLUME} name two ConfigMaps"
        yield Refusal("no_settings", "annotation", wrong, "name the same")
    for mount in (KEYS, DOOR):
        yield from _secret_refusals(mount, pod, injection)
    yield from _handle_refusals(pod, injection)


def agent_mount(injection: Injection) -> dict[str, Any]:
    """Return the read-only mount of the workload handle for the agent's container, at the sidecar's path."""
    (own,) = [one for one in injection.container["volumeMounts"] if one["name"] == HANDLE_VOLUME]
    return {**own, "readOnly": True}


def agent_patch(pod: Pod, injection: Injection, agent: str) -> list[dict[str, Any]]:
    """Return the patch that mounts the workload handle in the container ``agent``. Apply it before other patches."""
    spec = mapping(pod, "spec")
    for kind in ("containers", "initContainers"):
        for at, container in enumerate(mappings(spec, kind)):
            if text(container, "name") != agent or _handle_mounts(container):
                continue
            way, mount = f"/spec/{kind}/{at}/volumeMounts", agent_mount(injection)
            if container.get("volumeMounts") is None:
                return [{"op": "add", "path": way, "value": [mount]}]
            return [{"op": "add", "path": f"{way}/-", "value": mount}]
    return []


def variables_patch(pod: Pod, injection: Injection) -> list[dict[str, Any]]:
    """Return the patch that sets the platform's variables in every other container. Apply it before other patches.

    They are put first, so that the container's variables can refer to them. Existing variables are kept.
    """
    spec = mapping(pod, "spec")
    patch: list[dict[str, Any]] = []
    for kind in ("initContainers", "containers"):
        for at, container in enumerate(mappings(spec, kind)):
            if kind == injection.goes_into and text(container, "name") == injection.name:
                continue
            names = {text(variable, "name") for variable in mappings(container, "env")}
            lacking = [dict(one) for one in injection.agent_env if one["name"] not in names]
            way = f"/spec/{kind}/{at}/env"
            if lacking and container.get("env") is None:
                patch.append({"op": "add", "path": way, "value": lacking})
            else:
                patch += [{"op": "add", "path": f"{way}/0", "value": one} for one in reversed(lacking)]
    return patch


def _annotation(pod: Pod, name: str) -> str:
    return text(mapping(mapping(pod, "metadata"), "annotations"), name)


def _volume(pod: Pod, name: str) -> Mapping[str, object]:
    found = [one for one in mappings(mapping(pod, "spec"), "volumes") if text(one, "name") == name]
    return found[0] if found else {}


def _settings_of(pod: Pod) -> tuple[str, str]:
    """Return the ConfigMap that the annotation names, and the one that an existing volume of ours names."""
    mounted = text(mapping(_volume(pod, SETTINGS_VOLUME), "configMap"), "name")
    return _annotation(pod, SETTINGS_ANNOTATION), mounted


def _secret_of(mount: SecretMount, pod: Pod) -> tuple[str, str]:
    """Return the Secret that the annotation names, and the one that an existing volume of ours names."""
    return _annotation(pod, mount.annotation), text(mapping(_volume(pod, mount.volume), "secret"), "secretName")


def _named(mount: SecretMount, pod: Pod, injection: Injection) -> str:
    annotation, mounted = _secret_of(mount, pod)
    return (mounted or annotation) if injection.has(mount.volume) else ""


def _secret_refusals(mount: SecretMount, pod: Pod, injection: Injection) -> Iterator[Refusal]:
    annotation, mounted = _secret_of(mount, pod)
    annotated = mount.annotation in mapping(mapping(pod, "metadata"), "annotations")
    if not injection.has(mount.volume):
        if annotated:
            fix = f"leave the annotation out; the platform sets {mount.value}"
            yield Refusal(mount.rule, "annotation", f"no sidecar here gets a Secret of its {mount.what}", fix)
        return
    secret = annotation or mounted
    if annotated and not _NAME.fullmatch(annotation):
        wrong = f"{mount.annotation} names no Secret"
        yield Refusal(mount.rule, "annotation", wrong, "name one of the pod's namespace")
    elif annotation and mounted and annotation != mounted:
        wrong = f"{mount.annotation} and the volume {mount.volume} name two Secrets"
        yield Refusal(mount.rule, "annotation", wrong, "name the same")
    elif secret:
        if number(mapping(mapping(pod, "spec"), "securityContext"), "fsGroup") is None:
            wrong = f"without a group for its volumes the sidecar cannot read the Secret of its {mount.what}"
            yield Refusal(mount.rule, "pod", wrong, f"set securityContext.fsGroup of the pod, such as {injection.uid}")
        yield from _readers(mount, pod, injection, secret)


def _readers(mount: SecretMount, pod: Pod, injection: Injection, secret: str) -> Iterator[Refusal]:
    """Refuse all other volumes and variables from the Secret: a container would have the sidecar's private keys."""
    spec = mapping(pod, "spec")
    wrong, fix = f"it reads the Secret of the sidecar's {mount.what}", _READER_FIX
    ours = {one.volume for one in (KEYS, DOOR) if injection.has(one.volume)}
    for volume in mappings(spec, "volumes"):
        sources = mappings(mapping(volume, "projected"), "sources")
        names = [text(mapping(source, "secret"), "name") for source in sources]
        names.append(text(mapping(volume, "secret"), "secretName"))
        if text(volume, "name") not in ours and secret in names:
            yield Refusal(mount.rule, f"volume {printable(text(volume, 'name'))}", wrong, fix)
    yield from _reading(mount, other_containers(spec, injection), secret)


def _reading(mount: SecretMount, containers: Iterable[tuple[str, Container]], secret: str) -> Iterator[Refusal]:
    """Refuse variables of these containers that come from the ``secret``."""
    for layer, container in containers:
        sources = [mapping(source, "secretRef") for source in mappings(container, "envFrom")]
        sources += [mapping(mapping(one, "valueFrom"), "secretKeyRef") for one in mappings(container, "env")]
        if secret in {text(source, "name") for source in sources}:
            yield Refusal(mount.rule, layer, f"it reads the Secret of the sidecar's {mount.what}", _READER_FIX)


def debugger_readers(pod: Pod, injection: Injection) -> Iterator[Refusal]:
    """Refuse debuggers of a running pod that read a Secret of its sidecar."""
    spec = mapping(pod, "spec")
    debuggers = [one for one in other_containers(spec, injection) if one[0].startswith("ephemeral ")]
    for mount in (KEYS, DOOR):
        if secret := _named(mount, pod, injection):
            yield from _reading(mount, debuggers, secret)


def _handle_refusals(pod: Pod, injection: Injection) -> Iterator[Refusal]:
    annotated = HANDLE_ANNOTATION in mapping(mapping(pod, "metadata"), "annotations")
    agent = _annotation(pod, HANDLE_ANNOTATION)
    if not injection.has(HANDLE_VOLUME):
        if annotated:
            yield Refusal("workload_handle", "annotation", "no agent here gets the workload handle", _HANDLE_FIX)
        return
    beside = list(other_containers(mapping(pod, "spec"), injection))
    if annotated and agent not in {text(container, "name") for _, container in beside}:
        wrong = f"{HANDLE_ANNOTATION} names no container of the pod"
        yield Refusal("workload_handle", "annotation", wrong, "name the agent's container")
    wanted = agent_mount(injection)
    having = [(layer, container) for layer, container in beside if _handle_mounts(container)]
    first = text(having[0][1], "name") if having else ""
    for layer, container in having:
        if text(container, "name") != (agent or first):
            wrong = f"it mounts {HANDLE_VOLUME} besides the agent"
            yield Refusal("workload_handle", layer, wrong, "leave it to one container, the agent's")
        elif _handle_mounts(container) != [wanted]:
            wrong = f"it mounts {HANDLE_VOLUME} otherwise than read-only at {wanted['mountPath']}"
            yield Refusal("workload_handle", layer, wrong, "leave the mount to the injector")


def _handle_mounts(container: Container) -> list[Mapping[str, object]]:
    mounts = (*mappings(container, "volumeMounts"), *mappings(container, "volumeDevices"))
    return [mount for mount in mounts if text(mount, "name") == HANDLE_VOLUME]
