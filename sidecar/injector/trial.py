"""``sidecar injector --try FILE``: shows the injector's decision on a pod without a cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from delegation_core.errors import ConfigError, Problem
from sidecar.config.document import DocumentError, parse_document, read_text
from sidecar.injector.fields import MalformedError, mapping, text
from sidecar.injector.inject import RefusedError, inject
from sidecar.injector.injection import Injection
from sidecar.injector.metrics import INJECTED, UNCHANGED

_TEMPLATE: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    **dict.fromkeys(("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"), ("spec", "template")),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


def try_pod(path: Path, injection: Injection, *, as_json: bool, namespace: str = "") -> int:
    """Print the decision on the pod in a file. Exit codes: 0 it would be made, 1 refused.

    ``namespace`` is used where the file names none.

    Raises:
        ConfigError: the file holds no pod.
    """
    try:
        document = _document(path)
        pod = pod_of(document)
        namespace = text(mapping(document, "metadata"), "namespace") or namespace
    except MalformedError as error:
        raise ConfigError([Problem(str(path), str(error), "write it as Kubernetes does")]) from error
    try:
        done = inject(pod, injection, namespace)
    except RefusedError as error:
        reasons = [{**asdict(refusal), "cure": refusal.fix} for refusal in error.refusals]
        if as_json:
            _print({"file": str(path), "allowed": False, "reasons": reasons})
        else:
            print(f"{path}: refused", file=sys.stderr)  # noqa: T201
            for one in error.refusals:
                print(f"  {one.rule} ({one.layer}): {one.wrong}\n      fix: {one.fix}", file=sys.stderr)  # noqa: T201
        return 1
    if as_json:
        _print({"file": str(path), "allowed": True, "patch": done.patch, "warnings": done.warnings})
    else:
        print(f"{path}: {INJECTED if done.patch else UNCHANGED}")  # noqa: T201
        for warning in done.warnings:
            print(f"  warning: {warning}", file=sys.stderr)  # noqa: T201
    return 0


def pod_of(document: Mapping[str, object]) -> Mapping[str, object]:
    """Return the pod in an object: the object itself, or its pod template.

    Raises:
        MalformedError: the object is malformed, or has no pod template.
    """
    kind = text(document, "kind")
    if kind not in _TEMPLATE:
        raise MalformedError(f"kind is none of {', '.join(_TEMPLATE)}")
    for name in _TEMPLATE[kind]:
        document = mapping(document, name)
    return {**document, "apiVersion": "v1", "kind": "Pod"}


def _document(path: Path) -> Mapping[str, object]:
    try:
        document = parse_document(read_text(path), name=str(path))
    except DocumentError as error:
        raise ConfigError([error.problem]) from error
    if not isinstance(document, dict):
        raise ConfigError([Problem(str(path), "is not an object", "give one object, as YAML or JSON")])
    return document


def _print(document: Mapping[str, object]) -> None:
    print(json.dumps(document, indent=2))  # noqa: T201
