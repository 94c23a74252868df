"""Sizes of the sidecar: cpu, memory and time to start, chosen for a namespace or a pod within the platform's bounds.

Pure. A size is a text: a quantity of Kubernetes, or whole seconds. The chart renders bounds and namespaces; a pod
chooses by annotations. A pod's choice wins over its namespace's, and that over the definition.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sidecar.injector.fields import MalformedError, mapping, text

SECONDS: Final = "startupSeconds"
_PLACES: Final = {  # their places in a container
    "cpuRequest": ("requests", "cpu"),
    "cpuLimit": ("limits", "cpu"),
    "memoryRequest": ("requests", "memory"),
    "memoryLimit": ("limits", "memory"),
}
_PREFIX: Final = "delegation-sidecar.io"
ANNOTATIONS: Final[Mapping[str, str]] = {
    "cpuRequest": f"{_PREFIX}/cpu-request",
    "cpuLimit": f"{_PREFIX}/cpu-limit",
    "memoryRequest": f"{_PREFIX}/memory-request",
    "memoryLimit": f"{_PREFIX}/memory-limit",
    SECONDS: f"{_PREFIX}/startup-seconds",
}
_QUANTITY: Final = re.compile(
    r"([0-9]{1,18}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?"
)
_WHOLE: Final = re.compile(r"[1-9][0-9]{0,4}")
_POWERS: Final = dict(zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True))
_WAIT: Final = "--wait="  # of a classic sidecar's hook, which waits as long as the startup probe

Sizes = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bound:
    """The least and the most of one size, both allowed."""

    least: str
    most: str


@dataclass(frozen=True, slots=True)
class Misfit:
    """An invalid size, or one outside its bounds. ``where`` is an annotation, or a field of the sidecar's container."""

    where: str
    wrong: str
    fix: str


def quantity(value: str) -> Decimal:
    """Return a quantity of Kubernetes as a number.

    Raises:
        ValueError: the text is no quantity, or has too many digits.
    """
    found = _QUANTITY.fullmatch(value)
    if found is None:
        raise ValueError("no quantity")
    number, unit = Decimal(found[1]), found[2] or ""
    if unit.endswith("i"):
        return number * Decimal(1024) ** ("KMGTPE".index(unit[0]) + 1)
    if unit[:1] in ("e", "E") and len(unit) > 1:
        return number.scaleb(int(unit[1:]))
    return number.scaleb(_POWERS.get(unit, 0))


def _measure(name: str, value: str) -> Decimal:
    if name == SECONDS and _WHOLE.fullmatch(value) is None:
        raise ValueError("not a whole number")
    return quantity(value)


def _misfit(name: str, value: str, bound: Bound) -> tuple[str, str] | None:
    """Describe the error of a value, and its fix; None if it is valid."""
    try:
        measured = _measure(name, value)
    except ValueError:
        return ("it is not a whole number of seconds", "write 300") if name == SECONDS else (
            "it is not a quantity", f"write one as {bound.least}"
        )  # fmt: skip
    fix = f"choose {bound.least} to {bound.most}; the platform sets injector.bounds.{name}"
    if measured < quantity(bound.least):
        return f"it is below {bound.least}", fix
    if measured > quantity(bound.most):
        return f"it is above {bound.most}", fix
    return None


def sizes_of_namespace(members: Mapping[str, object], bounds: Mapping[str, Bound]) -> Sizes:
    """Return the sizes that the chart renders for one namespace.

    Raises:
        MalformedError: a size is unknown, or outside the bounds.
    """
    if not members.keys() <= ANNOTATIONS.keys():
        raise MalformedError(f"namespaces has sizes other than {', '.join(ANNOTATIONS)}")
    sizes = {name: text(members, name) for name in members}
    for name, value in sizes.items():
        if found := _misfit(name, value, bounds[name]):
            raise MalformedError(f"namespaces: {name}: {found[0]}")
    return sizes


def bounds_of(members: Mapping[str, object]) -> Mapping[str, Bound]:
    """Return the bounds that the chart renders, one for each size.

    Raises:
        MalformedError: a bound is missing or no quantity, or its least is above its most.
    """
    if members.keys() != ANNOTATIONS.keys():
        raise MalformedError(f"bounds has members other than {', '.join(ANNOTATIONS)}")
    bounds = {}
    for name in ANNOTATIONS:
        bound = Bound(text(mapping(members, name), "min"), text(mapping(members, name), "max"))
        try:
            least, most = _measure(name, bound.least), _measure(name, bound.most)
        except ValueError as error:
            raise MalformedError(f"bounds.{name}: {error}") from error
        if least > most:
            raise MalformedError(f"bounds.{name}: min is above max")
        bounds[name] = bound
    return bounds


def choose_sizes(annotations: Mapping[str, object]) -> Sizes:
    """Return the sizes that a pod asks for by annotations.

    Raises:
        MalformedError: an annotation is not text.
    """
    return {name: text(annotations, key) for name, key in ANNOTATIONS.items() if annotations.get(key) is not None}


def misfits(asked: Sizes, container: Mapping[str, Any], bounds: Mapping[str, Bound]) -> Iterator[Misfit]:
    """Check the sizes that a pod asks for. ``container`` is the sidecar without them."""
    wrong = False
    for name, value in asked.items():
        if found := _misfit(name, value, bounds[name]):
            wrong = True
            yield Misfit(f"annotation {ANNOTATIONS[name]}", *found)
    if wrong or not asked:
        return
    resources = apply_sizes(container, asked).get("resources") or {}
    for of in ("cpu", "memory"):
        request, limit = (_in(resources, kind, of) for kind in ("requests", "limits"))
        if request and limit and quantity(request) > quantity(limit):
            fix = f"set {ANNOTATIONS[f'{of}Request']} and {ANNOTATIONS[f'{of}Limit']}"
            yield Misfit("annotation", f"{of}: the request {request} is above the limit {limit}", fix)


def misfits_of(own: Mapping[str, object], wanted: Mapping[str, Any], bounds: Mapping[str, Bound]) -> Iterator[Misfit]:
    """Check a present sidecar's sizes against ``bounds``. It must have each size that the ``wanted`` one has."""
    resources, due = mapping(own, "resources"), wanted.get("resources") or {}
    for name, (kind, of) in _PLACES.items():
        value, field = _in(resources, kind, of), f"resources.{kind}.{of}"
        if value is None and kind == "requests":
            value = _in(resources, "limits", of)  # without a request Kubernetes uses the limit
        if value is None:
            if _in(due, kind, of) is not None:
                yield Misfit(field, "it is missing", f"choose {bounds[name].least} to {bounds[name].most}")
        elif found := _misfit(name, value, bounds[name]):
            yield Misfit(field, *found)


def apply_sizes(container: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """Return the sidecar's container with ``sizes`` in place of its own."""
    made: dict[str, Any] = copy.deepcopy(dict(container))
    for name, (kind, of) in _PLACES.items():
        if name in sizes:
            resources = made["resources"] = made.get("resources") or {}
            resources[kind] = {**(resources.get(kind) or {}), of: sizes[name]}
    if SECONDS in sizes:
        made["startupProbe"]["failureThreshold"] = int(sizes[SECONDS])  # one probe per second
        command = made.get("lifecycle", {}).get("postStart", {}).get("exec", {}).get("command", [])
        command[:] = [f"{_WAIT}{sizes[SECONDS]}" if word.startswith(_WAIT) else word for word in command]
    return made


def _in(resources: Mapping[str, Any], kind: str, of: str) -> str | None:
    """Return one quantity of a container's resources. JSON may have a number in its place."""
    value = mapping(resources, kind).get(of)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise MalformedError(f"{of} is not a quantity")
