"""Groups of a token service's rules: written out into pairs, and wrong ones refused with their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.config import load_sts
from tests.config.test_include import CRM, FRONT, a, rule, settings, told

GROUPS = {"planners": [a("p1"), a("p2")], "tools": [CRM, a("tool/stock")]}


def grouped(folder: Path, groups: object = GROUPS, **changes: object) -> Path:
    row = {**rule(), "actor": None, "actor_group": "planners", "audience": None, "audience_group": "tools", **changes}
    return settings(folder, groups=groups, rules=[row])


def test_a_rule_with_groups_is_a_rule_for_each_pair(tmp_path: Path) -> None:
    policy = load_sts(grouped(tmp_path, scopes=[]), {}).policy
    pairs = [(str(one.actor), one.audience) for one in policy.rules]
    assert pairs == [(actor, tool) for actor in GROUPS["planners"] for tool in GROUPS["tools"]]


GROUP_PROBLEMS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"actor_group": "planers"}, "rules[0].actor_group: planers is not a group; did you mean planners?"),
    "unknown audience": ({"audience_group": "x"}, "rules[0].audience_group: x is not a group; add it to groups"),
    "both": ({"actor": FRONT}, "rules[0].actor_group: is set beside actor; keep one of them"),
    "neither": ({"actor_group": None}, "rules[0].actor: is missing; add it, or actor_group"),
    "no audience": ({"audience_group": None}, "rules[0].audience: is missing; add it, or audience_group"),
    "no workloads": (
        {"actor_group": "x", "groups": {**GROUPS, "x": ["https://x.example"]}},
        "rules[0].actor_group: groups.x[0] is not a SPIFFE ID, and actors are workloads; write",
    ),
    "empty": ({"groups": {**GROUPS, "x": []}}, "groups.x: is empty, so its rules would permit nothing; list"),
    "a member twice": (
        {"groups": {**GROUPS, "x": [CRM, CRM]}},
        f"groups.x[1]: {CRM} is listed twice; keep one of them",
    ),
    "no target": (
        {"groups": {**GROUPS, "tools": [CRM, a("tool/stok")]}},
        f"groups.tools[1]: {a('tool/stok')} is not a target, and rules[0] has the group for audiences; did you mean "
        f"{a('tool/stock')}? If not, list it under targets",
    ),
}


@pytest.mark.parametrize("fact", GROUP_PROBLEMS)
def test_a_group_that_is_wrong_is_refused(fact: str, tmp_path: Path) -> None:
    changes, problem = GROUP_PROBLEMS[fact]
    (found,) = told(grouped(tmp_path, **changes))
    assert found.startswith(problem)
