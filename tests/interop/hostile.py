"""Pods for an API server: lawful ones, and ones that try to lose the sidecar, fake it or reach into it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

Object = dict[str, Any]

RESTRICTED: Final[Object] = {
    "runAsUser": 1000,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER: Final[Object] = {"name": "agent", "image": "agent:1", "securityContext": RESTRICTED}


def pod(
    spec: Mapping[str, Any] | None = None,
    agent: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Object:
    """Return an agent that passes *restricted* and mentions no sidecar; ``spec`` and ``agent`` change members."""
    metadata = {
        "generateName": "planner-",
        "annotations": {"delegation-sidecar.io/settings": "planner", **(annotations or {})},
        "labels": labels or {},
    }
    whole = {"containers": [{**CONTAINER, **(agent or {})}], **(spec or {})}
    return copy.deepcopy({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole})


def beside(**members: Any) -> Object:
    """Return a pod with an init container with these ``members``."""
    return pod({"initContainers": [{**CONTAINER, "name": "other", **members}]})


def context(**members: Any) -> Object:
    return {"securityContext": {**RESTRICTED, **members}}


def with_volume(volume: Object, mount: str | None = None) -> Object:
    mounts = {"volumeMounts": [{"name": mount, "mountPath": "/x"}]} if mount else {}
    return pod({"volumes": [volume]} if volume else {}, mounts)


_NO_USER: Final = {"securityContext": {key: value for key, value in RESTRICTED.items() if key != "runAsUser"}}
APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/sidecar"

# Each hostile pod, and the rule that refuses it, by webhook and policy alike. Pod Security alone would refuse some.
HOSTILE: dict[str, tuple[Object, str]] = {
    "the node's network": (pod({"hostNetwork": True}), "host_namespace"),
    "the node's processes": (pod({"hostPID": True}), "host_namespace"),
    "the node's memory": (pod({"hostIPC": True}), "host_namespace"),
    "one process namespace": (pod({"shareProcessNamespace": True}), "shared_process_namespace"),
    "our user": (pod(agent=context(runAsUser=2747)), "sidecar_uid"),
    "our user, of the pod": (pod({"securityContext": {"runAsUser": 2747}}, _NO_USER), "sidecar_uid"),
    "a user that its image chooses": (pod(agent=_NO_USER), "sidecar_uid"),
    "a user that its image chooses, at first": (beside(**_NO_USER), "sidecar_uid"),
    "our user, at first": (beside(**context(runAsUser=2747)), "sidecar_uid"),
    "privileged": (pod(agent={"securityContext": {"runAsUser": 1000, "privileged": True}}), "privileged"),
    "privileged, at first": (beside(securityContext={"runAsUser": 1000, "privileged": True}), "privileged"),
    "a capability": (pod(agent=context(capabilities={"add": ["NET_ADMIN"]})), "privileged"),
    "the Workload API": (
        with_volume({"name": "own", "csi": {"driver": "csi.spiffe.io", "readOnly": True}}, "own"),
        "sidecar_volume",
    ),
    "the Workload API, of another driver": (
        with_volume({"name": "own", "csi": {"driver": "spiffe.csi.cert-manager.io", "readOnly": True}}, "own"),
        "sidecar_volume",
    ),
    "the Workload API, in capitals": (
        with_volume({"name": "own", "csi": {"driver": "CSI.spiffe.io", "readOnly": True}}, "own"),
        "sidecar_volume",
    ),
    "our volume": (with_volume({}, "sidecar-workload-api"), "sidecar_volume"),
    "our settings": (with_volume({}, "sidecar-settings"), "sidecar_volume"),
    "our admin socket": (with_volume({}, "sidecar-run"), "sidecar_volume"),
    "a host path": (with_volume({"name": "run", "hostPath": {"path": "/run"}}), "sidecar_volume"),
    "the mirror of a static pod": (
        pod({"nodeName": "x"}, annotations={"kubernetes.io/config.mirror": "x"}),
        "static_pod",
    ),
    "an AppArmor profile for us": (pod(annotations={APPARMOR: "runtime/default"}), "foreign_sidecar"),
    "a sidecar of its own": (beside(name="sidecar", image="evil:1", restartPolicy="Always"), "foreign_sidecar"),
    "a second sidecar": (
        pod({"containers": [CONTAINER, {**CONTAINER, "name": "sidecar", "image": "sidecar:dev"}]}),
        "foreign_sidecar",
    ),
}

PROFILED: Final[Object] = {"appArmorProfile": {"type": "RuntimeDefault"}}
_TOKEN: Final = {"serviceAccountToken": {"path": "token", "audience": "spiffe://acme.example/sts"}}

# Unusual but lawful pods: their changes harm nobody else, or TLS defeats them
LAWFUL: dict[str, Object] = {
    "plain": pod(),
    "a faked marker": pod(annotations={"delegation-sidecar.io/status": "injected"}),
    "a name by hand": {**pod(), "metadata": {**pod()["metadata"], "name": "planner", "generateName": None}},
    "names that lead elsewhere": pod({"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["sts.example"]}]}),
    "a resolver of its own": pod({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"]}}),
    "a gate": pod({"schedulingGates": [{"name": "example.com/wait"}]}),
    "a short life": pod({"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 0, "restartPolicy": "Never"}),
    "our group": pod({"securityContext": {"fsGroup": 2747, "supplementalGroups": [2747]}}),
    "our user, of the pod alone": pod({"securityContext": {"runAsUser": 2747}}),
    "a user of the pod alone": pod({"securityContext": {"runAsUser": 1000}}, _NO_USER),
    "a token of Kubernetes": with_volume({"name": "t", "projected": {"sources": [_TOKEN]}}, "t"),
    "a token in every container": pod({"automountServiceAccountToken": True}),
    "a user namespace": pod({"hostUsers": False}),
    "a native sidecar of its own": beside(restartPolicy="Always"),
    "a profile of AppArmor for the whole pod": pod({"securityContext": PROFILED}),
    "resources of the whole pod": pod({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}),
    "a host name of its own": pod({"hostnameOverride": "sts.example"}),
    "an image as a volume": with_volume({"name": "i", "image": {"reference": "x:1"}}, "i"),
    "a volume called as the ceiling that there is not": with_volume(
        {"name": "sidecar-platform", "emptyDir": {}}, "sidecar-platform"
    ),
    "sixty containers": pod({"containers": [{**CONTAINER, "name": f"agent-{n}"} for n in range(60)]}),
}


# Volumes that some fakes mount
FAKED_VOLUMES: Final[list[Object]] = [
    {"name": "own", "emptyDir": {}},
    {"name": "kube-api-access-x", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
]


def fakes(own: Object) -> dict[str, Object]:
    """Return containers that are almost the sidecar ``own``, each with one relevant change."""
    command = {"exec": {"command": ["sh"]}}
    mounts, variables, rights = own["volumeMounts"], own["env"], own["securityContext"]

    def rights_with(**changed: Any) -> Object:
        return {"securityContext": {**rights, **changed}}

    def probe_with(kind: str, **changed: Any) -> Object:
        return {kind: {**own[kind], "httpGet": {**own[kind]["httpGet"], **changed}}}

    def moved(name: str) -> list[Object]:
        return [{**mount, "mountPath": "/elsewhere"} if mount["name"] == name else mount for mount in mounts]

    changed: dict[str, Object] = {
        "image": {"image": "evil:1"},
        "image prefix": {"image": "sidecar-evil:1"},
        "a registry of the repository's name": {"image": "sidecar:5000/evil:1"},
        "a folder of the repository's name": {"image": "sidecar/evil:1"},
        "a registry before it": {"image": "evil.example/sidecar:dev"},
        "command": {"command": ["sleep", "9"]},
        "arguments": {"args": ["healthcheck"]},
        "other settings": {"args": ["run", "--config=/tmp/x"]},
        "one argument more": {"args": [*own["args"], "--platform=/tmp/x"]},
        "no arguments": {"args": []},
        "a folder to start in": {"workingDir": "/tmp"},
        "a library before all others": {"env": [*variables, {"name": "LD_PRELOAD", "value": "/x.so"}]},
        "a path of Python's": {"env": [*variables, {"name": "PYTHONPATH", "value": "/x"}]},
        "a setting by its variable": {"env": [*variables, {"name": "SIDECAR__INBOUND__AGENT", "value": "x"}]},
        "no variables": {"env": []},
        "no name of its own": {"env": [one for one in variables if one["name"] != "POD_NAME"]},
        "another Workload API": {"env": [{"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///run/sidecar/x"}]},
        "a name that is chosen": {"env": [{"name": "POD_NAMESPACE", "value": "other"}]},
        "a name from elsewhere": {
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
        },
        "variables of a ConfigMap": {"envFrom": [{"configMapRef": {"name": "own"}}]},
        "a hook": {"lifecycle": {"postStart": command}},
        "a hook at the end": {"lifecycle": {"preStop": command}},
        "a hook more": {"lifecycle": {**own["lifecycle"], "postStart": command}},
        "no hook": {"lifecycle": None},
        "a command as probe": {"livenessProbe": {**own["livenessProbe"], "httpGet": None, **command}},
        "a probe of somebody else": probe_with("startupProbe", host="192.0.2.1"),
        "a probe of another port": probe_with("readinessProbe", port=8080),
        "a probe of another page": probe_with("startupProbe", path="/livez"),
        "no probe at the start": {"startupProbe": None},
        "no probes": {"startupProbe": None, "readinessProbe": None, "livenessProbe": None},
        "it ends": {
            "restartPolicy": None,
            "lifecycle": None,
            "startupProbe": None,
            "readinessProbe": None,
            "livenessProbe": None,
        },
        "user": rights_with(runAsUser=5),
        "group": rights_with(runAsGroup=5),
        "a writable root": rights_with(readOnlyRootFilesystem=False),
        "capabilities": rights_with(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
        "seccomp": rights_with(seccompProfile={"type": "Unconfined"}),
        "privileged": rights_with(privileged=True, allowPrivilegeEscalation=True),
        "escalation": rights_with(allowPrivilegeEscalation=True),
        "perhaps root": rights_with(runAsNonRoot=False),
        "no rights said": {"securityContext": None},
        "no identity": {"volumeMounts": []},
        "identity elsewhere": {"volumeMounts": moved("sidecar-workload-api")},
        "settings elsewhere": {"volumeMounts": moved("sidecar-settings")},
        "a part of its settings": {"volumeMounts": [{**one, "subPath": "x"} for one in mounts]},
        "a folder over its code": {"volumeMounts": [*mounts, {"name": "own", "mountPath": "/opt/sidecar"}]},
        "a folder of the agent's": {"volumeMounts": [*mounts, {"name": "own", "mountPath": "/x"}]},
        "a token that can be written": {
            "volumeMounts": [
                *mounts,
                {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
            ]
        },
        "a device": {"resources": {"limits": {"gpu.example/large": "1"}}},
        "a terminal": {"stdin": True, "tty": True},
        "a file over its code": {"terminationMessagePath": "/opt/sidecar/app/core/delegation_core/errors.py"},
        "a profile of AppArmor": rights_with(appArmorProfile={"type": "Unconfined"}),
        "a type of SELinux": rights_with(seLinuxOptions={"type": "spc_t"}),
        "a user of Windows": rights_with(windowsOptions={"runAsUserName": "x"}),
    }
    return {name: {**own, **members} for name, members in changed.items()}


def changed_volumes(volumes: list[Object]) -> dict[str, list[Object]]:
    """Return the sidecar's volumes with one change each, all of which concern what the sidecar reads."""

    def altered(volume: str, kind: str, **members: Any) -> list[Object]:
        return [{**one, kind: {**one[kind], **members}} if one["name"] == volume else one for one in volumes]

    part = {"items": [{"key": "other.yaml", "path": "sidecar.yaml"}]}
    names = {one["name"] for one in volumes}
    tokens: dict[str, Object] = {
        "a Secret": {"secret": {"name": "x"}},
        "a token for somebody else": {"serviceAccountToken": {"path": "token", "audience": "https://x.example"}},
    }
    return {
        "something said to the driver": altered("sidecar-workload-api", "csi", volumeAttributes={"x": "y"}),
        "a Secret for the driver": altered("sidecar-workload-api", "csi", nodePublishSecretRef={"name": "x"}),
        "another key of the settings": altered("sidecar-settings", "configMap", **part),
        "other settings than the annotation's": altered("sidecar-settings", "configMap", name="other"),
        "settings that may be missing": altered("sidecar-settings", "configMap", optional=True),
        "a socket on a disk": altered("sidecar-run", "emptyDir", medium=""),
        **{
            f"{name}, another file": altered(name, "secret", items=[{"key": "other", "path": "openai"}])
            for name in ("sidecar-keys", "sidecar-door")
            if name in names
        },
        **{
            f"{what} in place of Kubernetes' token": [
                *volumes,
                {"name": "kube-api-access-x", "projected": {"sources": [source]}},
            ]
            for what, source in tokens.items()
        },
        **{
            name: [{"name": name, "secret": {"secretName": "x"}} if one["name"] == name else one for one in volumes]
            for name in (volume["name"] for volume in volumes)
        },
    }


def newer_fakes(own: Object) -> dict[str, Object]:
    """Return fakes by fields of newer Kubernetes: an older one drops them, and the sidecar is ours again."""
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [0]}}
    return {
        "rules for its restarts": {**own, "restartPolicyRules": [rule]},
        "another signal to end it": {**own, "lifecycle": {**own["lifecycle"], "stopSignal": "SIGKILL"}},
    }
