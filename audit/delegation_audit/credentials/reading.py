"""Chooses the reader of a file by its content and path, and reads the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from delegation_audit.credentials.deployments import (
    is_compose,
    is_pipeline,
    mcp_servers,
    read_compose,
    read_mcp,
    read_pipeline,
    read_settings,
)
from delegation_audit.credentials.fields import Exposure, Field, Read
from delegation_audit.credentials.kubernetes import is_kubernetes, read_kubernetes
from delegation_audit.credentials.plain import fields_of, folder_of, is_lock, read_plain
from delegation_audit.credentials.providers import (
    entra_applications,
    google_keys,
    keycloak_realms,
    read_entra,
    read_google,
    read_keycloak,
)
from delegation_audit.credentials.tree import Node, TreeError, read_documents
from delegation_audit.credentials.values import registries

_TREES: Final = frozenset((".yaml", ".yml", ".json", ".jsonc", ".code-workspace", ".tfstate", ".ipynb"))
_CONTROL: Final = re.compile(r"^[ \t]*\{\{[^\n]*\}\}[ \t]*$", re.MULTILINE)
_INSERTED: Final = re.compile(r"\{\{[^\n{}]{0,1024}\}\}")


def read_file(path: str, text: str, *, today: str) -> Read:
    """Read a file: the fields of its format, and as the last field the whole text, for the detector."""
    read = _read_format(path, text, today)
    exposure = read.fields[0].exposure if read.fields else Exposure.CODE
    owners = {field.owner for field in read.fields} or {folder_of(path)}
    owner = owners.pop() if len(owners) == 1 else None
    whole = Field(name="", value=text, line=1, literal=True, exposure=exposure, owner=owner)
    found = (*read.fields, *_comments(path, text, exposure))
    fields = tuple(field for field in found if not field.cut)
    return Read((*fields, whole), read.references, cut=len(fields) < len(found))


def _comments(path: str, text: str, exposure: Exposure) -> Iterator[Field]:
    """Yield the fields in the comments of a YAML file, which its tree lacks."""
    if PurePath(path).suffix.lower() not in (".yaml", ".yml") or "#" not in text:
        return
    template = Field(name="", value="", line=1, literal=True, strict=True, exposure=exposure, owner=folder_of(path))
    yield from fields_of("\n".join(line.partition("#")[2] for line in text.split("\n")), template)


def _read_format(path: str, text: str, today: str) -> Read:
    if is_lock(path):
        return Read(())
    documents = _documents(path, text)
    if documents:
        realms, applications = keycloak_realms(documents), entra_applications(documents)
        if realms or applications:
            one, other = read_keycloak(realms), read_entra(applications, today=today)
            return Read(one.fields + other.fields)
        if documents[0].get("auths") is not None:
            docker = Field(name="", value=text, line=1, owner=folder_of(path), exposure=Exposure.CONFIGURATION)
            return Read(tuple(registries(docker, documents[0])))
        if google_keys(documents):
            return read_google(google_keys(documents))
        if any(map(is_kubernetes, documents)):
            return read_kubernetes(documents)
        if mcp_servers(documents[0]):
            return read_mcp(path, documents[0])
        if is_pipeline(path):
            return read_pipeline(documents)
        if is_compose(documents[0]):
            return read_compose(path, documents[0])
        return read_settings(path, documents)
    read = read_plain(path, text)
    if is_pipeline(path):
        template = Field(name="", value="", line=1, exposure=Exposure.PIPELINE, owner="pipeline")
        return Read(tuple(fields_of(text, template)))
    return read


def _documents(path: str, text: str) -> list[Node]:
    """Return the non-empty documents of a YAML or JSON file; none for other text or invalid documents."""
    suffix = PurePath(path).suffix.lower()
    beginning = text.lstrip()[:1]
    if suffix not in _TREES and not (path == "-" and beginning in ("{", "[")):
        return []
    for attempt in (text, _fill_in(text)) if "{{" in text else (text,):
        try:
            documents = read_documents(attempt)
        except TreeError:  # read line by line
            continue
        return [document for document in documents if document.members or document.items]
    return []


def _fill_in(text: str) -> str:
    """Turn a chart's template into YAML: blank its control lines, replace each insertion by a reference."""
    return _INSERTED.sub("<template>", _CONTROL.sub("", text))
