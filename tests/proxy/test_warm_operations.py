"""Readers of operations for the native engine: the journey's own reading, without a wait and without an effect."""

from __future__ import annotations

from typing import Final

import pytest

from delegation_core.errors import Denied
from sidecar.features.mcp.operation import McpOperation
from sidecar.proxy.native.warm_operations import (
    MAX_READ,
    PYTHONS,
    HandedOver,
    OperationRead,
    WarmMessage,
    read_operation,
)
from sidecar.wire.h1_head import RequestGrammar
from tests.proxy.engines import POLICY
from tests.proxy.messages import from_peer, tool

_GRAMMAR: Final = RequestGrammar(max_target_bytes=4096, max_fields=64, proxy_form=False)
SEARCH: Final = from_peer("/mcp", tool()[0], *tool()[1])


def read(data: bytes, *, left_out: int = 0) -> OperationRead | bool:
    size = data.index(b"\r\n\r\n") + 4
    head = _GRAMMAR.read(data[:size])
    route = POLICY.inbound.find("POST", "/mcp")
    body = None if left_out else data[size:]
    return read_operation(McpOperation(), head, body, route, "/mcp", below=route.below("/mcp"))


def test_an_operation_is_read_from_a_whole_message() -> None:
    found = read(SEARCH)
    assert isinstance(found, OperationRead)
    assert (found.op, found.asked.key, found.route.operation) == ("tools/call:search",) * 3
    assert found.asked.stateless


@pytest.mark.parametrize("left_out", [1, len(tool()[0])])
def test_a_message_whose_rest_is_missing_may_wait_for_it(left_out: int) -> None:
    assert read(SEARCH, left_out=left_out) is True


@pytest.mark.parametrize(
    "data",
    [
        SEARCH.replace(b"POST", b"GET"),
        from_peer("/mcp", tool()[0] + b" " * MAX_READ, *tool()[1]),
    ],
    ids=["another method", "a long message"],
)
def test_what_is_not_passed_on_as_it_is_is_left_to_python(data: bytes) -> None:
    assert read(data) is False


def test_a_message_longer_than_its_route_takes_is_left_to_python_before_its_rest_comes() -> None:
    data = SEARCH.replace(b"Content-Length: ", b"Content-Length: 9999999")
    assert read(data, left_out=1) is False


@pytest.mark.parametrize(
    "data",
    [
        SEARCH.replace(b"Mcp-Name: search", b"Mcp-Name: delete"),
        SEARCH.replace(b'"tools/call"', b'"tools/drop"'),
        SEARCH.replace(b"application/json\r\nMCP", b"text/plain\r\nMCP"),
    ],
    ids=["a field that contradicts it", "another operation", "another kind of content"],
)
def test_a_refusal_leaves_as_an_error(data: bytes) -> None:
    with pytest.raises(Denied):
        read(data)


# --- answers


def nothing() -> None:
    pass


def test_an_answer_with_which_nothing_can_be_done_is_left_to_python() -> None:
    assert WarmMessage(McpOperation(), nothing).answered(200, b"policy_denied", b"{}") is None


def test_python_begins_the_next_messages_of_a_route_whose_answer_was_handed_over() -> None:
    routes = HandedOver()
    assert not routes.takes("tools")
    routes.note("tools")
    assert [routes.takes("tools") for _ in range(PYTHONS + 2)] == [True] * PYTHONS + [False] * 2
    routes.note("tools")
    assert not routes.takes("another")
