"""Members of SARIF 2.1.0 as code scanning services require them, checked strictly: an unknown member is a fault.

The output was also valid by the schema of OASIS (sarif-schema-2.1.0.json) when this was written.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

LEVELS = ("error", "warning", "note")
URI = re.compile(r"[A-Za-z0-9%/._~:-]+")


def results_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Assert that the document is lawful, and return its results."""
    assert set(document) == {"$schema", "version", "runs"}
    assert document["version"] == "2.1.0"
    [run] = document["runs"]
    assert set(run) == {"tool", "columnKind", "invocations", "results"}
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    assert run["invocations"] == [{"executionSuccessful": True}]
    assert set(run["tool"]) == {"driver"}
    driver = run["tool"]["driver"]
    assert set(driver) == {"name", "version", "rules"}
    for rule in driver["rules"]:
        _check_rule(rule)
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(set(ids)) == len(ids)
    for result in run["results"]:
        _check_result(result, ids)
    results: list[dict[str, Any]] = run["results"]
    return results


def _check_rule(rule: dict[str, Any]) -> None:
    members = {"id", "shortDescription", "fullDescription", "help", "defaultConfiguration", "properties"}
    assert set(rule) == members
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule["id"])
    assert set(rule["help"]) == {"text", "markdown"}
    assert rule["shortDescription"]["text"]
    assert rule["fullDescription"]["text"]
    assert rule["help"]["text"]
    assert rule["defaultConfiguration"]["level"] in LEVELS
    assert 0 < float(rule["properties"]["security-severity"]) <= 10


def _check_result(result: dict[str, Any], ids: list[str]) -> None:
    assert set(result) == {
        "ruleId",
        "ruleIndex",
        "level",
        "message",
        "locations",
        "partialFingerprints",
        "properties",
    }
    assert ids[result["ruleIndex"]] == result["ruleId"]
    assert result["level"] in LEVELS
    assert result["message"]["text"]
    for fingerprint in result["partialFingerprints"].values():
        assert isinstance(fingerprint, str)
        assert fingerprint
    [location] = result["locations"]
    assert set(location) <= {"physicalLocation", "logicalLocations"}
    physical = location["physicalLocation"]
    uri = physical["artifactLocation"]["uri"]
    assert URI.fullmatch(uri), uri
    assert urlsplit(uri).scheme in ("", "file")
    for number in physical.get("region", {"startLine": 1}).values():
        assert number >= 1
