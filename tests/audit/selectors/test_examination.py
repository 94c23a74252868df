"""Whole documents: our own examples, a real server's, and hostile ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from delegation_audit.selectors import examination
from delegation_audit.selectors.examination import examine
from tests.audit.selectors.labelled import BY_ACCOUNT, LABELLED, NOW, in_pod, template

ROOT = Path(__file__).parents[3]
RECORDED = Path(__file__).parent / "data" / "spire-1.13.3.json"
DIGEST = f"registry.example/agents@sha256:{'0' * 64}"


def test_our_own_examples_pass(tmp_path: Path) -> None:
    for name in ("login.yaml", "agents.yaml", "namespaces.yaml"):
        text = (ROOT / "helm" / "example" / name).read_text()
        (tmp_path / name).write_text(text.replace("sidecar-dev:dev", DIGEST))  # as its page says
    result = examine([str(tmp_path), str(ROOT / "compose"), str(ROOT / "config"), str(ROOT / "docs")])
    assert len(result.entries) == 12
    assert result.weaknesses == []


def test_the_example_with_a_tag_does_not_pass() -> None:
    result = examine([str(ROOT / "helm" / "example")])
    assert [(one.rule.id, Path(one.place.file).name) for one in result.weaknesses] == [("image-tag", "login.yaml")]


def test_the_output_of_a_real_server_is_read_whole() -> None:
    result = examine([str(RECORDED)], now=NOW)
    assert len(result.entries) == 9
    assert Counter(one.rule.id for one in result.weaknesses) == {
        "agent-admin": 1,
        "agent-downstream": 1,
        "broad-parent": 3,
        "dns-name": 1,
        "image-tag": 1,
        "interpreter-path": 1,
        "join-token-parent": 3,
        "label-only": 1,
        "long-x509-ttl": 1,
        "namespace-only": 1,
        "overlapping-entry": 2,
        "root-user": 1,
        "store-svid": 1,
        "subset-entry": 1,
        "whole-pod": 1,
    }
    assert result.summary == (5, "5 of 7 identities are attested weakly; 20 weaknesses in 9 entries.")


def test_an_ignored_rule_is_left_out_also_of_the_grades(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps([in_pod("/agent/x", store_svid=True)]))
    assert examine([str(file)]).summary == (1, "1 of 1 identity is attested weakly; 1 weakness in 1 entry.")
    ignoring = examine([str(file)], ignored=["store-svid"])
    assert (ignoring.weaknesses, ignoring.summary[0]) == ([], 0)


def test_what_cannot_be_read_is_a_weakness_and_not_silence(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"spiffe_id": 1}, {"spiffe_id"')
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "b.yaml").write_text("{{- if .Values.spiffe }}\n{{ x }}: {{ y }}\n")
    found = examine([str(tmp_path)]).weaknesses
    assert [one.rule.id for one in found] == ["unreadable-entry", "unreadable-entry"]


def test_too_many_entries_are_refused_with_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "MAX_ENTRIES", 2)
    file = tmp_path / "a.json"
    file.write_text(json.dumps([in_pod("/agent/x")] * 3))
    with pytest.raises(OSError, match="more than 2 entries"):
        examine([str(file)])


def test_one_entry_in_two_exports_or_in_a_manifest_too_is_no_duplicate(tmp_path: Path) -> None:
    entry = in_pod("/agent/x", id="5f0c")
    selectors = [f"{one['type']}:{one['value']}" for one in entry["selectors"]]
    manifest = {
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterStaticEntry",
        "metadata": {"name": "x"},
        "spec": {
            "spiffeID": "spiffe://acme.example/agent/x",
            "parentID": "spiffe://acme.example/spire/agent/k8s_psat/c1/node-1",
            "selectors": selectors,
        },
    }
    for name, value in (("a", entry), ("b", entry), ("c", manifest)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    result = examine([str(tmp_path)])
    assert (result.weaknesses, len(result.entries)) == ([], 2)
    (tmp_path / "d.json").write_text(json.dumps({**entry, "id": "6a1f"}))
    assert [one.rule.id for one in examine([str(tmp_path)]).weaknesses] == ["duplicate-entry"]


def test_the_grade_of_an_actor_is_that_of_the_entries_that_give_its_id(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps([in_pod("/agent/x"), template("t", spiffeIDTemplate=BY_ACCOUNT, podSelector=LABELLED)]))
    result = examine([str(file)])
    named = {path: result.grade_of(f"spiffe://acme.example/{path}") for path in ("agent/x", "ns/a/sa/b", "agent/y")}
    assert [None if one is None else one.strength for one in named.values()] == ["strong", "medium", None]


@pytest.mark.parametrize(
    "place",
    [
        "{kind: ClusterSPIFFEID, apiVersion: *a59}",
        "{kind: *a59, apiVersion: spire.spiffe.io/v1alpha1}",
        "{kind: ClusterSPIFFEID, apiVersion: spire.spiffe.io/v1alpha1, metadata: {name: *a59}, spec: *a59}",
        "{spiffe_id: *a59, selectors: *a59}",
        "{spiffe_id: 'spiffe://a.example/x', parent_id: *a59, selectors: {uid: *a59}, hint: *a59}",
        "{spiffe_id: 'spiffe://a.example/x', parent_id: *a59, selectors: [*a59]}",
        "{spiffe_id: 'spiffe://a.example/x', selectors: ['a:b'], admin: *a59}",
        "{kind: ClusterFederatedTrustDomain, spec: {trustDomain: *a59}}",
    ],
)
def test_a_tree_of_billions_in_any_member_is_not_walked(place: str, tmp_path: Path) -> None:
    lines = ["- &a0 [x, x]", *(f"- &a{at} [*a{at - 1}, *a{at - 1}]" for at in range(1, 60)), f"- {place}"]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    result = examine([str(tmp_path / "a.yaml")])
    assert (list(result.entries), len(result.weaknesses) <= 1) == ([], True)


def test_all_weaknesses_of_an_entry_have_one_command_that_fixes_them_together(tmp_path: Path) -> None:
    bad = {**in_pod("/agent/writer", admin=True, id="5f0c"), "x509_svid_ttl": 2_592_000, "jwt_svid_ttl": 2_592_000}
    (tmp_path / "e.json").write_text(json.dumps({"entries": [bad]}))
    found = examine([str(tmp_path / "e.json")]).weaknesses
    assert {one.rule.id for one in found} == {"agent-admin", "long-x509-ttl", "long-jwt-ttl"}
    (command,) = {one.fix.rpartition("\n")[2] for one in found}
    assert command.endswith("-x509SVIDTTL 3600 -jwtSVIDTTL 300")
