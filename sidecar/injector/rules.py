"""Which pods are refused: what would let an agent become its sidecar, read its secrets, or do without it.

The same rules stand in the chart's ValidatingAdmissionPolicy, which holds when the webhook is gone. Neither looks at
marker annotations: what a pod *is* decides, and not what is written on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.injector.fields import flag, mapping, mappings, number, text, texts
from sidecar.injector.injection import Injection

INJECT_LABEL: Final = "delegation-sidecar.io/inject"
SETTINGS_ANNOTATION: Final = "delegation-sidecar.io/settings"
HARMLESS_CAPABILITIES: Final = frozenset({"NET_BIND_SERVICE"})  # all that Pod Security *restricted* lets one add

RULES: Final = (
    "malformed",
    "opt_out",
    "no_settings",
    "host_namespace",
    "shared_process_namespace",
    "sidecar_uid",
    "privileged",
    "sidecar_volume",
    "port_clash",
    "foreign_sidecar",
)

Pod = Mapping[str, object]
Container = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pod is refused: the ``rule``, the ``layer`` of the pod it is about, what is ``wrong``, and the ``cure``."""

    rule: str
    layer: str
    wrong: str
    cure: str

    def __str__(self) -> str:
        return f"rule {self.rule} (layer {self.layer}): {self.wrong}; {self.cure}"


def refusals(pod: Pod, injection: Injection) -> Iterator[Refusal]:
    """Everything in a pod that is forbidden beside a sidecar.

    Raises:
        MalformedError: the pod is not of Kubernetes' shape.
    """
    spec = mapping(pod, "spec")
    yield from _of_labels(pod, injection)
    yield from _of_pod(spec)
    yield from _of_volumes(spec, injection)
    user = number(mapping(spec, "securityContext"), "runAsUser")
    for layer, container in others(spec, injection):
        yield from _of_container(layer, container, injection, pod_user=user)


def others(spec: Pod, injection: Injection) -> Iterator[tuple[str, Container]]:
    """Every container but the sidecar, with its layer. The sidecar's name is nobody else's in its own list."""
    for kind, layer in (("initContainers", "init container"), ("containers", "container")):
        for container in mappings(spec, kind):
            if kind != injection.goes_into or text(container, "name") != injection.name:
                yield f"{layer} {text(container, 'name')}", container
    for container in mappings(spec, "ephemeralContainers"):
        yield f"ephemeral container {text(container, 'name')}", container


def _of_labels(pod: Pod, injection: Injection) -> Iterator[Refusal]:
    value = mapping(mapping(pod, "metadata"), "labels").get(INJECT_LABEL)
    if value is not None and value != "enabled" and not injection.opt_out:
        yield Refusal("opt_out", "label", f"{INJECT_LABEL} is not enabled", "no pod here does without: leave it out")


def _of_pod(spec: Pod) -> Iterator[Refusal]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if flag(spec, name):
            yield Refusal("host_namespace", "pod", f"{name} shares the node's namespace", "leave it out")
    if flag(spec, "shareProcessNamespace"):
        yield Refusal("shared_process_namespace", "pod", "the agent could read the sidecar's memory", "leave it out")


def _of_volumes(spec: Pod, injection: Injection) -> Iterator[Refusal]:
    ours = {str(volume["name"]) for volume in injection.volumes}
    for volume in mappings(spec, "volumes"):
        name = text(volume, "name")
        if name in ours:
            continue  # whether it is really ours, `inject` looks
        if text(mapping(volume, "csi"), "driver") == injection.driver:
            yield Refusal("sidecar_volume", f"volume {name}", "it has the Workload API", "leave it to the sidecar")
        if "hostPath" in volume and volume["hostPath"] is not None:
            wrong = "a path of the node may lead to the Workload API"
            yield Refusal("sidecar_volume", f"volume {name}", wrong, "use another kind of volume")


def _of_container(layer: str, container: Container, injection: Injection, *, pod_user: int | None) -> Iterator[Refusal]:
    context = mapping(container, "securityContext")
    own_user = number(context, "runAsUser")
    if text(container, "name") == injection.name:
        wrong = f"{injection.name} is the sidecar's name"
        yield Refusal("foreign_sidecar", layer, wrong, "leave it out, or call it otherwise")
    if (pod_user if own_user is None else own_user) == injection.uid:
        yield Refusal("sidecar_uid", layer, f"user {injection.uid} is the sidecar's", "give it another runAsUser")
    if flag(context, "privileged"):
        yield Refusal("privileged", layer, "it is privileged", "leave it out")
    for added in texts(mapping(context, "capabilities"), "add"):
        if added.upper().removeprefix("CAP_") not in HARMLESS_CAPABILITIES:
            yield Refusal("privileged", layer, "it adds a capability", "add none but NET_BIND_SERVICE")
    if text(container, "targetContainerName") == injection.name:
        yield Refusal("shared_process_namespace", layer, "it joins the sidecar's processes", "target another container")
    ours = {str(volume["name"]) for volume in injection.volumes}
    for mount in (*mappings(container, "volumeMounts"), *mappings(container, "volumeDevices")):
        if text(mount, "name") in ours:
            wrong = f"it mounts {text(mount, 'name')}"
            yield Refusal("sidecar_volume", layer, wrong, "leave it to the sidecar")
    for port in mappings(container, "ports"):
        if number(port, "containerPort") in injection.ports:
            wrong = f"port {number(port, 'containerPort')} is the sidecar's"
            yield Refusal("port_clash", layer, wrong, "listen on another")
