"""Alerts with one change each: a shorter list, a reversed comparison, a dropped label. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

Alert = dict[str, Any]

_COMPARED: Final = re.compile(r"(?<=[<>=] )(\d+(?:\.\d+)?)(?![\d.])")
_COMPARISON: Final = re.compile(r" (<|>|==) (?=[\d\w(])")
_SET_OPERATOR: Final = re.compile(r"\b(and|or|unless)\b")
_MATCHER: Final = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_ALTERNATIVES: Final = re.compile(r"[\w.+]+(?:\|[\w.+]+)+")
_GROUPING: Final = re.compile(r"\b(by|on|without|ignoring)( ?)\(([^)]*)\)")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TURNED: Final = {"<": ">", ">": "<", "==": "!=", "and": "or", "or": "and", "unless": "and"}
_FLIPPED: Final = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}
# Guards against a division by zero, or against an absent series: any other number does as well.
_GUARDS: Final = ("lifetime_seconds > ",)


def mutants(alert: Alert) -> Iterator[tuple[str, Alert]]:
    """Return each change by its name, with the changed alert. Changes without effect are left out."""
    expression = alert["expr"]
    seen = {expression}
    for name, changed in _changed(expression):
        if changed not in seen:
            seen.add(changed)
            yield name, {**alert, "expr": changed}
    for seconds in _other_patience(alert["for"]):
        yield f"for {seconds}s", {**alert, "for": f"{seconds}s"}
    severity = alert["labels"]["severity"]
    yield "severity", {**alert, "labels": {"severity": "info" if severity != "info" else "warning"}}


def _changed(expression: str) -> Iterator[tuple[str, str]]:
    for changes in (_numbers, _factors, _turns, _matchers, _groupings):
        yield from changes(expression)


def _put(expression: str, found: re.Match[str], text: str) -> str:
    return expression[: found.start()] + text + expression[found.end() :]


def _numbers(expression: str) -> Iterator[tuple[str, str]]:
    for found in _COMPARED.finditer(expression):
        before = expression[: found.start()]
        guard = before.endswith(_GUARDS)
        for other in ("-1",) if guard else _nudged(found[1], before):
            yield f"{found[1]} becomes {other}", _put(expression, found, other)
        if not guard and found[1] == "0":
            yield "0 itself counts", re.sub(r"> $", ">= ", before) + expression[found.start() :]


def _nudged(number: str, before: str) -> tuple[str, ...]:
    if number == "0":
        return ("5",) if before.endswith("> ") else ("1e5", "-1e5") if before.endswith("< ") else ("1",)
    if before.startswith("count"):  # whole numbers
        return str(int(number) + 1), str(int(number) - 1)
    return (f"{float(number) * 1.25:g}", f"{float(number) * 0.8:g}")


def _factors(expression: str) -> Iterator[tuple[str, str]]:
    if "> ignoring" in expression:  # two series are compared
        yield "a quarter more", f"1.25 * {expression}"
        yield "a fifth less", f"0.8 * {expression}"


def _turns(expression: str) -> Iterator[tuple[str, str]]:
    for found in _COMPARISON.finditer(expression):
        if not expression[: found.end()].endswith(_GUARDS):
            yield f"{found[1]} is turned round", _put(expression, found, f" {_TURNED[found[1]]} ")
    for found in _SET_OPERATOR.finditer(expression):
        yield f"{found[1]} is another", _put(expression, found, _TURNED[found[1]])


def _matchers(expression: str) -> Iterator[tuple[str, str]]:
    for found in _MATCHER.finditer(expression):
        label, operator, value = found.groups()
        yield f"{label} is not matched", _put(expression, found, "").replace("{, ", "{").replace(", }", "}")
        yield f"{label} is matched the other way", _put(expression, found, f'{label}{_FLIPPED[operator]}"{value}"')
        for several in _ALTERNATIVES.finditer(value):
            for one in several[0].split("|"):
                rest = "|".join(other for other in several[0].split("|") if other != one)
                fewer = value[: several.start()] + rest + value[several.end() :]
                yield f"{label} without {one}", _put(expression, found, f'{label}{operator}"{fewer}"')
        if "(.*/)?" in value:
            bare = value.replace("(.*/)?", "")
            yield f"{label} without a namespace", _put(expression, found, f'{label}{operator}"{bare}"')


def _groupings(expression: str) -> Iterator[tuple[str, str]]:
    for found in _GROUPING.finditer(expression):
        labels = [label.strip() for label in found[3].split(",") if label.strip()]
        for one in labels:
            rest = ", ".join(label for label in labels if label != one)
            yield f"{found[1]} without {one}", _put(expression, found, f"{found[1]}{found[2]}({rest})")
        if found[1] == "without":
            yield "instance is dropped", _put(expression, found, f"without ({', '.join([*labels, 'instance'])})")


def _other_patience(text: str) -> tuple[int, ...]:
    seconds = int(text[:-1]) * _UNITS_S[text[-1]]
    return (seconds // 2, seconds * 2) if seconds else (180,)
