"""Settings of an agent that acts for itself: the example, and each agreement with one fact changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Problem
from sidecar.check import check
from sidecar.config import load_sidecar
from tests.config.documents import ABSENT, EXAMPLES, changed, example, written
from tests.core.world import WRITER

OWN = example("own-authority")
AGENT = example("agent")
HANDLE = "workload_handle"


def platform(folder: Path, **words: object) -> Path:
    """Write the platform's example with ``allow_self``, and with other words."""
    place = folder / "platform"
    place.mkdir(exist_ok=True)
    return written(place, {**example("platform"), "allow_self": True, **words})


def found(folder: Path, *changes: tuple[str, object], document: dict[str, Any] = OWN, **words: object) -> list[Problem]:
    return check(written(folder, changed(document, *changes)), {}, platform=platform(folder, **words)).problems


def test_the_example_lists_what_the_handle_opens_and_who_gets_it(tmp_path: Path) -> None:
    settings = load_sidecar(EXAMPLES / "own-authority.yaml", {}, platform(tmp_path))
    assert settings.policy(WRITER, 1).own_may_call == {"model", "status"}
    assert settings.workload_handle is not None
    handle = settings.workload_handle
    assert (str(handle.socket), handle.file, handle.agent_uids, handle.rotate_s) == (
        "/run/sidecar-handle/handle.sock", None, frozenset({10001}), 300.0,
    )  # fmt: skip
    assert load_sidecar(EXAMPLES / "agent.yaml", {}).policy(WRITER, 1).own_may_call == frozenset()


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        pytest.param([(f"{HANDLE}.may_call", ["mail"])], "may_call", "not an outbound route", id="unknown-route"),
        pytest.param([(f"{HANDLE}.socket", ABSENT), (f"{HANDLE}.agent_uids", ABSENT)], "socket", "file", id="no-way"),
        pytest.param([(f"{HANDLE}.agent_uids", ABSENT)], "agent_uids", "answers nobody", id="no-uid"),
        pytest.param([(f"{HANDLE}.socket", ABSENT), (f"{HANDLE}.file", "/run/h")], "agent_uids", "socket", id="uid"),
        pytest.param([(f"{HANDLE}.file", "/run/sidecar-handle/handle.sock")], "socket", "another file", id="one-path"),
        pytest.param(
            [("admin", {"socket": "/run/sidecar-handle/handle.sock"})], "socket", "socket of the sidecar", id="admin's"
        ),
        pytest.param([(f"{HANDLE}.socket", f"/{'s' * 107}")], "socket", "longer than 107", id="long-path"),
        pytest.param([(f"{HANDLE}.rotate_s", 301)], "rotate_s", "out of range", id="rarely-rotated"),
        pytest.param([(f"{HANDLE}.agent_uids", [-1])], "agent_uids[0]", "out of range", id="no-such-uid"),
    ],
)
def test_one_fact_changed_is_named_with_its_fix(
    changes: list[tuple[str, Any]], field: str, words: str, tmp_path: Path
) -> None:
    assert found(tmp_path) == []
    problems = found(tmp_path, *changes)
    told = [problem for problem in problems if problem.field == f"{HANDLE}.{field}"]
    assert any(words in problem.wrong and problem.fix for problem in told), problems


def test_it_opens_no_exchange_route(tmp_path: Path) -> None:
    file_only = {"may_call": ["crm"], "file": "/run/sidecar-handle/handle"}
    (problem,) = found(tmp_path, (HANDLE, file_only), document=AGENT)
    assert problem.field == f"{HANDLE}.may_call"
    assert "exchanges the token of a request" in problem.wrong
    assert found(tmp_path, (HANDLE, {**file_only, "may_call": []}), document=AGENT) == []


def test_only_a_platform_file_that_allows_it_lets_an_agent_act_for_itself(tmp_path: Path) -> None:
    told = found(tmp_path, allow_self=False)
    assert {problem.field for problem in told} == {HANDLE, "outbound.routes[1].token"}
    assert {problem.wrong for problem in told} == {"is forbidden by the platform"}


def test_how_it_is_delivered_needs_a_restart_and_what_it_opens_does_not(tmp_path: Path) -> None:
    old = load_sidecar(written(tmp_path, OWN), {}, platform(tmp_path))
    shorter = load_sidecar(written(tmp_path, changed(OWN, (f"{HANDLE}.may_call", ["status"]))), {}, platform(tmp_path))
    assert old.needs_restart(shorter) == []
    moved = load_sidecar(written(tmp_path, changed(OWN, (f"{HANDLE}.rotate_s", 60))), {}, platform(tmp_path))
    assert [problem.field for problem in old.needs_restart(moved)] == [HANDLE]


ROUTE = "outbound.routes.0"
FOR_ITSELF = changed(
    AGENT,
    ("outbound.routes", [{**AGENT["outbound"]["routes"][0], "token": "self"}]),
    ("inbound.routes.0.may_call", []),
    (HANDLE, {"may_call": [AGENT["outbound"]["routes"][0]["name"]], "file": "/run/sidecar-handle/handle"}),
)
NAME = AGENT["outbound"]["routes"][0]["name"]
TWIN = {**AGENT["outbound"]["routes"][0], "name": "twin", "match": {"host": "twin.mesh"}}


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        pytest.param([("inbound.routes.0.may_call", [NAME])], "inbound.routes[0].may_call", "no request", id="request"),
        pytest.param([(f"{HANDLE}.may_call", [])], "outbound.routes[0].token", "no workload handle", id="unopened"),
        pytest.param(
            [("outbound.routes", [FOR_ITSELF["outbound"]["routes"][0], TWIN])],
            "outbound.routes[0].token",
            "twin calls the same target",
            id="both-kinds",
        ),
        pytest.param(
            [(f"{ROUTE}.observe_until", "2026-12-20")], "outbound.routes[0].observe_until", "self route", id="observed"
        ),
        pytest.param([(f"{ROUTE}.token", "exchange")], f"{HANDLE}.may_call", "exchanges the token", id="exchange"),
        pytest.param([("exchange", ABSENT)], "exchange", "is missing", id="no-token-service"),
    ],
)
def test_a_self_route_is_the_agent_s_alone(
    changes: list[tuple[str, Any]], field: str, words: str, tmp_path: Path
) -> None:
    assert found(tmp_path, document=FOR_ITSELF) == []
    problems = found(tmp_path, *changes, document=FOR_ITSELF)
    told = [problem for problem in problems if problem.field == field]
    assert any(words in problem.wrong and problem.fix for problem in told), problems


def test_callers_own_tokens_open_no_calls(tmp_path: Path) -> None:
    own_callers = [("inbound.routes.0.allow_self", True)]
    (problem,) = found(tmp_path, *own_callers, document=AGENT)
    assert problem.field == "inbound.routes[0].may_call"
    assert "allow_self" in problem.wrong
    assert found(tmp_path, *own_callers, ("inbound.routes.0.may_call", []), document=AGENT) == []


def test_they_do_where_the_route_says_so(tmp_path: Path) -> None:
    own_callers = [("inbound.routes.0.allow_self", True), ("inbound.routes.0.delegate_self", True)]
    assert found(tmp_path, *own_callers, document=AGENT) == []
    changes: list[tuple[str, object]] = [("inbound.routes.0.may_call", []), ("inbound.routes.0.allow_self", False)]
    for change in changes:
        (problem,) = found(tmp_path, *own_callers, change, document=AGENT)
        assert problem.field == "inbound.routes[0].delegate_self"
