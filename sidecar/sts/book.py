"""The book of orders: a set that replicas merge. Pure.

A merge of two books loses no order. The orders and the time determine the active revocations. The number of a book
grows with every order, and a merge never lowers it. Each operator and each user issuer has a quota, so that its
orders cannot keep out others. A lift or a confirmation needs no quota: each revocation has at most one of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.json_steps import object_in_steps
from delegation_core.revocations_kept import MAX_LISTED, MAX_REVOCATIONS, MAX_SEQ, Listed, Revocation
from delegation_core.steps import Steps, drained, slices
from sidecar.sts.orders import MAX_BOOK_BYTES, Action, Order, order_of_row

ROOM_FOR_OPERATORS: Final = 2_000  # revocations
ROOM_FOR_EVENTS: Final = MAX_REVOCATIONS - ROOM_FOR_OPERATORS
ROOM_OF_ONE: Final = 1_000  # of one operator
RESERVE: Final = 500  # part of the operators' room, kept for operators with few orders
RESERVED_EACH: Final = 25
MAX_JUMP: Final = 2**32  # largest jump to another replica's number: no token service has as many orders
MAX_STEP: Final = 2**20  # above MAX_JUMP, so that a malicious replica cannot raise the numbers until readers refuse
_LISTED_EACH: Final = 400  # bytes on average, so that 10,000 with their lifts fit into the 8 MiB of a list
_BYTES_EACH: Final = MAX_BOOK_BYTES // (2 * MAX_REVOCATIONS)  # on average; the other half is for lifts


class SeqError(ValueError):
    """Another replica's sequence number is further ahead than an honest replica's can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """All orders that have not expired, by ID, and a number that grows with each."""

    seq: int = 0
    orders: Mapping[str, Order] = field(default_factory=dict)

    def with_order(self, order: Order, *, now: int, sources: int = 1) -> Book:
        """Return a book with this order added; the same book if the order, or one that covers it, is present.

        ``sources`` is the number of user issuers, which share the room for events.

        Raises:
            Denied: ORDER_REFUSED, the order's source has no room left, or ``seq`` is at its limit.
        """
        if order.id in self.orders or self.covering(order, now=now) is not None:
            return self
        kept = _drop_expired(self.orders, now)
        if order.action is Action.REVOKE:
            _require_room(order, kept.values(), sources)
        if self.seq >= MAX_SEQ:
            raise Denied(Reason.ORDER_REFUSED, "the number of the list has reached its maximum")
        return Book(seq=self.seq + 1, orders={**kept, order.id: order})

    def covering(self, order: Order, *, now: int) -> Order | None:
        """Return the existing order that makes ``order`` unnecessary; None if there is none.

        For a lift or confirmation: another of the same revocation. For a revocation: one with the same ``name``,
        neither lifted nor expired, with the same end or a later one.
        """
        others = (one for one in self.orders.values() if one.action is order.action and one.expires_at > now)
        if order.action is not Action.REVOKE:
            revoking = self.orders.get(order.of or "")
            forged = None if revoking is None or order.action is Action.LIFT else revoking.operator
            return next((one for one in others if one.of == order.of and one.operator != forged), None)
        alike = [one for one in others if one.name == order.name and one.expires_at >= order.expires_at]
        lifted = {one.of for one in self.orders.values() if one.action is Action.LIFT} if alike else set()
        return next((one for one in alike if one.id not in lifted), None)

    def merged(self, other: Book, *, now: int) -> Book:
        """Return a book with the orders of both. Its number never falls, and grows if this book gets a new order.

        Raises:
            SeqError: the other book's number is too far ahead: a malicious replica could make all lists unusable.
            ValueError: the merged book has more orders than a reader accepts.
        """
        if other.seq - self.seq > (MAX_JUMP if self.seq < MAX_JUMP else MAX_STEP):
            raise SeqError(f"its number jumps from {self.seq} to {other.seq}")
        new = {name: one for name, one in other.orders.items() if name not in self.orders and one.expires_at > now}
        seq = max(self.seq, other.seq)
        if not new:
            return self if seq == self.seq else replace(self, seq=seq)
        kept = _drop_expired(self.orders, now)
        if len(kept) + len(new) > MAX_LISTED:
            raise ValueError(f"with the other replica's orders there would be more than {MAX_LISTED}")
        if other.seq == self.seq or not kept.keys() <= other.orders.keys():  # a set that no replica had so far
            seq += 1
        return Book(seq=max(seq, self.seq + 1), orders={**kept, **new})

    def waiting(self, now: int) -> Steps[list[Order]]:
        """Return, in steps, the revocations that need a second operator."""
        confirmed = yield from self._find_confirmed()
        found: list[Order] = []
        for some in slices(self.orders.values()):
            yield
            found += (one for one in some if one.expires_at > now and one.needs_second and one.id not in confirmed)
        return found

    def listed(self, now: int, *, ttl_s: int) -> Steps[Listed]:
        """Return, in steps, all revocations that wait for no second operator, and all lifts; valid ``ttl_s``."""
        confirmed = yield from self._find_confirmed()
        lifted: dict[str, int] = {}
        revoked: dict[str, Revocation] = {}
        for some in slices(self.orders.values()):
            yield
            for one in some:
                if one.action is Action.LIFT and one.of:
                    lifted[one.of] = one.expires_at
                elif one.action is Action.REVOKE and (not one.needs_second or one.id in confirmed):
                    revoked[one.id] = one.revocation()
        return Listed(seq=self.seq, issued_at=now, ttl_s=ttl_s, revoked=revoked, lifted=lifted)

    def _find_confirmed(self) -> Steps[set[str]]:
        """Return the IDs of revocations that a second operator confirmed."""
        found: set[str] = set()
        for some in slices(self.orders.values()):
            yield
            for one in some:
                of = self.orders.get(one.of or "") if one.action is Action.CONFIRM else None
                if of is not None and of.operator != one.operator:
                    found.add(of.id)
        return found


def _require_room(order: Order, kept: Iterable[Order], sources: int) -> None:
    """Check two quotas for a new revocation: of its operator or user issuer, and of all operators or issuers together.

    Raises:
        Denied: ORDER_REFUSED.
    """
    by_event = order.signed is None
    alike = [one for one in kept if (one.signed is None) is by_event]
    own = [one for one in alike if one.operator == order.operator]
    if by_event:
        of_one, of_all = ROOM_FOR_EVENTS // max(1, sources), ROOM_FOR_EVENTS
    else:
        few = sum(one.action is Action.REVOKE for one in own) < RESERVED_EACH
        of_one, of_all = ROOM_OF_ONE, ROOM_FOR_OPERATORS if few else ROOM_FOR_OPERATORS - RESERVE
    for those, room, whose in ((own, of_one, f"of {order.operator}"), (alike, of_all, "of all like it")):
        revoking = [one for one in those if one.action is Action.REVOKE]
        long = (
            sum(one.size for one in those) + order.size > room * _BYTES_EACH
            or sum(one.listed_size for one in revoking) + order.listed_size > room * _LISTED_EACH
        )
        if len(revoking) >= room or long:
            raise Denied(Reason.ORDER_REFUSED, f"the share {whose} is used up ({room} orders): wait until some end")


def _drop_expired(orders: Mapping[str, Order], now: int) -> dict[str, Order]:
    return {name: one for name, one in orders.items() if one.expires_at > now}


def parse_book(document: bytes) -> Steps[tuple[Book, Mapping[str, object]]]:
    """Parse a replica's book in steps. Returns the book, and the other members of the document.

    Raises:
        ValueError: the document is not a book. The message quotes none of its content.
    """
    members = yield from object_in_steps(document, max_bytes=MAX_BOOK_BYTES)
    seq, rows = members.get("seq"), members.pop("orders", None)
    if type(seq) is not int or not 0 <= seq <= MAX_SEQ or not isinstance(rows, list):
        raise ValueError(f"it has no orders, or no seq of at most {MAX_SEQ}")
    orders: dict[str, Order] = {}
    for some in drained(rows):
        orders.update((one.id, one) for one in map(order_of_row, some))
        yield
    return Book(seq=seq, orders=orders), members
