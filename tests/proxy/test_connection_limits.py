from __future__ import annotations

import resource

import pytest

from sidecar.proxy.listening.connection_limits import MAX_CONNECTIONS, ConnectionLimits


def test_one_peer_has_three_quarters_unless_told_and_never_more_than_there_are() -> None:
    limits = ConnectionLimits(max_connections=100)
    assert (limits.total, limits.per_address, limits.per_peer) == (100, 75, 75)
    limits = ConnectionLimits(max_connections=100, max_per_address=10, max_per_peer=1000)
    assert (limits.per_address, limits.per_peer) == (10, 100)
    limits = ConnectionLimits(max_connections=1)
    assert (limits.total, limits.per_address, limits.per_peer) == (1, 1, 1)


def test_without_a_number_the_descriptors_decide() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
        assert ConnectionLimits().total == 12
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert ConnectionLimits().total <= MAX_CONNECTIONS


@pytest.mark.parametrize(
    ("limits", "descriptors", "held", "apart"),
    [
        ({"max_connections": 12}, 20_000, 6, False),
        ({"max_connections": 1}, 20_000, 1, False),
        ({"max_connections": 5_000}, 1_000_000, 3_976, False),
        ({}, 20_000, 3_960, False),  # of 4,984
        ({}, 64, 6, False),
        ({}, 1_000_000, 8_192, True),
    ],
)
def test_so_many_may_be_held_before_their_handshake(
    limits: dict[str, int], descriptors: int, held: int, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    settings = ConnectionLimits(max_connections=limits.get("max_connections"))
    assert (settings.before_handshake, settings.spare_descriptors) == (held, apart)
