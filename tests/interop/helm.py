"""Helm, in every version on PATH, and its renderings."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from sidecar.injector.injection import Injection, parse_injection

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm" / "sidecar"
LIBRARY: Final = ROOT / "helm" / "sidecar-lib"
MATRIX: Final = sorted((CHART / "ci").glob("*.yaml"))

Object = dict[str, Any]


def helms() -> list[str]:
    """Return Helm 3 and 4 if both exist under these names, else the one named helm."""
    named = [name for name in ("helm3", "helm4") if shutil.which(name)]
    return named or [name for name in ("helm",) if shutil.which(name)]


def missing() -> str | None:
    return None if helms() else "helm is not on PATH"


@dataclass(frozen=True, slots=True)
class Rendered:
    """``objects`` in a fixed order, or the error."""

    objects: list[Object]
    said: str

    def one(self, kind: str, part: str = "") -> Object:
        (found,) = [one for one in self.of(kind) if one["metadata"]["name"].endswith(part)]
        return found

    def of(self, kind: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] == kind]


def run(helm: str, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm, *words], capture_output=True, text=True, check=False, timeout=50, input=stdin)


def render(
    values: Mapping[str, Any] | Path | None = None,
    *,
    helm: str | None = None,
    kube: str = "1.33.0",
    chart: Path = CHART,
) -> Rendered:
    """Render a chart as the release ``mesh`` in the namespace ``system``."""
    words = ["template", "mesh", str(chart), "--namespace", "system", "--kube-version", kube, "--values"]
    done = (
        run(helm or helms()[-1], *words, str(values))
        if isinstance(values, Path)
        else run(helm or helms()[-1], *words, "-", stdin=json.dumps(values or {}))
    )
    documents = yaml.load_all(done.stdout, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if not done.returncode else ()
    found = [one for one in documents if one]
    return Rendered(sorted(found, key=lambda one: (one["kind"], json.dumps(one, sort_keys=True))), done.stderr)


def injection_of(found: Rendered) -> Injection:
    """Return the sidecar that the injector of these objects adds to pods."""
    return parse_injection(found.one("ConfigMap", "injector")["data"]["injection.json"].encode())


def pods(found: Rendered) -> Iterator[tuple[str, Object]]:
    """Return the spec of every pod that the objects make, by the name of the object."""
    for one in found.objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield name, one["spec"]
        elif one["kind"] in ("Deployment", "StatefulSet", "Job"):
            spec = one["spec"]["template"]["spec"]
            claims = [claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", ())]
            claimed = [{"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-0"}} for claim in claims]
            yield name, {**spec, "volumes": [*spec.get("volumes", ()), *claimed]} if claimed else spec


def restricted_problems(spec: Object) -> list[str]:
    """Return the violations of Pod Security *restricted* in a pod, for each container by itself."""
    problems = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        context = container.get("securityContext", {})
        wanted: dict[str, Any] = {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        problems += [f"{container['name']}: {key}" for key, value in wanted.items() if context.get(key) != value]
        if not context.get("runAsUser") or not context.get("runAsGroup"):
            problems.append(f"{container['name']}: runAsUser")
        if "requests" not in container.get("resources", {}):
            problems.append(f"{container['name']}: resources")
    allowed = {
        "configMap",
        "csi",
        "emptyDir",
        "projected",
        "secret",
        "downwardAPI",
        "persistentVolumeClaim",
        "ephemeral",
    }
    for volume in spec.get("volumes", ()):
        if not volume.keys() - {"name"} <= allowed:
            problems.append(f"volume {volume['name']}")
    return problems


def static_chart(folder: Path) -> Path:
    """Return a team's own chart that includes the library."""
    (folder / "templates").mkdir(parents=True)
    (folder / "charts").mkdir()
    (folder / "charts" / "sidecar-lib").symlink_to(LIBRARY)
    dependency = {"name": "sidecar-lib", "alias": "sidecar", "version": "0.1.0", "repository": f"file://{LIBRARY}"}
    chart = {"apiVersion": "v2", "name": "team", "version": "1.0.0", "dependencies": [dependency]}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(chart))
    (folder / "templates" / "pod.yaml").write_text(
        """\
apiVersion: v1
kind: Pod
metadata: {name: planner}
spec:
  securityContext: {runAsUser: 1000}
  initContainers:
    {{- include "sidecar-lib.native" .Values.sidecar | nindent 4 }}
  containers:
    {{- include "sidecar-lib.classic" .Values.sidecar | nindent 4 }}
    - name: agent
      image: agent:1
      securityContext: {runAsUser: 1000}
      env:
        {{- include "sidecar-lib.agentEnv" .Values.sidecar | nindent 8 }}
      {{- with include "sidecar-lib.handleMount" .Values.sidecar }}
      volumeMounts:
        {{- . | nindent 8 }}
      {{- end }}
  volumes:
    {{- include "sidecar-lib.volumes" .Values.sidecar | nindent 4 }}
"""
    )
    return folder
