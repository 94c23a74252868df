"""Names of heads of HTTP/2: their faults, the message that follows from them, and how much of them is kept."""

from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason
from sidecar.wire.h1_fields import request_layouts
from sidecar.wire.h2_head import request_of
from sidecar.wire.h2_names import HeadNames, KnownNames, of_requests
from sidecar.wire.limits import ServerLimits
from tests.wire.h2_bench import ASKS

KNOWN = frozenset({b":method", b":path", b":authority", b":scheme"})


def names(*found: bytes) -> HeadNames:
    return HeadNames(found, KNOWN, request_layouts)


def test_the_authority_becomes_the_host_unless_there_is_one() -> None:
    head = names(b":path", b":authority", b"x-a")
    assert (head.path, head.authority, head.method) == (0, 1, 3)
    assert (head.names, head.pick((b"/", b"agent", b"1"))) == ((b"host", b"x-a"), (b"agent", b"1"))
    head = names(b":authority", b"x-a", b"host")
    assert (head.names, head.hosts, head.pick((b"a", b"1", b"b"))) == ((b"x-a", b"host"), [2], (b"1", b"b"))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ((b"x-a", b":path"), Reason.BAD_REQUEST),
        ((b":path", b":path"), Reason.BAD_REQUEST),
        ((b":status",), Reason.BAD_REQUEST),
        ((b":path", b"X-A"), Reason.BAD_REQUEST),
        ((b":path", b"x a"), Reason.BAD_REQUEST),
        ((b":path", b"x:a"), Reason.BAD_REQUEST),
        ((b":path", b""), Reason.BAD_REQUEST),
        ((b":path", b"x\r\n"), Reason.BAD_REQUEST),
        ((b":path", b"connection"), Reason.BAD_REQUEST),
        ((b":path", b"proxy-connection"), Reason.BAD_REQUEST),
        ((b":path", b"keep-alive"), Reason.BAD_REQUEST),
        ((b":path", b"upgrade"), Reason.BAD_REQUEST),
        ((b":path", b"http2-settings"), Reason.BAD_REQUEST),
        ((b":path", b"transfer-encoding"), Reason.AMBIGUOUS_FRAMING),
    ],
)
def test_faulty_names_are_refused_each_time(found: tuple[bytes, ...], reason: Reason) -> None:
    known = KnownNames(KNOWN, request_layouts)
    for _ in range(2):
        with pytest.raises(Denied) as refused:
            known[found]
        assert refused.value.reason is reason
    assert not known


def test_the_same_names_with_another_value_are_judged_by_the_value() -> None:
    limits = ServerLimits()
    good, bad = [*ASKS, (b"te", b"trailers"), (b"x-a", b"1")], [*ASKS, (b"te", b"trailers"), (b"x-a", b"1\n")]
    worse = [*ASKS, (b"te", b"gzip"), (b"x-a", b"1")]
    for _ in range(2):
        assert request_of(good, limits, ends=True).one(b"x-a") == b"1"
        for head in (bad, worse):
            with pytest.raises(Denied):
                request_of(head, limits, ends=True)


def test_no_value_is_kept() -> None:
    request_of([*ASKS, (b"x-kept", b"a secret")], ServerLimits(), ends=True)
    kept = of_requests[*[name for name, _ in ASKS], b"x-kept"]
    assert b"a secret" not in repr([getattr(kept, slot) for slot in HeadNames.__slots__]).encode()


def test_what_is_kept_is_bounded() -> None:
    known = KnownNames(KNOWN, request_layouts)
    for number in range(1000):
        known[b":path", b"x-%d" % number]
    assert len(known) <= 256
    assert (b":path", b"x-999") in known
    long = (b":path", b"x" * 5000)
    assert known[long].names == (b"x" * 5000,)
    assert long not in known
