"""Our decoder of HPACK's Huffman code beside that of the library hpack."""

from __future__ import annotations

import pytest
from hpack import Encoder
from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman as decode_by_library
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.h2_huffman import MAX_STEPS, _steps, decode_huffman


def huffman(text: bytes) -> bytes:
    return Encoder().huffman_coder.encode(text)


@given(st.binary(max_size=60) | st.binary(max_size=200).map(lambda text: bytes(huffman(text))))
def test_codes_are_decoded_or_refused_as_by_the_library(code: bytes) -> None:
    try:
        expected = decode_by_library(code)
    except HPACKDecodingError:
        with pytest.raises(HPACKDecodingError):
            decode_huffman(code)
    else:
        assert decode_huffman(code) == expected


@pytest.mark.parametrize("code", [b"\xff\xff\xff\xff", b"\xff", b"\x00", b"\x1f\xff", b"\xff\xff\xff\xfc"])
def test_a_malformed_code_or_padding_is_refused(code: bytes) -> None:
    with pytest.raises(HPACKDecodingError):
        decode_huffman(code)


def test_every_byte_is_decoded_behind_every_other() -> None:
    steps = len(_steps)
    for first in range(256):  # the library's time grows with the square of a text
        text = bytes([octet for second in range(256) for octet in (first, second)])
        assert decode_huffman(huffman(text)) == text
    assert steps < len(_steps) <= MAX_STEPS


def test_the_memory_of_steps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.wire.h2_huffman.MAX_STEPS", len(_steps))
    before = len(_steps)
    text = bytes(range(256)) * 3
    assert decode_huffman(huffman(text)) == text
    assert len(_steps) == before
