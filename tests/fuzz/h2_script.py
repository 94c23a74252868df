"""Peer of HTTP/2 that sends what the bytes of a fuzzer's input say.

Most of it is usual, so that a connection lives long: heads by the library's encoder and its table, and the same heads
again. Some heads are malformed, some have bytes changed, and frames of every kind come in and out of place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hpack import Encoder
from hpack.struct import NeverIndexedHeaderTuple

from sidecar.wire.message import Field
from tests.wire.h2_bench import ASKS, frame

MAX_STREAMS: Final = 5
_GOOD: Final[list[Field]] = [
    (b"authorization", b"Bearer " + b"eyJhbGciOiJFUzI1NiJ9." * 9),
    (b"authorization", b"Bearer " + b"eyJhbGciOiJFUzI1NiK9." * 9),
    (b"cookie", b"a=1"),
    (b"cookie", b"b=2"),
    (b"te", b"trailers"),
    (b"x-a", b"1"),
    (b"x-b", b""),
    (b"content-length", b"5"),
    (b"host", b"agent"),
    (b"x-large", b"v" * 900),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (b"user-agent", b"grpc-go/1.0"),
    (b"content-type", b"application/grpc"),
    (b"expect", b"100-continue"),
    (b"accept", b"*/*"),
    (b"x-many", b"w" * 200),
]
_BAD: Final[list[Field]] = [
    (b"te", b"gzip"),
    (b"x-a", b" 1"),
    (b"x-a", b"1\t"),
    (b"x-a", b"1\r\n"),
    (b"x-a", b"1\0"),
    (b"X-A", b"1"),
    (b"x a", b"1"),
    (b"", b"1"),
    (b"connection", b"close"),
    (b"keep-alive", b"1"),
    (b"proxy-connection", b"1"),
    (b"upgrade", b"websocket"),
    (b"transfer-encoding", b"chunked"),
    (b"content-length", b"+5"),
    (b"host", b"other"),
    (b":path", b"/b"),
    (b":path", b""),
    (b":status", b"200"),
    (b":protocol", b"websocket"),
    (b":method", b"POST"),
    (b":", b""),
    (b"x-larger", b"v" * 4200),
]
ANSWERS: Final[list[list[Field]]] = [
    [(b":status", b"200"), (b"content-type", b"text/plain"), (b"x-a", b"b")],
    [(b":status", b"200"), (b"server", b"v" * 70)],
    [(b":status", b"404"), (b"set-cookie", b"s=1"), (b"date", b"now")],
    [(b":status", b"100")],
    [(b"grpc-status", b"0")],
    [(b":status", b"200"), (b"x-large", b"v" * 3000)],
    [(b":status", b"200"), (b"x-larger", b"v" * 17000)],
]
_BLOCKS: Final = [  # as they travel
    b"",
    b"\x80",
    b"\x82\x84\x87\x41\x85\x1d\x4c\x14\x53\xff",
    b"\x82\x84\x87\xbe",
    b"\x82\x84\x87\xbf\xbe",
    b"\x20\x82\x84\x87\x41\x01a",
    b"\x3f\x09\x82\x84\x87\x41\x01a",
    b"\x3e\x3f\xe1\x1f\x82\x84\x87\x41\x01a",
    b"\x20\x20\x20\x82",
    b"\x82\x20",
    b"\x3f\xe2\x1f\x82",
    b"\x82\x84\x87\x41\x81\xff",  # a whole byte of padding
    b"\x82\x84\x87\x41\x84\xff\xff\xff\xff",
    b"\x82\x84\x87\x41\x82\x1f\x00",  # padding of zeros
    b"\x82\x84\x87\x41\xff\x80\x80\x80\x00",  # a padded number
    b"\x82\x84\x87\x41\x7f\x80\x80\x80\x80\x80\x00",
    b"\xff\x00",
    b"\xff\xff\xff\xff\xff\x7f",
    b"\x10\x01x\x01y",
    b"\x00\x01x\x01y",
    b"\x40\x01x\x01y",
    b"\x0f\x2f\x01y",
    b"\x7f\x00\x01y",
]
SIZES: Final = [0, 1, 5, 5, 100, 1024, 9000, 16384]
_INCREMENTS: Final = [1, 1000, 9000, 70_000, 0, 2**31 - 1, 2**31 + 1]
_SETTINGS: Final = [
    (1, 0),
    (1, 40),
    (1, 120),
    (1, 4096),
    (1, 2**16),
    (3, 1),
    (4, 0),
    (4, 10),
    (4, 65_535),
    (5, 16384),
    (5, 20_000),
    (6, 100),
    (99, 1),
    (4, 2**31 - 1),
    (4, 2**31),
    (5, 1),
    (2, 1),
    (3, 0),
    (8, 1),
]


class Script:
    """The bytes of an input, one decision each; zeros behind its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        return self._at >= len(self._data)

    def number(self, below: int) -> int:
        self._at += 1
        return self._data[self._at - 1] % below if self._at <= len(self._data) else 0

    def one_of(self, choices: Sequence[Any]) -> Any:
        return choices[self.number(len(choices))]

    def odd(self) -> bool:
        """Tell if something seldom happens now: most of a connection is usual, or it would soon end."""
        return self.number(256) >= 246


class Peer:
    """The far end of both connections, who keeps no rule."""

    def __init__(self, script: Script, *, answers: bool) -> None:
        self.script = script
        self.answers = answers  # it is an upstream
        self.encoder = Encoder()
        self.blocks: list[bytes] = []
        self.fields: list[Field] = []
        self.highest = -1
        self.open = 0  # streams
        self.receives: Sequence[int] = ()  # the streams on which the other end expects more

    def head(self) -> bytes:
        script = self.script
        if self.fields and script.number(2):  # as a caller with many requests of one kind
            return self._kept(self.encoder.encode(self.fields, huffman=True))
        fields: list[Field] = [] if script.odd() else [*(script.one_of(ANSWERS) if self.answers else ASKS)]
        for _ in range(script.number(5)):
            fields.insert(0 if script.odd() else len(fields), script.one_of(_BAD if script.number(32) == 1 else _GOOD))
        if script.number(4) == 1:
            fields = [NeverIndexedHeaderTuple(*field) for field in fields]
        self.fields = fields
        if script.number(12) == 1:
            self.encoder.header_table_size = script.one_of([0, 40, 200, 4096])
        return self._kept(self.encoder.encode(fields, huffman=script.number(3) > 0))

    def _kept(self, block: bytes) -> bytes:
        self.blocks.append(block)
        return block

    def block(self) -> bytes:
        """Return a head as it travels."""
        script = self.script
        if script.number(2) or not self.blocks:
            return self.head()
        if not script.odd():
            return self.blocks[-1 - script.number(min(4, len(self.blocks)))]
        kind = script.number(3)
        if kind == 0:
            block = bytearray(script.one_of(self.blocks))
            if block:
                block[script.number(256) * len(block) // 256] = script.number(256)
            return self._kept(bytes(block))
        if kind == 1:
            return self._kept(script.one_of(_BLOCKS))
        return self._kept(bytes(script.number(256) for _ in range(script.number(24))))

    def stream_id(self) -> int:
        if not self.script.odd():
            return int(self.script.one_of(self.receives)) if self.receives else max(1, self.highest)
        return int(self.script.one_of([self.highest + 2, 0, 2, self.highest + 200, 2**31 + 1, 2**31 - 1, 1]))

    def headers(self) -> bytes:
        stream_id = self.highest + 2
        if self.answers or self.script.number(8) == 1 or self.open >= MAX_STREAMS - (not self.script.odd()):
            if not self.receives:
                return b""
            stream_id = self.stream_id()
        elif stream_id < 2**31:
            self.highest = stream_id
        block, ends = self.block(), self.script.number(2)
        if not self.answers and stream_id != self.highest and self.highest > 0 and self.script.number(64) > 0:
            ends = 1
        kind = self.script.number(16)
        if kind == 1:
            return frame(1, 0x0C | ends, stream_id, b"\x03" + block + bytes(3))
        if kind == 2:
            return frame(1, 0x24 | ends, stream_id, (0 if stream_id != 0 else 3).to_bytes(4) + b"\x07" + block)
        if kind == 3:
            cut = len(block) // 2
            between = self.script.one_of([frame(6, 0, 0, bytes(8)), frame(9, 0, stream_id, b"")])
            between = between if self.script.odd() else b""
            return frame(1, ends, stream_id, block[:cut]) + between + frame(9, 4, stream_id, block[cut:])
        return frame(1, (0x84 if kind == 4 else 4) | ends, stream_id, block)

    def data(self) -> bytes:
        size, flags = self.script.one_of(SIZES), self.script.one_of([0, 0, 0, 0, 1, 1, 8, 9, 0x10])
        content = b"c" * size
        if flags & 8:
            content = bytes([255 if self.script.odd() else 3]) + content[:9000] + bytes(3)
        return frame(0, flags, self.stream_id(), content) if self.receives or self.script.odd() else b""

    def one_of(self, choices: Sequence[Any]) -> Any:
        """Choose; the last ones seldom."""
        return self.script.one_of(choices if self.script.odd() else choices[: len(choices) * 2 // 3])

    def other(self) -> bytes:
        script = self.script
        kind = 6 if script.odd() else script.number(6) if self.highest > 0 else 5
        if kind == 0:
            return frame(3, 0, self.stream_id(), script.one_of([0, 8, 7]).to_bytes(4))
        if kind == 1:
            return frame(8, 0, script.one_of([0, self.stream_id()]), self.one_of(_INCREMENTS).to_bytes(4))
        if kind == 2:
            code, value = self.one_of(_SETTINGS)
            return frame(4, 0, 0, code.to_bytes(2) + value.to_bytes(4))
        if kind == 3:
            return frame(4, 1, 0, b"")
        if kind == 4:
            stream_id = self.stream_id()
            return frame(2, 0, stream_id, (stream_id if script.odd() else 2**31 - 5).to_bytes(4) + b"\x01")
        if kind == 5:
            return frame(6, script.number(2), 0, bytes(8))
        return frame(script.number(16), script.number(64), self.stream_id(), bytes(script.number(12)))
