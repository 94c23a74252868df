from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from delegation_agent import handle, serving
from delegation_agent.wsgi import HandleMiddleware

USERS: Final = 200


def environ(value: str | None) -> dict[str, Any]:
    return {} if value is None else {"HTTP_DELEGATION_HANDLE": value}


def start(*_: Any) -> Any:
    """Stand in for ``start_response``."""


def told() -> bytes:
    return str(handle()).encode()


def at_once(_environ: Any, _start: Any) -> list[bytes]:
    return [told()]


def in_pieces(_environ: Any, _start: Any) -> Iterator[bytes]:
    yield told()
    yield told()


def run(app: Any, value: str | None) -> list[bytes]:
    body = HandleMiddleware(app)(environ(value), start)
    pieces = list(body)
    if close := getattr(body, "close", None):
        close()
    return pieces


@pytest.mark.parametrize("app", [at_once, in_pieces])
def test_the_application_has_the_handle_of_its_request(app: Any) -> None:
    assert set(run(app, "alice")) == {b"alice"}
    assert handle() is None


@pytest.mark.parametrize("app", [at_once, in_pieces])
@pytest.mark.parametrize("value", [None, "", "alice,bob", "alice, bob", "alice bob"])
def test_a_request_without_one_clear_handle_has_none_also_beside_that_of_another(app: Any, value: str | None) -> None:
    with serving("bob"):
        assert set(run(app, value)) == {b"None"}


def test_a_failing_application_leaves_no_handle() -> None:
    def app(*_: Any) -> Iterable[bytes]:
        raise KeyError

    with pytest.raises(KeyError):
        run(app, "alice")
    assert handle() is None


def test_a_complete_body_reaches_the_server_as_it_is() -> None:
    """A server states its length."""
    body = [b"a"]
    assert HandleMiddleware(lambda *_: body)(environ("alice"), start) is body


def test_a_body_is_closed_once_with_its_handle() -> None:
    closed: list[str | None] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield told()

        def close(self) -> None:
            closed.append(handle())

    assert run(lambda *_: Body(), "alice") == [b"alice"]
    assert closed == ["alice"]


def test_bodies_that_one_thread_sends_in_turns_keep_their_own_handles() -> None:
    bodies = [iter(HandleMiddleware(in_pieces)(environ(f"user-{n}"), start)) for n in range(USERS)]
    first = [next(body) for body in bodies]
    assert first == [next(body) for body in bodies] == [b"user-%d" % n for n in range(USERS)]
    assert handle() is None


def test_200_requests_on_16_threads_keep_their_own_handles() -> None:
    """Threads serve one request after another; every fifth has none."""
    together = threading.Barrier(16, timeout=30)

    def app(_environ: Any, _start: Any) -> Iterator[bytes]:
        yield told()
        together.wait()
        yield told()

    def request(number: int) -> set[bytes]:
        return set(run(app, None if number % 5 == 0 else f"user-{number}"))

    numbers = range(USERS - USERS % 16)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(request, numbers))
    assert found == [{b"None" if n % 5 == 0 else b"user-%d" % n} for n in numbers]
