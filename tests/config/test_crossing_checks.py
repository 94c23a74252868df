"""Crossings in settings: the example, and each agreement with one fact changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delegation_core.crossing import Crossing
from delegation_core.errors import Problem
from sidecar.check import check
from sidecar.config import load_sidecar
from tests.config.documents import ABSENT, EXAMPLES, changed, example, written

DOMAINS = example("domains")
PLATFORM = example("platform")
ACME = "https://sts.acme.example"
PARTNERS = "https://sts.partner.example"
STOCK = DOMAINS["outbound"]["routes"][1]
CROSSING = STOCK["crossings"][0]
FROM = "outbound.routes.1.crossings.0.from"
PREFIX = "outbound.routes.1.crossings.0.subject_prefix"
SCOPES = "outbound.routes.1.crossings.0.scopes"
USER = example("entry")["entry"]["issuers"][0]


def found(folder: Path, *changes: tuple[str, object]) -> list[Problem]:
    return check(written(folder, changed(DOMAINS, *changes)), {}).problems


def another(**changes: object) -> dict[str, object]:
    """Return a second route with a crossing."""
    return {**STOCK, "name": "files", "match": {"host": "files.mesh"}, "crossings": [{**CROSSING, **changes}]}


def entry(subject_prefix: str, *may_call: str) -> dict[str, object]:
    return {"issuers": [{**USER, "subject_prefix": subject_prefix}], "may_call": list(may_call)}


def test_the_example_makes_a_crossing() -> None:
    _, stock = load_sidecar(EXAMPLES / "domains.yaml", {}, EXAMPLES / "platform.yaml").outbound_routes.routes
    assert stock.issuer == ACME
    assert stock.crossings == {
        PARTNERS: Crossing(issuer=PARTNERS, subject_prefix="partner:", scopes={"crm.read": frozenset({"stock.read"})})
    }


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        pytest.param([(FROM, "https://x")], f"{FROM}", "not a configured issuer", id="unknown-issuer"),
        pytest.param([(FROM, ACME)], FROM, "route's own tokens", id="from-its-own"),
        pytest.param([(FROM, ABSENT)], FROM, "is missing", id="from-nobody"),
        pytest.param(
            [("outbound.routes.1.crossings", [CROSSING, CROSSING])], FROM.replace("0.f", "1.f"), "twice", id="twice"
        ),
        pytest.param(
            [("inbound.routes.1.may_call", [])], FROM, "no inbound route that opens this route", id="opened-by-nobody"
        ),
        pytest.param(
            [("inbound.routes.1.may_call", []), ("inbound.routes.0.may_call", ["stock"])],
            FROM,
            "no inbound route that opens this route",
            id="opened-by-a-route-of-another-issuer",
        ),
        pytest.param(
            [("outbound.routes.1.token", "self")], "outbound.routes.1.crossings.0", "self route", id="for-itself"
        ),
        pytest.param([(PREFIX, ABSENT)], PREFIX, "is missing", id="no-prefix"),
        pytest.param([(PREFIX, "")], PREFIX, "is empty", id="empty-prefix"),
        pytest.param([(PREFIX, "spiffe://x/")], "outbound.routes.1.subject_prefix", "workloads", id="workloads"),
        pytest.param([(SCOPES, {})], SCOPES, "is empty", id="no-scope"),
        pytest.param([(SCOPES, {"crm.write": ["stock.read"]})], SCOPES, "above the ceiling", id="above-its-ceiling"),
        pytest.param([(SCOPES, {"crm.read": ["crm.write"]})], SCOPES, "route's scopes", id="above-the-route"),
        pytest.param(
            [("outbound.routes.1.crossings", [])], "inbound.routes.1.may_call", "stock cannot be used", id="no-crossing"
        ),
        pytest.param(
            [
                ("outbound.routes", [*DOMAINS["outbound"]["routes"], another(subject_prefix="other:")]),
                ("inbound.routes.1.may_call", ["stock", "files"]),
            ],
            "outbound.routes.2.crossings.0.subject_prefix",
            "differs",
            id="two-prefixes-of-one-issuer",
        ),
        pytest.param([("entry", entry("", "stock"))], "outbound.routes", "could become one", id="an-entry-without"),
        pytest.param([("entry", entry("part", "stock"))], "outbound.routes", "could become one", id="start-of-another"),
    ],
)
def test_one_fact_changed_is_named_with_its_fix(
    changes: list[tuple[str, Any]], field: str, words: str, tmp_path: Path
) -> None:
    assert found(tmp_path) == []
    problems = found(tmp_path, *changes)
    assert any(_dotted(problem.field) == field and words in problem.wrong and problem.fix for problem in problems), (
        problems
    )


def test_prefixes_that_keep_subjects_apart_are_fine(tmp_path: Path) -> None:
    routes = ("outbound.routes", [*DOMAINS["outbound"]["routes"], another()])
    assert found(tmp_path, routes, ("inbound.routes.1.may_call", ["stock", "files"])) == []
    assert found(tmp_path, ("entry", entry("acme:", "stock"))) == []


@pytest.mark.parametrize(
    ("ceiling", "field"),
    [
        pytest.param([("crossings", [])], "outbound.routes.1.crossings.0", id="not-listed"),
        pytest.param([("crossings.0.to", PARTNERS)], "outbound.routes.1.crossings.0", id="to-another"),
        pytest.param([("crossings.0.from", ACME)], "outbound.routes.1.crossings.0", id="from-another"),
        pytest.param([("crossings.0.subject_prefix", "p:")], PREFIX, id="another-prefix"),
        pytest.param([("crossings.0.scopes", {"crm.read": []})], SCOPES, id="scope-worth-less"),
        pytest.param([("crossings.0.scopes", {"docs.read": ["stock.read"]})], SCOPES, id="scope-not-in-the-map"),
    ],
)
def test_a_crossing_above_the_platforms_ceiling_is_refused(
    ceiling: list[tuple[str, Any]], field: str, tmp_path: Path
) -> None:
    folder = tmp_path / "platform"
    folder.mkdir()
    own = written(tmp_path, DOMAINS)
    assert check(own, {}, platform=written(folder, PLATFORM)).problems == []
    problems = check(own, {}, platform=written(folder, changed(PLATFORM, *ceiling))).problems
    assert [_dotted(problem.field) for problem in problems] == [field]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param(("crossings", [*PLATFORM["crossings"] * 2]), "platform crossings", id="twice"),
        pytest.param(("crossings.0.subject_prefix", "spif"), "platform crossings.subject_prefix", id="workloads"),
    ],
)
def test_a_contradictory_ceiling_is_refused(change: tuple[str, Any], field: str, tmp_path: Path) -> None:
    folder = tmp_path / "platform"
    folder.mkdir()
    problems = check(written(tmp_path, DOMAINS), {}, platform=written(folder, changed(PLATFORM, change))).problems
    assert field in [problem.field for problem in problems]


def _dotted(field: str) -> str:
    return field.replace("[", ".").replace("]", "")
