"""Frames that wait for a turn, and windows that open, on both sides of HTTP/2."""

from __future__ import annotations

import pytest
from h2.settings import SettingCodes

from tests.wire.h2_bench import ASKS, H2Served, frame, looks_at_windows
from tests.wire.test_h2_client_floods import HEAD, Called


async def test_frames_of_an_upstream_that_wait_for_a_turn_pause_reading() -> None:
    called = Called()
    _, sink = called.ask()
    called.connection.data_received(frame(1, 4, 1, HEAD) + frame(0, 0, 1, b"x") * 1000)
    reading = [called.transport.reading]
    called.connection.data_received(frame(0, 0, 1, b"x") * 9000)
    reading.append(called.transport.reading)
    await called.settle()
    reading.append(called.transport.reading)
    assert (reading, len(sink.content)) == ([True, False, True], 10_000)


async def test_frames_of_a_caller_that_wait_for_a_turn_pause_reading() -> None:
    served = H2Served(max_head_bytes=65536)
    stream_id = served.begin()
    await served.exchange()
    served.connection.data_received(frame(0, 0, stream_id, b"x") * 1000)
    reading = [served.transport.reading]
    served.connection.data_received(frame(0, 0, stream_id, b"x") * 9000)
    reading.append(served.transport.reading)
    await served.settle()
    reading.append(served.transport.reading)
    assert reading == [True, False, True]


async def test_windows_of_answers_that_open_in_many_frames_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    served = H2Served(opens=False)
    served.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    for _ in range(20):
        served.begin(ASKS, ends=True)
    await served.exchange()
    for stream in served.handler.requests:
        stream.answer(200, [], b"x")
    await served.exchange()
    looked_at = looks_at_windows(served.connection._session, monkeypatch)
    served.connection.data_received(frame(8, 0, 0, (1).to_bytes(4)) * 50)
    assert len(looked_at) == 20


async def test_windows_of_requests_that_open_in_many_frames_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called()
    for _ in range(20):
        exchange, _ = called.ask("POST", bytes(100_000))
    await called.settle()
    looked_at = looks_at_windows(called.connection._session, monkeypatch)
    called.connection.data_received(frame(8, 0, exchange.stream_id, (1).to_bytes(4)) * 50)
    assert len(looked_at) == 20
