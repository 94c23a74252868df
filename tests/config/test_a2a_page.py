"""The settings on the page of A2A, laid over a shipped example, have no fault; one fact changed has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from delegation_core.a2a import OPERATIONS
from delegation_core.errors import ConfigError
from sidecar.app import _require_one_process
from sidecar.check import check
from sidecar.config.document import parse_document
from sidecar.config.sidecar_file import load_sidecar
from tests.config.documents import changed, example, written

PAGE = (Path(__file__).parents[2] / "docs" / "a2a.md").read_text()
ROUTE = "inbound.routes.0"


def settings() -> dict[str, Any]:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    sections = parse_document(block, name="a2a")
    assert isinstance(sections, dict)
    return changed(example("agent"), *sections.items())


def fields(folder: Path, *changes: tuple[str, object]) -> list[str]:
    return [problem.field for problem in check(written(folder, changed(settings(), *changes)), {}).problems]


def test_the_settings_of_the_page_have_no_fault(tmp_path: Path) -> None:
    assert fields(tmp_path) == []


def test_the_example_has_the_settings_of_the_page(tmp_path: Path) -> None:
    file = example("a2a")
    assert {name: file[name] for name in ("inbound", "outbound")} == {
        name: settings()[name] for name in ("inbound", "outbound")
    }
    assert check(written(tmp_path, file), {}).problems == []


def test_the_page_lists_every_operation() -> None:
    assert set(re.findall(r"^\| `([A-Za-z]+)` \|", PAGE, re.MULTILINE)) == OPERATIONS


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ((f"{ROUTE}.a2a.push_urls", ["https://hooks.acme.example/a2a?x=1"]), "inbound.routes[0].a2a.push_urls[0]"),
        ((f"{ROUTE}.a2a.push_urls", ["hooks.acme.example"]), "inbound.routes[0].a2a.push_urls[0]"),
        ((f"{ROUTE}.a2a.card_url", "https://writer.example/path"), "inbound.routes[0].a2a.card_url"),
        (("outbound.routes.0.a2a", {"tasks": "strict"}), "outbound.routes[0].a2a.tasks"),
        (
            ("outbound.routes.0", {**settings()["outbound"]["routes"][0], "protocol": "http", "a2a": {}}),
            "outbound.routes[0].a2a",
        ),
    ],
)
def test_one_fact_changed_is_a_fault(tmp_path: Path, change: tuple[str, object], field: str) -> None:
    assert field in fields(tmp_path, change)


def test_a_route_of_its_own_where_the_sidecar_serves_the_card_is_a_fault(tmp_path: Path) -> None:
    own = {
        **settings()["inbound"]["routes"][0],
        "name": "card",
        "match": {"path": "/.well-known/agent-card.json", "methods": ["GET"]},
        "protocol": "http",
        "operations": [],
        "a2a": None,
    }
    routes = [*settings()["inbound"]["routes"], own]
    assert fields(tmp_path, ("inbound.routes", routes)) == ["inbound.routes[1].match.path"]


def test_strict_tasks_need_one_process(tmp_path: Path) -> None:
    strict = load_sidecar(written(tmp_path, settings()), {})
    _require_one_process(strict, 1)
    with pytest.raises(ConfigError, match=r"a2a\.tasks"):
        _require_one_process(strict, 2)
    _require_one_process(load_sidecar(written(tmp_path, changed(settings(), (f"{ROUTE}.a2a.tasks", "seen"))), {}), 2)


def test_a_reload_does_not_make_a_route_strict_behind_several_processes(tmp_path: Path) -> None:
    strict = load_sidecar(written(tmp_path, settings()), {})
    seen = load_sidecar(written(tmp_path, changed(settings(), (f"{ROUTE}.a2a.tasks", "seen"))), {})
    assert [problem.field for problem in seen.needs_restart(strict)] == ["inbound.routes.a2a.tasks"]
    assert strict.needs_restart(seen) == seen.needs_restart(seen) == strict.needs_restart(strict) == []
