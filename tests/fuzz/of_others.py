"""Our heads beside those of two other parsers: they agree with everything that we accept, or refuse it.

The others get the bytes that we take for a message. They must agree about method, target or status, about every field
in its order, about the body, and about the start of the next message.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from delegation_core.errors import Denied
from sidecar.wire.framing import UntilClose
from sidecar.wire.h1_reader import AnswerReader, RequestReader
from sidecar.wire.limits import ServerLimits
from sidecar.wire.message import Field
from tests.fuzz.of_bodies import LIMITS, read_all, read_answered
from tests.fuzz.other_parsers import Opinion, Seen, aiohttp_answer, aiohttp_request, h11_answer, h11_request

# The only allowed differences of the others, each with the reason why it is harmless.
KNOWN_DIFFERENCES: Final = {
    "empty line": "one before a request is skipped here, and never forwarded; h11 and aiohttp refuse or skip it",
    "method": "aiohttp writes it in capitals; here it is a route's word letter by letter, and 'get' finds no route",
    "Transfer-Encoding": "its value is compared without case: there is only chunked",
}


def requests_beside_others(data: bytes) -> None:
    """Every request of a pipelined stream."""
    reader = RequestReader(ServerLimits(max_head_bytes=8000, max_body_bytes=8000), proxy_form=True)
    while data:
        message, rest = data, b""
        try:
            found = reader.read(data)
            if found is None:
                return
            head, _, rest = found
            body = b""
            if head.has_body:
                to_come = reader.body_of(head)
                body, rest = read_all(to_come, rest)
                if not to_come.complete:
                    return
        except Denied:
            return
        message = data[: len(data) - len(rest)].removeprefix(b"\r\n")
        line = message.partition(b"\r\n")[0].split(b" ")
        if line[1].startswith(b"http://"):
            assert line[1].endswith(head.target) or head.target[:1] == b"/"
        else:
            assert line[1] == head.target
        ours = Seen((head.method.encode(), line[1]), head.fields, body)
        _agree(ours, h11_request(message), "h11")
        _agree(ours, aiohttp_request(message), "aiohttp")
        if not head.keep_alive:
            return
        data = rest


def answers_beside_others(data: bytes) -> None:
    """An answer with an explicit end, to GET and to HEAD."""
    for method in ("GET", "HEAD"):
        reader = AnswerReader(LIMITS)
        reader.expect(method)
        try:
            head, content = read_answered(reader, data)
        except Denied:
            continue
        if head is None or not reader.complete or isinstance(reader._body, UntilClose):
            continue
        final = _without_interim(data[: end_of(data, method)])
        ours = Seen((b"%d" % head.status,), head.fields, content)
        _agree(ours, h11_answer(final, method), "h11")
        _agree(ours, aiohttp_answer(final, method), "aiohttp")


def _without_interim(message: bytes) -> bytes:
    """Return only the final answer: the others return interim ones as separate messages."""
    while message[9:10] == b"1":
        message = message.partition(b"\r\n\r\n")[2]
    return message


def end_of(data: bytes, method: str) -> int:
    """Return the length of the answer: the shortest prefix of ``data`` that is complete."""
    low, high = 0, len(data)
    while low < high:
        middle = (low + high) // 2
        reader = AnswerReader(LIMITS)
        reader.expect(method)
        read_answered(reader, data[:middle])
        low, high = (low, middle) if reader.complete else (middle + 1, high)
    return low


def _agree(ours: Seen, theirs: Opinion, who: str) -> None:
    if theirs is None:
        return
    assert isinstance(theirs, Seen), f"{who}: {theirs.why}"
    first = (ours.first[0].upper(), *ours.first[1:]) if who == "aiohttp" else ours.first
    assert theirs.first == first, f"{who} reads another first line: {theirs.first!r}"
    assert _comparable(theirs.fields) == _comparable(ours.fields), f"{who} reads other fields: {theirs.fields!r}"
    assert theirs.body == ours.body, f"{who} reads another body: {theirs.body!r}"


def _comparable(fields: list[Field]) -> list[Field]:
    """Return the fields, without the allowed differences of ``KNOWN_DIFFERENCES``."""
    # a field that appears once may have moved; those of one name keep their order
    by_name = sorted(fields, key=itemgetter(0))
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in by_name]
