from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason
from sidecar.wire.framing import ChunkedBody, LengthBody
from sidecar.wire.h1_reader import RequestReader
from sidecar.wire.limits import ServerLimits


def reader(*, proxy_form: bool = False) -> RequestReader:
    return RequestReader(ServerLimits(max_body_bytes=100), proxy_form=proxy_form)


def post(fields: bytes) -> bytes:
    return b"POST /a HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (b"", type(None)),
        (b"Content-Length: 0\r\n", type(None)),
        (b"Content-Length: 100\r\n", LengthBody),
        (b"Transfer-Encoding: chunked\r\n", ChunkedBody),
    ],
)
def test_a_request_is_its_head_its_body_to_come_and_what_followed(fields: bytes, kind: type) -> None:
    requests = reader()
    found = requests.read(post(fields) + b"rest")
    assert found is not None
    head, size, rest = found
    assert isinstance(requests.body_of(head) if head.has_body else None, kind)
    assert (head.target, size, rest) == (b"/a", len(post(fields)), b"rest")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (b"Expect: 200-ok\r\n", Reason.EXPECTATION_REFUSED),
        (b"Upgrade: websocket\r\n", Reason.UPGRADE_REFUSED),
        (b"Content-Length: 101\r\n", Reason.TOO_LARGE),
    ],
)
def test_what_is_valid_and_not_served_is_refused_with_its_head(fields: bytes, reason: Reason) -> None:
    requests = reader()
    with pytest.raises(Denied) as refused:
        requests.read(post(fields))
    assert refused.value.reason == reason
    assert requests.refused_head is not None
    assert requests.refused_head.target == b"/a"


def test_a_malformed_head_is_refused_without_one() -> None:
    requests = reader()
    assert requests.read(post(b"")) is not None
    with pytest.raises(Denied):
        requests.read(b"GET  / HTTP/1.1\r\n\r\n")
    assert requests.refused_head is None


def test_a_head_that_has_begun_is_known_and_can_be_forgotten() -> None:
    requests = reader()
    assert requests.read(b"GET / HTTP/1.1\r\n") is None
    assert (requests.held > 0, requests.first_line_read) == (True, True)
    requests.clear()
    assert (requests.held > 0, requests.first_line_read) == (False, False)


CALL = b"Delegation-Call: 0123\r\n"


def test_heads_with_the_same_names_share_a_layout_at_every_reader() -> None:
    first = reader().read(post(CALL))
    again = reader().read(post(CALL.replace(b"0123", b"4567")))
    assert first is not None
    assert again is not None
    assert again[0].all(b"delegation-call") == (b"4567",)
    assert again[0].layout is first[0].layout
    assert again[1:] == first[1:] == (len(post(CALL)), b"")


def test_a_head_that_is_known_may_be_followed_by_more() -> None:
    requests = reader()
    for rest in (b"", b"rest", post(CALL), b"\r\n\r\n"):
        assert requests.read(post(CALL) + rest) == (*(reader().read(post(CALL)) or ())[:2], rest)


def test_a_head_that_is_known_to_one_listener_may_be_too_large_for_another() -> None:
    size = len(post(CALL))
    for fits, limit in ((True, size), (False, size - 1)):
        assert reader().read(post(CALL)) is not None
        small = RequestReader(ServerLimits(max_head_bytes=limit), proxy_form=False)
        if fits:
            assert small.read(post(CALL)) is not None
        else:
            with pytest.raises(Denied) as refused:
                small.read(post(CALL))
            assert refused.value.reason is Reason.HEAD_TOO_LARGE


def test_what_is_known_as_a_head_is_none_inside_another() -> None:
    requests, inside, begun = reader(), post(CALL), b"GET /b HTTP/1.1\r\nX: "
    assert reader().read(inside) is not None
    assert requests.read(begun) is None
    found = requests.read(inside)
    assert found is not None
    head, size, rest = found
    assert (head.target, head.all(b"x"), size, rest) == (b"/b", (b"POST /a HTTP/1.1",), len(begun + inside), b"")


def test_an_empty_line_may_come_before_a_head_that_is_known() -> None:
    requests = reader()
    for empty in (b"", b"\r\n"):
        assert requests.read(empty + post(CALL)) == reader().read(post(CALL))
    assert requests.read(b"\r\n") is None
    assert requests.read(post(CALL)) == reader().read(post(CALL))
