"""Reads Kubernetes manifests: Secrets, annotations, all values of other objects, and references to Secrets."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from delegation_audit.credentials.fields import Exposure, Field, Read, Reference
from delegation_audit.credentials.kinds import Kind
from delegation_audit.credentials.tree import Node, TreeError, read_documents
from delegation_audit.credentials.values import registries, split_text, values

_ENCRYPTED: Final = frozenset(
    ("SealedSecret", "ExternalSecret", "ClusterExternalSecret", "SecretStore", "ClusterSecretStore")
)
_SERVICE_ACCOUNT_TOKEN: Final = "kubernetes.io/service-account-token"  # noqa: S105
_TOKEN_OF: Final = "kubernetes.io/service-account.name"  # noqa: S105
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_MAX_OBJECTS: Final = 20_000


def is_kubernetes(document: Node) -> bool:
    """Return True if a document is a Kubernetes object."""
    return bool(document.text_of("apiVersion") and document.text_of("kind"))


def read_kubernetes(documents: list[Node]) -> Read:
    """Read the Kubernetes objects among the documents of a file, and those in lists; at most _MAX_OBJECTS."""
    fields: list[Field] = []
    references: list[Reference] = []
    pending = [document for document in documents if is_kubernetes(document)][::-1]
    for _ in range(_MAX_OBJECTS):
        if not pending:
            break
        one = pending.pop()
        items = one.get("items")
        if (one.text_of("kind") or "").endswith("List") and items is not None:
            pending += items.items[::-1]
            continue
        fields += _object(one)
        references += _references(one)
    return Read(tuple(fields), tuple(references))


def _name(one: Node) -> str:
    namespace = one.text_of("metadata", "namespace")
    name = one.text_of("metadata", "name") or one.text_of("metadata", "generateName") or "unnamed"
    return f"{namespace}/{name}" if namespace else name


def _object(one: Node) -> Iterator[Field]:
    kind = one.text_of("kind") or ""
    if kind in _ENCRYPTED:
        return
    label = f"{kind} {_name(one)}"
    template = Field(name="", value="", line=one.line, object=label, owner=label, exposure=Exposure.CONFIGURATION)
    created = (one.text_of("metadata", "creationTimestamp") or "")[:10]
    if created[:2] == "20":
        template = replace(template, created=created)
    annotations = one.get("metadata", "annotations")
    if annotations is not None:
        yield from _annotations(annotations, replace(template, object=f"{label}, annotation"))
    if kind == "Secret":
        yield from _secret(one, replace(template, exposure=Exposure.SECRET_OBJECT))
        return
    for section, node in one.members:
        if section not in ("apiVersion", "kind", "metadata", "status", "type", "sops"):
            yield from values(node, replace(template, name=section), path=section)


def _annotations(annotations: Node, template: Field) -> Iterator[Field]:
    for name, node in annotations.members:
        if node.text is None:
            continue
        if name == _LAST_APPLIED:
            yield from _read_applied(node, template)
        else:
            yield replace(
                template, name=name.rpartition("/")[2], value=node.text, line=node.line, group=id(annotations)
            )


def _read_applied(node: Node, template: Field) -> Iterator[Field]:
    """Yield the fields of the object copy that kubectl keeps in an annotation, but not of copies in that copy."""
    try:
        copies = read_documents(node.text or "")
    except TreeError:
        return
    for copy in copies:
        annotations = copy.get("metadata", "annotations")
        if annotations is not None:
            annotations.members = [member for member in annotations.members if member[0] != _LAST_APPLIED]
        for field in _object(copy):
            yield replace(field, line=node.line, literal=False, owner=template.owner)


def _secret(one: Node, template: Field) -> Iterator[Field]:
    if one.get("sops") is not None:
        return  # encrypted by SOPS
    kind = one.text_of("type")
    names = [name for section in ("data", "stringData") for name, _ in _members(one, section)]
    if kind == _SERVICE_ACCOUNT_TOKEN:
        account = one.text_of("metadata", "annotations", _TOKEN_OF)
        owner = f"service account {account}" if account else template.owner
        template = replace(template, owner=owner)
        if "token" not in names:  # the cluster fills it in
            yield replace(template, name="token", kind=Kind.KUBERNETES_TOKEN, identity=("kubernetes", _name(one)))
    for section in ("data", "stringData"):
        for name, node in _members(one, section):
            if node.text is None or not node.text.strip():
                continue
            value = _decode(node.text) if section == "data" else node.text
            field = replace(
                template,
                name=name,
                value=value,
                line=node.line,
                literal=node.literal and section == "stringData",
                object=f"{template.object}, {section} {name}",
                group=id(one),
                hidden=(node.text,),
                kind=Kind.KUBERNETES_TOKEN if kind == _SERVICE_ACCOUNT_TOKEN and name == "token" else None,
            )
            yield from _secret_value(field, kind)


def _members(one: Node, section: str) -> list[tuple[str, Node]]:
    node = one.get(section)
    return [] if node is None else node.members


def _secret_value(field: Field, kind: str | None) -> Iterator[Field]:
    if field.name in (".dockerconfigjson", ".dockercfg"):
        yield from registries(field)
    elif kind == "kubernetes.io/basic-auth" and field.name == "password":
        yield replace(field, kind=Kind.BASIC_CREDENTIALS)
    elif "\n" in field.value.strip():
        yield field
        yield from split_text(field)
    else:
        yield field


def _decode(text: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return text  # a template or a mistake: judged as written


def _references(one: Node) -> Iterator[Reference]:
    """Yield references to the Secrets and ConfigMaps that a workload uses, which make it an owner of credentials."""
    kind = one.text_of("kind") or ""
    if kind in ("Secret", "ConfigMap"):
        labels = _members(one.get("metadata") or one, "labels")
        teams = [node.text for name, node in labels if name.rpartition("/")[2] in ("team", "owner") and node.text]
        for team in teams:
            yield Reference(target=f"{kind} {_name(one)}", owner=f"team {team}", weak=True)
        return
    namespace = one.text_of("metadata", "namespace") or ""
    owner = f"{kind} {_name(one)}"
    stack, steps = [one], _MAX_OBJECTS
    while stack and steps:
        steps -= 1
        node = stack.pop()
        for key, member in node.members:
            name = None
            if key in ("secretKeyRef", "secretRef", "configMapKeyRef", "configMapRef"):
                name = member.text_of("name")
            elif key == "secret":
                name = member.text_of("secretName") or member.text_of("name")
            if name:
                what = "ConfigMap" if key.startswith("configMap") else "Secret"
                yield Reference(target=f"{what} {namespace}/{name}" if namespace else f"{what} {name}", owner=owner)
            stack.append(member)
        stack += node.items
