"""Admission: a new connection is admitted, waits, evicts another, or is shed. Pure.

Theory of operation. A connection costs a descriptor; its handshake costs CPU; its request costs memory. Each of these
has a limit, and nobody may use a limit to lock others out. So one rule holds at each of them (`at_limit`): below the
limit a connection is admitted; at the limit it evicts the first connection that has outstayed its patience; if there is
none, it waits where waiting is cheap, or it is shed.

A new connection meets the rule at four points, each with the facts known there:

1. ``before_accept``: it is in the kernel's accept queue. Waiting there costs no descriptor, so a connection waits
   there while one of those held will soon be evictable.
2. ``on_accept``: the source address is known. An address at its own limit evicts its own connections only.
3. ``on_hello``: the ClientHello is complete. The number of handshakes that run at a time is limited.
4. ``on_peer``: the SPIFFE ID is proven. A peer at its own limit evicts its own connections only.

Patience depends on what a connection does with its place (`tenure_of`). A connection on which a request is served is
never evicted, unless its peer takes nothing of the answer. Unread bytes in its socket excuse a connection for a while:
the delay is ours. Connections of unproven peers are evicted before those of proven peers, and connections of peers with
more than the average before those with fewer (`below_share`).

Callers collect facts and carry out decisions. Facts that cost a search come from ``Candidates``, which is asked only at
a limit and examines a bounded sample (ADR 0033): a decision costs the same however many connections there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F")

WAIT_S: Final = 0.02  # until the next decision about a connection in the accept queue


@dataclass(frozen=True, slots=True)
class Admit:
    """Take the connection."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave the connection where it is, and decide again after ``seconds`` at the latest."""

    seconds: float = WAIT_S


@dataclass(frozen=True, slots=True)
class Evict(Generic[T_co]):
    """End ``which``, and take the connection in its place."""

    which: T_co


@dataclass(frozen=True, slots=True)
class Shed:
    """Refuse the connection. ``answered``: its request gets an answer that says so; otherwise it is closed at once."""

    why: str
    answered: bool


Decision = Admit | Wait | Evict[T] | Shed

ADMIT: Final = Admit()
WAIT: Final = Wait()
OVERLOADED: Final = Shed("there are too many connections", answered=True)
FAR_OVERLOADED: Final = Shed("there are too many connections", answered=False)
ADDRESS_AT_LIMIT: Final = Shed("too many connections from this address", answered=False)
PEER_AT_LIMIT: Final = Shed("too many connections of this peer", answered=True)


def at_limit(held: int, limit: int | None, first: Callable[[], T | None], otherwise: F) -> Admit | Evict[T] | F:
    """Decide about one more than ``held``, of which ``limit`` may be there (None: any number).

    ``first`` finds the connection to evict. Without one the decision is ``otherwise``.
    """
    if limit is None or held < limit:
        return ADMIT
    which = first()
    return otherwise if which is None else Evict(which)


# --- a listener


class Load(NamedTuple):
    """Facts about one listener.

    ``held`` counts against ``limit``, which is lower than configured while memory is short. Up to ``overflow``
    connections above it are accepted to be told that there are too many. ``per_address`` limits the connections of one
    source address; where callers prove a SPIFFE ID (``proving``), up to ``overflow`` above it are accepted to learn it.
    ``handshakes`` is the number of connections that may still end before a peer is proven;
    ``handshakes_full``: there is no room for one more, and none may be evicted.
    """

    held: int
    limit: int
    overflow: int
    per_address: int
    handshakes: int = 0
    handshakes_full: bool = False
    one_address: bool = False
    proving: bool = False


class Candidates(Protocol[T_co]):
    """Facts that cost a search."""

    def handshake(self, host: str | None = None) -> T_co | None:
        """Find the connection before or in its handshake, of one source address or of all, whose patience is over."""

    def connection(self, host: str | None = None) -> T_co | None:
        """Find the connection after its handshake that may be evicted first, of one source address or of all."""

    def soon(self, *, patiently: bool) -> bool:
        """Return True if a connection will be evictable soon. ``patiently``: also one that only rests, for a while."""


def before_accept(load: Load, candidates: Candidates[object]) -> Admit | Wait:
    """Decide whether to accept the next connection, of which nothing is known."""
    if load.handshakes_full:
        return WAIT
    if load.held < min(load.limit, load.per_address):
        return ADMIT
    if candidates.connection() is not None or candidates.handshake() is not None:
        return ADMIT
    if load.handshakes:
        return WAIT
    # At the limit of one address alone a long wait would let this address hold up all others.
    patiently = load.held >= load.limit or load.one_address
    return WAIT if candidates.soon(patiently=patiently) else ADMIT


def on_accept(load: Load, candidates: Candidates[T], *, host: str, from_address: int | None) -> Admit | Evict[T] | Shed:
    """Decide about an accepted connection from ``host``, which holds ``from_address`` (None: that is not limited)."""
    if load.held >= load.limit + load.overflow:
        return FAR_OVERLOADED
    if from_address is not None and from_address >= load.per_address:
        decision = at_limit(from_address, load.per_address, lambda: _first(candidates, host), ADDRESS_AT_LIMIT)
        # Or one peer of the address could lock out another: only the handshake proves which peer this is.
        if decision != ADDRESS_AT_LIMIT or not load.proving or from_address >= load.per_address + load.overflow:
            return decision
        return ADMIT if load.held < load.limit else OVERLOADED  # it evicts no connection of another address
    return at_limit(load.held, load.limit, lambda: _first(candidates, None), OVERLOADED)


def on_hello(running: int, limit: int | None, oldest: Held[T] | None, now: float) -> Admit | Evict[T] | Wait:
    """Decide whether one more handshake may run. ``oldest``: of those that run."""
    if limit is None or oldest is None or running < limit:
        return ADMIT
    left_s = oldest.since + oldest.patience_s - now
    return Wait(left_s) if left_s > 0 else Evict(oldest.which)


def on_peer(
    held: int, limit: int, first: Callable[[], T | None], *, address_full: bool = False, below_share: bool = True
) -> Admit | Evict[T] | Shed:
    """Decide about a connection whose peer is proven and has ``held`` others. ``first`` finds one of these to evict.

    ``address_full``: its address has more connections than its limit. Then the connection stays only if its peer has no
    other, or fewer than the average peer (``below_share``).
    """
    if address_full and held and not below_share:
        return at_limit(held, 0, first, PEER_AT_LIMIT)
    return at_limit(held, limit, first, PEER_AT_LIMIT)


def _first(candidates: Candidates[T], host: str | None) -> T | None:
    """Return the first to evict: connections in a handshake before those of proven peers."""
    which = candidates.handshake(host)
    return candidates.connection(host) if which is None else which


# --- one connection


class Held(NamedTuple, Generic[T]):
    """A connection that holds a place since ``since`` without being served, and may hold it for ``patience_s``."""

    which: T
    since: float
    patience_s: float


class Activity(NamedTuple):
    """Facts about one connection after its handshake. Times are on one monotonic clock; None: it is not so.

    ``idle_since``: no request is served. ``stuck_since``: its peer takes next to nothing of an answer.
    ``between_requests``: it waits for the first byte of another request. ``below_share``: its peer has fewer
    connections than the average peer. ``head_s``: the time that its peer needs for a head.
    """

    idle_since: float | None
    stuck_since: float | None
    between_requests: bool
    below_share: bool
    head_s: float


def tenure_of(activity: Activity, *, idle_s: float, stuck_s: float | None) -> tuple[float, float] | None:
    """Return since when a connection holds its place for nothing, and for how long it may; None: it is in use.

    A connection on which a head should arrive has less time than one that rests between requests: a head takes
    milliseconds. ``stuck_s`` None: an answer that is not taken is not a reason.
    """
    since = activity.idle_since
    if since is None:
        stuck_since = activity.stuck_since
        return None if stuck_s is None or stuck_since is None else (stuck_since, stuck_s)
    rests = activity.between_requests or activity.below_share
    return since, idle_s if rests else activity.head_s


class EvictionRate:
    """Token bucket: at most ``per_s`` evictions a second, ``at_once`` together. Each may cost a new handshake."""

    __slots__ = ("_at_once", "_free_at", "_per_s")

    def __init__(self, *, per_s: float, at_once: int) -> None:
        self._per_s = per_s
        self._at_once = at_once
        self._free_at = 0.0  # nothing is saved up from then on

    def allows(self, now: float) -> bool:
        """Return True if one more may be evicted."""
        return self._free_at - now < self._at_once / self._per_s

    def spend(self, now: float) -> None:
        """Count an eviction."""
        self._free_at = max(self._free_at, now) + 1 / self._per_s
