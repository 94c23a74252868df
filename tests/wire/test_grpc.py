"""Messages of gRPC, and the deadlines that callers state."""

from __future__ import annotations

import asyncio

import pytest

from delegation_core.errors import Denied, Reason
from sidecar.wire.grpc import is_grpc, timeout_of
from tests.wire.h2_bench import POSTS, H2Served
from tests.wire.test_h2_requests import Source
from tests.wire.written import request_with


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpcx", False),
        (b"application/json", False),
    ],
)
def test_a_message_of_grpc_is_one_by_its_content_type(value: bytes, is_one: bool) -> None:
    assert is_grpc(request_with([(b"host", b"a"), (b"content-type", value)])) is is_one


def test_a_message_without_a_content_type_is_none_of_grpc() -> None:
    assert not is_grpc(request_with([(b"host", b"a")]))


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"1S", 1.0), (b"2M", 120.0), (b"1H", 3600.0), (b"250m", 0.25), (b"5u", 5e-6), (b"9n", 9e-9)]
)
def test_a_deadline_has_a_number_and_a_unit(value: bytes, seconds: float) -> None:
    assert timeout_of(request_with([(b"grpc-timeout", value)])) == pytest.approx(seconds)


def test_most_calls_state_no_deadline() -> None:
    assert timeout_of(request_with([(b"host", b"a")])) is None


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"-1S", b"1s", b"123456789S", b"1 S", b"1.5S"])
def test_a_malformed_deadline_is_refused(value: bytes) -> None:
    with pytest.raises(Denied) as refused:
        timeout_of(request_with([(b"grpc-timeout", value)]))
    assert refused.value.reason is Reason.HEADER_MALFORMED


CALL = [*POSTS, (b"content-type", b"application/grpc")]


class Owner:
    """Notes why it has to end."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []

    def gone(self) -> None:
        raise AssertionError

    def stop(self, error: Denied) -> None:
        self.reasons.append(error.reason)


async def test_a_call_ends_at_its_deadline_and_one_that_states_none_does_not() -> None:
    served = H2Served()
    served.begin([*CALL, (b"grpc-timeout", b"100m")])
    served.begin(CALL)
    served.begin([*POSTS, (b"grpc-timeout", b"100m")])  # not of gRPC
    await served.exchange()
    owners = [Owner() for _ in range(3)]
    for stream, owner in zip(served.handler.requests, owners, strict=True):
        stream.owner = owner  # type: ignore[assignment]
    await asyncio.sleep(0.2)
    assert [owner.reasons for owner in owners] == [[Reason.UPSTREAM_TIMEOUT], [], []]


async def test_a_call_that_is_answered_or_given_up_has_no_deadline_any_more() -> None:
    served = H2Served()
    ids = [served.begin([*CALL, (b"grpc-timeout", b"100m")]) for _ in range(2)]
    await served.exchange()
    owner = Owner()
    for stream in served.handler.requests:
        stream.owner = owner  # type: ignore[assignment]
        stream.sender = Source()
    served.handler.requests[0].answer(200, [], b"ok")
    served.peer.h2.reset_stream(ids[1])
    await served.exchange()
    await asyncio.sleep(0.2)
    assert owner.reasons == []


async def test_a_call_whose_deadline_is_malformed_is_refused() -> None:
    served = H2Served()
    served.begin([*CALL, (b"grpc-timeout", b"soon")])
    await served.exchange()
    assert [error.reason for error in served.refusals] == [Reason.HEADER_MALFORMED]
    assert served.handler.requests == []
