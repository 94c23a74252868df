"""The cost of a request whose head was not seen before, in bytecodes of interpreted code, beside that of a known one.

As in ``test_warm_cost.py``: the limits are the last counts plus twenty.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from sidecar.wire.h1_fields import _names_that_pass, request_layouts
from sidecar.wire.h1_shape import answer_shapes, request_shapes
from tests.core.world import INBOUND_CLAIMS, signed
from tests.fuzz.inbound_world import token
from tests.proxy.test_warm_cost import TIMES, Cost
from tests.proxy.warm import ANSWER, Warm, WarmOutbound

Head = Callable[[int], bytes]
_TOKENS: Final = 8


def inbound(path: bytes = b"/docs", field: bytes = b"", bearer: bytes | None = None) -> bytes:
    return (
        b"GET %b HTTP/1.1\r\nHost: writer:7443\r\nUser-Agent: agent/1\r\nAccept: */*\r\n"
        b"Authorization: Bearer %b\r\n%b\r\n" % (path, bearer or token(), field)
    )


@cache
def _bearer(number: int) -> bytes:
    return signed(INBOUND_CLAIMS | {"jti": f"token-{number}"}).raw.encode()


HEADS: Final[dict[str, tuple[Head, int]]] = {
    "the same": (lambda _: inbound(), 2_458),
    "a path": (lambda at: inbound(b"/docs/%08x" % at), 2_513),
    "a query": (lambda at: inbound(b"/docs?q=%08x" % at), 2_503),
    "a path of any size": (lambda at: inbound(b"/docs/" + b"x" * (1 + at * 7 % 23)), 2_573),
    "a value": (lambda at: inbound(field=b"X-Conversation: %08x\r\n" % at), 2_458),
    "a name": (lambda at: inbound(field=b"X-%08x: 1\r\n" % at), 2_961),  # its spelling is folded before it is compared
    "a trace": (lambda at: inbound(field=b"Traceparent: 00-%032x-%016x-01\r\n" % (at + 1, at + 1)), 2_493),
    "a known token": (lambda at: inbound(bearer=_bearer(at % _TOKENS)), 2_458),
}


def outbound(handle: bytes, path: bytes) -> bytes:
    return (
        b"GET http://crm.mesh%b HTTP/1.1\r\nHost: crm.mesh\r\nUser-Agent: agent/1\r\nAccept: */*\r\n"
        b"Authorization: Bearer %b\r\n\r\n" % (path, handle)
    )


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    """Other tests have heads of the same sizes, and fill the answers of the rules with their names."""
    _names_that_pass.clear()
    request_layouts.clear()
    request_layouts.bytes = 0
    request_shapes.cache_clear()
    answer_shapes.cache_clear()


async def _counted(warm: Warm | WarmOutbound, head: Head) -> float:
    """Return the bytecodes of the sidecar's own code for each of some requests after as many others."""
    heads = [head(at) for at in range(5 * TIMES)]

    def ask(data: bytes) -> None:
        warm.connection.data_received(data)
        warm.pool.connections.writes.write_all()
        warm.pool.agent.data_received(ANSWER)
        warm.writes.write_all()

    for data in heads[: 4 * TIMES]:
        ask(data)
    while not warm.log.settled:  # noqa: ASYNC110 - its thread encodes, as in ``test_warm_cost``
        await asyncio.sleep(0.005)
    gc.collect()
    gc.disable()
    cost = Cost()
    sys.settrace(cost)
    try:
        for data in heads[4 * TIMES :]:
            ask(data)
    finally:
        sys.settrace(None)
        gc.enable()
    await warm.log.close()
    assert warm.transport.written.count(b"HTTP/1.1 200 OK") == len(heads)
    return sum(bytecodes for room, (bytecodes, _) in cost.by_room().items() if room != "elsewhere")


@pytest.mark.budget
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="another Python has other bytecodes")
@pytest.mark.parametrize("what", HEADS)
async def test_a_head_that_was_not_seen_before_costs_hardly_more(tmp_path: Path, what: str) -> None:
    head, most = HEADS[what]
    own = await _counted(Warm(tmp_path / "records"), head)
    print(f"{what:20} {own:6.0f} bytecodes")  # noqa: T201 - with -s
    assert 1_000 < own <= most


@pytest.mark.budget
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="another Python has other bytecodes")
@pytest.mark.parametrize(("path", "most"), [(lambda _: b"/tool", 2_638), (lambda at: b"/tool/%08x" % at, 2_673)])
async def test_a_call_to_a_path_that_was_not_seen_before_costs_hardly_more(
    tmp_path: Path, path: Head, most: int
) -> None:
    warm = WarmOutbound(tmp_path / "records")
    own = await _counted(warm, lambda at: outbound(warm.handle.encode(), path(at)))
    print(f"outbound {own:6.0f} bytecodes")  # noqa: T201 - with -s
    assert 1_000 < own <= most
