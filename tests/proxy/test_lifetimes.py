"""Lifetimes of calls: each kind of body on each port and version, under each rule that may end it, for minutes."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from delegation_core.errors import Reason, Unavailable
from sidecar.wire.lifetimes import RULES, Kind
from tests.proxy.lasting import HOUR, Lasting

# The ways in which each kind comes: port and version of HTTP. A kind that is missing here fails the first test.
WAYS: Final[dict[Kind, list[tuple[Any, str]]]] = {
    Kind.MESSAGE: list(product(("inbound", "outbound"), ("1.1", "2"))),
    Kind.EVENTS: list(product(("inbound", "outbound"), ("1.1", "2"))),
    Kind.GRPC: list(product(("inbound", "outbound"), ("2",))),
    Kind.STREAM: list(product(("inbound", "outbound"), ("1.1", "2"))),
    Kind.WEBSOCKET: list(product(("inbound", "outbound"), ("1.1",))),
    Kind.TUNNEL: [("outbound", "1.1")],
}
LOOKS: Final = {Kind.STREAM: "declared"}
End = tuple[int, Reason]  # the second in which it ends, and why
NEVER: Final = None

LONG: Final = 10 * 60
MIDDLE: Final = 5 * 60
# By rule, then kind: how long a call lasts, and why it ends. None: longer than ten minutes.
TABLE: Final[dict[str, dict[Kind, End | None]]] = {
    "an upload of single bytes": {
        Kind.MESSAGE: (30, Reason.TIMEOUT),
        Kind.GRPC: NEVER,
        Kind.STREAM: NEVER,
        Kind.WEBSOCKET: NEVER,
        Kind.TUNNEL: NEVER,
    },
    "an answer of single bytes": dict.fromkeys(Kind, NEVER),
    "a silent upload": {
        Kind.MESSAGE: (30, Reason.TIMEOUT),
        Kind.GRPC: (300, Reason.UPSTREAM_TIMEOUT),
        Kind.STREAM: (300, Reason.UPSTREAM_TIMEOUT),
        Kind.WEBSOCKET: (300, Reason.TIMEOUT),
        Kind.TUNNEL: (300, Reason.TIMEOUT),
    },
    "no answer begins": {
        Kind.MESSAGE: (60, Reason.UPSTREAM_TIMEOUT),
        Kind.EVENTS: (60, Reason.UPSTREAM_TIMEOUT),
        Kind.GRPC: (300, Reason.UPSTREAM_TIMEOUT),
        Kind.STREAM: (300, Reason.UPSTREAM_TIMEOUT),
    },
    "a silent answer": {
        Kind.MESSAGE: (60, Reason.UPSTREAM_TIMEOUT),
        Kind.EVENTS: (300, Reason.UPSTREAM_TIMEOUT),
        Kind.GRPC: (300, Reason.UPSTREAM_TIMEOUT),
        Kind.STREAM: (300, Reason.UPSTREAM_TIMEOUT),
        Kind.WEBSOCKET: (300, Reason.TIMEOUT),
        Kind.TUNNEL: (300, Reason.TIMEOUT),
    },
    "an answer past its token": {
        Kind.MESSAGE: (900, Reason.TIMEOUT),
        Kind.EVENTS: (120, Reason.TOKEN_EXPIRED),
        Kind.GRPC: (900, Reason.TIMEOUT),
        Kind.STREAM: (900, Reason.TIMEOUT),
        Kind.WEBSOCKET: (120, Reason.TOKEN_EXPIRED),
        Kind.TUNNEL: (120, Reason.TOKEN_EXPIRED),
    },
    "an upload past its token": {
        Kind.MESSAGE: (300, Reason.TIMEOUT),
        Kind.GRPC: (900, Reason.TIMEOUT),
        Kind.STREAM: (900, Reason.TIMEOUT),
    },
    "a deny": dict.fromkeys(Kind, (MIDDLE + 1, Reason.POLICY_DENIED)),
    "a drain": {
        Kind.MESSAGE: NEVER,
        Kind.EVENTS: (MIDDLE + 1, Reason.DRAINING),
        Kind.GRPC: NEVER,
        Kind.STREAM: NEVER,
        Kind.WEBSOCKET: (MIDDLE + 1, Reason.DRAINING),
        Kind.TUNNEL: (MIDDLE + 1, Reason.DRAINING),
    },
    "the end of a drain": dict.fromkeys(Kind, (MIDDLE, Reason.DRAINING)),
    "the deadline of its route": {
        **dict.fromkeys(Kind, (200, Reason.UPSTREAM_TIMEOUT)),
        Kind.TUNNEL: NEVER,  # its route has none
    },
}
CELLS: Final = [
    (rule, kind, port, version) for rule, kinds in TABLE.items() for kind in kinds for port, version in WAYS[kind]
]


def test_each_kind_has_rules_ways_and_a_cell_under_each_rule_that_can_meet_it() -> None:
    assert set(RULES) == set(WAYS) == set(Kind)
    bodyless = {Kind.EVENTS}
    granted = {Kind.WEBSOCKET, Kind.TUNNEL}  # these begin with the answer
    missing = {rule: set(Kind) - set(kinds) for rule, kinds in TABLE.items()}
    assert {rule: kinds for rule, kinds in missing.items() if kinds} == {
        "an upload of single bytes": bodyless,
        "a silent upload": bodyless,
        "no answer begins": granted,
        "an upload past its token": bodyless | granted,
    }


@pytest.mark.parametrize(("rule", "kind", "port", "version"), CELLS, ids=lambda one: getattr(one, "value", one))
async def test_a_call_lasts_as_long_as_its_kind_says(
    tmp_path: Path, rule: str, kind: Kind, port: Any, version: str
) -> None:
    end = TABLE[rule][kind]
    life_s = 120 if rule.endswith("past its token") else HOUR
    deadline_s = 200.0 if rule.startswith("the deadline") else None
    call = Lasting(tmp_path, LOOKS.get(kind, kind.value), port, version, life_s=life_s, deadline_s=deadline_s)
    uploads = "upload" in rule
    await call.begin(ends=not uploads)
    if not (uploads and kind not in (Kind.WEBSOCKET, Kind.TUNNEL)) and rule != "no answer begins":
        await call.answer()
        await call.tell()
    assert call.lives()
    await play(call, rule, LONG if end is None else end[0] - 2)
    assert call.lives()
    if end is None:
        await (call.say() if uploads else call.tell())
        assert call.lives()
        return
    await play(call, rule, end[0] + 3, began_s=end[0] - 2)
    assert not call.lives()
    assert (await call.record())[0] == end[1]


@pytest.mark.parametrize(("port", "version"), WAYS[Kind.EVENTS])
async def test_an_event_stream_by_get_ends_with_its_token_also_where_its_route_has_streams(
    tmp_path: Path, port: Any, version: str
) -> None:
    call = Lasting(tmp_path, "declared events", port, version, life_s=120)
    await call.begin(ends=True)
    await call.answer()
    await call.tell()
    await play(call, "an answer past its token", 118)
    assert call.lives()
    await play(call, "an answer past its token", 123, began_s=118)
    assert not call.lives()
    assert (await call.record())[0] == Reason.TOKEN_EXPIRED


# --- how the caller sees the end of an answer that has begun: by GET an event stream may look complete

# By ending, then method: the second in which a stream of events ends, the reason, and the detail of its record.
ENDINGS: Final[dict[str, dict[str, tuple[int, Reason, str]]]] = {
    "a deny": dict.fromkeys(("GET", "POST"), (MIDDLE + 1, Reason.POLICY_DENIED, "")),
    "a revocation": dict.fromkeys(("GET", "POST"), (MIDDLE + 1, Reason.REVOKED, "")),
    "an answer past its token": {
        "GET": (120, Reason.TOKEN_EXPIRED, "a stream ends with its token"),
        "POST": (900, Reason.TIMEOUT, "the answer took longer than max_stream_s"),
    },
    "the deadline of its route": dict.fromkeys(
        ("GET", "POST"), (200, Reason.UPSTREAM_TIMEOUT, "the answer was ended by the deadline_s of the route")
    ),
    "a drain": {"GET": (MIDDLE + 1, Reason.DRAINING, "")},  # by POST it may finish until the drain's end
    "the end of a drain": dict.fromkeys(("GET", "POST"), (MIDDLE, Reason.DRAINING, "")),
}


def test_each_ending_has_a_cell_for_each_method() -> None:
    silences = {"an upload of single bytes", "an answer of single bytes", "no answer begins", "a silent answer"}
    uploads = {"a silent upload", "an upload past its token"}
    assert set(ENDINGS) == set(TABLE) - silences - uploads | {"a revocation"}
    missing = {(ending, method) for ending in ENDINGS for method in ("GET", "POST") if method not in ENDINGS[ending]}
    assert missing == {("a drain", "POST")}


@pytest.mark.parametrize(("port", "version"), WAYS[Kind.EVENTS])
@pytest.mark.parametrize(("ending", "method"), [(ending, method) for ending, by in ENDINGS.items() for method in by])
async def test_a_stream_of_events_that_we_end_looks_complete_by_get_alone(
    tmp_path: Path, ending: str, method: str, port: Any, version: str
) -> None:
    end_s, reason, detail = ENDINGS[ending][method]
    life_s = 120 if ending.endswith("past its token") else HOUR
    deadline_s = 200.0 if ending.startswith("the deadline") else None
    kind = "events" if method == "GET" else "posted events"
    call = Lasting(tmp_path, kind, port, version, life_s=life_s, deadline_s=deadline_s)
    await call.begin(ends=True)
    await call.answer()
    await call.tell()
    await play(call, ending, end_s - 2)
    assert call.ending() == "open"
    await play(call, ending, end_s + 3, began_s=end_s - 2)
    assert not call.lives()
    reset = version == "2" and ending == "the end of a drain"  # also by GET; most GETs have ended before
    assert call.ending() == ("whole" if method == "GET" and not reset else "cut")
    found = await call.record()
    assert found[0] == reason
    assert not detail or found[1] == detail


@pytest.mark.parametrize(("port", "version"), WAYS[Kind.EVENTS])
async def test_a_stream_of_events_that_its_server_ends_looks_complete_by_post_too(
    tmp_path: Path, port: Any, version: str
) -> None:
    call = Lasting(tmp_path, "posted events", port, version)
    await call.begin(ends=True)
    await call.answer()
    await call.tell()
    await call.finish()
    assert call.ending() == "whole"
    assert (await call.record())[0] == "ok"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("port", "version"), WAYS[Kind.EVENTS])
async def test_a_stream_of_events_that_the_next_sidecar_cuts_is_recorded_as_cut(
    tmp_path: Path, method: str, port: Any, version: str
) -> None:
    call = Lasting(tmp_path, "events" if method == "GET" else "posted events", port, version)
    await call.begin(ends=True)
    await call.answer()
    await call.tell()
    await call.break_off()
    assert call.ending() == "cut"
    assert (await call.record())[0] == Reason.UPSTREAM_ABORTED


async def play(call: Lasting, rule: str, until_s: int, *, began_s: int = 0) -> None:
    """Let time pass under a rule; a call that is not silent moves a byte each 20 seconds, or often enough."""
    silent = "silent" in rule or rule == "no answer begins"
    data = b"." if "single" in rule else bytes(8192)
    second = began_s
    while second < until_s:
        if rule == "a drain" and second == MIDDLE:
            call.watch.drain(20.0)
        elif rule == "a deny" and second == MIDDLE:
            await call.refuse_subject()
        elif rule == "a revocation" and second == MIDDLE:
            await call.revoke_subject()
        elif rule == "the end of a drain" and second == MIDDLE:
            call.connection.stop(Unavailable(Reason.DRAINING, "the time to drain is over"))
        if not silent and second % 20 == 0 and call.lives():
            await (call.say(data) if "upload" in rule else call.tell(data))
        step_s = 10 if second % 10 == 0 and second + 10 <= until_s else 1
        await call.after(step_s, step_s=step_s)
        second += step_s


# --- deadlines of gRPC: the caller's, within its route's

BOTH: Final = pytest.mark.parametrize("port", ["inbound", "outbound"])


@BOTH
@pytest.mark.parametrize("deadline_s", [None, 500.0])
async def test_a_unary_call_waits_for_its_answer_as_long_as_its_caller(
    tmp_path: Path, port: Any, deadline_s: float | None
) -> None:
    call = Lasting(tmp_path, "grpc", port, "2", grpc_timeout="400S", deadline_s=deadline_s)
    await call.begin()
    await call.after(398)
    assert call.lives()
    await call.answer()
    await call.tell()
    assert call.peer.answer(call.stream_id).content == b"."
    await call.after(3)
    assert not call.lives()
    assert call.trailers[b"grpc-status"] == b"4"
    assert (
        call.trailers[b"grpc-message"] == b"the answer was ended by the grpc-timeout of the caller (upstream_timeout)"
    )


@BOTH
async def test_the_deadline_of_a_route_ends_a_call_whose_caller_would_wait_for_longer(
    tmp_path: Path, port: Any
) -> None:
    call = Lasting(tmp_path, "grpc", port, "2", grpc_timeout="400S", deadline_s=90)
    await call.begin()
    await call.after(89)
    assert call.lives()
    await call.after(2)
    assert not call.lives()
    assert call.trailers[b"grpc-status"] == b"4"
    assert call.trailers[b"grpc-message"] == b"no answer within the deadline_s of the route (upstream_timeout)"


@BOTH
async def test_a_call_without_a_deadline_is_never_told_of_one(tmp_path: Path, port: Any) -> None:
    call = Lasting(tmp_path, "grpc", port, "2")
    await call.begin()
    await call.after(302)
    assert not call.lives()
    assert call.trailers[b"grpc-status"] == b"14"


@BOTH
async def test_a_deadline_beyond_all_reason_ends_with_the_token_and_max_stream_s(tmp_path: Path, port: Any) -> None:
    call = Lasting(tmp_path, "grpc", port, "2", grpc_timeout="99999999H", life_s=60)
    await call.begin(ends=True)
    await call.after(898, step_s=2)
    assert call.lives()
    await call.after(4)
    assert not call.lives()
    assert call.trailers[b"grpc-status"] == b"14"


# --- a content type alone is worth nothing


@BOTH
async def test_a_call_of_grpc_to_an_upstream_that_does_not_speak_it_is_an_upload_as_any_other(
    tmp_path: Path, port: Any
) -> None:
    call = Lasting(tmp_path, "grpc", port, "2", upstream_http2=False)
    await call.begin()
    await call.after(29)
    assert call.lives()
    await call.after(3)
    assert not call.lives()
    assert (await call.record())[0] == Reason.TIMEOUT


@BOTH
async def test_a_call_that_is_not_answered_by_grpc_was_none(tmp_path: Path, port: Any) -> None:
    """The same answer of gRPC may be silent for five minutes."""
    call = Lasting(tmp_path, "grpc", port, "2")
    await call.begin(ends=True)
    call.kind = "message"
    await call.answer()
    await call.after(59)
    assert call.lives()
    await call.after(3)
    assert not call.lives()
    assert (await call.record())[0] == Reason.UPSTREAM_TIMEOUT


@BOTH
@pytest.mark.parametrize(("kind", "left"), [("message", False), ("grpc", False), ("declared", True)])
async def test_only_a_declared_stream_may_have_more_bytes_than_a_body(
    tmp_path: Path, port: Any, kind: str, left: bool
) -> None:
    call = Lasting(tmp_path, kind, port, "2", max_body_bytes=20_000)
    await call.begin()
    await call.after(1)
    await call.say(bytes(10_000))
    await call.say(bytes(10_000))
    assert call.lives()
    await call.say()
    assert call.lives() is left


# --- readers: what a caller does not take


@BOTH
@pytest.mark.parametrize("kind", [Kind.MESSAGE, Kind.GRPC, Kind.STREAM])
async def test_a_reader_of_a_stream_may_read_byte_by_byte_and_one_of_an_answer_may_not(
    tmp_path: Path, port: Any, kind: Kind
) -> None:
    call = Lasting(tmp_path, LOOKS.get(kind, kind.value), port, "2")
    call.peer.opens = False
    await call.begin(ends=True)
    await call.answer()
    for _ in range(5):
        await call.tell(bytes(16_000))
    await call.after(20)
    for _ in range(4 * 60 // 20):
        if call.lives():
            call.peer.h2.increment_flow_control_window(1, call.stream_id)
        await call.after(20)
    assert call.lives() is RULES[kind].stays_open
    await call.after(301)
    assert not call.lives()
    assert (await call.record())[0] == Reason.PEER_SLOW


@BOTH
@pytest.mark.parametrize("kind", [Kind.MESSAGE, Kind.STREAM])
async def test_a_reader_of_http1_too(tmp_path: Path, port: Any, kind: Kind) -> None:
    call = Lasting(tmp_path, LOOKS.get(kind, kind.value), port, "1.1")
    await call.begin(ends=True)
    await call.answer()
    await call.tell(bytes(200_000))
    call.transport.unsent = 100_000
    call.connection.pause_writing()
    for _ in range(4 * 60 // 20):
        await call.after(20)
        call.transport.unsent -= 1
    assert call.lives() is RULES[kind].stays_open
    await call.after(302)
    assert not call.lives()
    assert (await call.record())[0] == Reason.PEER_SLOW
