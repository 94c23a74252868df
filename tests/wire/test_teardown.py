from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sidecar.wire.kernel import acknowledged, has_left, queued
from sidecar.wire.limits import ServerLimits
from sidecar.wire.teardown import Outflow, Phase, Teardown
from tests.wire.bench import RecordingTransport, Served, answer_ok

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel is not asked")

MUCH = b"a" * 65536
ENOUGH = 1000


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection on loopback, with small windows."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        theirs.connect(listening.getsockname())
        ours, _ = listening.accept()
        with ours:
            ours.setblocking(False)
            yield ours, theirs


def fill(sock: socket.socket) -> int:
    """Write until the kernel takes no more."""
    sent = 0
    while True:
        try:
            sent += sock.send(MUCH)
        except BlockingIOError:
            return sent


def test_what_the_peers_kernel_has_not_taken_is_queued_and_the_rest_acknowledged() -> None:
    with connected() as (ours, theirs):
        transport = RecordingTransport(socket=ours)
        assert queued(transport) == 0
        before = acknowledged(transport)
        assert before is not None
        sent = fill(ours)
        waiting = queued(transport)
        assert waiting
        left = sent
        while left:
            left -= len(theirs.recv(65536))
        after = acknowledged(transport)
        assert after is not None
        assert after - before > sent - waiting


@pytest.mark.parametrize("reset", [False, True])
def test_a_peer_has_left_when_it_says_that_it_sends_no_more_and_when_it_resets(*, reset: bool) -> None:
    with connected() as (ours, theirs):
        transport = RecordingTransport(socket=ours)
        theirs.sendall(b"never read")
        before = has_left(transport)
        if reset:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert (before, has_left(transport)) == (False, True)


def test_of_no_socket_and_of_a_closed_one_nothing_can_be_told() -> None:
    with connected() as (ours, _):
        ours.close()
        for transport in (RecordingTransport(), RecordingTransport(socket=ours)):
            assert queued(transport) is None
            assert acknowledged(transport) is None
            assert not has_left(transport)
            assert Outflow().empty_s(transport, 1.0) == 0.0


def test_a_connection_is_empty_since_it_was_first_seen_so_and_only_while_it_stays_so() -> None:
    with connected() as (ours, _):
        transport = RecordingTransport(socket=ours)
        outflow = Outflow()
        assert [outflow.empty_s(transport, now) for now in (5.0, 6.0, 7.0)] == [0.0, 1.0, 2.0]
        transport.unsent = 1
        assert outflow.empty_s(transport, 8.0) == 0.0
        transport.unsent = 0
        assert [outflow.empty_s(transport, now) for now in (9.0, 10.0)] == [0.0, 1.0]
        fill(ours)
        assert outflow.empty_s(transport, 11.0) == 0.0
        outflow.begin(12.0)
        assert outflow.empty_s(transport, 13.0) == 0.0


def test_bytes_that_move_from_a_transport_into_the_kernel_are_not_taken_by_the_peer() -> None:
    with connected() as (ours, theirs):
        transport = RecordingTransport(socket=ours)
        outflow = Outflow()
        outflow.begin(0.0)
        sent = fill(ours)
        outflow.behind_s(transport, 1.0, ENOUGH)  # the first look is where it stands
        transport.unsent = 1_000_000
        assert outflow.behind_s(transport, 9.0, ENOUGH) == 8.0
        transport.unsent = 10
        assert outflow.behind_s(transport, 10.0, ENOUGH) == 9.0
        left = sent
        while left:
            left -= len(theirs.recv(65536))
        assert outflow.behind_s(transport, 11.0, ENOUGH) == 0.0


def test_where_the_kernel_cannot_be_asked_what_leaves_the_buffer_has_moved() -> None:
    transport = RecordingTransport()
    outflow = Outflow()
    outflow.begin(0.0)
    transport.unsent = 5000
    assert outflow.behind_s(transport, 1.0, ENOUGH) == 1.0
    transport.unsent = 4001
    assert outflow.behind_s(transport, 2.0, ENOUGH) == 2.0
    transport.unsent = 4000
    assert outflow.behind_s(transport, 3.0, ENOUGH) == 0.0


# --- phases


def closes(served: Served) -> None:
    served.receive(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))


def refuses(served: Served) -> None:
    served.receive(b"GET  / HTTP/1.1\r\n\r\n")


def leaves_its_body_unread(served: Served) -> None:
    served.receive(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")


def finishes(served: Served) -> None:
    served.connection.finish()


def finishes_inside_a_head(served: Served) -> None:
    served.receive(GET[:20])
    served.connection.finish()


def says_fin(served: Served) -> None:
    served.connection.eof_received()


def is_cut_off(served: Served) -> None:
    served.connection.cut_off()


@pytest.mark.parametrize(
    ("ends", "phase"),
    [
        (lambda served: served.receive(GET), Phase.OPEN),
        (closes, Phase.CLOSING),
        (refuses, Phase.LINGERING),
        (leaves_its_body_unread, Phase.LINGERING),
        (finishes, Phase.CLOSING),
        (finishes_inside_a_head, Phase.LAST),
        (says_fin, Phase.CLOSING),
        (is_cut_off, Phase.CLOSING),
    ],
    ids=["a request", "close", "refusal", "unread body", "finish", "finish inside a head", "FIN", "cut off"],
)
async def test_each_cause_leads_to_its_phase(ends: Callable[[Served], None], phase: Phase) -> None:
    served = Served(answer_ok)
    ends(served)
    assert served.connection.teardown.phase is phase


@pytest.mark.parametrize("later", Phase)
@pytest.mark.parametrize("earlier", Phase)
def test_a_connection_never_goes_back_to_an_earlier_phase(earlier: Phase, later: Phase) -> None:
    teardown = Teardown(ServerLimits(), lambda: 0.0)
    teardown.enter(later)
    teardown.enter(earlier)
    assert teardown.phase is max(earlier, later)
