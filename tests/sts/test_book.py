"""The room of the book under attack: one session logged out again and again, one operator who orders without end."""

from __future__ import annotations

from bisect import bisect
from dataclasses import replace
from typing import Final

import orjson
import pytest

from delegation_core.errors import Denied
from delegation_core.revocation import Kind
from delegation_core.revocation_list import MAX_LIST_BYTES, said_by
from delegation_core.revocations_kept import MAX_AHEAD, MAX_REVOCATIONS, MAX_SEQ, NONE, Listed, RevocationsError
from delegation_core.steps import at_once
from sidecar.sts.book import (
    MAX_JUMP,
    MAX_STEP,
    RESERVED_EACH,
    ROOM_FOR_EVENTS,
    ROOM_FOR_OPERATORS,
    ROOM_OF_ONE,
    Book,
    SeqError,
    parse_book,
)
from sidecar.sts.logout_events import _round_up
from sidecar.sts.orders import MAX_ORDER_BYTES, Action, Order
from sidecar.sts.replicas import EVERY_S
from sidecar.sts.revocations import Register
from tests.fakes.sts import LOGIN, OTHER_LOGIN, Mesh
from tests.fakes.tokens import NOW
from tests.sts.test_revocations import order, register

ANN, BOB, EVE, DAN = (f"spiffe://acme.example/operator/{name}" for name in ("ann", "bob", "eve", "dan"))
SMALL: Final = {"signed": "a.b.c", "certificate": "eA=="}


def revoking(number: int, by: str = EVE, **changes: object) -> Order:
    made = order(Kind.TXN, f"t{number}")
    return replace(made, id=f"{by} {number}", operator=by, **{**SMALL, **changes})  # type: ignore[arg-type]


def logout(number: int, issuer: str = LOGIN, *, at: int = NOW) -> Order:
    made = order(Kind.LOGIN, f"s{number}", issuer)
    return replace(made, id=f"event:{issuer} {number} {at}", operator=issuer, alone=True, made_at=at)


def lift(of: Order, by: str = BOB, at: int = NOW) -> Order:
    return replace(of, id=f"lift {by} {of.id}", action=Action.LIFT, of=of.id, operator=by, made_at=at)


def filled(book: Book, orders: list[Order], sources: int = 1) -> Book:
    """Return the book with as many of the orders as there is room for: it refuses the one after the last."""

    def first(count: int) -> Book:
        return Book(seq=book.seq + count, orders={**book.orders, **{one.id: one for one in orders[:count]}})

    return first(bisect(range(len(orders)), 0, key=lambda count: refused(first(count), orders[count], sources)))


def full(book: Book, by: str) -> Book:
    """Return the book after so many orders of one operator that the next one is refused."""
    return filled(book, [revoking(number, by) for number in range(MAX_REVOCATIONS)])


def refused(book: Book, one: Order, sources: int = 1) -> bool:
    try:
        book.with_order(one, now=NOW, sources=sources)
    except Denied:
        return True
    return False


def room(book: Book, by: str) -> int:
    return sum(one.operator == by for one in book.orders.values())


def test_eight_thousand_logouts_of_one_session_are_a_few_orders() -> None:
    book = Book()
    for number in range(8_000):
        at = NOW + number // 4  # over half an hour
        again = replace(logout(1, at=at), id=f"event:{number}", expires_at=_round_up(at + 86_400, 86_400))
        book = book.with_order(again, now=at)
        assert max(one.expires_at for one in book.orders.values()) >= at + 86_400, "none ends too soon"
    assert len(book.orders) <= 2


def test_ten_thousand_orders_of_one_operator_leave_others_to_revoke_and_to_lift() -> None:
    book = full(Book(), EVE)
    assert room(book, EVE) == ROOM_OF_ONE
    assert refused(book, revoking(20_000, EVE))
    own = revoking(1, BOB)
    book = book.with_order(own, now=NOW)
    for number in range(ROOM_OF_ONE):
        book = book.with_order(lift(revoking(number, EVE)), now=NOW)
    listed = at_once(book.listed(NOW, ttl_s=300))
    found = at_once(NONE.merged(listed, now=NOW))
    assert [*found.in_force] == [own.id]
    assert not refused(book, logout(1))


def test_operators_with_few_orders_have_a_reserve_that_others_cannot_use_up() -> None:
    book = full(full(full(Book(), EVE), DAN), ANN)
    assert len(book.orders) == ROOM_FOR_OPERATORS - 500 + RESERVED_EACH
    assert refused(book, revoking(20_000, DAN))
    for number in range(RESERVED_EACH):
        book = book.with_order(revoking(number, BOB), now=NOW)
    assert refused(book, revoking(20_000, BOB))


def test_user_issuers_share_the_room_for_events() -> None:
    book = Book(orders={(one := logout(number)).id: one for number in range(ROOM_FOR_EVENTS // 2)})
    assert refused(book, logout(9_999), sources=2)
    assert not refused(book, logout(9_999), sources=1)
    assert not refused(book, logout(1, OTHER_LOGIN), sources=2)


def test_long_orders_use_up_the_share_of_their_operator_alone() -> None:
    long = "x" * (MAX_ORDER_BYTES - 1000)
    book = Book()
    while not refused(book, revoking(len(book.orders), signed=long)):
        book = book.with_order(revoking(len(book.orders), signed=long), now=NOW)
    assert 0 < len(book.orders) < ROOM_OF_ONE
    assert not refused(book, revoking(1, BOB, signed=long))
    assert not refused(book, lift(revoking(1, EVE, signed=long)))


def test_a_full_book_of_long_names_still_fits_into_a_list_that_readers_take() -> None:
    book = Book()
    for issuer in (LOGIN, OTHER_LOGIN):
        many = [replace(logout(number, issuer), value=f"{number:2000}") for number in range(1_000)]
        before = len(book.orders)
        book = filled(book, many, sources=2)
        assert 0 < len(book.orders) - before < 1_000
    listed = at_once(book.listed(NOW, ttl_s=300))
    said = at_once(said_by(at_once(NONE.merged(listed, now=NOW))))
    assert len(said.revoked) < MAX_LIST_BYTES * 3 // 4 * ROOM_FOR_EVENTS // MAX_REVOCATIONS


def test_an_order_for_the_same_name_is_covered_unless_it_ends_later_or_the_first_was_lifted() -> None:
    first = revoking(1)
    book = Book().with_order(first, now=NOW)

    def covered(**changes: object) -> bool:
        return book.covering(replace(first, id="again", **changes), now=NOW) is not None  # type: ignore[arg-type]

    assert covered()
    assert covered(expires_at=first.expires_at - 1)
    assert not covered(expires_at=first.expires_at + 1)
    assert not covered(value="another")
    assert not covered(kind=Kind.JTI)
    assert not covered(operator=BOB)
    book = book.with_order(lift(first), now=NOW)
    assert not covered()
    again = replace(first, id="again")
    book = book.with_order(again, now=NOW)
    assert [*at_once(NONE.merged(at_once(book.listed(NOW, ttl_s=9)), now=NOW)).in_force] == ["again"]


def test_a_second_lift_or_confirmation_changes_nothing_and_a_forged_one_covers_none() -> None:
    user = replace(revoking(1, ANN), kind=Kind.SUBJECT, issuer=LOGIN)
    confirming = replace(user, id="c", action=Action.CONFIRM, of=user.id, operator=BOB)
    forged = replace(confirming, id="f", operator=ANN)
    book = Book().with_order(user, now=NOW).with_order(forged, now=NOW)
    assert not at_once(book.listed(NOW, ttl_s=9)).revoked
    book = book.with_order(confirming, now=NOW)
    assert at_once(book.listed(NOW, ttl_s=9)).revoked
    assert book.with_order(replace(confirming, id="c2", operator=DAN), now=NOW) is book
    book = book.with_order(lift(user), now=NOW)
    assert book.with_order(lift(user, DAN), now=NOW) is book


def test_a_number_beyond_the_bound_is_neither_written_nor_read() -> None:
    most = Book(seq=MAX_SEQ)
    with pytest.raises(Denied):
        most.with_order(revoking(1), now=NOW)
    assert Book(seq=MAX_SEQ - 1).with_order(revoking(1), now=NOW).seq == MAX_SEQ
    assert at_once(parse_book(orjson.dumps({"seq": MAX_SEQ, "orders": []})))[0] == most
    for seq in (MAX_SEQ + 1, -1, True, 1.0, "1"):
        with pytest.raises(ValueError, match="seq"):
            at_once(parse_book(orjson.dumps({"seq": seq, "orders": []})))


def test_a_jump_of_the_number_is_refused_by_replicas_and_readers() -> None:
    ours = Book(seq=5)
    assert ours.merged(Book(seq=5 + MAX_JUMP), now=NOW).seq == 5 + MAX_JUMP
    with pytest.raises(SeqError, match=f"jumps from 5 to {MAX_SEQ}"):
        ours.merged(Book(seq=MAX_SEQ), now=NOW)
    with pytest.raises(SeqError):
        ours.merged(Book(seq=6 + MAX_JUMP), now=NOW)
    listed = Listed(seq=MAX_SEQ, issued_at=NOW, ttl_s=300, revoked={})
    with pytest.raises(RevocationsError, match="jumps"):
        at_once(NONE.merged(listed, now=NOW))
    assert at_once(NONE.merged(replace(listed, seq=MAX_JUMP), now=NOW)).seq == MAX_JUMP


async def test_a_replica_that_lies_in_steps_does_not_lead_ours_beyond_what_a_new_reader_takes() -> None:
    mesh = Mesh()
    known: Register = register(mesh)
    assert known.revocations(mesh.policy).seq == 0
    for step in (MAX_JUMP - 1, MAX_JUMP, MAX_STEP, MAX_STEP):
        await known.merge(Book(seq=known.book.seq + step))
    ours = known.book.seq
    assert ours < 2 * MAX_JUMP + 2 * MAX_STEP
    with pytest.raises(SeqError):
        await known.merge(Book(seq=ours + MAX_STEP + 1))
    await known.add(revoking(1))
    found = at_once(NONE.merged(at_once(known.book.listed(NOW, ttl_s=9)), now=NOW))
    assert (found.seq, len(found.in_force)) == (ours + 1, 1)
    assert known.revocations(mesh.policy).seq == ours + 1
    assert known.lacking() is None
    years = (MAX_AHEAD - 2 * MAX_JUMP) / MAX_STEP * EVERY_S / (365 * 86_400)
    assert years > 40


async def test_a_replica_whose_number_jumps_neither_stops_ours_nor_raises_it() -> None:
    mesh = Mesh()
    known: Register = register(mesh)
    with pytest.raises(SeqError):
        await known.merge(Book(seq=MAX_SEQ))
    assert (known.lacking(), known.book.seq) == (None, 0)
    await known.add(revoking(1))
    assert known.book.seq == 1
