"""Rules that refuse pods in which an agent could become its sidecar, read its secrets, or run without it.

The chart's ValidatingAdmissionPolicy has the same rules and holds when the webhook is gone. Neither reads marker
annotations: a pod is judged by its actual content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from delegation_core.records.record_text import escape
from sidecar.injector.fields import flag, mapping, mappings, number, text, texts
from sidecar.injector.injection import HANDLE_VOLUME, Injection

INJECT_LABEL: Final = "delegation-sidecar.io/inject"
SETTINGS_ANNOTATION: Final = "delegation-sidecar.io/settings"
HARMLESS_CAPABILITIES: Final = frozenset({"NET_BIND_SERVICE"})  # all that Pod Security *restricted* allows
IDENTITY_DRIVERS: Final = frozenset({"csi.spiffe.io", "spiffe.csi.cert-manager.io"})  # besides the configured one
_MIRROR: Final = "kubernetes.io/config.mirror"
_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"  # the API server turns it into a container's field
_SHOWN: Final = 63  # Kubernetes' limit for a name

RULES: Final = (
    "malformed",
    "opt_out",
    "no_settings",
    "size",
    "static_pod",
    "host_namespace",
    "shared_process_namespace",
    "sidecar_uid",
    "privileged",
    "sidecar_volume",
    "keys",
    "door",
    "workload_handle",
    "port_clash",
    "foreign_sidecar",
)

Pod = Mapping[str, object]
Container = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason to refuse a pod: the ``rule``, the ``layer`` of the pod, what is ``wrong``, and the ``fix``."""

    rule: str
    layer: str
    wrong: str
    fix: str

    def __str__(self) -> str:
        return f"rule {self.rule} (layer {self.layer}): {self.wrong}; {self.fix}"


def opted_out(pod: Pod, injection: Injection) -> bool:
    """Tell if the pod opts out of the sidecar, and the platform allows it."""
    return injection.opt_out and mapping(mapping(pod, "metadata"), "labels").get(INJECT_LABEL) == "disabled"


def refusals(pod: Pod, injection: Injection) -> Iterator[Refusal]:
    """Yield a refusal for each part of a pod that is forbidden beside a sidecar, or imitates one.

    Raises:
        MalformedError: the pod is malformed.
    """
    spec = mapping(pod, "spec")
    out = opted_out(pod, injection)
    yield from _of_metadata(pod, injection)
    yield from _of_pod(spec, out=out)
    yield from _of_volumes(spec, injection, out=out)
    pod_context = mapping(spec, "securityContext")
    for layer, container in _containers(spec) if out else other_containers(spec, injection):
        yield from _of_any_container(layer, container, injection, pod_context)
        if not out:
            yield from _of_neighbour(layer, container, injection, pod_context)


def debugger_refusals(spec: Pod, injection: Injection) -> Iterator[Refusal]:
    """Return the refusals of a running pod's ephemeral containers, which may not have the handle either."""
    pod_context = mapping(spec, "securityContext")
    for kind, layer, container in _by_list(spec):
        if kind == "ephemeralContainers":
            yield from _of_any_container(layer, container, injection, pod_context)
            yield from _of_neighbour(layer, container, injection, pod_context)
            if HANDLE_VOLUME in {text(mount, "name") for mount in mappings(container, "volumeMounts")}:
                yield Refusal("workload_handle", layer, f"it mounts {HANDLE_VOLUME}", "leave it to the agent")


def other_containers(spec: Pod, injection: Injection) -> Iterator[tuple[str, Container]]:
    """Yield every container but the sidecar, with its layer.

    No other container may use the sidecar's name in its list.
    """
    for kind, layer, container in _by_list(spec):
        if kind != injection.goes_into or text(container, "name") != injection.name:
            yield layer, container


def _containers(spec: Pod) -> Iterator[tuple[str, Container]]:
    return ((layer, container) for _, layer, container in _by_list(spec))


def _by_list(spec: Pod) -> Iterator[tuple[str, str, Container]]:
    for kind, layer in (
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ):
        for container in mappings(spec, kind):
            yield kind, f"{layer} {printable(text(container, 'name'))}", container


def printable(name: str) -> str:
    """Escape a name from a pod for messages: no control characters, at most Kubernetes' length."""
    return escape(name[:_SHOWN]) + ("…" if len(name) > _SHOWN else "")


def _of_metadata(pod: Pod, injection: Injection) -> Iterator[Refusal]:
    metadata = mapping(pod, "metadata")
    value = mapping(metadata, "labels").get(INJECT_LABEL)
    if value is not None and value != "enabled" and not opted_out(pod, injection):
        fix = (
            "only the value disabled opts out" if injection.opt_out else "every pod here needs a sidecar: leave it out"
        )
        yield Refusal("opt_out", "label", f"{INJECT_LABEL} is not enabled", fix)
    annotations = mapping(metadata, "annotations")
    if annotations.get(_MIRROR) is not None:
        wrong = "it mirrors a static pod, which its node runs unchanged, without a sidecar"
        yield Refusal("static_pod", "annotation", wrong, "create it through the API server")
    if annotations.get(f"{_APPARMOR}{injection.name}") is not None:
        wrong = "an AppArmor annotation changes the sidecar"
        yield Refusal("foreign_sidecar", "annotation", wrong, "leave it out")


def _of_pod(spec: Pod, *, out: bool) -> Iterator[Refusal]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if flag(spec, name):
            yield Refusal("host_namespace", "pod", f"{name} shares the node's namespace", "leave it out")
    if flag(spec, "shareProcessNamespace") and not out:
        yield Refusal("shared_process_namespace", "pod", "the agent could read the sidecar's memory", "leave it out")


def _of_volumes(spec: Pod, injection: Injection, *, out: bool) -> Iterator[Refusal]:
    ours = set() if out else {str(volume["name"]) for volume in injection.volumes}
    for volume in mappings(spec, "volumes"):
        name = text(volume, "name")
        if name in ours:
            continue  # `inject` checks that it is really ours
        if text(mapping(volume, "csi"), "driver").lower() in IDENTITY_DRIVERS | {injection.driver.lower()}:
            yield Refusal(
                "sidecar_volume", f"volume {printable(name)}", "it has an identity", "leave it to the sidecar"
            )
        if "hostPath" in volume and volume["hostPath"] is not None:
            wrong = "a host path may lead to the Workload API"
            yield Refusal("sidecar_volume", f"volume {printable(name)}", wrong, "use another kind of volume")


def _of_any_container(
    layer: str, container: Container, injection: Injection, pod_context: Container
) -> Iterator[Refusal]:
    """Check rules for every container, with a sidecar beside it or without."""
    context = mapping(container, "securityContext")
    if text(container, "name") == injection.name:
        wrong = f"{injection.name} is the sidecar's name"
        yield Refusal("foreign_sidecar", layer, wrong, "leave it out, or rename it")
    if flag(context, "privileged"):
        yield Refusal("privileged", layer, "it is privileged", "leave it out")
    if any(flag(mapping(one, "windowsOptions"), "hostProcess") for one in (context, pod_context)):
        yield Refusal("privileged", layer, "it is a host process", "leave hostProcess out")
    for added in texts(mapping(context, "capabilities"), "add"):
        if added not in HARMLESS_CAPABILITIES:
            yield Refusal("privileged", layer, "it adds a capability", "add none but NET_BIND_SERVICE")


def _of_neighbour(layer: str, container: Container, injection: Injection, pod_context: Container) -> Iterator[Refusal]:
    """Check rules for a container beside the sidecar."""
    own_user = number(mapping(container, "securityContext"), "runAsUser")
    pod_user = number(pod_context, "runAsUser")
    user = pod_user if own_user is None else own_user
    if user is None:  # then the image's USER decides, which is unknown here
        wrong = f"its image chooses the user, which may be {injection.uid}, the sidecar's"
        yield Refusal("sidecar_uid", layer, wrong, "set runAsUser of the container or the pod")
    elif user == injection.uid:
        yield Refusal("sidecar_uid", layer, f"user {injection.uid} is the sidecar's", "give it another runAsUser")
    if text(container, "targetContainerName") == injection.name:
        yield Refusal("shared_process_namespace", layer, "it joins the sidecar's processes", "target another container")
    ours = {str(volume["name"]) for volume in injection.volumes} - {HANDLE_VOLUME}  # `mounts` checks who has that
    for mount in (*mappings(container, "volumeMounts"), *mappings(container, "volumeDevices")):
        if text(mount, "name") in ours:
            wrong = f"it mounts {text(mount, 'name')}"
            yield Refusal("sidecar_volume", layer, wrong, "leave it to the sidecar")
    for port in mappings(container, "ports"):
        if number(port, "containerPort") in injection.ports:
            wrong = f"port {number(port, 'containerPort')} is the sidecar's"
            yield Refusal("port_clash", layer, wrong, "listen on another")
