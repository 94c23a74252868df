"""Readers of deployment files other than Kubernetes': compose files, MCP clients, CI files, trees of settings."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from delegation_audit.credentials.fields import Exposure, Field, Read, Reference
from delegation_audit.credentials.plain import folder_of
from delegation_audit.credentials.tree import Node
from delegation_audit.credentials.values import values

_SERVERS: Final = ("mcpServers", "servers", "context_servers", "mcp_servers")
_MAX_DEPTH: Final = 3  # the servers of a project lie below "projects" and its path
_MAX_STEPS: Final = 10_000
_PIPELINES: Final = (
    *(".gitlab-ci.yml", "azure-pipelines.yml", "bitbucket-pipelines.yml", ".drone.yml", ".travis.yml"),
    *("cloudbuild.yaml", "buildspec.yml", "jenkinsfile", "appveyor.yml", ".woodpecker.yml", ".cirrus.yml"),
)


def is_pipeline(path: str) -> bool:
    """Return True if a path is that of a CI file."""
    parts = PurePath(path).parts
    name = parts[-1].lower() if parts else ""
    folders = {".github", ".circleci", ".gitlab", ".buildkite", ".tekton", ".woodpecker"}
    return (
        name in _PIPELINES
        or bool(folders.intersection(parts[:-1]))
        or name.endswith((".gitlab-ci.yml", ".jenkinsfile"))
    )


def is_compose(document: Node) -> bool:
    """Return True if a document is a compose file."""
    services = document.get("services")
    keys = {"image", "build", "environment", "env_file", "command", "ports", "extends"}
    return services is not None and any(
        keys.intersection(name for name, _ in one.members) for _, one in services.members
    )


def mcp_servers(document: Node) -> list[tuple[str, Node]]:
    """Return the servers, with their names, in an MCP client's configuration, those of its projects included."""
    found: list[tuple[str, Node]] = []
    stack, steps = [(document, 0)], _MAX_STEPS
    while stack and steps:
        steps -= 1
        node, depth = stack.pop()
        for key, member in node.members:
            if key in _SERVERS:
                found += _servers(member)
            elif depth < _MAX_DEPTH:
                stack.append((member, depth + 1))
    return found


def _servers(node: Node) -> list[tuple[str, Node]]:
    servers = node.members or [(one.text_of("name") or "unnamed", one) for one in node.items]
    return servers if servers and all(_starts_server(one) for _, one in servers) else []


def _starts_server(one: Node) -> bool:
    return any(one.get(key) is not None for key in ("command", "url", "serverUrl", "httpUrl", "transport"))


def read_mcp(path: str, document: Node) -> Read:
    """Read an MCP client's configuration: the settings of each server, then all others. Empties the server nodes."""
    fields: list[Field] = []
    for name, server in mcp_servers(document):
        owner = f"MCP server {name}"
        template = Field(
            name="", value="", line=server.line, object=owner, owner=owner, exposure=Exposure.CONFIGURATION
        )
        for key, member in server.members:
            if key not in ("type", "disabled", "autoApprove", "alwaysAllow", "cwd"):
                fields += values(member, replace(template, name=key), path=key)
        server.members = []
    return Read((*fields, *read_settings(path, [document]).fields))


def read_compose(path: str, document: Node) -> Read:
    """Read a compose file: values of each service, references to env files, and top-level secrets and configs."""
    fields: list[Field] = []
    references: list[Reference] = []
    services = document.get("services")
    for name, service in [] if services is None else services.members:
        owner = f"service {name}"
        template = Field(
            name="", value="", line=service.line, object=owner, owner=owner, exposure=Exposure.CONFIGURATION
        )
        built = service.text_of("build") or service.text_of("build", "context")
        if built is not None and "://" not in built:
            references.append(Reference(target=_target(path, built), owner=owner, weak=True))
        for key, member in service.members:
            if key == "env_file":
                entries = [member, *member.items, *filter(None, (item.get("path") for item in member.items))]
                targets = [_target(path, entry.text) for entry in entries if entry.text]
                references += [Reference(target=target, owner=owner) for target in targets]
            elif key not in ("image", "depends_on", "networks", "volumes", "ports", "secrets", "configs"):
                fields += values(member, replace(template, name=key), path=key)
    for key in ("secrets", "configs", "x-common", "x-environment"):
        node = document.get(key)
        if node is not None:
            fields += values(node, Field(name=key, value="", line=node.line, exposure=Exposure.CONFIGURATION), path=key)
    return Read(tuple(fields), tuple(references))


def _target(path: str, name: str) -> str:
    return os.path.normpath(PurePath(path).parent / name)


def read_pipeline(documents: list[Node]) -> Read:
    """Read a CI file: every value, scripts line by line. The owner is the job, or ``pipeline`` outside jobs."""
    fields: list[Field] = []
    for document in documents:
        jobs = document.get("jobs")
        for name, job in jobs.members if jobs is not None else document.members:
            if job.members or job.items or jobs is not None:
                owner = f"job {name}"
                fields += values(job, _make_template(job, owner), path="")
            else:
                fields += values(job, replace(_make_template(job, "pipeline"), name=name), path=name)
        for name, node in document.members if jobs is not None else ():
            if node is not jobs:
                fields += values(node, replace(_make_template(node, "pipeline"), name=name), path=name)
    return Read(tuple(fields))


def _make_template(node: Node, owner: str) -> Field:
    return Field(name="", value="", line=node.line, object=owner, owner=owner, exposure=Exposure.PIPELINE)


def read_settings(path: str, documents: list[Node]) -> Read:
    """Read a tree of settings, such as Helm values. The owner is the file's folder."""
    template = Field(
        name="",
        value="",
        line=1,
        owner=folder_of(path),
        strict=True,
        exposure=Exposure.CONFIGURATION,
    )
    return Read(tuple(field for document in documents for field in values(document, template, path="")))
