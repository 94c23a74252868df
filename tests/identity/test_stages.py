from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from sidecar.identity.stages import Arrival, Stage, first_to_evict


@pytest.fixture
def nowhere() -> Iterator[socket.socket]:
    with socket.socket() as one:
        yield one


def arrival(nowhere: socket.socket, host: str) -> Arrival:
    return Arrival(nowhere, nowhere.fileno(), f"{host}:1", host, asyncio.Protocol, deadline=9.0)


def test_the_earliest_is_first_in_all_and_of_each_host(nowhere: socket.socket) -> None:
    stage = Stage(least_s=1.0, per_s=100.0)
    one, two, three = (arrival(nowhere, host) for host in "aba")
    for since, each in enumerate((one, two, three)):
        stage.add(each, float(since))
    assert (stage.first(), stage.first("b"), stage.first("c"), len(stage)) == (one, two, None, 3)
    assert (one.stage, two.since) == (stage, 1.0)
    stage.discard(one)
    assert (stage.first(), stage.first("a"), one.stage) == (two, three, None)
    stage.discard(three)
    assert (stage.first("a"), len(stage)) == (None, 1)


def test_hosts_take_turns(nowhere: socket.socket) -> None:
    stage = Stage(least_s=1.0, per_s=100.0)
    for host in "aaab":
        stage.add(arrival(nowhere, host), 0.0)
    order = []
    while len(stage):
        order.append(stage.next_in_turn())
        stage.discard(order[-1])
    assert "".join(one.host for one in order) == "abaa"


def test_of_all_stages_the_one_goes_whose_time_was_over_first(nowhere: socket.socket) -> None:
    quick, patient = Stage(least_s=0.25, per_s=100.0), Stage(least_s=1.0, per_s=100.0)
    silent, talking = arrival(nowhere, "a"), arrival(nowhere, "b")
    patient.add(talking, 10.0)
    quick.add(silent, 10.5)
    stages = (quick, patient)
    assert first_to_evict(stages, 10.7) is None
    assert first_to_evict(stages, 10.75) is silent
    assert first_to_evict(stages, 11.0) is silent
    assert first_to_evict(stages, 11.0, "b") is talking
    assert first_to_evict(stages, 10.99, "b") is None
    quick.discard(silent)
    quick.add(silent, 10.9)
    assert first_to_evict(stages, 12.0) is talking


def test_the_more_there_are_the_longer_each_has_so_that_few_end_in_a_second(nowhere: socket.socket) -> None:
    stage = Stage(least_s=1.0, per_s=10.0)
    for number in range(40):
        assert stage.patience_s == max(1.0, number / 10.0)
        stage.add(arrival(nowhere, "a"), 0.0)
    assert first_to_evict([stage], 3.9) is None
    assert first_to_evict([stage], 4.0) is stage.first()
