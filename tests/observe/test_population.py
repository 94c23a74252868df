from __future__ import annotations

import sys

import pytest

from sidecar.observe.population import WINDOW_S, Population

STS = "https://sts.acme.example"
FRONT = "spiffe://acme.example/agent/front"
WRITER = "spiffe://acme.example/agent/writer"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def population(clock: Clock) -> Population:
    return Population(monotonic=clock)


def test_subjects_are_people_and_actors_are_machines(population: Population) -> None:
    population.saw(STS, "alice", [WRITER, FRONT])
    population.saw(STS, "bob", [FRONT])
    assert population.counts() == {"human": 2, "machine": 2}


def test_the_same_name_at_another_issuer_is_another_person(population: Population) -> None:
    population.saw(STS, "alice", [FRONT])
    population.saw("https://sts.partner.example", "alice", [FRONT])
    assert population.counts() == {"human": 2, "machine": 1}


def test_a_workload_that_acts_for_itself_is_no_person(population: Population) -> None:
    population.saw(STS, FRONT, [])
    assert population.counts() == {"human": 0, "machine": 1}


@pytest.mark.parametrize(("later_s", "humans"), [(0.0, 1), (0.49, 1), (0.99, 1), (1.5, 0), (10.0, 0)])
def test_who_was_not_seen_for_a_window_is_forgotten(
    population: Population, clock: Clock, later_s: float, humans: int
) -> None:
    population.saw(STS, "alice", [FRONT])
    clock.now += 0.49 * WINDOW_S  # a scrape happens in between
    population.counts()
    clock.now = 1000.0 + later_s * WINDOW_S
    assert population.counts()["human"] == humans


def test_memory_is_bounded_whoever_comes(population: Population) -> None:
    for number in range(20_000):
        population.saw(STS, f"user-{number}", [f"spiffe://acme.example/agent/{number}"])
    sketches = [*population._now.values(), *population._before.values()]
    assert sum(sys.getsizeof(sketch.registers) for sketch in sketches) < 17_000


def test_any_text_can_be_a_name(population: Population) -> None:
    population.saw(STS, "\ud800", ["\0"])
    assert population.counts() == {"human": 1, "machine": 1}
