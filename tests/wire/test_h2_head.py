"""Heads of HTTP/2 as messages. Most faults are rows of ``test_h2_requests``."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.errors import Denied, Reason
from sidecar.wire.h1_fields import edited, encode_fields
from sidecar.wire.h2_head import fields_of, request_again, request_of, response_again, response_of, size_of, trailers_of
from sidecar.wire.h2_names import Fields
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import Edits
from tests.wire.h2_bench import ASKS, POSTS

LIMITS = ServerLimits()
fields = st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6)


def test_a_request_is_the_same_message_as_in_http_1() -> None:
    head = request_of([*POSTS, (b"x-a", b"b"), (b"content-length", b"3")], LIMITS, ends=False)
    assert (head.method, head.target, head.authority, head.minor, head.keep_alive) == ("POST", b"/a", "agent", 1, True)
    assert (head.content_length, head.has_body, head.upgrade, head.listed) == (3, True, None, frozenset())
    assert head.fields == [(b"host", b"agent"), (b"x-a", b"b"), (b"content-length", b"3")]


@pytest.mark.parametrize("ends", [True, False])
def test_a_request_has_a_body_unless_its_head_is_its_end(*, ends: bool) -> None:
    assert request_of(ASKS, LIMITS, ends=ends).has_body is not ends


def test_te_trailers_is_all_that_te_may_say() -> None:
    assert request_of([*ASKS, (b"te", b"trailers")], LIMITS, ends=True).one(b"te") == b"trailers"


@given(fields)
def test_any_head_is_read_or_refused(found: list[tuple[bytes, bytes]]) -> None:
    with suppress(Denied):
        head = request_of([*ASKS, *found], LIMITS, ends=True)
        written = edited(head, Edits(lambda _name: True))
        assert written.count(b"\r\n") == len(head.fields), "a field became two lines"
        assert fields_of(written) == head.fields


def as_read(head: list[tuple[bytes, bytes]]) -> Fields:
    fields = Fields(head)
    fields.size, fields.message = size_of(head), None
    return fields


def test_the_message_of_a_head_that_comes_again_is_that_of_before() -> None:
    fields = as_read(POSTS)
    first = request_again(fields, LIMITS, ends=False)
    assert first.has_body
    assert request_again(fields, LIMITS, ends=False) is first
    other = request_again(fields, LIMITS, ends=True)
    assert not other.has_body
    assert request_again(list(POSTS), LIMITS, ends=True) is not other  # one that h2 has read itself


def test_the_message_of_an_answer_that_comes_again_is_that_of_before() -> None:
    fields = as_read([(b":status", b"200"), (b"x-a", b"b")])
    first = response_again(fields, ClientLimits())
    assert response_again(fields, ClientLimits()) is first
    assert response_again([*fields], ClientLimits()) == first
    with pytest.raises(Denied):
        response_again(as_read([(b":status", b"200"), (b"X", b"1")]), ClientLimits())


def test_a_head_that_is_refused_is_judged_each_time() -> None:
    fields = as_read([*ASKS, (b"X", b"1")])
    for _ in range(2):
        with pytest.raises(Denied):
            request_again(fields, LIMITS, ends=True)


def test_a_length_that_fits_one_end_and_not_the_other_is_judged_for_each() -> None:
    fields = as_read([*POSTS, (b"content-length", b"3")])
    assert request_again(fields, LIMITS, ends=False).content_length == 3
    with pytest.raises(Denied) as refused:
        request_again(fields, LIMITS, ends=True)
    assert refused.value.reason is Reason.AMBIGUOUS_FRAMING


ANSWERS = {
    "no status": ([], Reason.BAD_REQUEST),
    "a status of four digits": ([(b":status", b"2000")], Reason.BAD_REQUEST),
    "a switch of protocols": ([(b":status", b"101")], Reason.BAD_REQUEST),
    "two of them": ([(b":status", b"200"), (b":status", b"200")], Reason.BAD_REQUEST),
    "a field of requests": ([(b":status", b"200"), (b":path", b"/")], Reason.BAD_REQUEST),
    "transfer-encoding": ([(b":status", b"200"), (b"transfer-encoding", b"chunked")], Reason.AMBIGUOUS_FRAMING),
    "two lengths": ([(b":status", b"200"), *[(b"content-length", b"1")] * 2], Reason.AMBIGUOUS_FRAMING),
    "a capital letter": ([(b":status", b"200"), (b"X", b"1")], Reason.BAD_REQUEST),
}


@pytest.mark.parametrize(("head", "reason"), ANSWERS.values(), ids=ANSWERS.keys())
def test_a_malformed_answer_is_refused(head: list[tuple[bytes, bytes]], reason: Reason) -> None:
    with pytest.raises(Denied) as refused:
        response_of(head, ClientLimits())
    assert refused.value.reason is reason


def test_an_answer_is_the_same_message_as_in_http_1() -> None:
    answer = response_of([(b":status", b"200"), (b"content-length", b"3"), (b"x-a", b"b")], ClientLimits())
    assert (answer.status, answer.content_length, answer.chunked) == (200, 3, False)
    assert answer.fields == [(b"content-length", b"3"), (b"x-a", b"b")]


def test_trailers_have_no_pseudo_field() -> None:
    assert trailers_of([(b"grpc-status", b"0")], max_bytes=100, max_fields=10) == [(b"grpc-status", b"0")]
    for bad in ([(b":status", b"200")], [(b"x", b"y" * 100)], [(b"connection", b"close")]):
        with pytest.raises(Denied):
            trailers_of(bad, max_bytes=100, max_fields=10)


def test_fields_are_read_back_from_lines() -> None:
    found = [(b"x-a", b"b: c"), (b"x-b", b""), (b"x-c", b"d")]
    assert fields_of(encode_fields(found)) == found
    assert fields_of(b"") == []


def test_a_list_of_fields_counts_32_bytes_more_for_each() -> None:
    assert size_of([(b"ab", b"cde"), (b"", b"")]) == 5 + 64
