from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Denied, Reason, SidecarError
from sidecar.observe.record import Direction
from sidecar.proxy.snapshot import Snapshot, Snapshots
from sidecar.proxy.streams import Streams
from tests.delegation.world import WRITER
from tests.proxy.test_snapshot import setup


class Fake:
    """A stream that keeps why it was ended. ``standing`` is what judging it says."""

    def __init__(self, bench: Bench, *, endless: bool, direction: Direction = "inbound", **times: Any) -> None:
        self.direction = direction
        self.endless = endless
        self.token_expires_at = times.get("token", 100.0)
        self.peer_expires_at = times.get("peer", 200.0)
        self.stops_at = times.get("stops", 50.0)
        self.transport = asyncio.BaseTransport()
        self.standing: Exception | None = None
        self.bugs: set[str] = set()
        self.cut_for: list[Reason] = []
        self.judged = 0
        self.reasons: list[Reason] = []
        self._bench = bench
        bench.streams.add(self)

    def judge(self, snapshot: Snapshot, now: int) -> None:
        self.judged += 1
        if self.standing is not None:
            raise self.standing

    def cut_off(self, error: SidecarError) -> None:
        self.cut_for.append(error.reason)
        if "cut" in self.bugs:
            raise RuntimeError("another bug")

    def end(self, error: SidecarError) -> None:
        if "end" in self.bugs:
            raise RuntimeError("a bug")
        self.reasons.append(error.reason)
        self._bench.streams.discard(self)


class Bench:
    def __init__(self) -> None:
        self.snapshots = Snapshots(setup())
        self.snapshots.follow(WRITER)
        self.wall = 10.0
        self.passed = 10.0
        self.streams = Streams(self.snapshots, wall=lambda: self.wall, monotonic=lambda: self.passed)

    def sweep(self, in_flight: int = 9) -> None:
        self.streams.sweep(in_flight=in_flight)


def at(*, wall: float, passed: float = 10.0, endless: bool, **times: Any) -> list[Reason]:
    bench = Bench()
    bench.wall, bench.passed = wall, passed
    stream = Fake(bench, endless=endless, **times)
    bench.sweep()
    assert (len(bench.streams) == 0) == bool(stream.reasons)
    return stream.reasons


ENDLESS = {
    "before both": ({"wall": 99.9}, []),
    "at the token's expiry": ({"wall": 100.0}, [Reason.TOKEN_EXPIRED]),
    "at the certificate's": ({"wall": 80.0, "peer": 80.0}, [Reason.SVID_EXPIRED]),
    "just before the certificate's": ({"wall": 79.9, "peer": 80.0}, []),
    "however long it has lasted": ({"wall": 99.9, "passed": 10_000.0}, []),
}


@pytest.mark.parametrize(("when", "reasons"), ENDLESS.values(), ids=ENDLESS.keys())
def test_what_never_finishes_ends_with_its_token_or_its_peers_certificate(when: Any, reasons: list[Reason]) -> None:
    assert at(**when, endless=True) == reasons


ORDINARY = {
    "within its token": ({"wall": 99.9, "passed": 10_000.0}, []),
    "past its token, within max_stream_s": ({"wall": 100.0, "passed": 49.9}, []),
    "past both": ({"wall": 100.0, "passed": 50.0}, [Reason.TIMEOUT]),
    "past the certificate, which is not ours to tell": ({"wall": 99.0, "peer": 50.0}, []),
}


@pytest.mark.parametrize(("when", "reasons"), ORDINARY.values(), ids=ORDINARY.keys())
def test_an_ordinary_answer_may_outlive_its_token_for_a_while(when: Any, reasons: list[Reason]) -> None:
    assert at(**when, endless=False) == reasons


def test_what_never_finishes_is_judged_again_when_the_policy_changes_and_only_then() -> None:
    bench = Bench()
    stream, ordinary = Fake(bench, endless=True), Fake(bench, endless=False)
    for _ in range(3):
        bench.sweep()
    assert stream.judged == 1
    bench.snapshots.change(setup())
    bench.sweep()
    assert (stream.judged, stream.reasons) == (2, [])
    assert (ordinary.judged, ordinary.reasons) == (0, [])
    stream.standing = Denied(Reason.POLICY_DENIED)
    bench.sweep()
    assert stream.reasons == []
    bench.snapshots.follow(SpiffeId("spiffe://acme.example/agent/other"))
    bench.sweep()
    assert stream.reasons == [Reason.POLICY_DENIED]


def test_what_begins_after_a_change_that_its_request_did_not_see_is_judged_by_it() -> None:
    bench = Bench()
    bench.snapshots.change(setup())
    bench.sweep()
    late = Fake(bench, endless=True)
    late.standing = Denied(Reason.POLICY_DENIED)
    bench.sweep()
    assert late.reasons == [Reason.POLICY_DENIED]


def test_while_there_is_no_identity_nobody_is_judged() -> None:
    bench = Bench()
    stream = Fake(bench, endless=True)
    bench.snapshots.follow(None)
    bench.sweep()
    assert (stream.judged, stream.reasons) == (0, [])


def test_distrust_ends_what_never_finishes_on_that_connection() -> None:
    bench = Bench()
    stream, other, ordinary = Fake(bench, endless=True), Fake(bench, endless=True), Fake(bench, endless=False)
    ordinary.transport = stream.transport
    bench.streams.distrust(stream.transport, Denied(Reason.WRONG_BUNDLE))
    assert (stream.reasons, other.reasons, ordinary.reasons) == ([Reason.WRONG_BUNDLE], [], [])


DRAINING = {
    "while others are in flight": ({"passed": 19.9, "in_flight": 3}, []),
    "when nothing else is": ({"passed": 10.0, "in_flight": 2}, [Reason.DRAINING]),
    "when the time for others is over": ({"passed": 20.0, "in_flight": 3}, [Reason.DRAINING]),
}


@pytest.mark.parametrize(("when", "reasons"), DRAINING.values(), ids=DRAINING.keys())
def test_a_drain_ends_what_never_finishes_after_all_else_or_in_time(when: Any, reasons: list[Reason]) -> None:
    bench = Bench()
    streams = [Fake(bench, endless=True), Fake(bench, endless=True)]
    ordinary = Fake(bench, endless=False)
    bench.streams.drain(10.0)
    bench.passed = when["passed"]
    bench.sweep(when["in_flight"])
    assert [stream.reasons for stream in streams] == [reasons, reasons]
    assert ordinary.reasons == []


def test_without_a_drain_nothing_gives_way() -> None:
    bench = Bench()
    stream = Fake(bench, endless=True)
    bench.passed = 10_000.0
    bench.sweep(1)
    assert stream.reasons == []


def test_what_begins_during_a_drain_gives_way_too() -> None:
    bench = Bench()
    bench.streams.drain(10.0)
    bench.passed = 30.0
    stream = Fake(bench, endless=True)
    bench.sweep()
    assert stream.reasons == [Reason.DRAINING]


BUGS = {
    "in judging": ({"standing": ValueError("a bug")}, 10.0),
    "in ending": ({"bugs": {"end"}}, 100.0),
    "in ending and in cutting": ({"bugs": {"end", "cut"}}, 100.0),
}


@pytest.mark.parametrize(("bug", "wall"), BUGS.values(), ids=BUGS.keys())
def test_a_bug_in_one_stream_costs_that_one_and_is_told(
    bug: dict[str, Any], wall: float, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    bench.wall = wall
    broken = Fake(bench, endless=True)
    for name, value in bug.items():
        setattr(broken, name, value)
    sound = Fake(bench, endless=True)
    bench.sweep()
    bench.sweep()
    assert (broken.cut_for, broken.reasons) == ([Reason.INTERNAL], [])
    assert sound.reasons == ([Reason.TOKEN_EXPIRED] if wall == 100.0 else [])
    assert len(bench.streams) == (0 if sound.reasons else 1)
    assert caplog.records[0].message == "a stream failed"


@pytest.mark.parametrize("how", ["distrust", "drain"])
def test_a_bug_while_many_are_told_to_end_costs_one(how: str) -> None:
    bench = Bench()
    broken, sound = Fake(bench, endless=True), Fake(bench, endless=True)
    broken.bugs = {"end"}
    sound.transport = broken.transport
    if how == "distrust":
        bench.streams.distrust(broken.transport, Denied(Reason.WRONG_BUNDLE))
    else:
        bench.streams.drain(0.0)
        bench.sweep()
    assert (broken.cut_for, len(sound.reasons)) == ([Reason.INTERNAL], 1)


def test_streams_are_counted_by_direction() -> None:
    bench = Bench()
    assert bench.streams.count() == {"inbound": 0, "outbound": 0}
    Fake(bench, endless=True)
    Fake(bench, endless=False)
    gone = Fake(bench, endless=True, direction="outbound")
    assert bench.streams.count() == {"inbound": 2, "outbound": 1}
    bench.streams.discard(gone)
    assert bench.streams.count() == {"inbound": 2, "outbound": 0}
