"""Layout of the map of a chain's hops: workloads in columns by depth, and an arrow for each kind of call.

Pure geometry: the template draws the SVG.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from delegation_audit.report.story import Step, Story
from delegation_core.console.counts import pluralise

BOX_WIDTH: Final = 130
BOX_HEIGHT: Final = 44
COLUMN: Final = 250
ROW: Final = 92
MARGIN: Final = 16
MOST_ARROWS: Final = 60
_MOST_LETTERS: Final = 20  # of a label
_LABEL_HEIGHT: Final = 28  # two lines: the call, and its state below

Call = tuple[str, str, str]  # actor, audience, state


@dataclass(frozen=True, slots=True)
class Box:
    """A workload, or the person on whose behalf it acts."""

    name: str
    label: str
    x: int
    y: int
    person: bool


@dataclass(frozen=True, slots=True)
class Arrow:
    """Calls with the same state from one box to another. ``path``: SVG path data."""

    path: str
    label_x: float
    label_y: float
    label: str
    state: str  # allowed, refused, unknown


@dataclass(frozen=True, slots=True)
class HopMap:
    """Boxes and arrows in an area of ``width`` by ``height``. ``left_out``: number of arrows beyond MOST_ARROWS."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    width: int
    height: int
    left_out: int


def draw(story: Story) -> HopMap:
    """Lay out the map of a story."""
    groups = _groups(story)
    shown = dict(list(groups.items())[: MOST_ARROWS - 1])  # one more arrow starts at the person
    columns = _columns(story, shown)
    boxes: dict[str, Box] = {}
    rows: dict[int, int] = {}
    for name, column in columns.items():
        row = rows.get(column, 0)
        rows[column] = row + 1
        x, y = MARGIN + column * COLUMN, MARGIN + row * ROW
        boxes[name] = Box(name, short(name), x, y, person=column == 0)
    arrows = _separate_labels(_arrows(story, shown, boxes))
    width = max((box.x + BOX_WIDTH for box in boxes.values()), default=0) + MARGIN
    low = max((box.y + BOX_HEIGHT for box in boxes.values()), default=0)
    low = max(low, *(int(arrow.label_y) + _LABEL_HEIGHT for arrow in arrows), 0)
    return HopMap(tuple(boxes.values()), tuple(arrows), width, low + MARGIN, len(groups) - len(shown))


def short(name: str) -> str:
    """Return a name without its trust domain, cut at the front to _MOST_LETTERS with an ellipsis."""
    text = name.removeprefix("spiffe://").partition("/")[2] or name if name.startswith("spiffe://") else name
    return text if len(text) <= _MOST_LETTERS else f"…{text[1 - _MOST_LETTERS :]}"


def person_of(story: Story) -> str:
    """Return the subjects of a story, or "unknown" if it has none."""
    return ", ".join(subject for _, subject in story.subjects) or "unknown"


def _columns(story: Story, shown: Iterable[Call]) -> dict[str, int]:
    """Return the column of each name in the shown calls: 0 for the person; of a workload, by its first call's depth."""
    names = {name for actor, audience, _ in shown for name in (actor, audience)}
    depths = {person_of(story): 0}
    for step in story.steps:
        for name, depth in ((step.actor or "somebody", step.depth + 1), (step.audience or "somebody", step.depth + 2)):
            if name in names:
                depths.setdefault(name, depth)
    column = {depth: number for number, depth in enumerate(sorted(set(depths.values())))}  # no empty columns
    return {name: column[depth] for name, depth in depths.items()}


def _groups(story: Story) -> dict[Call, list[Step]]:
    grouped: dict[Call, list[Step]] = {}
    for step in story.steps:
        state = {True: "allowed", False: "refused", None: "unknown"}[step.allowed]
        grouped.setdefault((step.actor or "somebody", step.audience or "somebody", state), []).append(step)
    return grouped


def _arrows(story: Story, grouped: dict[Call, list[Step]], boxes: dict[str, Box]) -> list[Arrow]:
    first = next((step.actor or "somebody" for step in story.steps), None)
    arrows = []
    if first is not None:
        arrows.append(_arrow(boxes[person_of(story)], boxes[first], "on behalf of", "allowed", 0))
    for number, ((actor, audience, state), steps) in enumerate(grouped.items()):
        arrows.append(_arrow(boxes[actor], boxes[audience], _label(steps), state, number))
    return arrows


def _label(steps: Sequence[Step]) -> str:
    operations = list(dict.fromkeys(step.operation for step in steps if step.operation))
    text = operations[0] if len(operations) == 1 else pluralise(len(operations), "operation") if operations else ""
    text = text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"
    return text if len(steps) == 1 else f"{text} ({len(steps)}x)".lstrip()


def _separate_labels(arrows: Sequence[Arrow]) -> list[Arrow]:
    """Move labels down so that they do not overlap."""
    placed: list[Arrow] = []
    for arrow in arrows:
        beside = sorted(one.label_y for one in placed if abs(one.label_x - arrow.label_x) < COLUMN / 2)
        y = arrow.label_y
        for taken in beside:
            if abs(taken - y) < _LABEL_HEIGHT:
                y = taken + _LABEL_HEIGHT
        placed.append(replace(arrow, label_y=y))
    return placed


def _arrow(start: Box, end: Box, label: str, state: str, number: int) -> Arrow:
    shift = (number % 3 - 1) * 8  # separates several arrows between two boxes
    if end.x > start.x:
        x1, x2 = start.x + BOX_WIDTH, end.x
    elif end.x < start.x:
        x1, x2 = start.x, end.x + BOX_WIDTH
    else:
        x1 = x2 = start.x + BOX_WIDTH
    y1, y2 = start.y + BOX_HEIGHT // 2 + shift, end.y + BOX_HEIGHT // 2 + shift
    bend = 60 if x1 == x2 else 0
    middle = (x1 + x2) / 2 + bend
    return Arrow(f"M{x1},{y1} C{middle:g},{y1} {middle:g},{y2} {x2},{y2}", middle, (y1 + y2) / 2 - 6, label, state)
