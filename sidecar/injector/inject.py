"""Builds the JSON patch (RFC 6902) that puts a sidecar into a pod, or refuses the pod. Pure.

Theory of operation. The API server sends a changed pod at least once more, and a pod's author may write anything into
it. So the injector is stateless and trusts no marker: it compares the pod with its target state. An existing container
or volume of ours must match exactly, whoever put it there, except for its share of cpu and
memory, which must be within the platform's bounds. Missing parts are added, and the sidecar is put before every
container that would otherwise start before it. A pod in its target state gets an empty patch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson

from sidecar.injector.fields import MalformedError, mapping, mappings, text
from sidecar.injector.injection import Injection
from sidecar.injector.mounts import (
    DOOR_ANNOTATION,
    HANDLE_ANNOTATION,
    KEYS_ANNOTATION,
    agent_patch,
    debugger_readers,
    mount_refusals,
    mounts_of,
    variables_patch,
)
from sidecar.injector.rules import (
    INJECT_LABEL,
    SETTINGS_ANNOTATION,
    Container,
    Pod,
    Refusal,
    debugger_refusals,
    opted_out,
    other_containers,
    printable,
    refusals,
)
from sidecar.injector.sizes import ANNOTATIONS, apply_sizes, choose_sizes, misfits, misfits_of

STATUS_ANNOTATION: Final = "delegation-sidecar.io/status"  # for people; never read back
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
_TOKEN_MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where Kubernetes mounts it by itself
_TOKEN_VOLUME: Final = "kube-api-access-"  # noqa: S105 - how the ServiceAccount admission calls it
_TOKEN_SOURCES: Final = frozenset({"serviceAccountToken", "configMap", "downwardAPI"})
_MAX_TOLD: Final = 8  # reasons of one refusal, warnings of one pod
_OURS: Final = "delegation-sidecar.io/"
_KNOWN: Final = frozenset(
    {SETTINGS_ANNOTATION, KEYS_ANNOTATION, HANDLE_ANNOTATION, DOOR_ANNOTATION, STATUS_ANNOTATION, *ANNOTATIONS.values()}
)
_PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")

Patch = list[dict[str, Any]]


class RefusedError(Exception):
    """The pod is refused. ``refusals`` are all reasons, the first one first."""

    def __init__(self, refusals: list[Refusal]) -> None:
        more = len(refusals) - _MAX_TOLD
        super().__init__("; ".join(map(str, refusals[:_MAX_TOLD])) + (f"; and {more} more" if more > 0 else ""))
        self.refusals = refusals


@dataclass(frozen=True, slots=True)
class Injected:
    """The result: ``patch`` is empty if the pod is complete or opts out; ``warnings`` are for the pod's author."""

    patch: Patch
    warnings: list[str]


def inject(pod: Pod, injection: Injection, namespace: str = "") -> Injected:
    """Build the patch for a pod that is made in ``namespace``.

    Raises:
        RefusedError: the pod breaks a rule, or is malformed.
    """
    try:
        found = list(_refusals(pod, injection, namespace))
        if not found and opted_out(pod, injection):
            return Injected([], [])
        if not found:
            return Injected(_patch(pod, injection, namespace), list(islice(_warnings(pod, injection), _MAX_TOLD)))
    except MalformedError as error:
        found = [Refusal("malformed", "pod", str(error), "send a pod")]
    raise RefusedError(found)


def judge_change(pod: Pod, old: Pod, injection: Injection, namespace: str = "") -> None:
    """Check a resize or a new debugger of a running pod, and only what changes.

    Raises:
        RefusedError: a debugger reaches the sidecar, or the sidecar gets a size outside the bounds.
    """
    try:
        spec, before = mapping(pod, "spec"), mapping(old, "spec")
        found = [*debugger_refusals(spec, injection), *debugger_readers(pod, injection)]
        for position in _positions(spec, injection):
            own, wanted = mappings(spec, injection.goes_into)[position], injection.container_in(namespace)
            was = [mappings(before, injection.goes_into)[at].get("resources") for at in _positions(before, injection)]
            if any(_alike(own.get("resources"), one) for one in was):
                continue
            found += [
                Refusal("size", f"container {injection.name}, {one.where}", one.wrong, one.fix)
                for one in misfits_of(own, wanted, injection.bounds)
            ]
    except MalformedError as error:
        found = [Refusal("malformed", "pod", str(error), "send a pod")]
    if found:
        raise RefusedError(found)


def _refusals(pod: Pod, injection: Injection, namespace: str) -> Iterator[Refusal]:
    if not mappings(mapping(pod, "spec"), "containers"):
        yield Refusal("malformed", "pod", "spec has no containers", "send a pod")
    yield from refusals(pod, injection)
    if not opted_out(pod, injection):
        yield from mount_refusals(pod, injection)
        unfit = [
            Refusal("size", one.where, one.wrong, one.fix)
            for one in misfits(choose_sizes(_annotations(pod)), injection.container_in(namespace), injection.bounds)
        ]
        yield from unfit
        if not unfit:
            yield from _refuse_taken_names(pod, injection, namespace)


def _annotations(pod: Pod) -> Mapping[str, object]:
    return mapping(mapping(pod, "metadata"), "annotations")


def _build_container(pod: Pod, injection: Injection, namespace: str) -> dict[str, Any]:
    """Return the sidecar's container as this pod should have it."""
    asked = mounts_of(pod, injection)
    own = injection.container_for(namespace, keys=bool(asked.keys), handle=asked.handle, door=bool(asked.door))
    return apply_sizes(own, choose_sizes(_annotations(pod)))


def _refuse_taken_names(pod: Pod, injection: Injection, namespace: str) -> Iterator[Refusal]:
    """Refuse foreign containers and volumes that use one of our names."""
    spec = mapping(pod, "spec")
    asked = mounts_of(pod, injection)
    volumes = injection.volumes_for(asked.settings, keys=asked.keys or "none", handle=True, door=asked.door or "none")
    ours = {str(volume["name"]): volume for volume in volumes}
    seen: set[str] = set()
    for volume in mappings(spec, "volumes"):
        name = text(volume, "name")
        if name in ours and (name in seen or not _alike(volume, ours[name])):
            yield Refusal(
                "sidecar_volume", f"volume {name}", "it uses the name of a volume of the sidecar", "leave it out"
            )
        seen.add(name)
    found = _positions(spec, injection)
    tokens = _tokens_of_kubernetes(spec) if found else set()
    wanted = _build_container(pod, injection, namespace)
    compared = _strip_variable_parts(wanted, tokens, injection)
    containers = mappings(spec, injection.goes_into)
    layer = f"container {injection.name}"
    for position in found:
        if len(found) > 1 or not _alike(_strip_variable_parts(containers[position], tokens, injection), compared):
            wrong = "it differs from the sidecar that is injected here"
            yield Refusal("foreign_sidecar", layer, wrong, "leave it out")
        else:
            for one in misfits_of(containers[position], wanted, injection.bounds):
                yield Refusal("size", f"{layer}, {one.where}", one.wrong, one.fix)


def _positions(spec: Pod, injection: Injection) -> list[int]:
    """Return the positions of containers with the sidecar's name in their list."""
    containers = mappings(spec, injection.goes_into)
    return [at for at, container in enumerate(containers) if text(container, "name") == injection.name]


def _alike(one: object, other: object) -> bool:
    """Compare as JSON does; in Python True == 1 and 1 == 1.0."""
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


def _strip_variable_parts(container: Container, tokens: Collection[str], injection: Injection) -> dict[str, object]:
    """Return a container without the parts that Kubernetes or the author may set: token mount, resources, defaults.

    LimitRange and autoscalers set cpu and memory; ``misfits_of`` checks those against the bounds. Devices must match:
    through ``claims``, or a limit on an extended resource, a node's plugin puts files and variables into the container.
    The AlwaysPullImages admission changes the pull policy, which cannot change the image.
    """
    compared = dict(container)
    if container.get("imagePullPolicy") == "Always":
        compared["imagePullPolicy"] = injection.container.get("imagePullPolicy")
    resources = mapping(container, "resources")
    devices = sorted(name for name in mapping(resources, "limits") if "/" in name)
    compared["resources"] = {**resources, "limits": devices, "requests": None}
    policies = mappings(container, "resizePolicy")
    if all(text(policy, "restartPolicy") == "NotRequired" for policy in policies):
        compared.pop("resizePolicy", None)
    compared["volumeMounts"] = [
        mount for mount in mappings(container, "volumeMounts") if not _is_token_of_kubernetes(mount, tokens)
    ]
    return compared


def _is_token_of_kubernetes(mount: Mapping[str, object], tokens: Collection[str]) -> bool:
    """Tell if the ServiceAccount admission, which mounts a token into every container, made this mount."""
    name = text(mount, "name")
    return name in tokens and _alike(mount, {"name": name, "mountPath": _TOKEN_MOUNT, "readOnly": True})


def _tokens_of_kubernetes(spec: Pod) -> set[str]:
    """Return the names of the volumes that the ServiceAccount admission made, once per pod: a pod may mount many."""
    volumes = mappings(spec, "volumes")
    times = Counter(text(volume, "name") for volume in volumes)
    tokens = set()
    for volume in volumes:
        name = text(volume, "name")
        if name.startswith(_TOKEN_VOLUME) and times[name] == 1:
            sources = mappings(mapping(volume, "projected"), "sources")
            if sources and all(_is_source_of_kubernetes(source) for source in sources):
                tokens.add(name)
    return tokens


def _is_source_of_kubernetes(source: Mapping[str, object]) -> bool:
    """Return True if the ServiceAccount admission may have written this source: no Secret, no token for another
    audience.
    """
    return source.keys() <= _TOKEN_SOURCES and not text(mapping(source, "serviceAccountToken"), "audience")


def _patch(pod: Pod, injection: Injection, namespace: str) -> Patch:
    spec = mapping(pod, "spec")
    asked = mounts_of(pod, injection)
    patch: Patch = variables_patch(pod, injection)
    patch += agent_patch(pod, injection, asked.agent) if asked.handle else []
    found = _positions(spec, injection)
    if not found:
        patch += _add_items(spec, injection.goes_into, [_build_container(pod, injection, namespace)], at="0")
    elif found != [0]:  # containers before it would start without it
        way = f"/spec/{injection.goes_into}"
        patch.append({"op": "move", "from": f"{way}/{found[0]}", "path": f"{way}/0"})
    names = {text(volume, "name") for volume in mappings(spec, "volumes")}
    wanted = injection.volumes_for(asked.settings, keys=asked.keys, handle=asked.handle, door=asked.door)
    lacking = [volume for volume in wanted if volume["name"] not in names]
    patch += _add_items(spec, "volumes", lacking, at="-")
    return patch + _annotate(pod, injection)


def _add_items(spec: Pod, name: str, items: list[dict[str, Any]], *, at: str) -> Patch:
    if not items:
        return []
    if spec.get(name) is None:  # a patch cannot add to a missing list
        return [{"op": "add", "path": f"/spec/{name}", "value": items}]
    return [{"op": "add", "path": f"/spec/{name}/{at}", "value": item} for item in items]


def _annotate(pod: Pod, injection: Injection) -> Patch:
    metadata = pod.get("metadata")
    if not isinstance(metadata, dict):
        raise MalformedError("metadata is not an object")
    annotations = mapping(metadata, "annotations")
    wanted = {STATUS_ANNOTATION: f"injected {injection.digest}"}
    agents = [text(container, "name") for container in mappings(mapping(pod, "spec"), "containers")]
    agents = [name for name in agents if name != injection.name]
    if DEFAULT_CONTAINER not in annotations and agents:
        wanted[DEFAULT_CONTAINER] = agents[0]
    changed = {key: value for key, value in wanted.items() if annotations.get(key) != value}
    if metadata.get("annotations") is None:
        return [{"op": "add", "path": "/metadata/annotations", "value": changed}]
    return [
        {"op": "add", "path": f"/metadata/annotations/{key.replace('~', '~0').replace('/', '~1')}", "value": value}
        for key, value in changed.items()
    ]


def _warnings(pod: Pod, injection: Injection) -> Iterator[str]:
    for key in _annotations(pod):
        if key.startswith(_OURS) and key not in _KNOWN:
            fix = "it is a label" if key == INJECT_LABEL else f"known are {', '.join(sorted(_KNOWN))}"
            yield f"annotation {printable(key)}: it has no effect; {fix}"
    for layer, container in other_containers(mapping(pod, "spec"), injection):
        for probe in _PROBES:
            asked = mapping(container, probe)
            through_us = mapping(asked, "httpGet").get("port") == injection.probe_port
            if not through_us and any(asked.get(kind) is not None for kind in ("httpGet", "tcpSocket", "grpc")):
                yield (
                    f"{layer}: {probe} comes from outside the pod and finds no agent on loopback; an agent that listens"
                    f" for it can be called around its sidecar: use exec, or probe.agent at {injection.probe_port}"
                )
