"""Lists of tasks by gRPC: what is left out, what the total says, and what cannot be read."""

from __future__ import annotations

import pytest

from delegation_core.a2a_grpc_lists import cut_tasks
from delegation_core.errors import Denied, Reason
from delegation_core.grpc_messages import written
from delegation_core.protobuf import length_field as field
from delegation_core.protobuf import number_field as number

MINE = field(1, field(1, "mine") + field(2, "c") + field(5, field(1, "m")) * 3)
YOURS = field(1, field(1, "yours") + field(2, "c"))
LATER = field(9, b"of a later version")


def cut(message: bytes, *, first_page: bool = True) -> bytes:
    made = cut_tasks(written(message), lambda task, _context: task == "mine", first_page=first_page)
    assert made == written(made[5:])
    return made[5:]


def test_a_list_that_shows_nothing_of_others_passes_as_it_is() -> None:
    for message in (b"", MINE, MINE + MINE + number(3, 50) + number(4, 2) + LATER, MINE + field(2, "next")):
        assert cut(message) == message


def test_tasks_of_others_are_left_out_and_the_total_is_that_of_the_tasks_shown() -> None:
    assert cut(MINE + YOURS + number(3, 50) + number(4, 7) + LATER) == MINE + number(3, 50) + number(4, 1) + LATER
    assert cut(YOURS + number(4, 1)) == b""


def test_the_total_is_left_out_where_more_tasks_are_on_other_pages() -> None:
    assert cut(MINE + YOURS + field(2, "next") + number(4, 7)) == MINE + field(2, "next")
    assert cut(MINE + number(4, 7), first_page=False) == MINE


def test_the_context_of_a_task_is_told() -> None:
    seen = []
    cut_tasks(
        written(MINE + field(1, field(1, "none"))),
        lambda task, context: bool(seen.append((task, context))),  # type: ignore[func-returns-value]
        first_page=True,
    )
    assert seen == [("mine", "c"), ("none", None)]


@pytest.mark.parametrize(
    "content",
    [
        written(field(1, b"")),
        written(field(1, field(2, "c"))),
        written(field(1, field(1, ""))),
        written(field(1, field(1, "x" * 1025))),
        written(field(1, field(1, "mine") * 2)),
        written(field(1, field(1, "mine") + number(2, 7))),
        written(number(1, 7)),
        written(number(4, 1) * 2),
        written(field(2, "next") * 2),
        written(field(1, b"\xff")),
        written(MINE) * 2,
        b"\1" + written(MINE)[1:],
        b"",
        written(MINE * 10_000),
    ],
)
def test_what_could_list_anything_is_refused(content: bytes) -> None:
    with pytest.raises(Denied) as refused:
        cut_tasks(content, lambda _task, _context: True, first_page=True)
    assert refused.value.reason is Reason.LIST_UNREADABLE
