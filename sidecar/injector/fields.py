"""Members of a Kubernetes object, read with their types: what is of another type is no object we can judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class MalformedError(ValueError):
    """A member is not of the type that Kubernetes gives it. The message names the field, and no value."""


def mapping(parent: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The object member ``name``; empty if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedError(f"{name} is no object")
    return value


def mappings(parent: Mapping[str, object], name: str) -> Sequence[Mapping[str, object]]:
    """The member ``name`` as a list of objects; empty if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise MalformedError(f"{name} is no list of objects")
    return value


def text(parent: Mapping[str, object], name: str) -> str:
    """The text member ``name``; empty if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedError(f"{name} is no text")
    return value


def texts(parent: Mapping[str, object], name: str) -> Sequence[str]:
    """The member ``name`` as a list of texts; empty if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise MalformedError(f"{name} is no list of texts")
    return value


def flag(parent: Mapping[str, object], name: str) -> bool:
    """The boolean member ``name``; false if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise MalformedError(f"{name} is no boolean")
    return value


def number(parent: Mapping[str, object], name: str) -> int | None:
    """The integer member ``name``; None if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedError(f"{name} is no integer")
    return value
