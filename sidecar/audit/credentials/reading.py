"""Choice of the reader of a file: by its content, and by its path where the content does not tell."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from sidecar.audit.credentials.deployments import (
    is_compose,
    is_pipeline,
    mcp_servers,
    read_compose,
    read_mcp,
    read_pipeline,
    read_settings,
)
from sidecar.audit.credentials.fields import Exposure, Field, Read
from sidecar.audit.credentials.kubernetes import is_kubernetes, read_kubernetes
from sidecar.audit.credentials.plain import fields_of, folder_of, is_lock, read_plain
from sidecar.audit.credentials.providers import (
    entra_applications,
    google_keys,
    keycloak_realms,
    read_entra,
    read_google,
    read_keycloak,
)
from sidecar.audit.credentials.tree import Node, TreeError, read_documents

_TREES: Final = frozenset((".yaml", ".yml", ".json", ".jsonc", ".code-workspace"))


def read_file(path: str, text: str, *, today: str) -> Read:
    """Read a file: its fields by its format, and at the end its whole text for the detector."""
    read = _by_format(path, text, today)
    exposure = read.fields[0].exposure if read.fields else Exposure.CODE
    owner = folder_of(path) if not read.fields else None
    whole = Field(name="", value=text, line=1, literal=True, exposure=exposure, owner=owner)
    return Read((*read.fields, whole), read.references)


def _by_format(path: str, text: str, today: str) -> Read:
    if is_lock(path):
        return Read(())
    documents = _documents(path, text)
    if documents:
        realms, applications = keycloak_realms(documents), entra_applications(documents)
        if realms or applications:
            one, other = read_keycloak(realms), read_entra(applications, today=today)
            return Read(one.fields + other.fields)
        if google_keys(documents):
            return read_google(google_keys(documents))
        if any(map(is_kubernetes, documents)):
            return read_kubernetes(documents)
        if mcp_servers(documents[0]):
            return read_mcp(documents[0])
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
    """Return the documents of a file that is a tree; nothing for other text, or a tree with a fault."""
    suffix = PurePath(path).suffix.lower()
    beginning = text.lstrip()[:1]
    if suffix not in _TREES and not (path == "-" and beginning in ("{", "[")):
        return []
    try:
        documents = read_documents(text)
    except TreeError:  # a template of a chart, for one: read line by line
        return []
    return [document for document in documents if document.members or document.items]
