from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.identity import der as der_module
from sidecar.identity.der import DerError, elements_in, split_der
from tests.identity.shapes import tlv

PIECES = {
    "nothing": [],
    "one": [tlv(0x30, b"x")],
    "empty sequence": [b"\x30\x00"],
    "short and long": [tlv(0x30, b"x" * 127), tlv(0x30, b"x" * 128), tlv(0x30, b"x" * 70000)],
}


@pytest.mark.parametrize("case", PIECES)
def test_concatenated_sequences_are_cut_apart(case: str) -> None:
    assert split_der(b"".join(PIECES[case])) == PIECES[case]


NO_PIECES = {
    "another type": b"\x31\x00",
    "only a tag": b"\x30",
    "cut in the content": b"\x30\x05abc",
    "cut by one byte": b"\x30\x04abc",
    "cut in the length": b"\x30\x82\x01",
    "indefinite length": b"\x30\x80\x00\x00",
    "indefinite length before 128 bytes": b"\x30\x80" + bytes(128),
    "long form of 127": b"\x30\x81\x7f" + bytes(127),
    "long form of a short length": b"\x30\x81\x05hello",
    "leading zero in the length": b"\x30\x82\x00\x90" + b"x" * 0x90,
    "length of five octets": b"\x30\x85\x01\x00\x00\x00\x00",
    "reserved length": b"\x30\xff" + b"\xff" * 127,
    "junk behind": b"\x30\x00junk",
    "zeroes behind": b"\x30\x00\x00",
}


@pytest.mark.parametrize("case", NO_PIECES)
def test_what_is_no_whole_sequence_is_refused(case: str) -> None:
    with pytest.raises(DerError):
        split_der(NO_PIECES[case])


@settings(max_examples=60)
@given(st.binary(max_size=64))
def test_whatever_is_cut_apart_can_be_put_together_again(der: bytes) -> None:
    try:
        pieces = split_der(der)
    except DerError:
        return
    assert b"".join(pieces) == der


def test_size_and_number_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(der_module, "MAX_BYTES", 8)
    monkeypatch.setattr(der_module, "MAX_PIECES", 3)
    assert len(split_der(b"\x30\x00" * 3)) == 3
    with pytest.raises(DerError, match="pieces"):
        split_der(b"\x30\x00" * 4)
    assert len(split_der(b"\x30\x06" + b"x" * 6)) == 1
    with pytest.raises(DerError, match="bytes"):
        split_der(b"\x30\x07" + b"x" * 7)


def test_the_elements_of_a_content_are_read_to_its_last_byte_and_no_more_than_asked_for() -> None:
    content = b"\x05\x00\x04\x01a"
    assert elements_in(content, 0, 5, 2) == [(5, 2, 2), (4, 4, 5)]
    for der, most in ((content, 1), (content + b"\x05", 3), (content[:-1], 2)):
        with pytest.raises(DerError):
            elements_in(der, 0, len(der), most)
