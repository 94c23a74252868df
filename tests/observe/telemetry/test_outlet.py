"""The queue before a collector: bounded, counted, never waited for, and ended in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from sidecar.observe.telemetry.outlet import Outlet


def until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.005)


def test_items_leave_together_in_their_order() -> None:
    batches: list[list[int]] = []

    def send(items: Sequence[int]) -> bool:
        batches.append(list(items))
        return True

    outlet: Outlet[int] = Outlet("spans", send, most=100, batch=4)
    outlet.offer(range(10))
    outlet.stop()
    assert outlet.join(5)
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert outlet.counts() == {"sent": 10, "failed": 0, "dropped": 0}


def test_a_full_queue_drops_and_counts_and_offering_never_waits() -> None:
    release, busy = threading.Event(), threading.Event()

    def send(_items: Sequence[int]) -> bool:
        busy.set()
        return release.wait(5)

    outlet: Outlet[int] = Outlet("spans", send, most=3, gather_s=0.0)
    outlet.offer([0])
    assert busy.wait(5)
    began = time.monotonic()
    outlet.offer(range(1000))
    assert time.monotonic() - began < 0.5
    assert outlet.waiting == 3
    assert outlet.dropped == 997
    release.set()
    until(lambda: outlet.sent == 4)
    outlet.stop()
    assert outlet.join(5)


def test_a_collector_that_hangs_delays_a_stop_no_longer_than_agreed() -> None:
    release = threading.Event()
    outlet: Outlet[int] = Outlet("spans", lambda _items: release.wait(30), most=10, gather_s=0.0, batch=1)
    outlet.offer(range(5))
    until(lambda: outlet.waiting == 4)
    began = time.monotonic()
    outlet.stop()
    assert not outlet.join(0.2)
    assert time.monotonic() - began < 1
    assert outlet.dropped == 4
    outlet.offer([9])
    assert outlet.dropped == 5
    release.set()


def test_a_batch_that_is_not_taken_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    works = False
    outlet: Outlet[int] = Outlet("spans", lambda _items: works, most=10, gather_s=0.0, batch=1)
    caplog.set_level("INFO")
    outlet.offer(range(3))
    until(lambda: outlet.failed == 3)
    works = True
    outlet.offer([1])
    until(lambda: outlet.sent == 1)
    outlet.stop()
    assert outlet.join(5)
    said = [record.message for record in caplog.records if record.name == "sidecar.telemetry"]
    assert said == ["the collector does not take spans", "the collector takes spans"]


def test_a_bug_costs_a_batch_and_not_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    def send(items: Sequence[int]) -> bool:
        return 1 / items[0] > 0

    outlet: Outlet[int] = Outlet("spans", send, most=10, gather_s=0.0, batch=1)
    outlet.offer([0, 1])
    until(lambda: (outlet.failed, outlet.sent) == (1, 1))
    outlet.stop()
    assert outlet.join(5)
    assert "cannot be sent" in caplog.text


def test_a_file_that_cannot_be_used_costs_the_batch_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def send(_items: Sequence[int]) -> bool:
        raise PermissionError("/run/token is open to others")

    outlet: Outlet[int] = Outlet("spans", send, most=10, gather_s=0.0, batch=1)
    outlet.offer([0, 1])
    until(lambda: outlet.failed == 2)
    (said,) = caplog.records
    assert (said.message, said.why) == ("the collector does not take spans", "/run/token is open to others")  # type: ignore[attr-defined]
