"""Whole connections: a peer's stream of requests through the inbound side, with misbehaving agents behind it.

Properties for any bytes and any cut: nothing raises; no undecided request reaches an agent, and none is changed on the
way; every request with a complete first line leaves exactly one record; the peer reads one answer for each, in order,
and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

import h11

from delegation_core.errors import Denied
from delegation_core.target import canonical_target
from sidecar.wire.h1_reader import RequestReader
from sidecar.wire.message import Request
from tests.fuzz.agent import Arrived
from tests.fuzz.inbound_world import LIMITS, InboundWorld, InlineLoop, token
from tests.fuzz.of_bodies import read_all
from tests.fuzz.properties import chance, little_at_a_time, pieces, quiet


class Meant(NamedTuple):
    """A request in the stream; ``body`` None: it is incomplete, or broken."""

    head: Request
    body: bytes | None


class Reading(NamedTuple):
    """A whole stream, read by the same parsers without a connection: ``rest`` is the part without a request."""

    requests: list[Meant]
    refused: bool
    rest: bytes


def reading_of(stream: bytes) -> Reading:
    """Read the whole stream at once."""
    found: list[Meant] = []
    while stream:
        reader = RequestReader(LIMITS, proxy_form=False)
        try:
            incoming = reader.read(stream)
        except Denied:
            return Reading(found, refused=True, rest=stream)
        if incoming is None:
            break
        head, _, stream = incoming
        body: bytes | None = b""
        if head.has_body:
            to_come = reader.body_of(head)
            try:
                body, stream = read_all(to_come, stream)
            except Denied:
                return Reading([*found, Meant(head, None)], refused=False, rest=b"")
            if not to_come.complete:
                return Reading([*found, Meant(head, None)], refused=False, rest=b"")
        found.append(Meant(head, body))
        if not head.keep_alive or head.upgrade is not None:
            return Reading(found, refused=False, rest=b"")
    return Reading(found, refused=False, rest=stream)


def request_stream(data: bytes) -> None:
    """One connection's life."""
    loop: object = InlineLoop()
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(loop)  # type: ignore[arg-type]
    try:
        with little_at_a_time(data):
            _live(data.replace(b"$TOKEN", token()), chance(data).random() < 0.2)
    finally:
        asyncio._set_running_loop(before)


def _live(stream: bytes, vanishes: bool) -> None:
    random = chance(stream)
    world = InboundWorld(random)
    sent = b""
    for piece in pieces(stream, random):
        if not world.receive(piece):
            break
        sent += piece
        if random.random() < 0.02:
            world.clock.now += 12
            world.server.sweep(world.clock.now)
    if not vanishes:
        world.settle()
        if not world.transport.is_closing():
            world.server.eof_received()
            world.settle()
    closes = world.transport.is_closing() or b"\r\nconnection: close\r\n" in world.transport.written
    unread = len(world.connections.turns) > 0  # bytes behind other requests, or behind their own body, are not read yet
    world.server.connection_lost(None)
    world.settle()
    _check(world, reading_of(sent), closes=closes or unread)


def _check(world: InboundWorld, reading: Reading, *, closes: bool) -> None:
    records = world.records
    assert len(records.made) == len(world.served) + len(world.refused), "not one record for each request"
    assert set(records.closed) == {entry.request_id for entry in records.made}, "a record that is not closed"
    assert len(world.refused) <= 1, "something was read after a refusal"
    for record in records.closed.values():
        assert record["reason"] != "internal", record
    for _, error in world.refused:
        quiet(error)
    assert len(world.handles) == 0, "a handle outlives its request"
    # No hidden request: the served ones are those in the stream, in order.
    asked = [_what(meant.head) for meant in reading.requests]
    assert [_what(exchange.head) for exchange in world.served if exchange.head] == asked[: len(world.served)]
    whole = all(meant.body is not None for meant in reading.requests)
    answered = all(exchange.ended for exchange in world.served)
    if not closes and whole and answered and len(world.served) == len(reading.requests):
        first_line_read = b"\r\n" in reading.rest.removeprefix(b"\r\n")
        assert world.refused or not first_line_read, "a request whose first line was read has no record"
    _check_forwarded(world, reading)
    _check_answers(world)


def _what(head: Request) -> tuple[object, ...]:
    return head.method, head.target, head.fields, head.content_length, head.has_body


def _check_forwarded(world: InboundWorld, reading: Reading) -> None:
    """Check that agents received each permitted request exactly once, complete or visibly cut."""
    asked = {entry.request_id: meant for entry, meant in zip(world.records.made, reading.requests, strict=False)}
    times = Counter(_field(arrived, b"delegation-request-id").decode() for arrived in world.arrived)
    for arrived in world.arrived:
        request_id = _field(arrived, b"delegation-request-id").decode()
        head, body = asked[request_id]
        assert world.records.closed[request_id]["decision"] == "allow", "an agent saw what was refused"
        assert (arrived.method, arrived.target) == (head.method, canonical_target(head.target).encode())
        assert not arrived.complete or arrived.body == body, "a body that was cut was passed on as whole"
        assert body is None or body.startswith(arrived.body)
        again = head.method in {"GET", "HEAD", "PUT"} and not head.has_body  # on a reused connection that proved stale
        assert times[request_id] <= 1 + again, "a request was sent twice"
        for name in (b"host", b"authorization", b"delegation-subject", b"delegation-actor", b"traceparent"):
            _field(arrived, name)
        names = {name for name, _ in arrived.fields}
        assert not names & {b"te", b"keep-alive", b"expect", b"trailer"}
        assert head.upgrade is not None or not names & {b"connection", b"upgrade"}
        assert token() not in _field(arrived, b"authorization")


def _field(arrived: Arrived, name: bytes) -> bytes:
    (value,) = (value for field, value in arrived.fields if field == name)
    return value


def _check_answers(world: InboundWorld) -> None:
    """Check that the peer's own parser reads one answer for each answered request, in order, and nothing else."""
    rest = world.transport.written
    told = []
    exchanges = [*world.served, *(exchange for exchange, _ in world.refused)]
    for exchange in exchanges:
        if not rest:
            break
        if exchange.switched:
            assert rest.startswith(b"HTTP/1.1 101 ")
            told.append(101)
            rest = b""
            break
        peer = h11.Connection(h11.CLIENT)
        peer.send(
            h11.Request(method=exchange.head.method if exchange.head else "GET", target="/", headers=[("Host", "a")])
        )
        peer.send(h11.EndOfMessage())
        peer.receive_data(rest)
        while not isinstance(event := peer.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                told.append(event.status_code)
            elif event is h11.NEED_DATA:
                assert exchange is exchanges[-1] or exchange.gone, "an answer was cut, and another one follows"
                break
        rest = peer.trailing_data[0] if event is not h11.NEED_DATA else b""
    assert not rest, f"the peer reads more than its answers: {rest!r}"
    assert told == [exchange.status for exchange in exchanges if exchange.status][: len(told)]
