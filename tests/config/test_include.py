"""Files that settings include: joined in one order, below their folder alone, and each problem with its place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError
from sidecar.config import load_sidecar, load_sts
from sidecar.config.loader import SettingsFiles, load_at_start
from tests.config.documents import EXAMPLES, changed, example

STS = changed(example("sts"), ("rules", []), ("foreign_issuers", []), ("entries", []))
FRONT, CRM, X = (f"spiffe://acme.example/{name}" for name in ("front", "tool/crm", "x"))


def rule(actor: str | None = FRONT, audience: str = CRM, **more: object) -> dict[str, Any]:
    subject = {"issuer": "https://login.acme.example", "subject": "*"}
    return {"actor": actor, "subjects": [subject], "audience": audience, "scopes": ["crm.read"], **more}


def put(folder: Path, name: str, document: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def settings(folder: Path, *include: str, **sections: object) -> Path:
    return put(folder, "sts.yaml", {**STS, "include": list(include), **sections})


def actors(path: Path) -> list[str]:
    return [str(one.actor).removeprefix("spiffe://acme.example/") for one in load_sts(path, {}).policy.rules]


def told(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load_sts(path, {})
    return [str(problem) for problem in refused.value.problems]


def a(name: str) -> str:
    return f"spiffe://acme.example/{name}"


def test_rows_come_in_the_order_of_the_files_and_of_a_folder_by_name(tmp_path: Path) -> None:
    put(tmp_path, "rules/b.yaml", {"rules": [rule(a("b"))]})
    put(tmp_path, "rules/a.yaml", {"rules": [rule(a("a1")), rule(a("a2"))]})
    put(tmp_path, "last.yaml", {"rules": [rule(a("last"))]})
    assert actors(settings(tmp_path, "rules", "last.yaml", rules=[rule(a("own"))])) == ["own", "a1", "a2", "b", "last"]
    assert actors(settings(tmp_path, "last.yaml", "rules", rules=[rule(a("own"))])) == ["own", "last", "a1", "a2", "b"]


def test_every_list_of_a_token_service_and_its_groups_can_be_included(tmp_path: Path) -> None:
    whole = example("sts-many")
    fragment = {key: whole.pop(key) for key in ("entries", "groups", "rules", "targets")}
    put(tmp_path, "more/all.yaml", {**fragment, "self_rules": [], "self_delegations": []})
    for file in (EXAMPLES / "many-agents").iterdir():
        put(tmp_path, f"more/{file.name}", file.read_text())
    joined = load_sts(put(tmp_path, "sts.yaml", {**whole, "include": ["more"], "targets": [], "rules": []}), {})
    assert set(joined.policy.rules) == set(load_sts(EXAMPLES / "sts-many.yaml", {}).policy.rules)


def test_a_deny_list_of_a_sidecar_can_be_included(tmp_path: Path) -> None:
    put(tmp_path, "deny/a.yaml", {"deny": [{"txn": "t1"}]})
    agent = changed(example("agent"), ("include", ["deny"]), ("deny", [{"txn": "t2"}]))
    assert load_sidecar(put(tmp_path, "agent.yaml", agent), {}).deny.txns == {"t1", "t2"}


def mounted(folder: Path, name: str, text: str) -> None:
    """Write a file as Kubernetes mounts it: a link into a folder that is itself a link to the current version."""
    put(folder, f"..2026_1/{name}", text)
    if not (folder / "..data").exists():
        (folder / "..data").symlink_to("..2026_1")
    top = name.partition("/")[0]
    if not (folder / top).exists():
        (folder / top).symlink_to(f"..data/{top}")


def test_a_mounted_volume_of_links_is_read_and_a_swap_of_it_is_noticed(tmp_path: Path) -> None:
    mounted(tmp_path, "sts.yaml", json.dumps({**STS, "include": ["rules"]}))
    mounted(tmp_path, "rules/a.yaml", json.dumps({"rules": [rule(a("before"))]}))
    loaded = load_at_start(SettingsFiles("sts", tmp_path / "sts.yaml"), {})
    assert loaded.files.fingerprint() == loaded.fingerprint
    (tmp_path / "..2026_2").mkdir()
    put(tmp_path, "..2026_2/sts.yaml", (tmp_path / "sts.yaml").read_text())
    put(tmp_path, "..2026_2/rules/a.yaml", {"rules": [rule(a("after"))]})
    (tmp_path / "..new").symlink_to("..2026_2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert loaded.files.fingerprint() != loaded.fingerprint
    assert actors(tmp_path / "sts.yaml") == ["after"]


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file is changed": lambda folder: put(folder, "rules/a.yaml", {"rules": [rule(a("changed"))]}),
    "a file is added": lambda folder: put(folder, "rules/b.yaml", {"rules": [rule(a("added"))]}),
    "a file is removed": lambda folder: (folder / "rules/a.yaml").unlink(),
    "a lone file is changed": lambda folder: put(folder, "lone.yaml", {"rules": []}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_is_included_is_noticed(change: str, tmp_path: Path) -> None:
    put(tmp_path, "rules/a.yaml", {"rules": [rule(a("a"))]})
    put(tmp_path, "lone.yaml", {"rules": [rule(a("lone"))]})
    loaded = load_at_start(SettingsFiles("sts", settings(tmp_path, "rules", "lone.yaml")), {})
    put(tmp_path, "rules/.hidden", "an editor's")
    assert loaded.files.fingerprint() == loaded.fingerprint
    CHANGES[change](tmp_path)
    assert loaded.files.fingerprint() != loaded.fingerprint


def test_files_that_made_settings_unusable_are_followed(tmp_path: Path) -> None:
    put(tmp_path, "rules/a.yaml", "rules: [")
    files = SettingsFiles("sts", settings(tmp_path, "rules"))
    with pytest.raises(ConfigError) as refused:
        load_at_start(files, {})
    followed = files.after(refused.value)
    before = followed.fingerprint()
    put(tmp_path, "rules/a.yaml", {"rules": [rule(a("a"))]})
    assert followed.fingerprint() != before


# the fact that is changed → the beginning of the problem
REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "absolute": ({}, ("/etc/x.yaml",), "include[0]: is not a path below"),
    "parent": ({}, ("../x.yaml",), "include[0]: is not a path below"),
    "parent inside": ({}, ("rules/../../x.yaml",), "include[0]: is not a path below"),
    "the folder itself": ({}, (".",), "include[0]: is not a path below"),
    "absent": ({}, ("none.yaml",), "include[0]: none.yaml cannot be read (No such file"),
    "twice": ({"a.yaml": {"rules": []}}, ("a.yaml", "a.yaml"), "include[1]: a.yaml is included already, by include[0]"),
    "by folder and by name": (
        {"rules/a.yaml": {"rules": []}},
        ("rules", "rules/a.yaml"),
        "include[1]: rules/a.yaml is included already, by include[0]",
    ),
    "empty folder": ({"rules/.keep": "x"}, ("rules",), "include[0]: rules is an empty folder"),
    "other name": ({"rules/a.yaml.bak": "x"}, ("rules",), "include[0]: rules/a.yaml.bak is not a .yaml file"),
    "folder in a folder": ({"rules/more/a.yaml": "x"}, ("rules",), "include[0]: rules/more is not a .yaml file"),
    "another section": ({"a.yaml": {"issuer": "https://x"}}, ("a.yaml",), "a.yaml: has issuer, which is not for"),
    "nested": ({"a.yaml": {"include": ["b.yaml"]}}, ("a.yaml",), "a.yaml: has include, which is not for"),
    "no mapping": ({"a.yaml": []}, ("a.yaml",), "a.yaml: is not a mapping"),
    "empty": ({"a.yaml": ""}, ("a.yaml",), "a.yaml: is not a mapping"),
    "no list": ({"a.yaml": {"rules": {}}}, ("a.yaml",), "a.yaml: rules is not a list"),
    "no YAML": ({"a.yaml": "rules:\n- [\n"}, ("a.yaml",), "a.yaml line "),
    "two keys": ({"a.yaml": "rules: []\nrules: []"}, ("a.yaml",), "a.yaml line 2: the key rules appears twice"),
    "wrong row": (
        {"a.yaml": "rules:\n\n- {actor: x}\n"},
        ("a.yaml",),
        "rules[0].actor (a.yaml line 3): ",
    ),
    "two files": (
        {
            "a.yaml": {"targets": [{"workload": X, "scopes": []}]},
            "b/c.yaml": f"targets:\n- {{workload: {X}, scopes: [s]}}\n",
        },
        ("a.yaml", "b"),
        "targets: the same row is in a.yaml line 1 and in b/c.yaml line 2; keep one of them",
    ),
    "a file and the settings": (
        {"a.yaml": {"targets": [{"workload": CRM, "scopes": []}]}},
        ("a.yaml",),
        "targets: the same row is in line 1 of the settings and in a.yaml line 1; keep one of them",
    ),
    "two equal rules": (
        {"a.yaml": {"rules": [rule()]}, "b.yaml": {"rules": [dict(reversed(rule().items()))]}},
        ("a.yaml", "b.yaml"),
        "rules: the same row is in a.yaml line 1 and in b.yaml line 1; keep one of them",
    ),
    "two groups": (
        {"a.yaml": {"groups": {"g": [FRONT]}}, "b.yaml": {"groups": {"g": [FRONT]}}},
        ("a.yaml", "b.yaml"),
        "groups.g: is in a.yaml line 1 and in b.yaml line 1; keep one of them",
    ),
}


@pytest.mark.parametrize("fact", REFUSED)
def test_what_is_ambiguous_or_elsewhere_is_refused_with_its_place(fact: str, tmp_path: Path) -> None:
    files, include, problem = REFUSED[fact]
    for name, document in files.items():
        put(tmp_path / "settings", name, document)
    put(tmp_path, "x.yaml", {"rules": [rule()]})
    found = told(settings(tmp_path / "settings", *include))
    assert any(one.startswith(problem) for one in found), found


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_a_link_out_of_the_folder_of_the_settings_is_refused(whole: bool, tmp_path: Path) -> None:
    put(tmp_path, "outside/a.yaml", {"rules": [rule()]})
    inside = tmp_path / "settings"
    inside.mkdir()
    (inside / "link.yaml").symlink_to(tmp_path / "outside/a.yaml")
    (inside / "link").symlink_to(tmp_path / "outside")
    found = told(settings(inside, "link" if whole else "link.yaml"))
    assert [one.partition(";")[0] for one in found] == [
        f"include[0]: link{'/a' * whole}.yaml leads out of the folder of the settings"
    ]


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (problem,) = told(settings(tmp_path, "pipe.yaml"))
    assert problem.startswith("include[0]: pipe.yaml is not a regular file")


def test_a_variable_may_name_what_is_included_and_replaces_rows_of_the_settings_alone(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", {"rules": [rule(a("included"))]})
    path = settings(tmp_path, rules=[rule(a("own"))])
    environ = {"SIDECAR__INCLUDE": "[a.yaml]", "SIDECAR__RULES": json.dumps([rule(a("variable"))])}
    found = [str(one.actor).rpartition("/")[2] for one in load_sts(path, environ).policy.rules]
    assert found == ["variable", "included"]


def test_a_wrong_member_of_an_included_group_is_one_problem_at_the_groups_place(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", {"groups": {"tools": [CRM, "https://nowhere.example"]}})
    each = [{**rule(actor), "audience": None, "audience_group": "tools"} for actor in (a("a"), a("b"), a("c"))]
    put(tmp_path, "b.yaml", {"rules": each})
    (problem,) = told(settings(tmp_path, "a.yaml", "b.yaml"))
    assert problem.startswith("groups.tools[1] (a.yaml line 1): https://nowhere.example is not a target, and rules[0]")


def test_a_problem_of_the_policy_names_the_file_of_its_row(tmp_path: Path) -> None:
    nowhere = rule(a("a"), "https://nowhere.example")
    put(
        tmp_path,
        "a.yaml",
        {"groups": {"two": [a("a"), a("b")]}, "rules": [rule(actor=None, actor_group="two"), nowhere]},
    )
    (problem,) = told(settings(tmp_path, "a.yaml"))
    assert problem.startswith("rules[1].audience (a.yaml line 1): https://nowhere.example is not a target")
