from __future__ import annotations

import pytest

from sidecar.errors import Denied, Reason
from sidecar.wire.framing import ChunkedBody, LengthBody
from sidecar.wire.limits import ServerLimits
from sidecar.wire.request import RequestReader


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
        (b"Upgrade: h2c\r\n", Reason.UPGRADE_REFUSED),
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
