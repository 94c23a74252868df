"""The calls that ``sidecar dev run`` prints: how to ask the agent, and how it reaches its services."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from sidecar_dev.a2a_stand_in import FIELDS, message_request
from sidecar_dev.mcp_stand_in import request_of
from sidecar_dev.run_plan import Service


def address(name: str, service: Service, sidecar: str) -> str:
    """Describe how a caller reaches a service through the caller's sidecar, which listens at the URL ``sidecar``."""
    if service.protocol == "grpc":
        return f"{urlsplit(sidecar).netloc} by gRPC with the authority {service.host}"
    if service.host is not None:
        return f"http://{service.host}/ with {sidecar} as its HTTP proxy"
    return f"{sidecar}/{name}"


def by_the_user(agent: Service, user: str, header: Path, url: str) -> list[str]:
    """Return lines that show how to call the agent with a login token, stored in a file as a header field."""
    if agent.protocol == "grpc":
        where = urlsplit(url).netloc
        return [
            f"call it by gRPC through the mesh, as {user}: at {where} with the authority {agent.host} and the"
            f" metadata in {header}; if it serves reflection, by",
            f'  grpcurl -plaintext -authority {agent.host} -H "$(cat {shlex.quote(str(header))})" {where} list',
        ]
    return [
        f"call it through the mesh, as {user}:",
        f"  curl -H {shlex.quote(f'@{header}')} {question(agent)}{url}",
    ]


def path(service: Service) -> str:
    """Return the path of a call; for gRPC the path of the first listed method."""
    listed = service.operations if service.protocol == "grpc" else ()
    return f"/{listed[0].replace('*', 'Any')}" if listed else service.path


def question(service: Service) -> str:
    """Return curl's options for a message of a service's protocol."""
    if service.protocol == "http":
        return ""
    if service.protocol == "grpc":
        return "--http2 -X POST -H 'content-type: application/grpc' -H 'te: trailers' "
    message, fields = message_request("Hello", {}), FIELDS
    if service.protocol == "mcp":
        message, fields = request_of("curl", "tools/list", {})
    words = [word for name, value in fields.items() for word in ("-H", f"{name}: {value}")]
    return shlex.join([*words, "--json", json.dumps(message)]) + " "
