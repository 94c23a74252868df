from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Final

import pytest

from sidecar.identity.first_bytes import ENDED, First, Watch, first_of_http, first_of_tls, silent_s

PATIENCE_S: Final = 5.0
RECORD: Final = b"\x16\x03\x01\x00\x04abcd"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect the peer's end and ours over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs, (ours, _) = socket.create_connection(listening.getsockname()), listening.accept()
    with theirs, ours:
        ours.setblocking(False)
        yield theirs, ours


@pytest.mark.parametrize(
    ("said", "first"),
    [
        (b"", First.NOTHING),
        (RECORD[:1], First.PART),
        (RECORD[:5], First.PART),
        (RECORD[:-1], First.PART),
        (RECORD, First.WHOLE),
        (RECORD + b"more", First.WHOLE),
        (b"\x16\x03\x01\x40\x01", First.NO_TLS),  # longer than a record may be: refused without waiting
        (b"\x16\x03\x01\x40\x00" + bytes(4090), First.PART),
        # the most bytes that are examined: OpenSSL judges the rest
        (b"\x16\x03\x01\x40\x00" + bytes(4091), First.WHOLE),
        (b"\x15" + RECORD[1:], First.NO_TLS),
        (b"G", First.NO_TLS),
    ],
)
def test_first_bytes_are_judged_and_stay_where_they_are(
    pair: tuple[socket.socket, socket.socket], said: bytes, first: First
) -> None:
    theirs, ours = pair
    theirs.sendall(said)
    assert [first_of_tls(ours) for _ in range(2)] == [first] * 2


@pytest.mark.parametrize(
    ("said", "first"),
    [
        (b"", First.NOTHING),
        (b"G", First.PART),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\n", First.PART),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", First.WHOLE),
        (b"GET /livez HTTP/1.0\n\n", First.WHOLE),
        (b"G" * 4095, First.PART),
        (b"G" * 4096, First.WHOLE),  # the parser refuses it
        (RECORD[:3], First.WHOLE),  # the parser refuses it
    ],
)
def test_a_head_is_whole_or_begun(pair: tuple[socket.socket, socket.socket], said: bytes, first: First) -> None:
    theirs, ours = pair
    theirs.sendall(said)
    assert [first_of_http(ours) for _ in range(2)] == [first] * 2


def test_a_peer_that_left_is_gone_whether_it_closed_or_reset(pair: tuple[socket.socket, socket.socket]) -> None:
    theirs, ours = pair
    theirs.close()
    assert first_of_tls(ours) is First.GONE
    ours.close()
    assert first_of_tls(ours) is First.GONE


def test_silence_is_known_of_tcp_and_of_nothing_else(pair: tuple[socket.socket, socket.socket]) -> None:
    assert 0.0 <= silent_s(pair[1]) < PATIENCE_S
    other, end = socket.socketpair()
    with other, end:
        assert silent_s(other) == 0.0


async def test_each_piece_is_told_once_and_so_is_the_end() -> None:
    told: list[int] = []
    came = asyncio.Event()

    def on_more(descriptor: int, events: int) -> None:
        assert descriptor == ours.fileno()
        told.append(events & ENDED)
        came.set()

    watch = Watch(on_more)
    theirs, ours = socket.socketpair()
    theirs.send(b"a")
    watch.add(ours.fileno())
    for number in (1, 2, 3):
        async with asyncio.timeout(PATIENCE_S):
            await came.wait()
        came.clear()
        for _ in range(5):
            await asyncio.sleep(0)
        assert (len(told), any(told)) == (number, number == 3)  # unread bytes are not reported again
        theirs.send(b"a") if number == 1 else theirs.close()
    watch.discard(ours.fileno())
    watch.close()
    watch.close()
    ours.close()


async def test_a_turn_of_the_loop_hears_of_some_and_the_others_come_in_the_next() -> None:
    told: set[int] = set()
    turns: list[int] = []
    watch = Watch(lambda descriptor, _: told.add(descriptor))
    pairs = [socket.socketpair() for _ in range(100)]
    for theirs, ours in pairs:
        theirs.send(b"a")
        watch.add(ours.fileno())
    async with asyncio.timeout(PATIENCE_S):
        while len(told) < 100:
            before = len(told)
            await asyncio.sleep(0)
            turns.append(len(told) - before)
    assert max(turns) <= 32
    watch.close()
    for theirs, ours in pairs:
        theirs.close()
        ours.close()
