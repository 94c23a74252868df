"""Whole documents: our own examples, a real server's, and hostile ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from sidecar.audit.selectors import examination
from sidecar.audit.selectors.examination import examine
from tests.audit.selectors.labelled import NOW, in_pod

ROOT = Path(__file__).parents[3]
RECORDED = Path(__file__).parent / "data" / "spire-1.13.3.json"
DIGEST = f"registry.example/agents@sha256:{'0' * 64}"


def test_our_own_examples_pass(tmp_path: Path) -> None:
    for name in ("login.yaml", "agents.yaml", "namespaces.yaml"):
        text = (ROOT / "helm" / "example" / name).read_text()
        (tmp_path / name).write_text(text.replace("sidecar-dev:dev", DIGEST))  # as its page says
    result = examine([str(tmp_path), str(ROOT / "compose"), str(ROOT / "config"), str(ROOT / "docs")])
    assert len(result.entries) == 8
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
