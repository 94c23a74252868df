"""Answers of A2A that the native engine returns: Python binds the tasks that they name."""

from __future__ import annotations

from typing import Final

import pytest

from delegation_core.a2a_tasks import Named
from sidecar.features.a2a.operation import A2aOperation
from sidecar.features.a2a.task_bindings import Making, Principal, TaskBindings
from sidecar.features.a2a.warm import TaskMessage
from tests.core.world import NOW, PLANNER, STS

_ALICE: Final = Principal(STS, "alice", PLANNER)


def message(bindings: TaskBindings) -> TaskMessage:
    return TaskMessage(A2aOperation(), lambda: None, Making(bindings, Named(begins=True), _ALICE))


def test_a_task_that_an_answer_shows_is_bound() -> None:
    bindings = TaskBindings(lambda: float(NOW))
    assert message(bindings).answered(200, None, b'{"result": {"task": {"id": "t1", "contextId": "c1"}}}') == b""
    assert bindings.tasks.owner("t1") == bindings.contexts.owner("c1") == _ALICE


@pytest.mark.parametrize(
    ("status", "body"), [(500, b'{"result": {"task": {"id": "t1"}}}'), (200, b'{"result": {"task": {"id": "t1"}}')]
)
def test_an_answer_that_shows_nothing_binds_nothing(status: int, body: bytes) -> None:
    bindings = TaskBindings(lambda: float(NOW))
    assert message(bindings).answered(status, None, body) == b""
    assert bindings.tasks.owner("t1") is None
