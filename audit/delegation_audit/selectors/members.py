"""Reads members of an untrusted object, each as one type within limits. Another type is an error.

All readers raise ShapeError, which names the member and quotes no value. Values are never walked or printed whole: an
alias of YAML can make them arbitrarily long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from delegation_audit.selectors.entries import SCHEME, Selector, selector_of
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError, TrustDomain

MAX_ITEMS: Final = 256  # selectors, names or partners of an entry
MAX_TEXT: Final = 4096
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(h|ms|m|s|us|µs|ns)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_TRUE: Final = frozenset({"true", "yes", "on", "y", "1"})  # YAML 1.1 and shells


class ShapeError(ValueError):
    """The entry in an object cannot be read. The message names the member and quotes no value."""


def mapping(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Read an object, which must be there."""
    member = value.get(name)
    if not isinstance(member, dict):
        raise ShapeError(f"{name} is not an object")
    return member


def text(value: Mapping[str, object], name: str) -> str:
    """Read a text; "" if absent."""
    member = value.get(name)
    if member is None:
        return ""
    if not isinstance(member, str) or len(member) > MAX_TEXT:
        raise ShapeError(f"{name} is not text, or longer than {MAX_TEXT} characters")
    return member


def texts(value: Mapping[str, object], name: str) -> tuple[str, ...]:
    """Read a list of texts; empty if absent."""
    member = value.get(name)
    if member is None:
        return ()
    if not isinstance(member, list) or not all(isinstance(one, str) and len(one) <= MAX_TEXT for one in member):
        raise ShapeError(f"{name} is not a list of texts of at most {MAX_TEXT} characters")
    if len(member) > MAX_ITEMS:
        raise ShapeError(f"{name} has more than {MAX_ITEMS} items")
    return tuple(member)


def flag(value: Mapping[str, object], name: str) -> bool:
    """Read a flag. Accepts every spelling of true, so that no granted right is overlooked; other text is False."""
    member = value.get(name)
    if isinstance(member, dict | list | float):
        raise ShapeError(f"{name} is neither true nor false")
    return member is True or str(member).lower() in _TRUE


def count(value: Mapping[str, object], name: str) -> int:
    """Read a count, also as text with digits, as protobuf's JSON writes 64-bit numbers; 0 if absent."""
    member = value.get(name)
    if member is None:
        return 0
    if isinstance(member, str) and re.fullmatch(r"[0-9]{1,18}", member):
        return int(member)
    if isinstance(member, bool) or not isinstance(member, int) or member < 0:
        raise ShapeError(f"{name} is not a count")
    return member


def seconds(value: Mapping[str, object], name: str) -> int:
    """Read a lifetime in seconds, from a number or a duration; 0 if absent."""
    member = value.get(name)
    return duration(value, name) if isinstance(member, str) and not member.isdecimal() else count(value, name)


def duration(value: Mapping[str, object], name: str) -> int:
    """Read a duration as Go writes it; return seconds, rounded up; 0 if absent."""
    member = value.get(name)
    if member is None:
        return 0
    pieces = list(_DURATION.finditer(member)) if isinstance(member, str) else []
    if not pieces or "".join(piece[0] for piece in pieces) != member:
        raise ShapeError(f"{name} is not a duration such as 1h or 300s")
    total = sum(float(piece[1]) * _UNITS[piece[2]] for piece in pieces)
    return int(total) + (total % 1 > 0)


def workload_id(value: Mapping[str, object], name: str) -> str:
    """Read the SPIFFE ID of a workload, which must be there."""
    return str(_check(SpiffeId, any_id(value, name) or "", name))


def any_id(value: Mapping[str, object], name: str) -> str | None:
    """Read a SPIFFE ID or a whole trust domain, as text or in two members as a server writes it; None if absent."""
    member = value.get(name)
    if member is None:
        return None
    if isinstance(member, dict):
        domain, path = member.get("trust_domain", member.get("trustDomain")), member.get("path", "")
        whole = isinstance(domain, str) and isinstance(path, str) and "/" not in domain
        member = f"{SCHEME}{domain}{path}" if whole else None
    if not isinstance(member, str):
        raise ShapeError(f"{name} is not a valid SPIFFE ID")
    if member.startswith(SCHEME) and "/" not in member.removeprefix(SCHEME):
        _check(TrustDomain, member.removeprefix(SCHEME), name)
        return member
    return str(_check(SpiffeId, member, name))


def _check(make: Callable[[str], str], written: str, name: str) -> str:
    try:
        return make(written)
    except SpiffeIdError as error:
        raise ShapeError(f"{name} is not a valid SPIFFE ID: {error}") from None


def selectors(value: Mapping[str, object]) -> frozenset[Selector]:
    """Read the selectors, each an object with type and value or the text ``type:value``; empty if absent."""
    member = value.get("selectors")
    if member is None:
        return frozenset()
    if not isinstance(member, list) or len(member) > MAX_ITEMS:
        raise ShapeError(f"selectors is not a list, or has more than {MAX_ITEMS} items")
    found = set()
    for one in member:
        if isinstance(one, str):  # as manifests and commands write it
            type_, _, rest = one.partition(":")
        elif isinstance(one, dict):
            type_, rest = text(one, "type"), text(one, "value")
        else:
            raise ShapeError("a selector has no type and value")
        if len(rest) > MAX_TEXT:
            raise ShapeError(f"a selector is longer than {MAX_TEXT} characters")
        if not type_ or not rest:
            raise ShapeError("a selector has no type and value")
        found.add(selector_of(f"{type_}:{rest}"))
    return frozenset(found)


def labels(spec: Mapping[str, object], name: str) -> list[str]:
    """Read a label selector as ``key:value`` texts; an expression other than In with one value as ``(TEXT):``."""
    member = spec.get(name)
    if member is None:
        return []
    if not isinstance(member, dict):
        raise ShapeError(f"{name} is not an object")
    matched, expressions = member.get("matchLabels"), member.get("matchExpressions")
    matched, expressions = {} if matched is None else matched, [] if expressions is None else expressions
    if (
        not isinstance(matched, dict)
        or not isinstance(expressions, list)
        or len(matched) + len(expressions) > MAX_ITEMS
    ):
        raise ShapeError(f"{name} is not a label selector, or has more than {MAX_ITEMS} labels")
    found = [f"{key}:{word(one, name)}" for key, one in matched.items()]
    for expression in expressions:
        if not isinstance(expression, dict) or not isinstance(expression.get("key"), str):
            raise ShapeError(f"{name} has an expression without a key")
        chosen = expression.get("values") or []
        values = [word(one, name) for one in chosen[:MAX_ITEMS]] if isinstance(chosen, list) else []
        operator = word(expression.get("operator"), name)
        one_of = operator == "In" and len(values) == 1
        key = expression["key"]
        found.append(f"{key}:{values[0]}" if one_of else f"({key} {operator} {', '.join(values)}):")
    return found


def word(value: object, name: str) -> str:
    """Convert a scalar or a list of integers to text. Any other value is an error: an alias may make it very long."""
    if isinstance(value, list) and len(value) <= MAX_ITEMS and all(isinstance(one, int) for one in value):
        return ",".join(map(str, value))
    if isinstance(value, dict | list) or len(written := str(value)) > MAX_TEXT:
        raise ShapeError(f"{name} holds a value that is not text, or longer than {MAX_TEXT} characters")
    return written
