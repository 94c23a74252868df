"""Words by which settings list operations, such as ``tools/call:search``, and the keys that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches

from delegation_core import a2a, grpc, mcp
from delegation_core.operation import ANY_NAME, RouteProtocol
from sidecar.config.operation_model import AllowedOperations


def keys_of(protocol: RouteProtocol, section: AllowedOperations) -> Iterator[str]:
    """Return the keys of an item; ``operation_problems`` reports the words that stand for none."""
    for word in section.allow:
        with suppress(ValueError):
            yield key_of(protocol, word)


def key_of(protocol: RouteProtocol, word: str) -> str:
    """Return the key that a word of the settings stands for.

    Raises:
        ValueError: "problem; fix": the operation is unknown, lacks its required name, or must have no name.
    """
    if protocol == "grpc":
        return grpc.key_of_word(word)
    if protocol == "a2a":
        if word == "GetAgentCard":  # as records call it
            raise ValueError("is answered by the sidecar, to every peer of the route; remove it")
        try:
            return a2a.named(word)
        except ValueError as error:
            raise ValueError(f"{error}; {_likest(word, sorted(a2a.OPERATIONS), 'docs/a2a.md')}") from None
    method, colon, name = word.partition(":")
    if method not in mcp.METHODS:
        meant = _likest(method, sorted(mcp.METHODS), "docs/mcp.md", then=colon + name)
        raise ValueError(f"not an operation of MCP; {meant}")
    if method in mcp.NAMED and not name:
        raise ValueError(f"has no name; write {method}:NAME, or {method}:*")
    if method not in mcp.NAMED and colon:
        raise ValueError(f"has a name; write {method} alone")
    if name != name.strip():
        raise ValueError("begins or ends with white space; remove it")
    return word


def _likest(word: str, known: Sequence[str], page: str, *, then: str = "") -> str:
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}{then}?" if close else f"{page} lists the operations"


def every_operation(protocol: RouteProtocol) -> list[str]:
    """Return the words that list all operations of a protocol."""
    if protocol == "grpc":
        return []  # a list is required
    everything = (mcp.METHODS - mcp.LIFECYCLE) if protocol == "mcp" else a2a.OPERATIONS
    return sorted(_whole(protocol, key) for key in everything)


def _whole(protocol: RouteProtocol, key: str) -> str:
    return f"{key}:{ANY_NAME}" if protocol == "mcp" and key in mcp.NAMED else key
