from __future__ import annotations

from delegation_core.errors import Reason
from sidecar.observe.metrics import Metrics
from sidecar.proxy.listening.recent_counts import SAMPLE_S, WINDOW_S, RecentCounts, refused


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_was_counted_is_told_for_ten_minutes_and_then_no_more() -> None:
    clock, counts = Clock(), {"overloaded": 3}
    recent = RecentCounts(lambda: dict(counts), clock)
    assert recent.counts() == {"overloaded": 3}
    for _ in range(int(WINDOW_S / SAMPLE_S) + 1):
        clock.now += SAMPLE_S
        recent.look()
    counts["no_token"] = 2
    assert recent.counts() == {"no_token": 2}
    clock.now += SAMPLE_S
    recent.look()
    assert recent.counts() == {"no_token": 2}


def test_a_flood_that_lasts_is_told_as_it_is() -> None:
    clock, counts = Clock(), {"overloaded": 0}
    recent = RecentCounts(lambda: dict(counts), clock)
    for _ in range(60):
        clock.now += SAMPLE_S
        counts["overloaded"] += 5
        recent.look()
    assert 50 <= recent.counts()["overloaded"] <= 55


def test_a_look_is_cheap_until_a_sample_is_due() -> None:
    clock, asked = Clock(), []

    def count() -> dict[str, int]:
        asked.append(clock.now)
        return {}

    recent = RecentCounts(count, clock)
    for _ in range(int(SAMPLE_S)):
        clock.now += 1
        recent.look()
    assert len(asked) == 1


def test_requests_and_handshakes_that_were_refused_are_counted_together() -> None:
    metrics = Metrics()
    metrics.request("inbound", None, "deny", Reason.OVERLOADED, 0.0)
    metrics.request("inbound", None, "allow", "ok", 0.0)
    metrics.handshake_refused(Reason.OVERLOADED)
    metrics.handshake_refused(Reason.NO_CLIENT_CERT)
    assert refused(metrics) == {"overloaded": 2, "no_client_cert": 1}
