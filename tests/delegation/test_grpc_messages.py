"""Messages of gRPC, one by one and in streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.delegation.grpc_messages import GrpcMessageError, GrpcMessages, one_message, written


def test_the_one_message_of_a_call_is_found() -> None:
    assert one_message(b"\0\0\0\0\3abc") == b"abc"
    assert one_message(written(b"")) == b""


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\0\0", b"\1\0\0\0\3abc", b"\2\0\0\0\0", b"\0\0\0\0\4abc", b"\0\0\0\0\2abc", written(b"a") * 2],
)
def test_none_several_or_a_compressed_one_is_refused(content: bytes) -> None:
    with pytest.raises(GrpcMessageError):
        one_message(content)


@given(st.lists(st.binary(max_size=20), max_size=5), st.integers(1, 7))
def test_a_stream_is_cut_into_its_messages_however_it_arrives(messages: list[bytes], size: int) -> None:
    data = b"".join(map(written, messages))
    reader = GrpcMessages(max_bytes=20)
    found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
    assert found == messages


@pytest.mark.parametrize("data", [b"\0\0\0\0\5", b"\1\0\0\0\0", written(b"ok") + b"\0\xff\xff\xff\xff"])
def test_a_message_that_is_too_long_or_compressed_ends_the_reading_by_its_head(data: bytes) -> None:
    with pytest.raises(GrpcMessageError):
        list(GrpcMessages(max_bytes=4).feed(data))
