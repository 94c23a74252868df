from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import count

import pytest

from delegation_audit.rules import Place
from delegation_audit.selectors.entries import Entry, Origin, Selector, selector_of
from delegation_audit.selectors.kinds import slot_of
from delegation_audit.selectors.overlaps import Relation, Work, find_relations, hint_collisions

_NUMBERS = count()


def entry(path: str, selectors: Iterable[str], parent: str = "spiffe://a.example/n", hint: str = "") -> Entry:
    return Entry(
        place=Place(file="f", line=next(_NUMBERS)),
        origin=Origin.SERVER,
        name="",
        spiffe_id=f"spiffe://a.example{path}",
        parent_id=parent,
        selectors=frozenset(map(selector_of, selectors)),
        hint=hint,
    )


def relations(entries: Sequence[Entry]) -> set[tuple[int, Relation]]:
    at = {id(one): number for number, one in enumerate(entries)}
    return {(at[id(one.entry)], one.relation) for one in find_relations(entries)}


def exclude(one: frozenset[Selector], other: frozenset[Selector]) -> bool:
    slots = [slot_of(selector) for selector in one]
    others = [slot_of(selector) for selector in other]
    return any(a and b and a[0] == b[0] and a[1] != b[1] for a in slots for b in others)


def possible(selectors: Iterable[str]) -> list[str]:
    """Those selectors that one process can have: the last value of each property."""
    return list({(slot_of(selector_of(one)) or (one,))[0]: one for one in selectors}.values())


def compared_one_by_one(entries: Sequence[Entry]) -> set[tuple[int, Relation]]:
    """The relations by definition: each entry with each other one."""
    found = set()
    for at, one in enumerate(entries):
        for other_at, other in enumerate(entries):
            if at == other_at:
                continue
            same = one.spiffe_id == other.spiffe_id
            if one.selectors == other.selectors and (not same or other_at < at):
                found.add((at, Relation.EQUAL))
            elif one.selectors < other.selectors:
                found.add((at, Relation.PART))
            elif (
                not same
                and one.selectors & other.selectors
                and not other.selectors <= one.selectors
                and not exclude(one.selectors, other.selectors)
            ):
                found.add((at, Relation.OVERLAP))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_relations_are_those_of_comparing_each_with_each(seed: int) -> None:
    chosen = random.Random(seed)
    words = [
        *(f"k8s:sa:{number}" for number in range(3)),
        *(f"k8s:pod-label:{key}:{number}" for key in "abc" for number in range(2)),
        *(f"k8s:pod-image:{number}" for number in range(3)),
        "k8s:ns:agents",
    ]
    # More than 32 of one selector: both ways of finding are taken.
    entries = [entry(f"/{chosen.randrange(40)}", possible(chosen.sample(words, 1 + at % 5))) for at in range(150)]
    assert relations(entries) == compared_one_by_one(entries)


def test_entries_of_another_parent_are_for_other_nodes() -> None:
    assert relations([entry("/a", ["unix:uid:1"]), entry("/b", ["unix:uid:1"], parent="spiffe://a.example/m")]) == set()


def test_the_others_are_counted_and_a_stranger_is_the_example() -> None:
    entries = [
        entry("/a", ["k8s:ns:x"]),
        entry("/a", ["k8s:ns:x", "k8s:sa:1"]),
        entry("/b", ["k8s:ns:x", "k8s:sa:2"]),
        entry("/c", ["k8s:ns:x", "k8s:sa:3"]),
    ]
    [one] = find_relations(entries)
    assert (one.entry, one.relation, one.other.spiffe_id, one.count) == (
        entries[0],
        Relation.PART,
        "spiffe://a.example/b",
        2,
    )


def test_hints_collide_only_where_one_process_can_match_both() -> None:
    first = entry("/a", ["unix:uid:1"], hint="h")
    assert list(hint_collisions([first, entry("/b", ["unix:uid:2"], hint="h")])) == []
    assert list(hint_collisions([first, entry("/b", ["unix:gid:2"], hint="i")])) == []
    assert list(hint_collisions([first, entry("/a", ["unix:gid:2"], hint="h")])) == []
    other = entry("/b", ["unix:gid:2"], hint="h")
    assert list(hint_collisions([first, other])) == [(first, other), (other, first)]
    equal = entry("/b", ["unix:uid:1"], hint="h")
    assert list(hint_collisions([first, equal])) == [(first, equal), (equal, first)]


HOSTILE: dict[str, Callable[[int, random.Random], list[str]]] = {
    "the same selector in all": lambda number, chosen: ["k8s:ns:a", f"k8s:pod-label:x{number}:1"],
    "few selectors, many combinations": lambda number, chosen: chosen.sample(
        [f"k8s:pod-label:x{at}:1" for at in range(48)], 8
    ),
    "each a part of the next": lambda number, chosen: [f"k8s:pod-label:x{at}:1" for at in range(number % 60 + 1)],
    "equal sets": lambda number, chosen: ["k8s:ns:a"],
    "nothing shared": lambda number, chosen: [f"k8s:pod-label:x{number}-{at}:1" for at in range(8)],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_work_grows_with_the_number_of_entries_and_not_with_its_square(kind: str) -> None:
    steps = []
    for size in (300, 600):
        chosen, work = random.Random(1), Work()
        entries = [entry(f"/{number}", HOSTILE[kind](number, chosen)) for number in range(size)]
        for _ in find_relations(entries, work):
            pass
        selectors = sum(len(one.selectors) for one in entries)
        assert work.steps <= 6 * selectors + 300 * size
        steps.append(work.steps)
    assert steps[1] <= 2.5 * steps[0] + 100
