from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterator

import pytest

from sidecar.observe.background_handler import BackgroundHandler

F_SETPIPE_SZ = 1031


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(reader)


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("t", logging.WARNING, "f", 1, message, (), None)


def test_lines_come_out_in_order_and_flush_waits_for_them(pipe: tuple[int, int]) -> None:
    handler = BackgroundHandler(pipe[1])
    for number in range(100):
        handler.handle(record(f"line {number}"))
    handler.flush()
    assert os.read(pipe[0], 65536).decode() == "".join(f"line {number}\n" for number in range(100))
    os.close(pipe[1])


def test_a_reader_that_stops_holds_up_nobody_and_hears_how_much_it_missed(pipe: tuple[int, int]) -> None:
    handler = BackgroundHandler(pipe[1], most_bytes=100_000)
    for _ in range(500):
        handler.handle(record("x" * 999))  # a stream handler would block here for ever
    received = b""
    while received.count(b"\n") < 100:
        received += os.read(pipe[0], 65536)
    handler.handle(record("after"))
    while not received.endswith(b"after\n"):
        received += os.read(pipe[0], 65536)
    lines = [line for line in received.splitlines() if line == b"x" * 999]
    dropped = [int(number) for number in re.findall(rb"log was stuck: (\d+) lines were dropped", received)]
    assert dropped
    assert len(lines) + sum(dropped) == 500
    assert received.count(b"\n") == len(lines) + len(dropped) + 1
    os.close(pipe[1])


def test_a_reader_that_is_gone_costs_the_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = BackgroundHandler(writer)
    handler.handle(record("nobody"))
    handler.flush()
    os.dup2(pipe[1], writer)
    handler.handle(record("somebody"))
    handler.flush()
    assert os.read(pipe[0], 100) == b"somebody\n"
    os.close(writer)
    os.close(pipe[1])


def test_what_cannot_be_encoded_is_made_visible(pipe: tuple[int, int]) -> None:
    handler = BackgroundHandler(pipe[1])
    handler.handle(record("\ud800"))
    handler.flush()
    assert os.read(pipe[0], 100) == b"\\ud800\n"
    os.close(pipe[1])
