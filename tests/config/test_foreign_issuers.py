"""Foreign issuers in a token service's settings: the example, and each agreement with one fact changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delegation_core.profile import ActorForm
from sidecar.config import load_sts
from tests.config.documents import ABSENT, EXAMPLES, changed, example, problems

STS = example("sts")
PARTNERS = "https://sts.partner.example"
CRM = "spiffe://acme.example/tool/crm"
STOCK = "spiffe://acme.example/tool/stock"
FIRST = "foreign_issuers.0"


def test_the_example_makes_a_foreign_issuer() -> None:
    (foreign,) = load_sts(EXAMPLES / "sts.yaml", {}).policy.foreign_issuers.values()
    assert (foreign.trusted.issuer, foreign.crossing.issuer) == (PARTNERS, PARTNERS)
    assert foreign.trusted.profile.actor is ActorForm.ISS_SUB
    assert foreign.trusted.actor_trust_domains == {"partner.example"}
    assert foreign.crossing.subject_prefix == "partner:"
    assert foreign.crossing.worth(frozenset({"crm.read", "stock.read"})) == {"stock.read"}
    assert foreign.actors == {CRM: {STOCK}}


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        pytest.param(
            [(f"{FIRST}.jwks", "http://sts.partner.example/jwks")], f"{FIRST}.tls", "plain http", id="plain-http"
        ),
        pytest.param([(f"{FIRST}.tls", ABSENT)], f"{FIRST}.tls", "it is missing", id="unproven"),
        pytest.param([(f"{FIRST}.profile", "oidc-id-token")], f"{FIRST}.profile", "login tokens", id="login-tokens"),
        pytest.param([(f"{FIRST}.profile", "entra")], f"{FIRST}.profile", "maps no actor", id="no-actor"),
        pytest.param([(f"{FIRST}.subject_prefix", ABSENT)], f"{FIRST}.subject_prefix", "is missing", id="no-prefix"),
        pytest.param([(f"{FIRST}.subject_prefix", "spi")], f"{FIRST}.subject_prefix", "workloads", id="workloads"),
        pytest.param([(f"{FIRST}.subject_prefix", "acme:x")], "foreign_issuers", "could become one", id="colliding"),
        pytest.param([(f"{FIRST}.scopes", ABSENT)], f"{FIRST}.scopes", "is missing", id="no-map"),
        pytest.param([(f"{FIRST}.actors.0.audiences", [])], f"{FIRST}.actors.0.audiences", "is empty", id="nowhere"),
        pytest.param(
            [(f"{FIRST}.actors", STS["foreign_issuers"][0]["actors"] * 2)], f"{FIRST}.actors", "twice", id="actor-twice"
        ),
        pytest.param(
            [("foreign_issuers", STS["foreign_issuers"] * 2)], "foreign_issuers", "listed twice", id="issuer-twice"
        ),
        pytest.param(
            [(f"{FIRST}.issuer", "http://127.0.0.1:7300"), (f"{FIRST}.jwks", "http://127.0.0.1:7300/jwks")],
            f"{FIRST}.issuer",
            "development only",
            id="development-beside-production",
        ),
        pytest.param([("rules", STS["rules"][:2])], f"foreign_issuers.{PARTNERS}.actors", "no rule lets", id="no-rule"),
    ],
)
def test_one_fact_changed_is_named_with_its_fix(
    changes: list[tuple[str, Any]], field: str, words: str, tmp_path: Path
) -> None:
    assert problems(tmp_path, STS, sts=True) == []
    found = problems(tmp_path, changed(STS, *changes), sts=True)
    assert any(_dotted(problem.field) == field and words in problem.wrong and problem.fix for problem in found), found


def test_keys_made_at_the_start_are_not_for_a_foreign_issuer_in_production(tmp_path: Path) -> None:
    at_home = ("login_issuers.0.jwks", "http://127.0.0.1:7300/keys"), ("login_issuers.0.tls", ABSENT)
    alone: tuple[tuple[str, Any], ...] = ("foreign_issuers", []), ("rules", STS["rules"][:2])
    assert problems(tmp_path, changed(STS, ("keys", "ephemeral"), *at_home, *alone), sts=True) == []
    found = problems(tmp_path, changed(STS, ("keys", "ephemeral"), *at_home), sts=True)
    assert [problem.field for problem in found] == ["keys"]


def _dotted(field: str) -> str:
    return field.replace("[", ".").replace("]", "")
