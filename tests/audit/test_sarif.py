import json
from typing import Any

import pytest

from delegation_audit.rules import Confidence, Place, Severity, Weakness
from delegation_audit.sarif import sarif
from tests.audit.sarif_document import results_of
from tests.audit.test_rules import KEY, TAG


def document(*weaknesses: Weakness) -> dict[str, Any]:
    """The document as another program reads it."""
    read: dict[str, Any] = json.loads(json.dumps(sarif("sidecar audit credentials", (KEY, TAG), weaknesses)))
    return read


def location(place: Place) -> Any:
    [result] = results_of(document(TAG.report(place, "a tag")))
    return result["locations"][0]


def test_a_document_names_the_tool_its_rules_and_their_help() -> None:
    read = document()
    assert results_of(read) == []
    driver = read["runs"][0]["tool"]["driver"]
    assert driver["name"] == "sidecar audit credentials"
    assert [rule["id"] for rule in driver["rules"]] == ["long-lived-key", "tag"]
    assert driver["rules"][0]["help"]["text"] == (
        "Whoever reads it is the agent.\nFix: Replace it by an exchange.\nSee: RFC 9700 section 2.5"
    )


def test_a_result_has_its_rule_level_place_and_fingerprint() -> None:
    place = Place(file="deploy/web.yaml", line=12, column=5, object="Deployment shop/web, container web")
    [result] = results_of(
        document(TAG.report(place, "web has a tag", confidence=Confidence.MEDIUM, facts={"image": "web:1"}))
    )
    assert (result["ruleId"], result["ruleIndex"], result["level"]) == ("tag", 1, "note")
    assert result["message"] == {"text": "web has a tag"}
    assert result["properties"] == {
        "severity": "low",
        "confidence": "medium",
        "fix": "Pin the digest.",
        "cure": "Pin the digest.",
        "facts": {"image": "web:1"},
    }
    assert result["locations"][0] == {
        "physicalLocation": {
            "artifactLocation": {"uri": "deploy/web.yaml"},
            "region": {"startLine": 12, "startColumn": 5},
        },
        "logicalLocations": [{"fullyQualifiedName": "Deployment shop/web, container web"}],
    }


@pytest.mark.parametrize(
    ("severity", "level"),
    [
        (Severity.CRITICAL, "error"),
        (Severity.HIGH, "error"),
        (Severity.MEDIUM, "warning"),
        (Severity.LOW, "note"),
    ],
)
def test_the_level_follows_the_severity_of_the_weakness(severity: Severity, level: str) -> None:
    [result] = results_of(document(TAG.report(Place(file="a"), "x", severity=severity)))
    assert result["level"] == level


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("./a/b c.yaml", "a/b%20c.yaml"),
        ("../a.json", "../a.json"),
        ("/srv/a.json", "file:///srv/a.json"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("ä\x1b\udc80", "%C3%A4%1B%80"),
        ("-", "stdin"),
    ],
)
def test_a_file_is_a_uri_reference_in_the_form_in_which_it_was_given(file: str, uri: str) -> None:
    assert location(Place(file=file))["physicalLocation"] == {"artifactLocation": {"uri": uri}}


def test_nothing_in_a_text_acts_on_a_terminal() -> None:
    hostile = TAG.report(Place(file="a", object="\x1b[2J"), "\x1b[2J", fix="one\n\x1b[2J", facts={"\x1b": "\x1b"})
    text = json.dumps(document(hostile), ensure_ascii=False)
    assert "\\u001b" not in text
    [result] = results_of(document(hostile))
    assert result["properties"]["fix"] == "one\n\\u{1b}[2J"


def test_a_weakness_without_its_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="tag is not among the rules"):
        sarif("sidecar audit credentials", (KEY,), [TAG.report(Place(file="a"), "x")])
