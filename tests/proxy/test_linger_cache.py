from __future__ import annotations

from delegation_core.bounded import ENTRY_BYTES
from sidecar.proxy.journeys.linger_cache import _MAX_GUARDS, LingerCache
from tests.fakes.guard import FakeGuard

ROOM = 1000 + ENTRY_BYTES


def added(peers: dict[str, int]) -> LingerCache:
    """Add handles of each peer, named by the peer and a number; lower numbers have ended longer ago."""
    made = LingerCache(1000 * ROOM)
    for peer, count in peers.items():
        for number in range(count):
            made.add(f"{peer}{number}", peer, None, cost=1000, ends_at=10 + number)
    return made


def test_each_peer_is_left_as_much_as_the_others_or_all_that_it_has() -> None:
    made = added({"a": 1, "b": 4, "c": 9})
    gone = made.shed(7 * ROOM)
    assert gone == ["b0", *(f"c{number}" for number in range(6))]
    assert (made.bytes, len(made), made.evicted) == (7 * ROOM, 7, 7)


def test_what_one_peer_leaves_is_for_the_others() -> None:
    made = added({"a": 1, "b": 9})
    assert made.shed(8 * ROOM) == ["b0", "b1"]
    assert made.shed(8 * ROOM) == []


def test_nothing_is_left_where_nothing_may_be() -> None:
    made = added({"a": 2, "b": 1})
    assert sorted(made.shed(-1)) == ["a0", "a1", "b0"]
    assert (made.bytes, len(made)) == (0, 0)
    assert made.shed(-1) == []


def test_what_has_ended_is_swept_of_every_peer_and_was_not_evicted() -> None:
    made = added({"a": 2, "b": 3})
    assert sorted(made.sweep(11)) == ["a0", "a1", "b0", "b1"]
    assert (made.bytes, made.evicted) == (ROOM, 0)
    made.drop("b2", "b")
    made.drop("b2", "b")
    made.drop("a0", "nobody")
    assert made.bytes == 0


def test_a_proof_counts_once_for_each_certificate() -> None:
    made = LingerCache(1000 * ROOM)
    first, again = FakeGuard(fingerprint="aa"), FakeGuard(fingerprint="aa")
    assert made.cost_of("peer", first) > len(first.chain[0])
    assert made.add("a", "peer", first, cost=1000, ends_at=10) is first
    assert (made.cost_of("peer", again), made.cost_of("peer", None)) == (0, 0)
    assert made.cost_of("another", again) == made.cost_of("another", first) > 0
    assert made.add("b", "peer", again, cost=1000, ends_at=10) is first


def test_proofs_of_certificates_that_no_handle_needs_do_not_pile_up() -> None:
    made = LingerCache(1000 * ROOM)
    made.add("kept", "peer", FakeGuard(fingerprint="kept"), cost=1000, ends_at=10)
    for number in range(10 * _MAX_GUARDS):
        made.add(f"{number}", "peer", FakeGuard(fingerprint=f"{number}"), cost=1000, ends_at=10)
        made.drop(f"{number}", "peer")
    assert len(made._peers["peer"].guards) <= _MAX_GUARDS
    assert "kept" in made._peers["peer"].guards
