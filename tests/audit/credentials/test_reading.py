from __future__ import annotations

import json

import pytest

from delegation_audit.credentials.fields import Exposure
from delegation_audit.credentials.reading import read_file

POD = json.dumps(
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"env": [{"name": "A", "value": "b"}]}}
)


@pytest.mark.parametrize(
    ("path", "text", "owner"),
    [
        ("x/pod.json", POD, "Pod a"),
        ("-", POD, "Pod a"),
        ("x/mcp.json", '{"mcpServers": {"crm": {"command": "x", "env": {"A": "b"}}}}', "MCP server crm"),
        ("x/compose.yaml", "services: {crm: {image: a, environment: {A: b}}}", "service crm"),
        ("x/.github/workflows/a.yml", "jobs: {build: {env: {A: b}}}", "job build"),
        ("x/Jenkinsfile", "AB = 'bcde'", "pipeline"),
        ("x/values.yaml", "A: b", "folder x"),
        ("x/templates/a.yaml", "apiVersion: v1\nkind: {{ .Kind }}\nA: bcde\n", "folder templates"),
        ("x/realm.json", '{"realm": "r", "clients": [{"clientId": "c", "secret": "s"}]}', "client c"),
    ],
)
def test_the_content_chooses_the_reader_and_the_path_where_it_does_not(path: str, text: str, owner: str) -> None:
    fields = read_file(path, text, today="2026-09-21").fields
    assert owner in [field.owner for field in fields[:-1]]


def test_the_whole_text_comes_last_for_the_detector() -> None:
    for path in ("x/values.yaml", "x/a.py", "x/package-lock.json"):
        whole = read_file(path, "a: b", today="2026-09-21").fields[-1]
        assert (whole.name, whole.value, whole.literal) == ("", "a: b", True)


def test_a_lock_file_is_left_to_the_detector() -> None:
    assert len(read_file("package-lock.json", '{"token": "abc"}', today="2026-09-21").fields) == 1


@pytest.mark.parametrize(
    "piece", ["{{", '"\\\\', "/*", "{{ a ", '",'], ids=["braces", "quotes", "comments", "open", "commas"]
)
def test_a_hostile_tree_costs_no_more_than_its_length(piece: str) -> None:
    for path in ("x.yaml", "x.json"):
        read_file(path, "{" + piece * 50_000, today="2026-09-21")  # the square of it would run into a test's time limit


def test_a_tree_with_a_fault_is_read_as_text() -> None:
    fields = read_file("x.yaml", "a: b: c\nKEY: value1\n", today="2026-09-21").fields
    assert ("KEY", "value1") in [(field.name, field.value) for field in fields]
    assert fields[0].exposure is Exposure.CONFIGURATION
