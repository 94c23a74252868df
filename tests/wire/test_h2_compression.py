"""Our reader and writer of compressed heads beside those of the library hpack."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKDecodingError, InvalidTableSizeError, OversizedHeaderListError
from hpack.struct import NeverIndexedHeaderTuple
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.h2_compression import (
    LEAST_LITERAL,
    LITERALS_LIVE_S,
    MAX_LITERAL_BYTES,
    HeadDecoder,
    HeadEncoder,
    Literals,
    Table,
    literals,
)
from sidecar.wire.h2_huffman import decode_huffman
from sidecar.wire.h2_session import Session
from tests.wire.h2_bench import ASKS

TOKEN = b"Bearer " + b"aZ09-_." * 90
MAX_HEAD = 2000

names = st.sampled_from([b":path", b":method", b"authorization", b"x", b"x-" + b"n" * 40])
values = st.binary(max_size=300) | st.sampled_from([b"", b"GET", TOKEN])
heads = st.lists(st.tuples(names, values, st.booleans()), max_size=8)
blocks = st.lists(
    st.tuples(heads, st.booleans(), st.sampled_from([None, None, None, 0, 100, 4096])), min_size=1, max_size=5
)


def huffman(text: bytes) -> bytes:
    return Encoder().huffman_coder.encode(text)


def verdict(decoder: Decoder, block: bytes) -> Any:
    """Return the fields, or the fact that the library h2 ends the connection."""
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except OversizedHeaderListError:
        return "too large"
    except (HPACKDecodingError, IndexError):
        return "malformed"


begins_with_three_sizes = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}").match


def agree(blocks: list[bytes]) -> None:
    own, other = HeadDecoder(MAX_HEAD), Decoder(MAX_HEAD)
    for block in blocks:
        found = verdict(own, block)
        assert found == ("malformed" if begins_with_three_sizes(block) else verdict(other, block))
        if isinstance(found, str):
            return  # the connection ends
        assert own.header_table.dynamic_entries == other.header_table.dynamic_entries
        assert own.header_table_size == other.header_table_size


@given(blocks)
def test_heads_are_read_as_the_library_reads_them(sent: list[tuple[Any, bool, int | None]]) -> None:
    encoder = Encoder()
    encoded = []
    for head, coded, size in sent:
        if size is not None:
            encoder.header_table_size = size
        fields = [NeverIndexedHeaderTuple(name, value) if secret else (name, value) for name, value, secret in head]
        encoded.append(encoder.encode(fields, huffman=coded))
    agree(encoded)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_read_or_refused_as_by_the_library(sent: list[bytes]) -> None:
    agree(sent)


@given(st.data())
def test_a_head_with_some_bytes_changed_is_read_or_refused_as_by_the_library(data: st.DataObject) -> None:
    encoder = Encoder()
    sent = [bytearray(encoder.encode([*ASKS, (b"authorization", TOKEN[:200])])) for _ in range(2)]
    for _ in range(data.draw(st.integers(1, 3))):
        block = sent[data.draw(st.integers(0, 1))]
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    agree([bytes(block) for block in sent])


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (b"\x80", HPACKDecodingError),  # index 0
        (b"\xff\x80\x80\x80\x80\x80\x01", HPACKDecodingError),  # a number that never ends
        (b"\xff", HPACKDecodingError),
        (b"\x40", HPACKDecodingError),  # a name is missing
        (b"\x40\x01a", HPACKDecodingError),  # its value
        (b"\x40\x01a\x05abc", HPACKDecodingError),  # the rest of it
        (b"\x40\x01a\x81\x00", HPACKDecodingError),  # padding of the Huffman code
        (b"\x82\x20", HPACKDecodingError),  # a size behind a field
        (b"\x3f\xe2\x1f", InvalidTableSizeError),  # 4,097
        (b"\x0f\x00\x7f\xff\xff\x7f", HPACKDecodingError),
    ],
)
def test_a_malformed_head_is_refused(block: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        HeadDecoder().decode(block)
    assert verdict(Decoder(), block) == "malformed"


@pytest.mark.parametrize("block", [b"\x20\x3f\xe1\x1f", b"\x3e\x3f\xe1\x1f"])
def test_the_size_of_the_table_changes_twice_in_a_head_and_no_more(block: bytes) -> None:
    decoder = HeadDecoder()
    assert decoder.decode(block + b"\x82") == [(b":method", b"GET")]
    with pytest.raises(HPACKDecodingError):
        decoder.decode(block + b"\x20\x82")


@pytest.mark.parametrize(("size", "fits"), [(MAX_HEAD - 33, True), (MAX_HEAD - 32, False)])
def test_a_head_that_is_too_large_is_refused(size: int, *, fits: bool) -> None:
    assert (verdict(HeadDecoder(MAX_HEAD), Encoder().encode([(b"x", b"v" * size)])) != "too large") is fits


def test_a_table_that_is_not_made_smaller_is_refused() -> None:
    decoder = HeadDecoder()
    decoder.max_allowed_table_size = 100
    with pytest.raises(InvalidTableSizeError):
        decoder.decode(b"\x82")
    assert decoder.decode(b"\x3f\x45\x82") == [(b":method", b"GET")]


@given(st.lists(st.tuples(names, st.binary(max_size=900)) | st.sampled_from([0, 40, 300, 4096]), max_size=30))
def test_the_table_evicts_as_that_of_the_library(done: list[Any]) -> None:
    own, other = Table(), HeaderTable()
    for one in done:
        for table in (own, other):
            if isinstance(one, int):
                table.maxsize = one
            else:
                table.add(*one)
        assert own.dynamic_entries == other.dynamic_entries
        assert own._current_size == other._current_size <= own.maxsize


@pytest.mark.parametrize("length", [126, 127, 254, 255, 256, 16_510, 16_511, 20_000])
def test_a_length_takes_as_many_bytes_as_it_needs(length: int) -> None:
    block = Encoder().encode([NeverIndexedHeaderTuple(b"x", b"v" * length)], huffman=False)
    assert HeadDecoder().decode(block) == [(b"x", b"v" * length)]
    with pytest.raises(HPACKDecodingError):
        HeadDecoder().decode(block[:-1])


# --- heads that come again


def test_a_head_that_comes_again_is_found_by_its_bytes() -> None:
    decoder = HeadDecoder()
    block = Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in [*ASKS, (b"x-a", b"b")]])
    first = decoder.decode(block)
    assert first == [*ASKS, (b"x-a", b"b")]
    assert decoder.decode(block) is first
    assert HeadDecoder().decode(block) is not first
    decoder.forget()
    assert decoder.decode(block) == first
    assert decoder.decode(block) is not first


@pytest.mark.parametrize("change", [b"\x40\x01a\x01b", b"\x3f\x45", b"\x20"], ids=["a field", "its size", "none"])
def test_the_same_bytes_are_read_again_after_a_change_of_the_table(change: bytes) -> None:
    decoder = HeadDecoder()
    decoder.decode(b"\x40\x01x\x011\x40\x01y\x012")
    assert [decoder.decode(b"\xbe\x82") for _ in range(2)] == [[(b"y", b"2"), (b":method", b"GET")]] * 2
    decoder.decode(change)
    if change == b"\x20":
        with pytest.raises(HPACKDecodingError):
            decoder.decode(b"\xbe\x82")
    else:
        newest = (b"a", b"b") if change[0] == 0x40 else (b"y", b"2")
        assert decoder.decode(b"\xbe\x82") == [newest, (b":method", b"GET")]


def test_a_head_that_changes_the_table_is_read_each_time() -> None:
    decoder = HeadDecoder()
    for _ in range(2):
        decoder.decode(b"\x40\x01x\x011")
    assert len(decoder.header_table.dynamic_entries) == 2


def test_few_heads_are_remembered_and_no_long_one() -> None:
    decoder = HeadDecoder()
    for number in range(100):
        decoder.decode(b"\x00\x01x\x03%03d" % number)
        assert len(decoder._known) <= 32
    decoder.forget()
    decoder.decode(Encoder().encode([NeverIndexedHeaderTuple(b"x", b"\xff" * 700)], huffman=False))
    assert len(decoder._known) == 1
    decoder.decode(Encoder().encode([NeverIndexedHeaderTuple(b"x", b"v" * 2048)], huffman=False))
    assert len(decoder._known) == 1


def test_a_head_that_is_refused_is_refused_again() -> None:
    decoder = HeadDecoder(100)
    for _ in range(2):
        with pytest.raises(OversizedHeaderListError):
            decoder.decode(Encoder().encode([NeverIndexedHeaderTuple(b"x", b"v" * 200)]))


# --- long literals


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    done: list[bytes] = []

    def counting(code: bytes) -> bytes:
        done.append(code)
        return decode_huffman(code)

    monkeypatch.setattr("sidecar.wire.h2_compression.decode_huffman", counting)
    return done


def test_a_token_is_decoded_once_for_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    literals.forget()
    done = counted(monkeypatch)
    for _ in range(2):
        encoder, decoder = Encoder(), HeadDecoder()
        for _ in range(2):
            block = encoder.encode([NeverIndexedHeaderTuple(b"authorization", TOKEN)])
            assert decoder.decode(block) == [(b"authorization", TOKEN)]
    assert done == [huffman(TOKEN)]
    other = TOKEN[:-1] + b"x"
    assert literals.decoded(huffman(other)) == other  # one byte is another: it is another token
    assert len(done) == 2


def test_a_malformed_code_is_refused_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    known, done = Literals(), counted(monkeypatch)
    for _ in range(2):
        with pytest.raises(HPACKDecodingError):
            known.decoded(b"\xff" * LEAST_LITERAL)
    assert (len(done), len(known)) == (2, 0)


def test_short_literals_are_not_remembered() -> None:
    known = Literals()
    short, long = (huffman(b"a" * (size * 8 // 5)) for size in (LEAST_LITERAL - 1, LEAST_LITERAL))  # 5 bits each
    known.decoded(short)
    assert (len(short), len(known)) == (LEAST_LITERAL - 1, 0)
    known.decoded(long)
    assert (len(long), len(known)) == (LEAST_LITERAL, 1)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bound the memory of literals to a size that is soon full."""
    assert MAX_LITERAL_BYTES == 4 * 1024 * 1024
    monkeypatch.setattr("sidecar.wire.h2_compression.MAX_LITERAL_BYTES", 64 * 1024)
    return 64 * 1024


def test_the_memory_of_literals_is_bounded(little: int) -> None:
    known = Literals()
    for number in range(little // 2000):
        known.decoded(huffman(b"%d" % number + b"x" * 3000))
        assert known.size <= little
    assert len(known) < little // 2000


def test_a_token_is_remembered_though_others_have_filled_the_memory(
    little: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Literals()
    for number in range(little // 4000):  # more than fits
        known.decoded(huffman(b"%d" % number + b"x" * 3000))
    done = counted(monkeypatch)
    assert [known.decoded(huffman(TOKEN * 20)) for _ in range(3)] == [TOKEN * 20] * 3
    assert len(done) == 1


def test_literals_are_forgotten_each_minute_and_with_the_last_connection() -> None:
    known = Literals()
    known.sweep(1000.0)
    known.decoded(huffman(TOKEN))
    known.sweep(1000.0 + LITERALS_LIVE_S)
    assert len(known) == 1
    known.sweep(1000.1 + LITERALS_LIVE_S)
    assert (len(known), known.size) == (0, 0)
    known.add_reader()
    known.add_reader()
    known.decoded(huffman(TOKEN))
    known.drop_reader()
    assert len(known) == 1
    known.drop_reader()
    assert (len(known), known.size) == (0, 0)


def test_a_session_counts_as_a_reader_from_its_beginning_to_its_end() -> None:
    before = literals.readers
    session = Session(client_side=False, max_streams=7, max_head_bytes=1000)
    assert literals.readers == before
    session.begin()
    assert literals.readers == before + 1
    session.forget()
    assert literals.readers == before


# --- our own heads

names_sent = st.sampled_from([b":path", b":method", b":authority", b"authorization", b"x", b"via", b"x-" + b"n" * 40])
values_sent = st.sampled_from([b"", b"GET", b"/", b"v" * 60, b"v" * 130, b"v" * 1000, b"v" * 5000]) | st.binary(
    max_size=3
)
heads_sent = st.lists(st.tuples(names_sent, values_sent), max_size=8)


@given(st.lists(st.tuples(heads_sent, st.sampled_from([None, None, None, 0, 200, 4096])), min_size=1, max_size=12))
def test_what_we_write_is_what_the_library_reads(done: list[tuple[list[tuple[bytes, bytes]], int | None]]) -> None:
    encoder, decoder = HeadEncoder(frozenset({b":path", b"authorization"})), Decoder()
    for fields, size in done:
        if size is not None:
            encoder.header_table_size = size
        read = list(decoder.decode(encoder.encode(fields), raw=True))
        assert read == fields
        for field in read:
            assert field.indexable or field[0] in {b":path", b"authorization"}
        assert encoder.header_table.dynamic_entries == decoder.header_table.dynamic_entries
        assert b"authorization" not in dict(encoder.header_table.dynamic_entries)


@given(st.lists(st.tuples(heads_sent, st.sampled_from([None, None, None, None, 0, 64, 200, 4096])), max_size=16))
def test_a_head_that_is_sent_again_is_read_as_the_first_time(
    done: list[tuple[list[tuple[bytes, bytes]], int | None]],
) -> None:
    encoder, decoder = HeadEncoder(frozenset({b":path", b"authorization"})), Decoder()
    for fields, size in done:
        if size is not None:
            encoder.header_table_size = size
        for _ in range(3):
            assert list(decoder.decode(encoder.encode_again(fields), raw=True)) == fields
        assert len(encoder._known) <= 32
        assert encoder.header_table.dynamic_entries == decoder.header_table.dynamic_entries


def test_a_head_that_empties_a_small_table_is_encoded_each_time() -> None:
    encoder, decoder = HeadEncoder(frozenset()), Decoder()
    encoder.header_table_size = 64
    small, large = (b"a", b"b"), (b"x", b"v" * 60)  # the second one is larger than the table: it removes the first
    for fields in ([small], [small, large], [small, large], [small, large]):
        assert list(decoder.decode(encoder.encode_again(fields), raw=True)) == fields


def test_a_short_head_is_encoded_once_and_one_with_a_token_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, done = HeadEncoder(frozenset({b"set-cookie"})), []
    encode = encoder.encode

    def counting(fields: Any) -> bytes:
        done.append(fields)
        return encode(fields)

    monkeypatch.setattr(encoder, "encode", counting)
    short, long = [(b":status", b"200"), (b"x-a", b"b")], [(b":status", b"200"), (b"set-cookie", TOKEN)]
    for _ in range(5):
        encoder.encode_again(short)
    assert len(done) == 2  # the first one has changed the table
    for _ in range(5):
        encoder.encode_again(long)
    assert len(done) == 7


def test_large_values_are_hardly_remembered_longer_than_the_table_has_them() -> None:
    encoder = HeadEncoder(frozenset())
    for number in range(100):
        encoder.encode([(b"x", b"%d" % number + b"v" * 3000)])
    assert len(encoder.header_table.dynamic_entries) == 1
    assert len(encoder._numbers) < 11


def test_a_long_table_is_used_to_its_end() -> None:
    encoder, decoder = HeadEncoder(frozenset()), Decoder()
    fields = [(b"%d" % number, b"") for number in range(200)]  # 123 of them fit
    for _ in range(2):
        for field in fields[-110:]:
            assert list(decoder.decode(encoder.encode([field]), raw=True)) == [field]
    assert len(encoder.encode([fields[-110]])) == 2  # an index above 127 - 61


def sent(session: Session, fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return the block of a head that the session sends on a new stream."""
    session.data_to_send()
    session.head(session.get_next_available_stream_id(), fields, ends=True)
    return session.data_to_send()[9:]


def test_our_heads_have_no_huffman_code_and_mean_the_same() -> None:
    session, reader = Session(client_side=True, max_streams=7, max_head_bytes=9000), Decoder()
    session.begin()
    fields = [*ASKS, (b"authorization", TOKEN), (b"x-unknown", b"value")]
    block = sent(session, fields)
    assert isinstance(session.encoder, HeadEncoder)
    assert TOKEN in block
    assert reader.decode(block, raw=True) == fields
    assert b"x-unknown" not in sent(session, fields)  # it is in the table now


@pytest.mark.parametrize("name", [b":path", b"traceparent", b"authorization", b"delegation-token"])
def test_secrets_and_unique_values_stay_out_of_the_table(name: bytes) -> None:
    session = Session(client_side=True, max_streams=7, max_head_bytes=9000)
    session.begin()
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/one"), (b":authority", b"h")]
    sent(session, [field for field in fields if field[0] != name] + [(name, b"/value")])
    assert b"/value" not in b"".join(value for _, value in session.encoder.header_table.dynamic_entries)
    assert (b":authority", b"h") in session.encoder.header_table.dynamic_entries
