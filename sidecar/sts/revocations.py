"""The revocations of one replica of the token service: its book of orders, kept in a file, and the list it signs.

An order counts here once it is on the disk. A replica is not ready, and serves no list, if it could not read its file,
cannot write an order of another replica, or has not heard a majority of the replicas for ``MAX_SILENCE_S``: a list that
lacks an order is worse than none. Before that, the list says how old its knowledge is.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from delegation_core.claims import is_name
from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.records.record_text import masked
from delegation_core.revocation import InForce, Kind, Use
from delegation_core.revocations_kept import NONE, Knowledge, Revocations, RevocationsError
from delegation_core.spiffe_id import SpiffeId
from delegation_core.steps import Steps, at_once, slices
from sidecar.steps import in_steps
from sidecar.sts.book import ROOM_FOR_EVENTS, ROOM_FOR_OPERATORS, Book, SeqError, parse_book
from sidecar.sts.book_file import pieces_of, rows_of, write_atomically
from sidecar.sts.keys import KeyRing
from sidecar.sts.known_names import KnownNames, SeenNames
from sidecar.sts.orders import MAX_BOOK_BYTES, MAX_ORDER_BYTES, Action, Order, verify_order
from sidecar.sts.peers import Peers
from sidecar.sts.policy import StsPolicy
from sidecar.sts.records import EventLog
from sidecar.sts.signed_list import SignedList

_MOST_BYTES: Final = MAX_BOOK_BYTES - MAX_ORDER_BYTES  # of all orders: a document has a little more
MAX_SILENCE_S: Final = 300  # as the default of max_stale_s at sidecars
_LOOK_S: Final = 0.25  # between two looks at the clock, for revocations that end
_LOOKS_PER_LOAD: Final = 20
_LATE_S: Final = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationSettings:
    """The ``operators`` with the kinds that each may revoke, the ``file`` of the orders (None: memory only, for
    development), and the URLs of all ``replicas``, whose names stand for all their addresses.
    """

    operators: Mapping[SpiffeId, frozenset[Kind]] = field(default_factory=dict)
    file: Path | None = None
    replicas: tuple[str, ...] = ()


class ListAnswer(NamedTuple):
    """Answer to a reader: the list as a JWS, or the confirmation that the reader's list is current."""

    tag: str
    jws: bytes = b""
    unchanged: str | None = None


class Register:
    """The orders of one replica. ``peers`` says when the others were heard.

    The active revocations are a ``_View`` of the book under one policy. A change of the book builds the next view
    first, in steps; changes run one at a time. An exchange uses the current view.
    """

    def __init__(
        self,
        settings: RevocationSettings,
        log: EventLog,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.peers = Peers(settings.replicas, monotonic=monotonic)
        self.share: Callable[[], Coroutine[None, None, None]] = _with_nobody  # gives the peers what they lack
        self.trouble: str | None = "the file of orders has not been read yet"
        self.changes = 0  # of the book since the start
        self.clock_falls = 0  # since the start; before each of them orders may have gone that had not ended
        self._log = log
        self._clock = clock
        self._book = Book()
        self._rows: Mapping[str, bytes] = {}  # the orders as JSON
        self._view: _View | None = None
        self._changing = asyncio.Lock()
        self._signed = SignedList()
        self.seen = SeenNames(clock)
        self._seen_at = 0

    @property
    def book(self) -> Book:
        """All orders."""
        return self._book

    def document(self, members: Mapping[str, object]) -> tuple[int, Iterator[bytes]]:
        """Return the book, and more ``members``, as JSON: its length, and its pieces."""
        members = {**members, "seq": self._book.seq}
        without = sum(map(len, pieces_of(members, {})))
        commas = max(0, len(self._rows) - 1)
        return without + sum(map(len, self._rows.values())) + commas, pieces_of(members, self._rows)

    def lacking(self) -> str | None:
        """Return the reason why this replica may lack too much to answer; None if its list may be used."""
        unkept, silence_s = self.trouble or self.peers.unkept(), self.peers.silence_s()
        if unkept is not None:
            return unkept
        if silence_s is None:
            return "no majority of the replicas has answered since the start"
        if silence_s > MAX_SILENCE_S:
            return f"no majority of the replicas has answered for {int(silence_s)} s"
        return None

    def load(self) -> None:
        """Read the file. A missing file means no orders; the error of an unusable file is kept in ``trouble``."""
        file = self.settings.file
        try:
            if file is not None and file.exists():
                self._book, _ = at_once(parse_book(file.read_bytes()))
        except (OSError, ValueError) as error:
            self.trouble = f"{file}: {error.strerror if isinstance(error, OSError) else error}"
            return
        self.trouble = None
        self._rows = {name: one.row() for name, one in self._book.orders.items()}
        self._view = None

    async def run(self) -> None:
        """Remove expired revocations from the view, and try again to read a file that failed, until cancelled."""
        while True:
            for _ in range(_LOOKS_PER_LOAD):
                await asyncio.sleep(_LOOK_S)
                await self.expire()
            if self.trouble is not None:  # the file may have been restored
                self.load()

    async def expire(self) -> None:
        """Remove expired revocations from the view."""
        async with self._changing:
            now = self._now()
            if self._view is not None:
                try:
                    self._view = await in_steps(self._later(self._view, now))
                except Unavailable:  # more are in force than any reader takes
                    self._view = None  # whoever asks is refused, with the cause

    async def prepare(self, policy: StsPolicy) -> None:
        """Build the view for the next policy, which the caller activates afterwards."""
        async with self._changing:
            self._view = await in_steps(_view(self._book, policy, self._now()))

    async def accept(
        self, raw: str, *, operator: SpiffeId, certificate: bytes, audience: str, known: KnownNames
    ) -> Order:
        """Accept an order of a listed operator, who proved ``certificate`` on this connection.

        ``known`` are the names that an order may use. Returns the order, or the earlier one that makes it unnecessary.

        Raises:
            Denied: ORDER_REFUSED.
            Unavailable: AUDIT_UNAVAILABLE, no record can be written; NOT_READY, the order cannot be kept.
        """
        if operator not in self.settings.operators:
            raise Denied(Reason.ORDER_REFUSED, "the client is not a listed operator")

        async def verified() -> Order:
            orders, now = self._book.orders, self._now()
            order = verify_order(
                raw,
                operator=operator,
                certificate=certificate,
                audience=audience,
                orders=orders,
                now=now,
                admit=known.admit,
            )
            if order.kind not in self.settings.operators.get(operator, ()):
                raise Denied(Reason.ORDER_REFUSED, f"this operator may not revoke this kind: {order.kind}")
            return await self._add(order)

        return await self._change(verified)

    async def add(self, order: Order, *, sources: int = 1) -> Order:
        """Store and record an order. Returns it, or the earlier one that makes it unnecessary. Raises as ``accept``.

        ``sources`` is the number of user issuers, which share the room for events.
        """
        return await self._change(partial(self._add, order, sources))

    async def merge(self, other: Book) -> None:
        """Merge the orders of another replica.

        Raises:
            SeqError: the other book's number is too far ahead.
            Unavailable: NOT_READY, the orders cannot be kept.
        """

        async def merged() -> None:
            if self.trouble is not None:  # the file may hold more than a peer knows
                raise Unavailable(Reason.NOT_READY, self.trouble)
            try:
                book = self._book.merged(other, now=self._now())
            except SeqError:
                raise
            except ValueError as error:
                raise Unavailable(Reason.NOT_READY, str(error)) from error
            if book is not self._book:
                await self._replace(book)

        await self._change(merged)

    async def take(self, orders: Mapping[str, Order]) -> None:
        """Store orders that another replica sent; they are on the disk when this returns. Raises as ``merge``."""
        await self.merge(Book(seq=self._book.seq, orders=orders))

    async def acknowledge(self, order: Order) -> list[str]:
        """Send an order to the other replicas. Returns the replicas that may lack it; later rounds retry those."""
        await self.share()
        return self.peers.without(order.id)

    def rows(self, names: Collection[str], *, most_bytes: int) -> Mapping[str, bytes]:
        """Return orders that have not ended, as JSON, up to ``most_bytes`` in all."""
        now, found, size = self._now(), {}, 0
        for name in names:
            order = self._book.orders.get(name)
            if order is not None and order.expires_at > now and size + len(self._rows[name]) <= most_bytes:
                found[name] = self._rows[name]
                size += len(found[name]) + 1
        return found

    def lacked_by(self, other: Book) -> list[str]:
        """Return the names of unexpired orders here that another replica's book lacks."""
        now, ours = self._now(), self._book.orders
        return [name for name in ours.keys() - other.orders.keys() if ours[name].expires_at > now]

    def unacknowledged(self) -> int:
        """Count the orders that at least one other replica may lack, for the metric."""
        now = self._now()
        return self.peers.unacknowledged([name for name, one in self._book.orders.items() if one.expires_at > now])

    async def keep_again(self) -> None:
        """Retry a failed write of the file. Raises Unavailable NOT_READY."""

        async def again() -> None:
            await self._replace(self._book)

        await self._change(again)

    def revocations(self, policy: StsPolicy) -> Revocations:
        """Return the active revocations.

        Raises:
            Unavailable: NOT_READY, this replica may lack orders.
        """
        if (lacking := self.lacking()) is not None:
            raise Unavailable(Reason.NOT_READY, lacking)
        now, view = self._now(), self._view
        if view is None or view.policy is not policy:  # a start, or a reload that did not prepare
            view = self._view = at_once(_view(self._book, policy, now))
        elif now < view.at or now >= view.revocations.ends_at + _LATE_S:  # nobody has looked
            view = self._view = at_once(self._later(view, now))
        return view.revocations

    def refuse(self, use: Use, policy: StsPolicy) -> None:
        """Raise if a use of authority is revoked.

        Raises:
            Denied: REVOKED.
            Unavailable: NOT_READY.
        """
        InForce(lists={policy.issuer: self.revocations(policy)}, own=frozenset((policy.issuer,))).check(use)

    async def signed_list(self, policy: StsPolicy, ring: KeyRing, etag: str | None = None) -> ListAnswer:
        """Return the signed list; if ``etag`` is current, the signed confirmation instead.

        The tag changes only with the content of the list.

        Raises:
            Unavailable: NOT_READY.
        """
        found, now, key = self.revocations(policy), self._now(), ring.active
        knowledge = Knowledge(issued_at=now, heard=self.peers.heard_times(self._clock()))
        tag = await self._signed.tag(found)
        if etag == tag:
            unchanged = self._signed.unchanged(tag, knowledge, issuer=policy.issuer, key=key)
            return ListAnswer(tag, unchanged=unchanged)
        tag, jws = await self._signed.signed(found, knowledge, issuer=policy.issuer, key=key)
        return ListAnswer(tag, jws=jws)

    def count(self) -> Mapping[str, int]:
        """Count the active revocations by kind, for the metric."""
        view = self._view
        return {kind: 0 if view is None else len(view.revocations.names(kind)) for kind in Kind}

    def used(self) -> float:
        """Return the used share of the fullest quota: logouts, operators, or total bytes."""
        now = self._now()
        kept = [one for one in self._book.orders.values() if one.expires_at > now]
        revoking = [one for one in kept if one.action is Action.REVOKE]
        events = sum(one.signed is None for one in revoking)
        return max(
            events / ROOM_FOR_EVENTS,
            (len(revoking) - events) / ROOM_FOR_OPERATORS,
            sum(len(self._rows[one.id]) for one in kept) / _MOST_BYTES,
        )

    async def _change(self, change: Callable[[], Coroutine[None, None, T]]) -> T:
        """Serialise changes. Each one completes even if its caller is cancelled: a thread writes the file."""

        async def alone() -> T:
            async with self._changing:
                return await change()

        return await asyncio.shield(asyncio.create_task(alone()))

    async def _add(self, order: Order, sources: int = 1) -> Order:
        if not self._log.healthy:
            raise Unavailable(Reason.AUDIT_UNAVAILABLE, "the order could not be recorded")
        if self.trouble is not None:
            raise Unavailable(Reason.NOT_READY, self.trouble)
        now = self._now()
        if order.id in self._book.orders:
            return order
        if (covering := self._book.covering(order, now=now)) is not None:
            return covering
        if len(order.row()) > MAX_ORDER_BYTES:
            raise Denied(Reason.ORDER_REFUSED, f"it is longer than {MAX_ORDER_BYTES} bytes with its certificate")
        await self._replace(self._book.with_order(order, now=now, sources=sources))
        self._log.event(
            "revocation.ordered",
            **masked({"op": order.action, "peer": order.operator, "revocation": order.text(), "detail": order.reason}),
        )
        if order.action is Action.REVOKE and order.kind is Kind.SUBJECT and order.alone:
            self._log.metrics.revoked_alone += 1
        return order

    async def _replace(self, book: Book) -> None:
        file, view = self.settings.file, self._view
        rows = await in_steps(rows_of(book, self._rows))
        size = sum(map(len, rows.values()))
        if size + len(rows) > _MOST_BYTES:  # no replica could read it, and this one not its file
            raise Unavailable(Reason.NOT_READY, f"the orders are longer than {MAX_BOOK_BYTES} bytes")
        if view is not None:
            view = await in_steps(_view(book, view.policy, self._now()))
        if file is not None:
            try:
                await asyncio.to_thread(write_atomically, file, pieces_of({"seq": book.seq}, rows))
            except OSError as error:
                raise Unavailable(Reason.NOT_READY, f"the orders cannot be kept: {error.strerror}") from error
        self.peers.note_gained(book.orders.keys() - self._book.orders.keys())
        self._book, self._rows, self._view = book, rows, view
        self.changes += 1

    def _later(self, view: _View, now: int) -> Steps[_View]:
        """Advance a view to ``now``. After the clock went back, the view is built again from the book, since
        revocations that seemed expired may be active again.
        """
        if now < view.at:
            return (yield from _view(self._book, view.policy, now))
        return view._replace(revocations=(yield from view.revocations.at(now)), at=now)

    def _now(self) -> int:
        now = int(self._clock())
        self.clock_falls += now < self._seen_at
        self._seen_at = now
        return now


async def _with_nobody() -> None:
    """Do nothing: there are no other replicas."""


class _View(NamedTuple):
    """The active revocations under one policy at one time."""

    policy: StsPolicy
    revocations: Revocations
    at: int


def _view(book: Book, policy: StsPolicy, now: int) -> Steps[_View]:
    """Build the view of a book. A revocation of a foreign subject also stops the subject's translated name, because its
    chains continue under that name.

    Raises:
        Unavailable: NOT_READY, there are more revocations than a reader accepts.
    """
    listed = yield from book.listed(now, ttl_s=policy.token_life_s)
    revoked, lifted = {**listed.revoked}, {**listed.lifted}
    for some in slices(listed.revoked.values() if policy.foreign_issuers else ()):
        yield
        for one in some:
            foreign = policy.foreign_issuers.get(one.issuer or "") if one.kind is Kind.SUBJECT else None
            name = None if foreign is None else foreign.crossing.subject(one.value)
            if is_name(name):
                made = replace(one, id=_crossed_id(one.id), issuer=policy.issuer, value=name)
                revoked[made.id] = made
    for ends in slices(listed.lifted.items() if policy.foreign_issuers else ()):
        yield
        lifted.update((_crossed_id(of), end) for of, end in ends)
    try:
        merged = yield from NONE.merged(replace(listed, revoked=revoked, lifted=lifted), now=now)
    except RevocationsError as error:
        raise Unavailable(Reason.NOT_READY, str(error)) from error
    return _View(policy, merged, now)


def _crossed_id(of: str) -> str:
    return f"crossed:{hashlib.sha256(of.encode()).hexdigest()}"  # no longer than a name, however long that of the order
