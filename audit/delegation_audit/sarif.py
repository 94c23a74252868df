"""Converts weaknesses to SARIF 2.1.0, for code scanners and dashboards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Final
from urllib.parse import quote

from delegation_audit import __version__
from delegation_audit.rules import Place, Rule, Severity, Weakness
from delegation_core.console.output import visible

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_FINGERPRINT: Final = "delegationSidecar/v1"
_STDIN: Final = "stdin"  # the URI of standard input, which is - on the command line

_LEVELS: Final = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
}
# "security-severity", by which code scanning services rank rules: from 9.0 critical, 7.0 high, 4.0 medium.
_SCORES: Final = {Severity.CRITICAL: "9.5", Severity.HIGH: "8.0", Severity.MEDIUM: "5.5", Severity.LOW: "2.0"}


def sarif(command: str, rules: Sequence[Rule], weaknesses: Sequence[Weakness]) -> dict[str, object]:
    """Return the SARIF document of one run. ``command`` names the tool, as in ``sidecar audit selectors``.

    A relative path gives a relative URI, an absolute path an absolute one.

    Raises:
        ValueError: the rule of a weakness is not in ``rules``.
    """
    indexes = {rule.id: index for index, rule in enumerate(rules)}
    driver = {"name": command, "version": __version__, "rules": [_rule(rule) for rule in rules]}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "invocations": [{"executionSuccessful": True}],
                "results": [_result(one, indexes) for one in weaknesses],
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {
            "text": f"{rule.why}\nFix: {rule.fix}\nSee: {rule.standard}",
            "markdown": f"{rule.why}\n\n**Fix:** {rule.fix}\n\n**See:** {rule.standard}",
        },
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {
            "severity": str(rule.severity),
            "security-severity": _SCORES[rule.severity],
            "standard": rule.standard,
            "tags": ["security"],
        },
    }


def _result(one: Weakness, indexes: dict[str, int]) -> dict[str, object]:
    if one.rule.id not in indexes:
        raise ValueError(f"{one.rule.id} is not among the rules of the run")
    fix = "\n".join(map(visible, one.fix.split("\n")))
    properties: dict[str, object] = {
        "severity": str(one.severity),
        "confidence": str(one.confidence),
        "fix": fix,
        "cure": fix,  # the key's old name, for one release
    }
    if one.facts:
        properties["facts"] = {visible(name): visible(fact) for name, fact in one.facts.items()}
    return {
        "ruleId": one.rule.id,
        "ruleIndex": indexes[one.rule.id],
        "level": _LEVELS[one.severity],
        "message": {"text": visible(one.text)},
        "locations": [_location(one.place)],
        "partialFingerprints": {_FINGERPRINT: one.fingerprint},
        "properties": properties,
    }


def _location(place: Place) -> dict[str, object]:
    physical: dict[str, object] = {"artifactLocation": {"uri": _uri(place.file)}}
    if place.line is not None:
        column = {} if place.column is None else {"startColumn": place.column}
        physical["region"] = {"startLine": place.line, **column}
    location: dict[str, object] = {"physicalLocation": physical}
    if place.object is not None:
        location["logicalLocations"] = [{"fullyQualifiedName": visible(place.object)}]
    return location


def _uri(file: str) -> str:
    """Return a URI reference. Drops ``./`` and escapes colons: a colon could end a scheme."""
    if file == "-":
        return _STDIN
    path = PurePath(file)
    escaped = quote(path.as_posix().encode("utf-8", "surrogateescape"), safe="/~")
    return f"file://{escaped}" if path.is_absolute() else escaped
