"""Typed accessors for members of a Kubernetes object; a member of another type is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class MalformedError(ValueError):
    """A member has another type than in Kubernetes' API. The message names the field, without its value."""


def mapping(parent: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return the object member ``name``; empty if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedError(f"{name} is not an object")
    return value


def mappings(parent: Mapping[str, object], name: str) -> Sequence[Mapping[str, object]]:
    """Return the member ``name`` as a list of objects; empty if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise MalformedError(f"{name} is not a list of objects")
    return value


def text(parent: Mapping[str, object], name: str) -> str:
    """Return the text member ``name``; empty if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedError(f"{name} is not a string")
    return value


def texts(parent: Mapping[str, object], name: str) -> Sequence[str]:
    """Return the member ``name`` as a list of texts; empty if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise MalformedError(f"{name} is not a list of strings")
    return value


def flag(parent: Mapping[str, object], name: str) -> bool:
    """Return the boolean member ``name``; false if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise MalformedError(f"{name} is not a boolean")
    return value


def number(parent: Mapping[str, object], name: str) -> int | None:
    """Return the integer member ``name``; None if it is missing or null."""
    value = parent.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedError(f"{name} is not an integer")
    return value
