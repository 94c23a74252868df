from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from sidecar.wire.holding import Holding
from tests.wire.bench import RecordingTransport

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels differ in what they make of a size")

USUAL, LITTLE, AGAIN = 64 * 1024, 16 * 1024, 256 * 1024


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as one:
        yield one


def held(sock: socket.socket) -> int:
    """What the kernel holds unread; it counts its own part too, and doubles what it is told."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def most(size: int) -> int:
    """The kernel has a limit of its own."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        return held(other)


def test_a_connection_is_left_alone_unless_there_is_a_limit(sock: socket.socket) -> None:
    before = held(sock)
    transport = RecordingTransport(socket=sock)
    Holding().apply(transport)
    assert (transport.told_limits, held(sock)) == ([], before)


def test_a_new_connection_gets_the_limits_of_its_set(sock: socket.socket) -> None:
    transport = RecordingTransport(socket=sock)
    Holding(sent=USUAL, received=USUAL).apply(transport)
    assert (transport.told_limits, held(sock)) == ([USUAL], USUAL)


@pytest.mark.parametrize(
    ("holding", "sent", "received"),
    [(Holding(sent=USUAL, received=USUAL), USUAL, USUAL), (Holding(), None, AGAIN)],
    ids=["limited", "as the system likes"],
)
def test_all_hold_little_while_told_to_and_then_as_usual(
    sock: socket.socket, holding: Holding, sent: int | None, received: int
) -> None:
    transport = RecordingTransport(socket=sock)
    for _ in range(2):
        holding.change([transport], little=True)
    assert (transport.told_limits, held(sock)) == ([LITTLE], LITTLE)
    for _ in range(2):
        holding.change([transport], little=False)
    assert (transport.told_limits, held(sock)) == ([LITTLE, sent], most(received))


def test_who_comes_while_little_is_held_holds_little(sock: socket.socket) -> None:
    holding = Holding()
    holding.change([], little=True)
    transport = RecordingTransport(socket=sock)
    holding.apply(transport)
    assert (transport.told_limits, held(sock)) == ([LITTLE], LITTLE)


def test_a_connection_that_is_closing_or_closed_is_told_nothing(sock: socket.socket) -> None:
    closing = RecordingTransport(socket=sock)
    closing.close()
    holding = Holding(received=USUAL)
    holding.change([closing], little=True)
    assert closing.told_limits == []
    sock.close()
    holding.apply(RecordingTransport(socket=sock))  # its socket went before it could be told: nobody is harmed
