"""Settings that have a meaning already but no implementation: refused by name, never ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.errors import Problem

# Keys that do not exist yet. "*" is any item of a list. Null means "not set" and is fine.
_KEYS: Final = (
    "issuers.*.metadata",
    "inbound.http2",
    "inbound.websocket",
    "inbound.subjects_at_once",
    "inbound.resource_metadata",
    "inbound.routes.*.observe_until",
    "inbound.routes.*.websocket",
    "inbound.routes.*.max_stream_s",
    "inbound.routes.*.subjects_at_once",
    "outbound.capture",
    "outbound.observe",
    "outbound.routes.*.observe_until",
    "outbound.routes.*.inject",
    "outbound.routes.*.passthrough",
    "outbound.routes.*.exchange",
    "platform",
    "tracing",
    "workers",
)
# Keys that exist, and words that they will take later.
_WORDS: Final = {
    "inbound.routes.*.protocol": ("mcp", "a2a", "jsonrpc", "grpc"),
    "outbound.routes.*.protocol": ("mcp", "a2a", "jsonrpc", "grpc"),
    "outbound.routes.*.token": ("self", "passthrough", "inject"),
}


def take_out_not_yet(document: dict[str, object]) -> list[Problem]:
    """Remove every such setting from ``document`` and return a problem for each."""
    problems: list[Problem] = []
    for field, section, key in [*found(document, _KEYS)]:
        if section.pop(key) is not None:
            problems.append(_problem(field))
    for field, section, key in [*found(document, _WORDS)]:
        value = section[key]
        if isinstance(value, str) and value.startswith(_WORDS[_pattern(field)]):
            del section[key]
            problems.append(_problem(field))
    return problems


def _problem(field: str) -> Problem:
    return Problem(field, "is not available yet", "remove it")


def found(
    document: dict[str, object], patterns: tuple[str, ...] | dict[str, tuple[str, ...]]
) -> Iterator[tuple[str, dict[str, object], str]]:
    """Where keys are in a document: the field, the section it is in, and its name there. "*" is any item of a list."""
    for pattern in patterns:
        *parents, key = pattern.split(".")
        for prefix, section in _sections(document, parents, ""):
            if key in section:
                yield f"{prefix}{key}", section, key


def _sections(value: object, path: list[str], field: str) -> Iterator[tuple[str, dict[str, object]]]:
    if not path:
        if isinstance(value, dict):
            yield field, value
    elif path[0] == "*" and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _sections(item, path[1:], f"{field.removesuffix('.')}[{number}].")
    elif isinstance(value, dict) and path[0] in value:
        yield from _sections(value[path[0]], path[1:], f"{field}{path[0]}.")


def _pattern(field: str) -> str:
    head, _, rest = field.partition("[")
    return f"{head}.*.{rest.partition('].')[2]}"
