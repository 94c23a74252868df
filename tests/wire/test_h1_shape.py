"""Heads of a known shape are read as the grammar reads them, and all others are left to it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from delegation_core.errors import Denied
from sidecar.wire.h1_reader import AnswerReader, RequestReader
from sidecar.wire.h1_shape import HeadShape, HeadShapes, answer_shapes, request_shapes
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import Request, Response

REQUESTS = {
    "origin form": (
        b"GET /search?q=1 HTTP/1.1\r\nHost: writer:7443\r\nAccept: */*\r\nAuthorization: Bearer abcdefgh\r\n"
        b"traceparent: 00-11-22-01\r\n\r\n"
    ),
    "absolute form": b"GET http://crm.mesh/tool HTTP/1.1\r\nHost: crm.mesh\r\nX-Trace: 0123\r\n\r\n",
    "an authority alone": b"GET http://crm.mesh HTTP/1.1\r\nHost: crm.mesh\r\nX-Trace: 0123\r\n\r\n",
    "a body": b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX-Trace: 0123\r\n\r\n",
    "chunks": b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-Trace: 0123\r\n\r\n",
    "a connection": b"GET /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, x-trace\r\nX-Trace: 0123\r\n\r\n",
    "one field twice": b"GET /a HTTP/1.1\r\nhost:a\r\nX-Trace:  0123 \r\nx-trace: 4567\r\n\r\n",
}
ANSWERS = {
    "a length": b"HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2026 06:00:00 GMT\r\nContent-Length: 1024\r\nX: a b c\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: abc\r\n\r\n",
    "steady fields alone": b"HTTP/1.1 200 OK\r\nServer: a/1\r\nContent-Type: text/plain\r\n\r\n",
    "no reason phrase": b"HTTP/1.1 404\r\nX: abc\r\nConnection: close\r\n\r\n",
}


@pytest.fixture(autouse=True)
def no_shapes() -> None:
    request_shapes.cache_clear()
    answer_shapes.cache_clear()


def requests() -> RequestReader:
    return RequestReader(ServerLimits(), proxy_form=True)


def answers() -> AnswerReader:
    return AnswerReader(ClientLimits())


def unshaped() -> RequestReader:
    reader = requests()
    reader._shapes = HeadShapes()
    return reader


def unshaped_answers() -> AnswerReader:
    reader = answers()
    reader._shapes = HeadShapes()
    return reader


def request_of(reader: RequestReader, head: bytes) -> Request | str | None:
    try:
        found = reader.read(head)
    except Denied as denied:
        return f"{denied.reason} {denied.detail}"
    return None if found is None else found[0]


def answer_of(reader: AnswerReader, head: bytes) -> Response | str | None:
    reader.expect("HEAD")
    try:
        return reader.feed(head)[0]
    except Denied as denied:
        return f"{denied.reason} {denied.detail}"


def trained_on(head: bytes) -> RequestReader:
    reader = requests()
    for _ in range(20):
        assert request_of(reader, head) is not None
    return reader


def answering(head: bytes) -> AnswerReader:
    reader = answers()
    for _ in range(20):
        assert answer_of(reader, head) is not None
    return reader


def variants(head: bytes, seed: int) -> list[bytes]:
    """Heads of the same size with some bytes changed, mostly to what matters to a parser."""
    chance = random.Random(seed)
    found = []
    for _ in range(60):
        changed = bytearray(head)
        for _ in range(chance.choice([1, 1, 2, 5])):
            changed[chance.randrange(len(changed))] = chance.choice(b"\r\n\t\0 :/?#%az09\x7f\x80\xffHc")
        found.append(bytes(changed))
    return found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_is_read_as_by_a_reader_that_knows_no_shape(case: str, seed: int) -> None:
    head = REQUESTS[case]
    reader = trained_on(head)
    for variant in variants(head, seed):
        if not reader.fresh:
            reader = trained_on(head)
        assert request_of(reader, variant) == request_of(unshaped(), variant), variant


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_is_read_as_by_a_reader_that_knows_no_shape(case: str, seed: int) -> None:
    head = ANSWERS[case]
    reader = answering(head)
    for variant in variants(head, seed):
        assert answer_of(reader, variant) == answer_of(unshaped_answers(), variant), variant
        if reader.began and reader.head is None:
            reader = answering(head)


@pytest.mark.parametrize("case", sorted(REQUESTS.keys() - {"an authority alone"}))
def test_a_head_with_other_values_in_the_same_places_is_read_by_its_shape(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = REQUESTS[case]
    reader = trained_on(head)
    other = head.replace(b"0123", b"9876").replace(b"Bearer abcdefgh", b"Bearer hgfedcba")
    expected = request_of(unshaped(), other)
    monkeypatch.setattr(RequestReader, "_read_new", lambda *_: pytest.fail("left to the grammar"))
    found = request_of(reader, other)
    assert isinstance(found, Request)
    assert found == expected


def test_an_authority_that_host_does_not_name_is_refused_whatever_came_before() -> None:
    reader = trained_on(REQUESTS["absolute form"])
    for head in (
        b"GET http://crm.mesx/tool HTTP/1.1\r\nHost: crm.mesh\r\nX-Trace: 0123\r\n\r\n",
        b"GET http://crm.mesh.tool HTTP/1.1\r\nHost: crm.mesh\r\nX-Trace: 0123\r\n\r\n",
    ):
        assert request_of(reader, head) == request_of(unshaped(), head)
        assert isinstance(request_of(reader, head), str)


def test_a_shape_holds_no_value_that_may_differ_by_user() -> None:
    reader = trained_on(REQUESTS["origin form"])
    shape = reader._shapes[len(REQUESTS["origin form"])]
    held = repr([getattr(shape, name) for name in HeadShape.__slots__])
    assert "abcdefgh" not in held
    assert "search" not in held
    assert "writer:7443" in held


def test_a_shape_of_an_answer_holds_the_values_of_steady_fields_alone() -> None:
    reader = answering(ANSWERS["a length"])
    shape = reader._shapes[len(ANSWERS["a length"])]
    held = repr([getattr(shape, name) for name in HeadShape.__slots__])
    assert "1024" in held
    assert "2026" not in held
    assert "a b c" not in held


def test_heads_whose_steady_values_differ_are_soon_read_by_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    one = b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: one\r\nAccept: */*\r\nX-Trace: 0123\r\n\r\n"
    two = one.replace(b"one", b"two")
    reader = requests()
    for _ in range(16):
        request_of(reader, one)
    assert reader._shapes[len(one)].request(two) is None
    for _ in range(16):
        request_of(reader, two)
    expected = [request_of(unshaped(), head) for head in (one, two)]
    monkeypatch.setattr(RequestReader, "_read_new", lambda *_: pytest.fail("left to the grammar"))
    assert [request_of(reader, head) for head in (one, two)] == expected
    assert "*/*" in repr(reader._shapes[len(one)]._constants)


def test_a_head_with_other_fields_of_the_same_size_makes_a_new_shape() -> None:
    one = b"GET /a HTTP/1.1\r\nHost: a\r\nAccept: one\r\n\r\n"
    two = b"GET /a HTTP/1.1\r\nHost: a\r\nServer: two\r\n\r\n"
    reader = requests()
    for head in (one, two):
        for _ in range(16):
            request_of(reader, head)
        assert reader._shapes[len(one)].request(head) == request_of(unshaped(), head)
    assert reader._shapes[len(one)].request(one) is None


def test_each_shape_of_a_size_is_replaced_later_than_the_one_before() -> None:
    reader, learned, shape = requests(), [], None
    for number in range(16 + 16 + 32 + 64):
        head = b"GET /a HTTP/1.1\r\nHost: a\r\nX-%04d: b\r\n\r\n" % number
        request_of(reader, head)
        if reader._shapes.get(len(head)) is not shape:
            shape = reader._shapes[len(head)]
            learned.append(number + 1)
    assert learned == [16, 32, 64, 128]


def test_shapes_and_sizes_are_bounded_however_many_come() -> None:
    reader = requests()
    for size in range(1500):
        for _ in range(17):
            request_of(reader, b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * size))
    assert len(reader._shapes) == 256
    assert len(reader._shapes._missed) <= 1024


def test_a_shape_takes_the_place_of_another_after_more_heads() -> None:
    def head(size: int) -> bytes:
        return b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * size)

    reader = requests()
    for size in range(256):
        for _ in range(16):
            request_of(reader, head(size))
    assert len(reader._shapes) == 256
    for number in range(64):
        assert len(head(256)) not in reader._shapes, number
        request_of(reader, head(256))
    assert len(head(256)) in reader._shapes
    assert len(head(0)) not in reader._shapes
    assert len(reader._shapes) == 256


def test_a_shape_is_learned_from_many_heads_of_a_size_and_not_from_few() -> None:
    reader = requests()
    for number in range(16):
        assert not reader._shapes
        request_of(reader, b"GET /%04d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    assert len(reader._shapes) == 1


def test_what_follows_a_head_of_a_known_shape_is_left() -> None:
    head = REQUESTS["a body"]
    reader, data = requests(), head + b"123456789012GET"
    for _ in range(20):
        found = reader.read(data)
        assert found is not None
        assert found[1:] == (len(head), b"123456789012GET")
    assert len(data) in reader._shapes


@pytest.mark.parametrize(
    "lower", [{"max_head_bytes": 150}, {"max_target_bytes": 99}, {"max_fields": 3}], ids=["head", "target", "fields"]
)
def test_a_listener_with_a_lower_limit_does_not_share_the_shapes_of_another(lower: dict[str, int]) -> None:
    head = b"GET /%b HTTP/1.1\r\nHost: a\r\nA: b\r\nB: c\r\nC: d\r\n\r\n" % (b"x" * 120)
    trained_on(head)
    stricter = RequestReader(replace(ServerLimits(), **lower), proxy_form=True)
    assert isinstance(request_of(stricter, head), str)


@pytest.mark.parametrize("lower", [{"max_head_bytes": 60}, {"max_fields": 1}], ids=["head", "fields"])
def test_an_upstream_with_a_lower_limit_does_not_share_them_either(lower: dict[str, int]) -> None:
    head = ANSWERS["a length"]
    answering(head)
    stricter = AnswerReader(replace(ClientLimits(), **lower))
    assert isinstance(answer_of(stricter, head), str)
