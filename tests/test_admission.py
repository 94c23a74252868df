"""Tables of admission decisions. Each refusal is beside its lawful twin; no row needs a socket or a clock."""

from __future__ import annotations

from typing import Final

import pytest

from sidecar.admission import (
    ADDRESS_AT_LIMIT,
    ADMIT,
    FAR_OVERLOADED,
    OVERLOADED,
    PEER_AT_LIMIT,
    WAIT,
    Activity,
    Decision,
    Evict,
    EvictionRate,
    Held,
    Load,
    Wait,
    at_limit,
    before_accept,
    on_accept,
    on_hello,
    on_peer,
    tenure_of,
)

HOST: Final = "192.0.2.1"


class Candidates:
    """Names of connections that may be evicted: of all, and of ``HOST``. ``soon``: with and without patience."""

    def __init__(
        self,
        *,
        handshake: str | None = None,
        connection: str | None = None,
        own_handshake: str | None = None,
        own_connection: str | None = None,
        soon: tuple[bool, bool] = (False, False),
    ) -> None:
        self._handshakes = {None: handshake, HOST: own_handshake}
        self._connections = {None: connection, HOST: own_connection}
        self._soon = soon
        self.searches = 0

    def handshake(self, host: str | None = None) -> str | None:
        self.searches += 1
        return self._handshakes[host]

    def connection(self, host: str | None = None) -> str | None:
        self.searches += 1
        return self._connections[host]

    def soon(self, *, patiently: bool) -> bool:
        self.searches += 1
        return self._soon[0 if patiently else 1]


NOBODY: Final = Candidates()
BELOW: Final = Load(held=7, limit=8, overflow=2, per_address=6)
FULL: Final = BELOW._replace(held=8)


@pytest.mark.parametrize(
    ("held", "limit", "first", "decision"),
    [
        pytest.param(1, 2, "old", ADMIT, id="below-the-limit-nobody-is-evicted"),
        pytest.param(2, 2, "old", Evict("old"), id="at-the-limit-one-is-evicted"),
        pytest.param(2, 2, None, WAIT, id="at-the-limit-with-nobody-to-evict"),
        pytest.param(3, 2, "old", Evict("old"), id="above-the-limit"),
        pytest.param(99, None, None, ADMIT, id="without-a-limit"),
    ],
)
def test_the_rule_at_a_limit(held: int, limit: int | None, first: str | None, decision: Decision[str]) -> None:
    assert at_limit(held, limit, lambda: first, WAIT) == decision


@pytest.mark.parametrize(
    ("load", "candidates", "decision"),
    [
        pytest.param(BELOW._replace(held=5), NOBODY, ADMIT, id="below-every-limit"),
        pytest.param(BELOW._replace(held=5, handshakes=3), NOBODY, ADMIT, id="handshakes-that-leave-room"),
        pytest.param(BELOW._replace(held=5, handshakes_full=True), NOBODY, WAIT, id="no-room-before-the-handshake"),
        pytest.param(
            FULL._replace(handshakes=1), Candidates(connection="idle"), ADMIT, id="full-and-a-connection-may-be-evicted"
        ),
        pytest.param(
            FULL._replace(handshakes=1), Candidates(handshake="silent"), ADMIT, id="full-and-a-handshake-may-be-evicted"
        ),
        pytest.param(FULL._replace(handshakes=1), NOBODY, WAIT, id="full-and-a-handshake-ends-soon"),
        pytest.param(
            FULL._replace(held=4, limit=4, handshakes=1), NOBODY, WAIT, id="a-limit-below-that-of-one-address"
        ),
        pytest.param(FULL, Candidates(soon=(True, False)), WAIT, id="full-and-a-connection-is-free-soon"),
        pytest.param(FULL, NOBODY, ADMIT, id="full-for-long-is-told"),
        pytest.param(BELOW, Candidates(soon=(True, False)), ADMIT, id="one-address-holds-up-no-other"),
        pytest.param(BELOW, Candidates(soon=(True, True)), WAIT, id="but-for-the-time-of-a-head"),
        pytest.param(
            BELOW._replace(one_address=True), Candidates(soon=(True, False)), WAIT, id="alone-it-waits-for-its-own"
        ),
    ],
)
def test_before_a_connection_is_accepted(load: Load, candidates: Candidates, decision: Decision[str]) -> None:
    assert before_accept(load, candidates) == decision


@pytest.mark.parametrize(
    ("load", "from_address", "candidates", "decision"),
    [
        pytest.param(BELOW, 5, NOBODY, ADMIT, id="below-every-limit"),
        pytest.param(FULL, 5, Candidates(connection="idle"), Evict("idle"), id="full-with-an-idle-one"),
        pytest.param(
            FULL, 5, Candidates(handshake="silent", connection="idle"), Evict("silent"), id="the-unproven-go-first"
        ),
        pytest.param(FULL, 5, NOBODY, OVERLOADED, id="full-of-served-ones-is-answered"),
        pytest.param(FULL._replace(held=9), 5, NOBODY, OVERLOADED, id="in-the-overflow-still-answered"),
        pytest.param(FULL._replace(held=10), 5, Candidates(connection="idle"), FAR_OVERLOADED, id="above-it-closed"),
        pytest.param(BELOW, 6, NOBODY, ADDRESS_AT_LIMIT, id="one-address-has-its-limit"),
        pytest.param(BELOW, None, NOBODY, ADMIT, id="without-TLS-addresses-have-none"),
        pytest.param(BELOW, 6, Candidates(connection="of another"), ADDRESS_AT_LIMIT, id="it-evicts-no-other's"),
        pytest.param(BELOW, 6, Candidates(own_connection="own"), Evict("own"), id="it-evicts-its-own"),
        pytest.param(
            BELOW,
            6,
            Candidates(own_handshake="own silent", own_connection="own"),
            Evict("own silent"),
            id="silent-first",
        ),
        pytest.param(FULL, 6, Candidates(own_connection="own", connection="idle"), Evict("own"), id="at-both-limits"),
    ],
)
def test_an_accepted_connection(
    load: Load, from_address: int | None, candidates: Candidates, decision: Decision[str]
) -> None:
    assert on_accept(load, candidates, host=HOST, from_address=from_address) == decision


@pytest.mark.parametrize(
    ("running", "limit", "since", "now", "decision"),
    [
        pytest.param(3, 4, 10.0, 11.0, ADMIT, id="below-the-limit"),
        pytest.param(4, 4, 10.0, 10.25, Wait(0.75), id="at-it-the-next-waits-for-the-oldest"),
        pytest.param(4, 4, 10.0, 11.0, Evict("oldest"), id="whose-patience-is-over"),
        pytest.param(4, None, 10.0, 10.25, ADMIT, id="without-a-limit"),
    ],
)
def test_a_whole_client_hello(
    running: int, limit: int | None, since: float, now: float, decision: Decision[str]
) -> None:
    assert on_hello(running, limit, Held("oldest", since, 1.0), now) == decision
    assert on_hello(0, limit, None, now) is ADMIT


@pytest.mark.parametrize(
    ("held", "own", "decision"),
    [
        pytest.param(2, None, ADMIT, id="below-its-limit"),
        pytest.param(3, None, PEER_AT_LIMIT, id="at-it-with-all-served"),
        pytest.param(3, "own", Evict("own"), id="at-it-with-an-idle-one-of-its-own"),
    ],
)
def test_a_proven_peer(held: int, own: str | None, decision: Decision[str]) -> None:
    assert on_peer(held, 3, lambda: own) == decision


def test_below_every_limit_nobody_is_looked_for() -> None:
    candidates = Candidates(handshake="silent", connection="idle")
    before_accept(BELOW._replace(held=5), candidates)
    on_accept(BELOW, candidates, host=HOST, from_address=5)
    assert candidates.searches == 0


SILENT: Final = Activity(idle_since=10.0, stuck_since=None, between_requests=False, below_share=False, head_s=0.1)
SERVED: Final = SILENT._replace(idle_since=None)


@pytest.mark.parametrize(
    ("activity", "stuck_s", "tenure"),
    [
        pytest.param(SILENT, 2.0, (10.0, 0.1), id="a-head-should-come"),
        pytest.param(SILENT._replace(below_share=True), 2.0, (10.0, 1.0), id="a-peer-with-few-has-more-time-for-it"),
        pytest.param(SILENT._replace(between_requests=True), 2.0, (10.0, 1.0), id="between-requests-it-may-rest"),
        pytest.param(SERVED, 2.0, None, id="a-request-is-served"),
        pytest.param(SERVED._replace(stuck_since=8.0), 2.0, (8.0, 2.0), id="its-answer-is-not-taken"),
        pytest.param(SERVED._replace(stuck_since=8.0), None, None, id="which-does-not-always-count"),
    ],
)
def test_a_connection_holds_its_place_for_so_long(
    activity: Activity, stuck_s: float | None, tenure: tuple[float, float] | None
) -> None:
    assert tenure_of(activity, idle_s=1.0, stuck_s=stuck_s) == tenure


def test_evictions_have_a_rate_and_nothing_is_saved_up() -> None:
    rate = EvictionRate(per_s=8.0, at_once=4)
    for now, allowed in ((100.0, 4), (100.0, 0), (100.125, 1), (100.125, 0), (200.0, 4), (200.0, 0)):
        count = 0
        while rate.allows(now):
            rate.spend(now)
            count += 1
        assert count == allowed, now


FULL_ADDRESS: Final = BELOW._replace(held=9, limit=99, overflow=2, per_address=9)


@pytest.mark.parametrize(
    ("proving", "from_address", "decision"),
    [
        pytest.param(False, 9, ADDRESS_AT_LIMIT, id="without-a-name-to-come-the-address-decides"),
        pytest.param(True, 9, ADMIT, id="a-peer-is-proven-first"),
        pytest.param(True, 10, ADMIT, id="as-long-as-there-is-room-for-it"),
        pytest.param(True, 11, ADDRESS_AT_LIMIT, id="and-no-longer"),
    ],
)
def test_an_address_at_its_limit_with_nobody_to_evict(
    proving: bool, from_address: int, decision: Decision[str]
) -> None:
    load = FULL_ADDRESS._replace(proving=proving)
    assert on_accept(load, Candidates(), host=HOST, from_address=from_address) == decision


def test_an_address_above_its_limit_evicts_nobody_of_another_one() -> None:
    load, others = FULL_ADDRESS._replace(proving=True, limit=9), Candidates(handshake="other's", connection="other's")
    assert on_accept(load, others, host=HOST, from_address=9) == OVERLOADED
    assert on_accept(load, others, host=HOST, from_address=8) == Evict("other's")
    assert on_accept(load._replace(held=8), others, host=HOST, from_address=9) == ADMIT


@pytest.mark.parametrize(
    ("held", "below_share", "address_full", "decision"),
    [
        pytest.param(3, False, False, ADMIT, id="below-its-own-limit"),
        pytest.param(3, False, True, PEER_AT_LIMIT, id="not-beyond-its-address"),
        pytest.param(3, True, True, ADMIT, id="unless-it-has-few"),
        pytest.param(0, False, True, ADMIT, id="or-none"),
    ],
)
def test_a_proven_peer_of_an_address_with_too_many(
    held: int, below_share: bool, address_full: bool, decision: Decision[str]
) -> None:
    found: Decision[str] = on_peer(held, 9, lambda: None, address_full=address_full, below_share=below_share)
    assert found == decision
