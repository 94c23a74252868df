import os

import pytest

from benchmarks.machine import shared_memory
from benchmarks.peers.all import all_peers
from benchmarks.pods import Memory, kinds, of_a_hundred, told


def memory(pods: int, title: str = "delegation sidecar") -> Memory:
    """Return processes of 60 MiB, of which 40 are their own."""
    shared = 20.0 / pods
    return Memory(
        title=title,
        connections=0,
        resident=(60.0,) * pods,
        proportional=(40.0 + shared,) * pods,
        anonymous=(40.0,) * pods,
    )


def test_a_hundred_pods_take_what_the_node_pays() -> None:
    assert of_a_hundred(memory(100)) == pytest.approx(4020)


def test_from_fewer_pods_a_hundred_are_computed_and_shared_pages_count_once() -> None:
    assert of_a_hundred(memory(20)) == pytest.approx(of_a_hundred(memory(100)))
    assert of_a_hundred(memory(1)) == pytest.approx(4020)


def test_the_page_tells_how_many_ran_who_is_missing_and_what_was_not_measured() -> None:
    page = told([memory(20)], {"Envoy": "it is not there"}, made_at="now", machine={"cpu": "any"})
    assert (
        "| delegation sidecar | 20 | 0 | 60.0 (60.0 to 60.0) | 41.0 (41.0 to 41.0) | 40.0 (40.0 to 40.0) | 4,020 |"
        in page
    )
    assert "- Without Envoy: it is not there" in page
    assert "not measured in this run" in page
    assert "24 MiB at rest, 86 MiB with 1,000 connections" in page


def test_every_kind_of_pod_is_a_peer() -> None:
    assert {kind.peer.name for kind in kinds()} <= {peer.name for peer in all_peers()}


def test_neither_proportional_nor_anonymous_memory_exceeds_what_is_resident() -> None:
    resident, proportional, anonymous = shared_memory([os.getpid()])
    assert 0 < proportional <= resident
    assert 0 < anonymous <= resident
