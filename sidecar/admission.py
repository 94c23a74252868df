"""Admission: a new connection is admitted, waits, evicts another, or is shed. Pure.

Theory of operation. A connection costs a descriptor; its handshake costs CPU; its request costs memory. Each of these
has a limit, and nobody may use a limit to lock others out. So one rule holds at each limit (`at_limit`): below the
limit a connection is admitted; at the limit it evicts the first connection whose patience has run out; without such a
connection it waits where waiting is cheap, or it is shed.

A new connection meets the rule at four points, each with the facts known there:

1. ``before_accept``: the connection is in the kernel's accept queue. Waiting there costs no descriptor, so it waits
   there while another connection will soon be evictable.
2. ``on_accept``: the source address is known. An address at its own limit evicts its own connections only.
3. ``on_hello``: the ClientHello is complete. The number of handshakes that run at a time is limited.
4. ``on_peer``: the SPIFFE ID is proven. A peer at its own limit evicts its own connections only.

Patience depends on a connection's activity (`tenure_of`). A connection with a request in progress is evicted only if
its peer reads nothing of the answer. Unread bytes in its socket spare a connection for a while, because the delay is
ours. Connections of unproven peers are evicted before those of proven peers, and connections of peers with more than
the average before those with fewer (`below_share`).

Callers collect facts and carry out decisions. Facts that cost a search come from ``Candidates``, which is called only
at a limit and examines a bounded sample (ADR 0033): the cost of a decision does not grow with the connections.
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
    """Leave the connection in its queue, and decide again after at most ``seconds``."""

    seconds: float = WAIT_S


@dataclass(frozen=True, slots=True)
class Evict(Generic[T_co]):
    """End ``which``, and take the new connection instead."""

    which: T_co


@dataclass(frozen=True, slots=True)
class Shed:
    """Refuse the connection. ``answered``: answer its request with an error; otherwise close it at once."""

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
    """Decide about one more connection beside ``held`` others, of at most ``limit`` (None: no limit).

    ``first`` returns the connection to evict; if it returns None, the decision is ``otherwise``.
    """
    if limit is None or held < limit:
        return ADMIT
    which = first()
    return otherwise if which is None else Evict(which)


# --- a listener


class Load(NamedTuple):
    """Facts about one listener.

    ``held`` counts against ``limit``, which is lower than configured while memory is short. Up to ``overflow``
    connections above it are accepted, to answer their requests with an error. ``per_address`` limits the connections of
    one source address; if callers prove a SPIFFE ID (``proving``), up to ``overflow`` above it are accepted to learn
    that ID. ``handshakes`` is the number of connections before or in their handshake. ``handshakes_full``: one more is
    impossible, and none can be evicted. ``one_address``: all connections come from one address.
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
        """Return a connection before or in its handshake that can be evicted, of one source address or of all."""

    def connection(self, host: str | None = None) -> T_co | None:
        """Return the first connection after its handshake to evict, of one source address or of all."""

    def soon(self, *, patiently: bool) -> bool:
        """Return True if a connection becomes evictable soon. ``patiently``: also if it is only idle."""


def before_accept(load: Load, candidates: Candidates[object]) -> Admit | Wait:
    """Decide about the next connection in the accept queue, before its address is known."""
    if load.handshakes_full:
        return WAIT
    if load.held < min(load.limit, load.per_address):
        return ADMIT
    if candidates.connection() is not None or candidates.handshake() is not None:
        return ADMIT
    if load.handshakes:
        return WAIT
    # If only one address is at its limit, a long wait would let that address delay all others.
    patiently = load.held >= load.limit or load.one_address
    return WAIT if candidates.soon(patiently=patiently) else ADMIT


def on_accept(load: Load, candidates: Candidates[T], *, host: str, from_address: int | None) -> Admit | Evict[T] | Shed:
    """Decide about an accepted connection from ``host``, which has ``from_address`` others (None: no limit)."""
    if load.held >= load.limit + load.overflow:
        return FAR_OVERLOADED
    if from_address is not None and from_address >= load.per_address:
        decision = at_limit(from_address, load.per_address, lambda: _first(candidates, host), ADDRESS_AT_LIMIT)
        # Only the handshake tells peers of one address apart: without it one peer could lock out another.
        if decision != ADDRESS_AT_LIMIT or not load.proving or from_address >= load.per_address + load.overflow:
            return decision
        return ADMIT if load.held < load.limit else OVERLOADED  # it evicts no connection of another address
    return at_limit(load.held, load.limit, lambda: _first(candidates, None), OVERLOADED)


def on_hello(running: int, limit: int | None, oldest: Held[T] | None, now: float) -> Admit | Evict[T] | Wait:
    """Decide about one more handshake, beside ``running`` others; ``oldest`` is the oldest of them."""
    if limit is None or oldest is None or running < limit:
        return ADMIT
    left_s = oldest.since + oldest.patience_s - now
    return Wait(left_s) if left_s > 0 else Evict(oldest.which)


def on_peer(
    held: int, limit: int, first: Callable[[], T | None], *, address_full: bool = False, below_share: bool = True
) -> Admit | Evict[T] | Shed:
    """Decide about a connection of a proven peer with ``held`` others. ``first`` returns one of those to evict.

    ``address_full``: the peer's address is above its limit. Then the connection stays only if its peer has no other, or
    fewer than the average peer (``below_share``).
    """
    if address_full and held and not below_share:
        return at_limit(held, 0, first, PEER_AT_LIMIT)
    return at_limit(held, limit, first, PEER_AT_LIMIT)


def _first(candidates: Candidates[T], host: str | None) -> T | None:
    """Return the connection to evict: one in a handshake, else one of a proven peer."""
    which = candidates.handshake(host)
    return candidates.connection(host) if which is None else which


# --- one connection


class Held(NamedTuple, Generic[T]):
    """A connection that waits since ``since``, and may wait for ``patience_s`` before it can be evicted."""

    which: T
    since: float
    patience_s: float


class Activity(NamedTuple):
    """Facts about one connection after its handshake. Times are monotonic seconds; None: not in that state.

    ``idle_since``: no request is in progress. ``stuck_since``: its peer reads next to nothing of an answer.
    ``between_requests``: it waits for the first byte of another request. ``below_share``: its peer has fewer
    connections than the average peer. ``head_s``: seconds allowed for a head.
    """

    idle_since: float | None
    stuck_since: float | None
    between_requests: bool
    below_share: bool
    head_s: float


def tenure_of(activity: Activity, *, idle_s: float, stuck_s: float | None) -> tuple[float, float] | None:
    """Return the time since when a connection is idle or stuck, and its patience in seconds; None: it is in use.

    A connection whose head is due has less patience than one between requests: a head takes milliseconds. ``stuck_s``
    None: an unread answer counts as use.
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
        self._free_at = 0.0  # time at which the bucket is full again

    def allows(self, now: float) -> bool:
        """Return True if one more eviction is allowed."""
        return self._free_at - now < self._at_once / self._per_s

    def spend(self, now: float) -> None:
        """Count an eviction."""
        self._free_at = max(self._free_at, now) + 1 / self._per_s
