"""Answers of HTTP/2 upstreams, without a connection: their length, and the events that a sink gets."""

from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason
from sidecar.wire.h2_answer import Answer
from sidecar.wire.message import Response
from tests.wire.test_h2_client import Sink
from tests.wire.written import answer_with


def head_of(status: int = 200, length: int | None = None) -> Response:
    found = answer_with([])
    return Response(found.layout, found.values, status, length)


def answer_of(head: Response, method: str = "GET") -> Answer:
    answer = Answer(method, max_interim=1)
    answer.begin(head)
    return answer


@pytest.mark.parametrize(
    ("head", "method"), [(head_of(length=2), "HEAD"), (head_of(204), "GET"), (head_of(304), "GET")]
)
def test_an_answer_without_content_may_state_a_length_and_has_none(head: Response, method: str) -> None:
    answer, sink, stated = answer_of(head, method), Sink(), head.content_length
    with pytest.raises(Denied):
        answer_of(head, method).add(b"x", 1)
    answer.end()
    assert answer.is_whole
    answer.tell_whole(sink, answer.take())
    assert (sink.events, sink.head, head.content_length) == (["whole"], head, stated)


def test_a_whole_answer_without_a_stated_length_gets_that_of_its_content() -> None:
    answer, sink = answer_of(head_of()), Sink()
    answer.add(b"ab", 5)
    answer.end()
    assert answer.size == 5
    answer.tell_whole(sink, answer.take())
    assert (sink.content, answer.size) == (b"ab", 0)
    assert answer.head is not None
    assert answer.head.content_length == 2


def test_content_that_comes_later_is_told_behind_the_head() -> None:
    answer, sink = answer_of(head_of(length=3)), Sink()
    for content in (b"ab", b"", b"c"):
        answer.add(content, len(content))
        answer.tell(sink, answer.take())
    answer.end()
    assert (sink.events, sink.content, answer.is_whole) == (["head", "data"], b"abc", False)


def test_an_answer_with_trailers_is_told_in_parts() -> None:
    answer = answer_of(head_of())
    answer.trailers = [(b"grpc-status", b"0")]
    answer.end()
    assert not answer.is_whole


@pytest.mark.parametrize("begun", [False, True])
def test_content_that_no_head_admits_is_refused(begun: bool) -> None:
    answer = answer_of(head_of(length=2)) if begun else Answer("GET", max_interim=1)
    with pytest.raises(Denied) as refused:
        answer.add(b"abc", 3)
    assert (refused.value.reason, answer.size) == (Reason.UPSTREAM_BAD_RESPONSE, 3)


@pytest.mark.parametrize("begun", [False, True])
def test_an_end_before_the_stated_length_is_refused(begun: bool) -> None:
    answer = answer_of(head_of(length=2)) if begun else Answer("GET", max_interim=1)
    with pytest.raises(Denied) as refused:
        answer.end()
    assert (refused.value.reason, answer.over) == (Reason.UPSTREAM_ABORTED, False)


def test_interim_answers_are_counted() -> None:
    answer = Answer("GET", max_interim=1)
    answer.skip_interim()
    with pytest.raises(Denied):
        answer.skip_interim()
