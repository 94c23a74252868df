from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from delegation_agent import handle, serving
from delegation_agent.asgi import HandleMiddleware

USERS: Final = 200


async def nothing(*_: Any) -> Any:
    """Stand in for ``receive`` and ``send``."""


def scope(*handles: bytes, kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "headers": [(b"host", b"a"), *((b"delegation-handle", value) for value in handles)]}


async def seen(given: dict[str, Any]) -> str | None:
    found: list[str | None] = []

    async def app(*_: Any) -> None:
        found.append(handle())

    await HandleMiddleware(app)(given, nothing, nothing)
    return found[0]


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_the_application_has_the_handle_of_its_request(kind: str) -> None:
    assert await seen(scope(b"alice", kind=kind)) == "alice"
    assert handle() is None


@pytest.mark.parametrize("handles", [(), (b"",), (b"alice", b"bob"), (b"alice bob",), ("älice".encode("latin-1"),)])
async def test_a_request_without_one_clear_handle_has_none_also_beside_that_of_another(
    handles: tuple[bytes, ...],
) -> None:
    with serving("bob"):
        assert await seen(scope(*handles)) is None


async def test_the_spelling_of_the_field_does_not_matter() -> None:
    assert await seen({"type": "http", "headers": [(b"Delegation-Handle", b"alice")]}) == "alice"


async def test_the_lifespan_of_a_server_passes_untouched() -> None:
    assert await seen({"type": "lifespan"}) is None


async def test_a_failing_application_leaves_no_handle() -> None:
    async def app(*_: Any) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await HandleMiddleware(app)(scope(b"alice"), nothing, nothing)
    assert handle() is None


async def test_200_requests_at_once_each_see_their_own_handle_to_the_end() -> None:
    """All wait for each other between two looks; every fifth request has none."""
    barrier = asyncio.Barrier(USERS)
    found: dict[int, set[str | None]] = {}

    async def app(given: Any, *_rest: Any) -> None:
        looks = {handle()}
        for _ in range(3):
            await barrier.wait()
            looks.add(handle())
            looks.add(await asyncio.to_thread(handle))
        found[given["number"]] = looks

    def request(number: int) -> Any:
        given = scope(*([] if number % 5 == 0 else [b"user-%d" % number]))
        return HandleMiddleware(app)({**given, "number": number}, nothing, nothing)

    await asyncio.gather(*map(request, range(USERS)))
    assert found == {one: {None if one % 5 == 0 else f"user-{one}"} for one in range(USERS)}


async def test_requests_one_after_another_in_one_task_share_nothing() -> None:
    """As on a kept connection."""
    assert [await seen(scope(b"alice")), await seen(scope()), await seen(scope(b"bob"))] == ["alice", None, "bob"]
