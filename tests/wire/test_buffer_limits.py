from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from sidecar.wire.limits import BufferLimits
from tests.wire.bench import RecordingTransport

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels differ in what they make of a size")

USUAL, LITTLE_SENT, LITTLE_RECEIVED, AGAIN = (size * 1024 for size in (64, 16, 32, 256))


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as one:
        yield one


def held(sock: socket.socket) -> int:
    """Return the kernel's receive buffer; it doubles the requested size."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def most(size: int) -> int:
    """The kernel has a limit of its own."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        return held(other)


def test_a_connection_is_left_alone_unless_there_is_a_limit(sock: socket.socket) -> None:
    before = held(sock)
    transport = RecordingTransport(socket=sock)
    BufferLimits().apply(transport)
    assert (transport.told_limits, held(sock)) == ([], before)


def test_a_new_connection_gets_the_limits_of_its_set(sock: socket.socket) -> None:
    transport = RecordingTransport(socket=sock)
    BufferLimits(sent=USUAL, received=USUAL).apply(transport)
    assert (transport.told_limits, held(sock)) == ([USUAL], USUAL)


def test_all_hold_little_while_told_to_and_then_as_usual(sock: socket.socket) -> None:
    transport = RecordingTransport(socket=sock)
    holding = BufferLimits(sent=USUAL, received=USUAL)
    for _ in range(2):
        holding.change([transport], little=True)
    assert (transport.told_limits, held(sock)) == ([LITTLE_SENT], LITTLE_RECEIVED)
    for _ in range(2):
        holding.change([transport], little=False)
    assert (transport.told_limits, held(sock)) == ([LITTLE_SENT, USUAL], USUAL)


def test_a_window_that_the_kernel_found_by_itself_stays_and_a_new_one_is_small_until_it_is_over(
    sock: socket.socket,
) -> None:
    """A sender that saw a large window waits for half of it."""
    holding = BufferLimits()
    before, grown = held(sock), RecordingTransport(socket=sock)
    with socket.socket() as other:
        later = RecordingTransport(socket=other)
        holding.change([grown], little=True)
        holding.apply(later)
        assert (grown.told_limits, held(sock)) == ([LITTLE_SENT], before)
        assert (later.told_limits, held(other)) == ([LITTLE_SENT], LITTLE_RECEIVED)
        holding.change([grown, later], little=False)
        assert (grown.told_limits, held(sock)) == ([LITTLE_SENT, None], before)
        assert (later.told_limits, held(other)) == ([LITTLE_SENT, None], most(AGAIN))


def test_a_connection_that_is_closing_or_closed_is_told_nothing(sock: socket.socket) -> None:
    closing = RecordingTransport(socket=sock)
    closing.close()
    holding = BufferLimits(received=USUAL)
    holding.change([closing], little=True)
    assert closing.told_limits == []
    sock.close()
    holding.apply(RecordingTransport(socket=sock))  # its socket went before it could be told: nobody is harmed
    BufferLimits().change([RecordingTransport(socket=sock)], little=True)
