from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.records.record import Direction
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.source import State
from sidecar.proxy.journeys.deadlines import TICK_S
from sidecar.proxy.journeys.snapshot import Snapshots
from sidecar.proxy.journeys.watch import DENIED_S, IDENTITY_GRACE_S, TURN_S, Watch
from tests.core.world import WRITER
from tests.proxy.test_snapshot import setup

OTHER = SpiffeId("spiffe://acme.example/agent/other")


class Fake:
    """A forwarding that records its end. ``standing`` is the result of judging it; ``kind`` is its kind."""

    def __init__(self, bench: Bench, kind: str = "answer", *, direction: Direction = "inbound", **times: Any) -> None:
        self.direction: Direction = direction
        self.endless = kind == "stream"
        self.uploading = kind == "upload"
        self.began_at = 10.0
        self.answered_at: float | None = None if kind in ("upload", "wait") else 10.0
        self.token_expires_at = times.get("token", 100.0)
        self.login_expires_at = times.get("login", float("inf"))
        self.peer_expires_at = times.get("peer", 200.0)
        self.max_upload_s = 30.0
        self.max_stream_s = 40.0
        self.max_life_s = self.max_wait_s = self.deadline_s = float("inf")
        self.standing: Exception | None = None
        self.bugs: set[str] = set()
        self.cut_for: list[Reason] = []
        self.judged = 0
        self.reasons: list[Reason] = []
        self.withdrawn: list[tuple[Reason, bool]] = []
        self._bench = bench
        bench.watch.young.add(self)

    def live(self) -> None:
        pass

    def judge(self, now: int) -> None:
        self.judged += 1
        self._bench.passed += self._bench.judging_takes_s
        if self.standing is not None:
            raise self.standing

    def withdraw(self, error: SidecarError, *, begun: bool) -> None:
        self.withdrawn.append((error.reason, begun))

    def cut_off(self, error: SidecarError) -> None:
        self.cut_for.append(error.reason)
        if "cut" in self.bugs:
            raise RuntimeError("another bug")

    def end(self, error: SidecarError) -> None:
        if "end" in self.bugs:
            raise RuntimeError("a bug")
        self.reasons.append(error.reason)
        self._bench.watch.forget(self)


class Bench:
    """A watch without its task: ``look`` is one tick."""

    def __init__(self) -> None:
        self.snapshots = Snapshots(setup())
        self.snapshots.follow(WRITER)
        self.source = SimpleNamespace(current="an identity", state=State.READY)
        self.wall = 10.0
        self.passed = 10.0
        self.judging_takes_s = 0.0
        self.changes = 0
        source: Any = self.source
        self.watch = Watch(
            self.snapshots,
            source,
            wall=lambda: self.wall,
            monotonic=lambda: self.passed,
            on_change=self._changed,
        )
        self.watch.notice()

    def _changed(self) -> None:
        self.changes += 1

    def at(self, *, wall: float, passed: float | None = None) -> None:
        """Let time pass; the watch sees every tick of it."""
        passed = self.passed + wall - self.wall if passed is None else passed
        self.wall, self.passed = wall, passed

    def look(self, in_flight: int = 9) -> None:
        for _ in self.watch.steps(in_flight):
            pass

    def lose_identity(self, state: State) -> None:
        self.source.current, self.source.state = None, state
        self.snapshots.follow(None)

    def find_identity(self) -> None:
        self.source.current, self.source.state = "another identity", State.READY
        self.snapshots.follow(WRITER)


# --- expiry


def at(kind: str, *, wall: float, **times: Any) -> list[Reason]:
    bench = Bench()
    one = Fake(bench, kind, **times)
    bench.look()
    bench.at(wall=wall)
    bench.look()
    assert (len(bench.watch) == 0) == bool(one.reasons)
    assert one.withdrawn == []  # time is no decision
    return one.reasons


EXPIRY = {
    "a stream before both": ("stream", {"wall": 99.9}, []),
    "a stream at its token's expiry": ("stream", {"wall": 100.0}, [Reason.TOKEN_EXPIRED]),
    "a stream at the certificate's": ("stream", {"wall": 80.0, "peer": 80.0}, [Reason.SVID_EXPIRED]),
    "a stream just before the certificate's": ("stream", {"wall": 79.9, "peer": 80.0}, []),
    "an answer within its token": ("answer", {"wall": 99.9}, []),
    "an answer past its token, within max_stream_s": ("answer", {"wall": 49.9, "token": 20.0}, []),
    "an answer past both": ("answer", {"wall": 50.0, "token": 20.0}, [Reason.TIMEOUT]),
    "an answer past the certificate, which ends no answer": ("answer", {"wall": 99.0, "peer": 50.0}, []),
    "an upload within its token": ("upload", {"wall": 99.9}, []),
    "an upload past its token, within max_upload_s": ("upload", {"wall": 39.9, "token": 20.0}, []),
    "an upload past both": ("upload", {"wall": 40.0, "token": 20.0}, [Reason.TIMEOUT]),
    "a wait for an answer": ("wait", {"wall": 1000.0}, []),
}


@pytest.mark.parametrize(("kind", "when", "reasons"), EXPIRY.values(), ids=EXPIRY.keys())
def test_expiry_ends_each_kind_at_its_time(kind: str, when: Any, reasons: list[Reason]) -> None:
    assert at(kind, **when) == reasons


def test_an_upload_that_becomes_an_answer_has_another_end() -> None:
    bench = Bench()
    one = Fake(bench, "upload", token=20.0)
    bench.look()
    bench.at(wall=39.0)
    one.uploading, one.answered_at = False, 39.0
    bench.watch.touch(one)
    for wall in (39.1, 78.9):
        bench.at(wall=wall)
        bench.look()
    assert one.reasons == []
    bench.at(wall=79.0)
    bench.look()
    assert one.reasons == [Reason.TIMEOUT]


def test_a_request_that_becomes_a_stream_ends_with_its_token() -> None:
    bench = Bench()
    one = Fake(bench, "wait", token=20.0)
    bench.look()
    one.endless, one.answered_at = True, 10.0
    bench.watch.touch(one)
    bench.look()
    bench.at(wall=20.0)
    bench.look()
    assert one.reasons == [Reason.TOKEN_EXPIRED]


@pytest.mark.parametrize(("step_s", "reasons"), [(80.0, []), (90.0, [Reason.TOKEN_EXPIRED])])
def test_a_clock_that_is_set_moves_the_ends_of_tokens(step_s: float, reasons: list[Reason]) -> None:
    bench = Bench()
    one = Fake(bench, "stream")
    bench.look()
    bench.at(wall=bench.wall + step_s, passed=bench.passed + 0.25)
    bench.look()
    assert one.reasons == reasons


def test_nothing_is_held_of_what_has_ended() -> None:
    bench = Bench()
    for kind in ("stream", "upload", "answer", "wait"):
        young, old = Fake(bench, kind), Fake(bench, kind)
        bench.watch.forget(young)
        bench.look()
        bench.watch.forget(old)
    assert (len(bench.watch), len(bench.watch._wheel)) == (0, 0)


# --- changes


KINDS = ["stream", "upload", "answer", "wait"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_judged_once_after_each_change_and_never_without_one(kind: str) -> None:
    bench = Bench()
    one = Fake(bench, kind)
    for _ in range(3):
        bench.look()
    assert one.judged == 0
    bench.snapshots.change(setup())
    bench.look()
    bench.look()
    assert (one.judged, one.reasons) == (1, [])


CHANGES = {
    "policy": lambda bench: bench.snapshots.change(setup()),
    "who we are": lambda bench: bench.snapshots.follow(OTHER),
    "SVID or bundles": lambda bench: setattr(bench.source, "current", "another identity"),
    "keys": lambda bench: setattr(bench.snapshots.current.keys, "generation", 1),
}


class Keys:
    generation = 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_would_be_refused_ends_after_any_change_and_nothing_else_does(kind: str, change: Any) -> None:
    bench = Bench()
    keys: Any = Keys()
    bench.snapshots.change(setup(keys=keys))
    bench.look()
    one, other = Fake(bench, kind), Fake(bench, kind)
    one.standing = Denied(Reason.POLICY_DENIED)
    bench.look()
    assert one.reasons == []
    changes = bench.changes
    change(bench)
    bench.look()
    assert (one.reasons, other.reasons) == ([Reason.POLICY_DENIED], [])
    assert (one.withdrawn, other.withdrawn) == ([(Reason.POLICY_DENIED, True)], [])
    assert bench.changes == changes + 1


def test_what_waited_before_it_began_is_judged_as_it_begins() -> None:
    bench = Bench()
    one = Fake(bench)
    bench.watch.admit(one)
    one.standing = Denied(Reason.POLICY_DENIED)
    with pytest.raises(Denied):
        bench.watch.admit(one)
    one.standing = None
    bench.snapshots.follow(None)
    with pytest.raises(Unavailable):
        bench.watch.admit(one)
    assert one.withdrawn == [(Reason.POLICY_DENIED, False), (Reason.NOT_READY, False)]


# --- our own identity


LOST = {"withdrawn": (State.DENIED, DENIED_S), "run out": (State.EXPIRED, IDENTITY_GRACE_S)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("state", "grace_s"), LOST.values(), ids=LOST.keys())
def test_without_our_identity_everything_ends_after_a_grace(kind: str, state: State, grace_s: float) -> None:
    bench = Bench()
    one = Fake(bench, kind)
    bench.lose_identity(state)
    bench.look()
    lost_at = bench.wall
    bench.at(wall=lost_at + grace_s - 0.1)
    bench.look()
    assert (one.reasons, one.judged) == ([], 0)
    bench.at(wall=lost_at + grace_s + 0.001)
    bench.look()
    assert (one.reasons, one.judged) == ([Reason.NOT_READY], 0)
    assert one.withdrawn == [(Reason.NOT_READY, True)]


def test_a_withdrawal_reaches_everything_within_a_second() -> None:
    assert DENIED_S + 2 * TICK_S <= 1.0


@pytest.mark.parametrize("state", [State.DENIED, State.EXPIRED])
def test_an_identity_that_comes_back_within_the_grace_ends_nothing(state: State) -> None:
    bench = Bench()
    one = Fake(bench)
    bench.lose_identity(state)
    bench.look()
    bench.find_identity()
    bench.look()
    bench.at(wall=bench.wall + 2 * IDENTITY_GRACE_S)
    bench.look()
    assert (one.reasons, one.judged) == ([], 1)


def test_an_identity_that_is_withdrawn_within_the_grace_ends_everything() -> None:
    bench = Bench()
    one = Fake(bench)
    bench.lose_identity(State.EXPIRED)
    bench.look()
    bench.source.state = State.DENIED
    bench.look()
    bench.at(wall=bench.wall + DENIED_S + 0.001)
    bench.look()
    assert one.reasons == [Reason.NOT_READY]


def test_an_identity_that_runs_out_after_it_was_withdrawn_gets_no_longer_grace() -> None:
    bench = Bench()
    one = Fake(bench)
    bench.lose_identity(State.DENIED)
    bench.look()
    bench.source.state = State.EXPIRED
    bench.look()
    bench.at(wall=bench.wall + DENIED_S + 0.001)
    bench.look()
    assert one.reasons == [Reason.NOT_READY]


def test_who_cannot_be_judged_for_want_of_an_identity_that_is_told_in_a_moment_goes_on() -> None:
    bench = Bench()
    one = Fake(bench)
    one.standing = Unavailable(Reason.NOT_READY)
    bench.snapshots.change(setup())
    bench.look()
    assert (one.judged, one.reasons) == (1, [])


# --- many of them


MANY = 8192


class Turns:
    """Counts the work between two event-loop iterations, by a clock that only judging moves."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = bench.passed
        self.longest = 0.0
        self.count = 0
        self._bench = bench
        sleep = asyncio.sleep

        async def turn(seconds: float) -> None:
            if seconds == 0:
                self.count += 1
                self.longest = max(self.longest, bench.passed - self.began)
            await sleep(0)
            self.began = bench.passed

        monkeypatch.setattr("sidecar.proxy.journeys.watch.asyncio.sleep", turn)


async def test_8192_forwardings_are_judged_in_slices_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.look()
    bench.judging_takes_s = 0.000_05
    many = [Fake(bench, "upload") for _ in range(MANY)]
    many[-1].standing = Denied(Reason.POLICY_DENIED)
    turns = Turns(bench, monkeypatch)
    running = asyncio.ensure_future(bench.watch.run(lambda: MANY))
    began = bench.passed
    bench.snapshots.change(setup())
    bench.watch.notice()  # which wakes it
    async with asyncio.timeout(30):
        while not all(one.judged for one in many):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
    running.cancel()
    assert many[-1].reasons == [Reason.POLICY_DENIED]
    assert bench.passed - began == pytest.approx(MANY * 0.000_05)
    assert turns.longest <= TURN_S + 0.000_1 <= 0.02
    assert turns.count >= MANY * 0.000_05 / (TURN_S + 0.000_1) - 1


def test_a_change_while_many_are_judged_judges_all_of_them_by_it() -> None:
    bench = Bench()
    many = [Fake(bench) for _ in range(4)]
    bench.snapshots.change(setup())
    steps = bench.watch.steps(9)
    next(steps)
    next(steps)
    bench.snapshots.change(setup())
    bench.watch.notice()
    many[0].standing = many[3].standing = Denied(Reason.POLICY_DENIED)
    for _ in steps:
        pass
    assert [one.reasons for one in many] == [[Reason.POLICY_DENIED], [], [], [Reason.POLICY_DENIED]]


# --- drain


DRAINING = {
    "while others are in flight": ({"passed": 19.9, "in_flight": 3}, []),
    "when nothing else is": ({"passed": 10.0, "in_flight": 2}, [Reason.DRAINING]),
    "when the time for others is over": ({"passed": 20.0, "in_flight": 3}, [Reason.DRAINING]),
}


@pytest.mark.parametrize(("when", "reasons"), DRAINING.values(), ids=DRAINING.keys())
def test_a_drain_ends_what_never_finishes_after_all_else_or_in_time(when: Any, reasons: list[Reason]) -> None:
    bench = Bench()
    streams = [Fake(bench, "stream"), Fake(bench, "stream")]
    ordinary = Fake(bench)
    bench.watch.drain(10.0)
    bench.passed = when["passed"]
    bench.look(when["in_flight"])
    assert [stream.reasons for stream in streams] == [reasons, reasons]
    assert [stream.withdrawn for stream in streams] == [[], []]  # a drain is no decision
    assert ordinary.reasons == []


def test_without_a_drain_nothing_gives_way() -> None:
    bench = Bench()
    stream = Fake(bench, "stream")
    bench.passed = 10_000.0
    bench.look(1)
    assert stream.reasons == []


def test_what_begins_during_a_drain_gives_way_too() -> None:
    bench = Bench()
    bench.watch.drain(10.0)
    bench.passed = 30.0
    stream = Fake(bench, "stream")
    bench.look()
    assert stream.reasons == [Reason.DRAINING]


BUGS = {
    "in judging": ({"standing": ValueError("a bug")}, 10.0),
    "in ending": ({"bugs": {"end"}}, 100.0),
    "in ending and in cutting": ({"bugs": {"end", "cut"}}, 100.0),
}


@pytest.mark.parametrize(("bug", "wall"), BUGS.values(), ids=BUGS.keys())
def test_a_bug_in_one_forwarding_costs_that_one_and_is_told(
    bug: dict[str, Any], wall: float, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    bench.at(wall=wall)
    broken = Fake(bench, "stream")
    for name, value in bug.items():
        setattr(broken, name, value)
    sound = Fake(bench, "stream")
    bench.snapshots.change(setup())
    bench.look()
    bench.look()
    assert (broken.cut_for, broken.reasons) == ([Reason.INTERNAL], [])
    assert sound.reasons == ([Reason.TOKEN_EXPIRED] if wall == 100.0 else [])
    assert len(bench.watch) == (0 if sound.reasons else 1)
    assert caplog.records[0].message == "a forwarding failed"


def test_a_bug_while_many_are_told_to_end_costs_one() -> None:
    bench = Bench()
    broken, sound = Fake(bench, "stream"), Fake(bench, "stream")
    broken.bugs = {"end"}
    bench.watch.drain(0.0)
    bench.look()
    assert (broken.cut_for, len(sound.reasons)) == ([Reason.INTERNAL], 1)


def test_answers_that_last_are_counted_by_direction() -> None:
    bench = Bench()
    assert bench.watch.count() == {"inbound": 0, "outbound": 0}
    Fake(bench, "stream")
    Fake(bench)
    Fake(bench, "wait")
    gone = Fake(bench, "stream", direction="outbound")
    assert bench.watch.count() == {"inbound": 2, "outbound": 1}
    bench.watch.forget(gone)
    assert bench.watch.count() == {"inbound": 2, "outbound": 0}
