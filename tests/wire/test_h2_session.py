"""The library h2 as the sidecar uses it: what an update of it must not change."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from h2.settings import SettingCodes
from hpack.hpack import decode_integer

from delegation_core.errors import Reason
from sidecar.features.outside.fields import _KEY_FIELDS
from sidecar.wire.h2_compression import TABLE_BYTES
from sidecar.wire.h2_frames import PREFACE, FrameReader, H2Error
from sidecar.wire.h2_session import STREAM_WINDOW, Session
from tests.wire.h2_bench import ASKS, Peer, frame


def read(session: Session, data: bytes) -> list[Any]:
    """Give the session one frame after another, as connections do."""
    if data.startswith(PREFACE):
        session.receive_data(PREFACE)
    reader = FrameReader(preface=b"", max_block=10_000)
    reader.feed(data.removeprefix(PREFACE))
    events = []
    while (one := reader.next(0.0)) is not None:
        events += session.read(one.data)
    return events


def pair() -> tuple[Session, Peer]:
    session, peer = Session(client_side=False, max_streams=7, max_head_bytes=1000), Peer()
    session.begin()
    read(session, peer.h2.data_to_send())
    peer.take(session.data_to_send())
    return session, peer


def test_our_settings_reach_the_peer() -> None:
    _, peer = pair()
    settings = peer.h2.remote_settings
    assert settings.max_concurrent_streams == 7
    assert settings.initial_window_size == STREAM_WINDOW
    assert settings.max_header_list_size == 1000
    assert settings.enable_push == 0
    assert settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 0


def test_a_content_length_that_does_not_fit_is_left_to_the_stream() -> None:
    session, peer = pair()
    peer.h2.send_headers(1, [*ASKS, (b"content-length", b"x")])
    peer.h2.send_data(1, b"abc", end_stream=True)
    assert len(read(session, peer.h2.data_to_send())) >= 2


def test_a_fault_of_the_peer_is_told_without_its_words() -> None:
    session, peer = pair()
    peer.h2.send_headers(1, ASKS, end_stream=True)
    read(session, peer.h2.data_to_send())
    with pytest.raises(H2Error) as fault:
        session.read(b"\0\0\3\0\0\0\0\0\7abc")
    assert fault.value.error.reason is Reason.BAD_REQUEST
    assert "abc" not in fault.value.error.detail
    assert fault.value.told


@pytest.mark.parametrize("name", [b"set-cookie", b"authorization", *sorted(_KEY_FIELDS)])
def test_secrets_stay_out_of_the_table_of_the_compression(name: bytes) -> None:
    session, peer = pair()
    peer.h2.send_headers(1, ASKS, end_stream=True)
    read(session, peer.h2.data_to_send())
    session.head(1, [(b":status", b"200"), (name, b"secret=1"), (b"x-a", b"plain")], ends=True)
    table = list(session.encoder.header_table.dynamic_entries)
    assert (b"x-a", b"plain") in table
    assert not any(b"secret" in value for _, value in table)


def test_the_table_of_the_compression_stays_small() -> None:
    session, peer = pair()
    peer.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**30})
    peer.h2.send_headers(1, ASKS, end_stream=True)
    read(session, peer.h2.data_to_send())
    session.head(1, [(b":status", b"200")], ends=True)
    assert session.encoder.header_table_size == TABLE_BYTES


def test_sizes_of_the_table_that_were_asked_for_are_not_collected() -> None:
    session, peer = pair()
    peer.h2.send_headers(1, ASKS, end_stream=True)
    read(session, peer.h2.data_to_send())
    for size in [*range(300, 100, -1), *range(50, 400)]:
        read(session, frame(4, 0, 0, b"\0\1" + size.to_bytes(4)))
    assert session.encoder.table_size_changes == [50, 399]
    session.head(1, [(b":status", b"200"), (b"x-a", b"b")], ends=True)
    peer.take(session.data_to_send())
    assert peer.answer(1).fields == {b":status": b"200", b"x-a": b"b"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([0, 2**16], [0, TABLE_BYTES]),  # at most twice (RFC 7541 section 4.2)
        ([2048, 2048], [2048]),  # told once, though the second setting changes nothing
        ([2**16, 100], [100]),  # the first one is more than the peer allows now
        ([100, 2**16], [100, TABLE_BYTES]),
        ([], []),
    ],
)
def test_a_head_tells_the_changes_of_the_tables_size_and_at_most_two(asked: list[int], told: list[int]) -> None:
    session, peer = pair()
    peer.h2.send_headers(1, ASKS, end_stream=True)
    read(session, peer.h2.data_to_send())
    for size in asked:
        read(session, frame(4, 0, 0, b"\0\1" + size.to_bytes(4)))
    session.data_to_send()
    session.head(1, [(b":status", b"200")], ends=True)
    head = session.data_to_send()[9:]
    found = []
    while head[0] & 0xE0 == 0x20:
        size, taken = decode_integer(head, 5)
        found.append(size)
        head = head[taken:]
    assert found == told


def test_the_library_writes_no_field_into_logs() -> None:
    assert not logging.getLogger("hpack.hpack").isEnabledFor(logging.DEBUG)
