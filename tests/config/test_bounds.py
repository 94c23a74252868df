"""Bounds of settings: what is at a bound is read, one more is refused by its name, and 80 % are told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError
from sidecar.check import check
from sidecar.config import bounds, document, include, load_sidecar, load_sts
from sidecar.config.bounds import BOUNDS, NEAR, Bound, near_bounds, shares_in_force
from sidecar.observe.docs import LABELS
from tests.config.documents import changed, example

STS = changed(example("sts"), ("rules", []), ("foreign_issuers", []), ("entries", []), ("targets", []))
A = "spiffe://acme.example/"


def target(number: int) -> dict[str, Any]:
    return {"workload": f"{A}t{number}", "scopes": []}


def rule(number: int, **more: object) -> dict[str, Any]:
    return {"actor": f"{A}a{number}", "subjects": [], "audience": f"{A}t0", "scopes": [], **more}


def sts(**sections: object) -> tuple[str, dict[str, str]]:
    return json.dumps({**STS, "targets": [target(0)], **sections}), {}


def rows(make: Callable[[int], object], count: int) -> list[object]:
    return [make(number) for number in range(count)]


def pairs(count: int) -> tuple[str, dict[str, str]]:
    """Rules that are written out to ``count`` pairs, of one group and one rule beside it."""
    members = [f"{A}g{number}" for number in range(count - 1)]
    return sts(groups={"g": members}, rules=[rule(0), rule(0, actor=None, actor_group="g")])


def agent(**sections: object) -> tuple[str, dict[str, str]]:
    return json.dumps({**example("agent"), **sections}), {}


def padded(size: int) -> tuple[str, dict[str, str]]:
    """Settings whose file and whose included file have ``size`` bytes together."""
    text, _ = sts(include=["a.yaml"], rules=[rule(0)])
    half = size // 2
    more = "targets: []\n"
    return text + "\n#" + "x" * (half - len(text) - 2), {"a.yaml": more + "#" + "x" * (size - half - len(more) - 1)}


def nodes_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + nodes_of(one) for one in value.values())
    return 1 + sum(map(nodes_of, value)) if isinstance(value, list) else 1


def of_nodes(count: int) -> tuple[str, dict[str, str]]:
    text, _ = sts(include=["a.yaml"], rules=[rule(0)])
    fixed = nodes_of(json.loads(text)) + nodes_of({"groups": {"g": []}})
    return text, {"a.yaml": json.dumps({"groups": {"g": [f"m{number}" for number in range(count - fixed)]}})}


def nested(depth: int) -> tuple[str, dict[str, str]]:
    """Settings with lists in lists, in a row of an included file, which refuses them only by its type."""
    inner: object = "x"
    for _ in range(depth - 3):  # in the mapping of the file, the list of rows, and the row
        inner = [inner]
    return sts(include=["a.yaml"], rules=[rule(0)])[0], {"a.yaml": json.dumps({"targets": [{"workload": inner}]})}


def files(count: int) -> tuple[str, dict[str, str]]:
    text, _ = sts(include=["more"], rules=[rule(0)])
    return text, {f"more/{number}.yaml": "targets: []" for number in range(count)}


# settings that use exactly so much of a bound
USES: dict[str, Callable[[int], tuple[str, dict[str, str]]]] = {
    "bytes": padded,
    "nodes": of_nodes,
    "depth": nested,
    "files": files,
    "targets": lambda count: sts(targets=rows(target, count)),
    "rules": pairs,
    "self_rules": lambda count: sts(
        self_rules=rows(lambda n: {"workload": f"{A}a{n}", "audience": f"{A}t0", "scopes": []}, count)
    ),
    "self_delegations": lambda count: sts(
        self_delegations=rows(
            lambda n: {"workload": f"{A}a{n}", "actor": f"{A}b", "audience": f"{A}t0", "scopes": []}, count
        )
    ),
    "entries": lambda count: sts(
        entries=rows(lambda n: {"workload": f"{A}e{n}", "client_ids": {"https://login.acme.example": f"c{n}"}}, count)
    ),
    "groups": lambda count: sts(groups={f"g{number}": [f"m{number}"] for number in range(count)}),
    "deny": lambda count: agent(deny=rows(lambda n: {"txn": f"t{n}"}, count)),
}


def test_every_bound_has_settings_that_use_it_and_a_value_of_the_metric() -> None:
    assert set(USES) == set(BOUNDS)
    assert all(f"`{name}`" in LABELS["bound"] for name in BOUNDS)


def problems_at(name: str, used: int, folder: Path) -> list[str]:
    text, more = USES[name](used)
    path = folder / "settings.yaml"
    path.write_text(text)
    for file, content in more.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(content)
    return [str(problem) for problem in check(path, {}, sts=name != "deny").problems]


SMALL = {"nodes": 400, "files": 8, "targets": 9, "rules": 12, "self_rules": 7, "self_delegations": 7, "entries": 5}


@pytest.mark.parametrize("name", BOUNDS)
def test_what_is_at_a_bound_is_read_and_one_more_is_refused_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With smaller bounds where the true ones take long; ``make settings-size`` reads what is as large as promised."""
    most = SMALL.get(name, BOUNDS[name].most)
    monkeypatch.setitem(BOUNDS, name, BOUNDS[name]._replace(most=most))
    if name == "nodes":
        monkeypatch.setattr(document, "MAX_NODES", most)
        monkeypatch.setattr(include, "MAX_NODES", most)
    bound = BOUNDS[name]
    at = problems_at(name, bound.most, tmp_path)
    above = problems_at(name, bound.most + 1, tmp_path)
    if name == "depth":  # its rows are of a wrong type: what is too deep is refused before
        assert [one for one in at if "nested" in one] == []
        assert [one for one in above if "is nested deeper than 24 levels" in one]
        return
    assert at == []
    assert any(str(bound.most) in one and bound.unit in one for one in above), above


@pytest.mark.parametrize("of_sts", [True, False])
def test_one_file_ends_at_the_bytes_of_all(of_sts: bool, tmp_path: Path) -> None:
    text, _ = sts(rules=[rule(0)]) if of_sts else agent()
    path = tmp_path / "settings.yaml"
    most = BOUNDS["bytes"].most
    path.write_text(text + "\n#" + "x" * (most - len(text) - 2))
    assert check(path, {}, sts=of_sts).problems == []
    path.write_text(text + "\n#" + "x" * (most - len(text) - 1))
    (problem,) = check(path, {}, sts=of_sts).problems
    assert problem.wrong == f"is larger than {most} bytes"


def test_rules_beyond_the_bound_are_never_written_out(tmp_path: Path) -> None:
    members = [f"{A}g{number}" for number in range(2000)]
    path = tmp_path / "sts.yaml"
    squared = rule(0, actor=None, actor_group="g", audience=None, audience_group="g")
    path.write_text(sts(groups={"g": members}, rules=[squared])[0])
    with pytest.raises(ConfigError) as refused:
        load_sts(path, {})
    (problem,) = refused.value.problems
    assert str(problem).startswith("rules: has 4000000 pairs of actor and audience; at most 10000 are allowed;")


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_told_above_80_per_cent_and_not_at_80(name: str, caplog: pytest.LogCaptureFixture) -> None:
    most = BOUNDS[name].most
    at = int(NEAR * most)
    assert list(near_bounds({name: at})) == []
    (note,) = near_bounds({name: at + 1})
    assert (note.field, f"{at + 1} of {most}" in note.wrong) == (name, True)
    with caplog.at_level(logging.WARNING):
        assert shares_in_force({name: at}) == {name: pytest.approx(at / most)}
        assert not caplog.records
        shares_in_force({name: at + 1})
    (record,) = caplog.records
    assert record.__dict__["field"] == name


def test_check_and_settings_tell_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BOUNDS, "rules", Bound(10, "pairs", "fix"))
    path = tmp_path / "sts.yaml"
    path.write_text(sts(rules=rows(rule, 8))[0])
    assert check(path, {}, sts=True).notes == []
    path.write_text(sts(rules=rows(rule, 9))[0])
    assert [note.field for note in check(path, {}, sts=True).notes] == ["rules"]
    assert load_sts(path, {}).used["rules"] == 9
    monkeypatch.setitem(BOUNDS, "deny", Bound(10, "rows", "fix"))
    path.write_text(agent(deny=rows(lambda n: {"txn": f"t{n}"}, 9))[0])
    assert [note.field for note in check(path, {}).notes] == ["deny"]
    assert load_sidecar(path, {}).used["deny"] == 9
    assert bounds.NEAR == 0.8
