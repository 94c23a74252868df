"""Answers of MCP that the native engine returns: Python translates the id of the session."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.features.mcp.operation import McpOperation
from sidecar.features.mcp.warm import SessionMessage


class _Sessions:
    """A session whose answer names it by ``shown``."""

    def __init__(self, shown: bytes | None) -> None:
        self.shown = shown

    def shown_to_peer(self, named: list[bytes], status: int) -> bytes | None:
        assert (named, status) == ([b"s1"], 200)
        return self.shown


@pytest.mark.parametrize(("shown", "lines"), [(b"mac.s1", b"mcp-session-id: mac.s1\r\n"), (None, b"")])
def test_a_session_is_named_to_the_peer_by_its_own_id(shown: bytes | None, lines: bytes) -> None:
    session: Any = _Sessions(shown)
    assert SessionMessage(McpOperation(), lambda: None, session).answered(200, b"s1", b"") == lines


def test_an_answer_that_names_no_session_is_left_to_python() -> None:
    session: Any = _Sessions(None)
    assert SessionMessage(McpOperation(), lambda: None, session).answered(200, None, b"") is None
