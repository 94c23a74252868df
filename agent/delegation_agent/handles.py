"""The handle of the request being served, in a context variable.

Each task and each thread has its own context, so requests served at the same time never see each other's handle. A task
starts with a copy of the context of its maker: what a request starts keeps the request's handle. A thread of a pool has
a context of its own, without a handle.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

HEADER: Final = "Delegation-Handle"

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1
_current: Final[ContextVar[str | None]] = ContextVar("delegation_handle", default=None)

P = ParamSpec("P")
R = TypeVar("R")


def require_isolated_threads(flags: object = sys.flags) -> None:
    """Refuse an interpreter whose threads start with their maker's context, as free-threaded ones do by default.

    A pool makes a thread while one request needs it, and then lends it to others, which would find the first one's
    handle there.

    Raises:
        RuntimeError: threads of this interpreter inherit their maker's context.
    """
    if getattr(flags, "thread_inherit_context", 0):
        raise RuntimeError(
            "delegation_agent: in this interpreter a new thread inherits the handle of another request; "
            "start Python with -X thread_inherit_context=0"
        )


require_isolated_threads()


def handle() -> str | None:
    """Return the handle of the request being served; None outside of a request, or if the request has no handle."""
    return _current.get()


@contextmanager
def serving(handle: str | None) -> Iterator[None]:
    """Serve a request with this handle until the block ends; None: without a handle, also inside another request."""
    before = _current.set(handle)
    try:
        yield
    finally:
        _current.reset(before)


def sole(values: Iterable[str]) -> str | None:
    """Return the only value of a request's header lines; None if they hold no value, several, or no valid handle."""
    found = [value.strip() for value in values]
    return found[0] if len(found) == 1 and _TOKEN.fullmatch(found[0]) else None


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs, in any thread or task and at any time, with the handle that is current now."""
    held = handle()
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def carried_async(*args: P.args, **options: P.kwargs) -> Any:
            with serving(held):
                return await function(*args, **options)

        return cast("Callable[P, R]", carried_async)

    @functools.wraps(function)
    def carried(*args: P.args, **options: P.kwargs) -> R:
        with serving(held):
            return function(*args, **options)

    return carried


class Pieces(Generic[R]):
    """An iterator that makes each piece of a body or stream with one handle, in whichever thread asks for it."""

    def __init__(self, pieces: Iterable[R], held: str | None) -> None:
        self._whole = pieces
        self._held = held
        self._pieces: Iterator[R] | None = None

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        with serving(self._held):
            if self._pieces is None:
                self._pieces = iter(self._whole)
            return next(self._pieces)
