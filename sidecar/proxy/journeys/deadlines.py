"""Deadlines of forwardings, and a timer wheel that finds the forwardings that are due.

A WebSocket, a tunnel, or a GET answered by an event stream is *endless*: it ends with its token, with its peer's
certificates, or when its user's login is too old for its route; a tunnel also after ``max_life_s``. Expiry ends no
other forwarding. An upload may take ``max_upload_s`` and an answer ``max_stream_s``, or longer while its authority
lasts. A call that stays open must be answered within ``max_wait_s``, or while its authority lasts. ``wire.lifetimes``
has the table by kind. A route's ``deadline_s`` ends requests of every kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import ceil
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from delegation_core.errors import DeadlinePassed, Denied, Reason, SidecarError

TICK_S: Final = 0.25  # the wheel's step
_NEVER: Final = float("inf")
_DEADLINE: Final = Reason.UPSTREAM_TIMEOUT

T = TypeVar("T")


class End(NamedTuple):
    """A deadline of a forwarding: the seconds left, and the reason to record when it passes."""

    left_s: float
    reason: Reason
    detail: str

    def error(self, *, begun: bool) -> SidecarError:
        """Return the error for the record and the caller. ``begun``: the answer has begun."""
        if self.reason is _DEADLINE:
            return DeadlinePassed(self.detail, begun=begun)
        return Denied(self.reason, self.detail)


class Timed(Protocol):
    """A forwarding's times. ``began_at`` and ``answered_at`` are monotonic seconds, ``…_expires_at`` wall seconds.

    ``answered_at``: arrival of the answer's head, if the answer is unfinished; else None. ``uploading``: the request's
    body is incomplete.
    """

    @property
    def endless(self) -> bool: ...  # noqa: D102
    @property
    def uploading(self) -> bool: ...  # noqa: D102
    @property
    def began_at(self) -> float: ...  # noqa: D102
    @property
    def answered_at(self) -> float | None: ...  # noqa: D102
    @property
    def token_expires_at(self) -> float: ...  # noqa: D102
    @property
    def login_expires_at(self) -> float: ...  # noqa: D102
    @property
    def peer_expires_at(self) -> float: ...  # noqa: D102
    @property
    def max_life_s(self) -> float: ...  # noqa: D102
    @property
    def max_upload_s(self) -> float: ...  # noqa: D102
    @property
    def max_stream_s(self) -> float: ...  # noqa: D102
    @property
    def max_wait_s(self) -> float: ...  # noqa: D102
    @property
    def deadline_s(self) -> float: ...  # noqa: D102


def end_of(one: Timed, *, wall: float, passed: float) -> End | None:
    """Return a forwarding's next deadline; None: it has none. ``wall`` and ``passed`` are now, by the two clocks."""
    ends: list[End] = []
    if one.deadline_s < _NEVER:
        ends.append(End(one.began_at + one.deadline_s - passed, _DEADLINE, "the deadline_s of the route"))
    token_left, login_left = one.token_expires_at - wall, one.login_expires_at - wall
    authority_left = min(token_left, login_left)
    if one.endless:
        ends.append(End(token_left, Reason.TOKEN_EXPIRED, "a stream ends with its token"))
        ends.append(End(login_left, Reason.STEP_UP_REQUIRED, "a stream ends when its user's login is too old"))
        ends.append(End(one.peer_expires_at - wall, Reason.SVID_EXPIRED, "a stream ends with its peer's certificate"))
        if one.answered_at is not None and one.max_life_s < _NEVER:
            left_s = one.answered_at + one.max_life_s - passed
            ends.append(End(left_s, Reason.TIMEOUT, "the tunnel lasted longer than max_stream_s"))
    else:
        if one.uploading:
            left_s = max(authority_left, one.began_at + one.max_upload_s - passed)
            ends.append(End(left_s, Reason.TIMEOUT, "the request took longer to come than max_upload_s"))
        if one.answered_at is not None:
            left_s = max(authority_left, one.answered_at + one.max_stream_s - passed)
            ends.append(End(left_s, Reason.TIMEOUT, "the answer took longer than max_stream_s"))
        elif one.max_wait_s < _NEVER and not one.uploading:
            left_s = max(authority_left, one.began_at + one.max_wait_s - passed)
            ends.append(End(left_s, Reason.TIMEOUT, "no answer within max_stream_s"))
    return min(ends, default=None)


class Wheel(Generic[T]):
    """Timer wheel: members by due time (monotonic seconds). Never early, at most one tick late."""

    def __init__(self, now: float, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._turned_to = int(now / tick_s)
        self._slots: defaultdict[int, set[T]] = defaultdict(set)
        self._places: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def put(self, one: T, due: float) -> None:
        """Add a member for ``due``, or for the next turn if that is past."""
        self.drop(one)
        place = max(ceil(due / self._tick_s), self._turned_to + 1)
        self._places[one] = place
        self._slots[place].add(one)

    def drop(self, one: T) -> None:
        """Remove a member."""
        place = self._places.pop(one, None)
        if place is not None:
            slot = self._slots[place]
            slot.discard(one)
            if not slot:
                del self._slots[place]

    def turn(self, now: float) -> Iterator[T]:
        """Yield and remove the members that are due. Members may be put or dropped in between."""
        turn = int(now / self._tick_s)
        while self._turned_to < turn and self._slots:
            self._turned_to += 1
            slot = self._slots.get(self._turned_to)
            while slot:
                one = next(iter(slot))
                self.drop(one)
                yield one
        self._turned_to = max(self._turned_to, turn)
