"""Raw tunnels in memory: each direction, each end, back-pressure and deadlines; no sockets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from delegation_core.errors import Denied, Reason, SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.limits import ClientLimits
from sidecar.wire.raw_tunnel import RawEnd, RawTunnel
from tests.wire.bench import RecordingTransport, Served

CONNECT = b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n"
GRANTED = b"HTTP/1.1 200 OK\r\n\r\n"
LIMITS = ClientLimits(idle_timeout_s=60, stream_idle_timeout_s=300)


@dataclass
class Joined:
    """A caller's connection and a far end, not joined before ``open``."""

    served: Served
    far: RawEnd
    to_far: RecordingTransport
    connections: Connections[RawEnd]
    ends: list[SidecarError | None] = field(default_factory=list)

    def open(self) -> RawTunnel:
        tunnel = RawTunnel(self.served.only, self.far, finished=self.ends.append)
        tunnel.open()
        return tunnel

    @property
    def at_caller(self) -> bytes:
        """The bytes of the tunnel that the caller has got."""
        written = self.served.transport.written
        assert written.startswith(GRANTED)
        return written[len(GRANTED) :]

    @property
    def reasons(self) -> list[Reason | None]:
        return [None if one is None else one.reason for one in self.ends]

    def far_after(self, seconds: float) -> None:
        self.served.clock.now += seconds
        self.connections.sweep()

    @property
    def far_reads(self) -> bool:
        return self.to_far.reading

    @property
    def far_is_cut(self) -> bool:
        return self.to_far.aborted

    @property
    def caller_is_read(self) -> bool:
        return self.served.transport.reading

    def caller_ends(self) -> bool:
        return self.served.connection.eof_received()


@pytest.fixture
async def joined() -> Joined:
    served = Served(proxy_form=True)
    connections: Connections[RawEnd] = Connections(interval_s=3600, clock=served.clock)
    far, to_far = RawEnd(LIMITS, connections), RecordingTransport()
    to_far.settle = connections.writes.write_all
    far.connection_made(to_far)
    served.receive(CONNECT)
    return Joined(served, far, to_far, connections)


async def test_bytes_pass_both_ways_and_nothing_else_is_said(joined: Joined) -> None:
    joined.open()
    joined.served.receive(b"GET / HTTP/1.1\r\n\r\n")  # no request: bytes of an unknown protocol
    joined.far.data_received(b"\0\xff")
    assert joined.to_far.written == b"GET / HTTP/1.1\r\n\r\n"
    assert joined.at_caller == b"\0\xff"
    assert len(joined.served.handler.requests) == 1
    stream = joined.served.only
    assert (stream.status, stream.bytes_in, stream.bytes_out) == (200, len(CONNECT) + 18, len(GRANTED) + 2)
    assert joined.ends == []


async def test_bytes_before_the_grant_wait_for_it_at_both_ends(joined: Joined) -> None:
    joined.served.receive(b"early caller")
    joined.far.data_received(b"early server")
    assert (joined.to_far.written, joined.served.transport.written) == (b"", b"")
    assert not joined.to_far.reading
    joined.open()
    assert (joined.to_far.written, joined.at_caller) == (b"early caller", b"early server")
    assert joined.to_far.reading


async def test_bytes_before_a_refusal_are_never_read_as_a_request(joined: Joined) -> None:
    joined.served.receive(b"GET /crm HTTP/1.1\r\nHost: crm.mesh\r\n\r\n")
    joined.served.only.answer(403, [], b"no")
    await joined.served.turns()
    assert len(joined.served.handler.requests) == 1
    assert b"connection: close" in joined.served.transport.written
    assert joined.to_far.written == b""


async def test_a_far_end_that_floods_before_the_grant_is_cut(joined: Joined) -> None:
    joined.far.data_received(bytes(64 * 1024))
    assert not joined.to_far.aborted
    joined.far.data_received(b"x")
    assert joined.far_is_cut


async def test_ten_thousand_single_bytes_arrive_in_order(joined: Joined) -> None:
    joined.open()
    sent = bytes(number % 251 for number in range(10_000))
    for at in range(len(sent)):
        joined.served.receive(sent[at : at + 1])
        joined.far.data_received(sent[at : at + 1])
    assert joined.to_far.written == joined.at_caller == sent


async def test_the_caller_ends_first_and_still_gets_the_answer(joined: Joined) -> None:
    joined.open()
    joined.served.receive(b"ask")
    assert joined.caller_ends()
    assert (joined.to_far.written, joined.to_far.ended, joined.ends) == (b"ask", True, [])
    joined.far.data_received(b"answer")
    assert joined.at_caller == b"answer"
    assert joined.far.eof_received()
    assert joined.reasons == [None]
    assert joined.to_far.closed
    assert joined.served.transport.is_closing()


async def test_the_far_end_ends_first_and_still_gets_the_rest(joined: Joined) -> None:
    joined.open()
    joined.far.data_received(b"bye")
    assert joined.far.eof_received()
    assert (joined.at_caller, joined.served.transport.ended, joined.ends) == (b"bye", True, [])
    joined.served.receive(b"rest")
    assert joined.to_far.written == b"rest"
    assert not joined.caller_ends()
    assert joined.reasons == [None]
    assert joined.to_far.closed


async def test_a_reset_of_one_end_cuts_the_other(joined: Joined) -> None:
    joined.open()
    joined.far.connection_lost(ConnectionResetError())
    assert joined.reasons == [Reason.UPSTREAM_ABORTED]
    assert joined.served.transport.aborted


async def test_a_caller_that_resets_cuts_the_far_end(joined: Joined) -> None:
    joined.open()
    joined.served.lose()
    assert joined.reasons == [Reason.PEER_GONE]
    assert joined.to_far.aborted


async def test_an_end_from_outside_cuts_both_at_once(joined: Joined) -> None:
    tunnel = joined.open()
    joined.far.data_received(b"half of a record")
    tunnel.end(Denied(Reason.POLICY_DENIED))
    tunnel.end(Denied(Reason.TIMEOUT))
    assert joined.reasons == [Reason.POLICY_DENIED]
    assert (joined.to_far.aborted, joined.served.transport.aborted) == (True, True)


async def test_each_end_slows_the_other_down(joined: Joined) -> None:
    joined.open()
    joined.served.connection.pause_writing()
    assert not joined.to_far.reading
    joined.served.connection.resume_writing()
    assert joined.far_reads
    joined.far.pause_writing()
    assert not joined.served.transport.reading
    joined.far.resume_writing()
    assert joined.caller_is_read


async def test_a_far_end_that_was_full_before_the_grant_slows_the_caller_down(joined: Joined) -> None:
    joined.far.pause_writing()
    joined.open()
    assert not joined.served.transport.reading


async def test_a_caller_that_reads_nothing_is_cut_off(joined: Joined) -> None:
    joined.open()
    joined.served.connection.pause_writing()
    joined.served.after(299)
    assert joined.ends == []
    joined.served.after(2)
    assert joined.reasons == [Reason.PEER_SLOW]
    assert joined.to_far.aborted


async def test_a_far_end_that_reads_nothing_is_cut_off(joined: Joined) -> None:
    joined.open()
    joined.far.pause_writing()
    joined.far_after(300)
    assert joined.ends == []
    joined.far_after(1)
    assert joined.reasons == [Reason.UPSTREAM_TIMEOUT]


async def test_silence_ends_a_tunnel_and_a_byte_of_either_end_does_not(joined: Joined) -> None:
    joined.open()
    joined.far_after(299)
    joined.served.receive(b".")
    joined.far_after(299)
    joined.far.data_received(b".")
    joined.far_after(300)
    assert joined.ends == []
    joined.far_after(1)
    assert joined.reasons == [Reason.TIMEOUT]


async def test_a_half_closed_tunnel_may_be_silent_for_less_long(joined: Joined) -> None:
    joined.open()
    joined.caller_ends()
    joined.far_after(60)
    assert joined.ends == []
    joined.far_after(1)
    assert joined.reasons == [Reason.TIMEOUT]


async def test_a_far_end_that_nobody_joins_is_closed(joined: Joined) -> None:
    joined.far_after(60)
    assert not joined.to_far.aborted
    joined.far_after(1)
    assert joined.far_is_cut
    joined.far.connection_lost(None)
    assert len(joined.connections) == 0


async def test_a_far_end_lost_before_the_grant_ends_the_tunnel_at_once(joined: Joined) -> None:
    joined.far.connection_lost(None)
    joined.open()
    assert joined.reasons == [Reason.UPSTREAM_ABORTED]
    await asyncio.sleep(0)
    assert joined.served.transport.aborted
