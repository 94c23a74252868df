from __future__ import annotations

import asyncio
import stat
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.keyset import parse_jwks
from delegation_core.profile import DEFAULT_ALGORITHMS
from delegation_core.revocation import Kind
from delegation_core.revocation_list import parse_list, verify_list
from delegation_core.rfc8693 import CLIENT_CREDENTIALS
from delegation_core.spiffe_id import SpiffeId
from delegation_core.steps import IN_A_STEP, at_once
from sidecar.steps import in_steps
from sidecar.sts.book import Book, parse_book
from sidecar.sts.known_names import known_names
from sidecar.sts.orders import Action, Order
from sidecar.sts.revocations import Register, RevocationSettings
from tests.fakes import virtual_time
from tests.fakes.sts import FRONT, LOGIN, Mesh, small_policy
from tests.fakes.tokens import CRM, ISSUER, NOW, PLANNER, WRITER
from tests.sts import test_orders as orders

POLICY: Final = small_policy()
ANY: Final = known_names(POLICY, {"acme.example"})


def order(kind: Kind, value: str, issuer: str | None = None, *, until: int = NOW + 3600) -> Order:
    return Order(
        id=f"{kind}-{value}",
        action=Action.REVOKE,
        operator="spiffe://acme.example/operator/ann",
        made_at=NOW,
        expires_at=until,
        reason="INC-42",
        kind=kind,
        value=value,
        issuer=issuer,
        alone=kind is Kind.SUBJECT,
    )


def register(mesh: Mesh, file: Path | None = None, *, replicas: tuple[str, ...] = ()) -> Register:
    settings = RevocationSettings(file=file, replicas=replicas)
    made = Register(settings, mesh.log, clock=lambda: mesh.now)
    made.load()
    mesh.service.register = made
    return made


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def book(count: int, **changes: object) -> Book:
    orders = (replace(order(Kind.TXN, f"t{one:05}"), **changes) for one in range(count))  # type: ignore[arg-type]
    return Book(seq=count, orders={one.id: one for one in orders})


async def loops_during(work: Awaitable[object]) -> int:
    """Return how often the loop did something else while this work was done."""
    loops = 0

    async def something_else() -> None:
        nonlocal loops
        while True:
            loops += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(something_else())
    await work
    other.cancel()
    return loops


async def reason_of(mesh: Mesh, form: dict[str, object], client: object = WRITER) -> Reason | None:
    try:
        await mesh.ask(form, client)  # type: ignore[arg-type]
    except (Denied, Unavailable) as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("stopped", "exchange", "first"),
    [
        pytest.param(order(Kind.SUBJECT, "alice", LOGIN), True, True, id="the user"),
        pytest.param(order(Kind.SUBJECT, "alice", ISSUER), True, True, id="the user, as our tokens name her"),
        pytest.param(order(Kind.SUBJECT, "bob", LOGIN), False, False, id="another user"),
        pytest.param(order(Kind.ACTOR, WRITER), True, False, id="the client"),
        pytest.param(order(Kind.ACTOR, FRONT), False, True, id="the entry"),
        pytest.param(order(Kind.TXN, "txn-1"), True, False, id="the chain"),
        pytest.param(order(Kind.JTI, "jti-2"), True, False, id="the token"),
        pytest.param(order(Kind.LOGIN, "sid-1", LOGIN), True, True, id="the login"),
        pytest.param(order(Kind.LOGIN, "sid-2", LOGIN), False, False, id="another login"),
    ],
)
async def test_what_is_revoked_is_exchanged_no_more(stopped: Order, exchange: bool, first: bool) -> None:
    mesh = Mesh()
    known = register(mesh)
    onward = mesh.exchange_form(subject_token=mesh.own(sid="sid-1"))
    login = mesh.login_form(subject_token=mesh.login(sid="sid-1"))
    assert (await reason_of(mesh, onward), await reason_of(mesh, login, FRONT)) == (None, None)
    await known.add(stopped)
    assert await reason_of(mesh, onward) is (Reason.REVOKED if exchange else None)
    assert await reason_of(mesh, login, FRONT) is (Reason.REVOKED if first else None)
    mesh.now += 3600
    await known.expire()
    assert not known.revocations(mesh.policy).in_force


async def test_what_has_ended_is_removed_also_if_nobody_looks() -> None:
    mesh = Mesh()
    known = register(mesh)
    await known.add(order(Kind.TXN, "txn-1"))
    assert known.revocations(POLICY).in_force
    mesh.now += 3602
    assert not known.revocations(POLICY).in_force


@pytest.mark.parametrize("looked", [True, False])
async def test_what_ended_by_a_clock_that_was_ahead_is_in_force_once_it_is_right(looked: bool) -> None:
    mesh = Mesh()
    known = register(mesh)
    await known.add(order(Kind.TXN, "txn-1"))
    mesh.now += 3602
    assert not known.revocations(POLICY).in_force
    mesh.now -= 3602
    if looked:
        await known.expire()
        assert known.count()["txn"] == 1
    assert known.revocations(POLICY).names(Kind.TXN) == {"txn-1"}
    mesh.now += 3602
    assert not known.revocations(POLICY).in_force


async def test_a_clock_that_fell_brings_back_no_more_than_any_reader_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh()
    known = register(mesh)
    await known.add(order(Kind.TXN, "txn-1"))
    await known.prepare(POLICY)
    mesh.now += 3600
    await known.expire()
    mesh.now -= 3600
    monkeypatch.setattr("delegation_core.revocations_kept.MAX_LISTED", 0)
    await known.expire()
    with pytest.raises(Unavailable) as refused:
        known.revocations(POLICY)
    assert refused.value.reason is Reason.NOT_READY


async def test_a_revoked_workload_gets_no_token_of_its_own() -> None:
    mesh = Mesh()
    form: dict[str, object] = {"grant_type": CLIENT_CREDENTIALS, "audience": CRM, "scope": "crm.read"}
    known = register(mesh)
    assert await reason_of(mesh, form, PLANNER) is None
    await known.add(order(Kind.ACTOR, PLANNER))
    assert await reason_of(mesh, form, PLANNER) is Reason.REVOKED


async def test_the_login_is_named_in_every_token_of_the_chain() -> None:
    mesh = Mesh()
    assert (await mesh.claims_for(mesh.login_form(subject_token=mesh.login(sid="s")), FRONT))["sid"] == "s"
    assert (await mesh.claims_for(mesh.exchange_form(subject_token=mesh.own(sid="s"))))["sid"] == "s"
    assert "sid" not in await mesh.claims_for(mesh.exchange_form())


async def test_orders_are_on_the_disk_for_nobody_else_and_come_back_after_a_restart(tmp_path: Path) -> None:
    mesh = Mesh()
    file = tmp_path / "orders.json"
    await register(mesh, file).add(order(Kind.TXN, "txn-1"))
    again = register(mesh, file)
    assert again.revocations(POLICY).names(Kind.TXN) == {"txn-1"}
    assert again.book.seq == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names_in(tmp_path) == ["orders.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"seq": 1, "seq": 2, "orders": []}'])
async def test_a_file_that_cannot_be_read_stops_exchanges_and_lists(content: bytes, tmp_path: Path) -> None:
    mesh = Mesh()
    file = tmp_path / "orders.json"
    file.write_bytes(content)
    known = register(mesh, file)
    assert known.lacking()
    assert await reason_of(mesh, mesh.exchange_form()) is Reason.NOT_READY
    with pytest.raises(Unavailable):
        await known.signed_list(POLICY, mesh.ring)
    with pytest.raises(Unavailable):
        await known.add(order(Kind.TXN, "t"))
    assert file.read_bytes() == content


def test_a_file_that_is_restored_is_read_without_a_restart(tmp_path: Path) -> None:
    mesh = Mesh()
    good, file = tmp_path / "good.json", tmp_path / "orders.json"
    file.write_bytes(b"{}")
    known = register(mesh, file)

    async def restore() -> None:
        await register(mesh, good).add(order(Kind.TXN, "txn-1"))

    asyncio.run(restore())
    found: list[bool] = []

    async def run() -> None:
        running = asyncio.create_task(known.run())
        for _ in range(2):
            await asyncio.sleep(6)
            found.append(known.lacking() is None)
            file.write_bytes(good.read_bytes())
        running.cancel()

    virtual_time.run(run())
    assert found == [False, True]
    assert known.revocations(POLICY).names(Kind.TXN) == {"txn-1"}


async def test_an_order_that_cannot_be_kept_or_recorded_does_not_count(tmp_path: Path) -> None:
    mesh = Mesh()
    known = register(mesh, tmp_path / "missing" / "orders.json")
    with pytest.raises(Unavailable) as refused:
        await known.add(order(Kind.TXN, "t"))
    assert (refused.value.reason, known.book, mesh.log.events) == (Reason.NOT_READY, Book(), [])
    recorded = register(mesh)
    mesh.log.healthy = False
    with pytest.raises(Unavailable) as refused:
        await recorded.add(order(Kind.TXN, "t"))
    assert (refused.value.reason, recorded.book) == (Reason.AUDIT_UNAVAILABLE, Book())


def test_a_replica_with_peers_is_ready_only_once_one_has_answered() -> None:
    mesh = Mesh()
    known = register(mesh, replicas=("https://sts.example",))
    assert known.lacking()
    with pytest.raises(Unavailable):
        known.revocations(POLICY)
    known.peers.follow(["a"])
    assert known.lacking()
    known.peers.note_heard("a", 0.0)
    known.peers.monotonic = lambda: 0.0
    assert known.lacking() is None
    assert known.revocations(POLICY).seq == 0


async def test_the_tag_of_a_list_changes_with_what_it_says_and_with_nothing_else() -> None:
    mesh = Mesh()
    known = register(mesh)
    tag, first, _ = await known.signed_list(POLICY, mesh.ring)
    assert await known.signed_list(POLICY, mesh.ring) == (tag, first, None)
    mesh.now += 31
    again, later, _ = await known.signed_list(POLICY, mesh.ring)
    assert again == tag
    assert later != first, "signed again: a list must not look old"
    mesh.now -= 1
    assert (await known.signed_list(POLICY, mesh.ring))[1] not in (first, later), "nor be from the future"
    await known.add(order(Kind.TXN, "txn-1"))
    other, raw, _ = await known.signed_list(POLICY, mesh.ring)
    assert other != tag
    key = parse_jwks(mesh.ring.jwks()).find(mesh.ring.active.kid)
    assert key is not None
    jws = at_once(parse_list(raw))
    said = at_once(verify_list(jws, issuer=ISSUER, key=key, algorithms=DEFAULT_ALGORITHMS, now=int(mesh.now)))
    assert [one.value for one in said.revoked.values()] == ["txn-1"]
    assert (said.seq, said.ttl_s) == (1, POLICY.token_life_s)


async def test_an_order_is_recorded_and_one_operators_alone_is_counted() -> None:
    mesh = Mesh()
    known = register(mesh)
    await known.add(order(Kind.TXN, "txn-1"))
    await known.add(order(Kind.TXN, "txn-1"))
    assert mesh.log.metrics.revoked_alone == 0
    await known.add(order(Kind.SUBJECT, "alice", LOGIN))
    assert mesh.log.metrics.revoked_alone == 1
    (event, fields), _ = mesh.log.events
    assert event == "revocation.ordered"
    assert (fields["op"], fields["peer"], fields["detail"]) == (
        "revoke",
        "spiffe://acme.example/operator/ann",
        "INC-42",
    )
    assert fields["revocation"] == f"id=txn-txn-1 kind=txn value=txn-1 until={NOW + 3600}"


def test_events_of_logouts_leave_room_for_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.sts.book.ROOM_FOR_EVENTS", 3)
    book = Book()
    for number in range(3):
        book = book.with_order(order(Kind.LOGIN, f"s{number}", "https://login.example"), now=NOW)
    with pytest.raises(Denied):
        book.with_order(order(Kind.LOGIN, "s3", "https://login.example"), now=NOW)
    book = book.with_order(replace(order(Kind.TXN, "t1"), signed="a.b.c", certificate="eA=="), now=NOW)
    assert len(book.orders) == 4


async def test_a_full_book_is_merged_kept_and_signed_in_steps() -> None:
    mesh = Mesh()
    known = register(mesh)
    assert not known.revocations(POLICY).in_force
    steps = 2000 // IN_A_STEP
    assert await loops_during(known.merge(book(2000))) >= 4 * steps, "two passes over the orders, two for the names"
    assert await loops_during(known.signed_list(POLICY, mesh.ring)) >= steps
    assert await loops_during(known.prepare(replace(POLICY, token_life_s=200))) >= 4 * steps
    mesh.now += 3600
    assert await loops_during(known.expire()) >= steps
    assert await loops_during(in_steps(parse_book(b"".join(known.document({})[1])))) >= steps


async def test_the_document_of_a_book_is_as_long_as_it_says() -> None:
    known = register(Mesh())
    for count in (0, 1, 65):
        await known.merge(book(count))
        length, pieces = known.document({"replica": "a"})
        whole = b"".join(pieces)
        assert len(whole) == length
        assert at_once(parse_book(whole)) == (known.book, {"seq": known.book.seq, "replica": "a"})


async def test_many_who_ask_for_the_list_get_one_signature() -> None:
    mesh = Mesh()
    known = register(mesh)
    await known.merge(book(600))
    first, *others = await asyncio.gather(*(known.signed_list(POLICY, mesh.ring) for _ in range(5)))
    assert all(one[1] is first[1] for one in others)


async def test_changes_are_made_one_after_the_other_and_to_their_end(tmp_path: Path) -> None:
    mesh = Mesh()
    file = tmp_path / "orders.json"
    known = register(mesh, file)
    changes = [asyncio.create_task(known.add(order(Kind.TXN, str(one)))) for one in range(5)]
    await asyncio.sleep(0)
    changes[0].cancel()
    await asyncio.gather(*changes, return_exceptions=True)
    assert changes[0].cancelled()
    assert len(known.book.orders) == known.book.seq == 5
    assert register(mesh, file).book == known.book


async def test_of_two_orders_under_one_id_at_the_same_time_one_is_refused() -> None:
    mesh = Mesh(start=NOW)
    known = register(mesh)
    known.settings = replace(known.settings, operators={orders.ANN: frozenset(Kind)})

    async def give(raw: str) -> Order:
        certificate = orders.SVIDS[orders.ANN].chain_der[0]
        return await known.accept(raw, operator=orders.ANN, certificate=certificate, audience=orders.STS, known=ANY)

    both = await asyncio.gather(*(give(orders.order(value=value)) for value in ("a", "b")), return_exceptions=True)
    assert [one.value for one in both if isinstance(one, Order)] == ["a"]
    assert [one.reason for one in both if isinstance(one, Denied)] == [Reason.ORDER_REFUSED]


async def test_a_book_that_no_replica_could_read_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    known = register(Mesh())
    long = replace(order(Kind.TXN, "t"), signed="x" * 32_768)
    with pytest.raises(Denied) as refused:
        await known.add(long)
    assert refused.value.reason is Reason.ORDER_REFUSED
    monkeypatch.setattr("sidecar.sts.revocations._MOST_BYTES", 2000)
    await known.add(order(Kind.TXN, "t"))
    with pytest.raises(Unavailable):
        await known.merge(book(10))
    monkeypatch.setattr("sidecar.sts.book.MAX_LISTED", 10)
    with pytest.raises(Unavailable, match="more than 10"):
        await known.merge(book(10))
    assert len(known.book.orders) == 1


async def test_what_peers_know_does_not_replace_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "orders.json"
    file.write_bytes(b"{}")
    known = register(Mesh(), file)
    with pytest.raises(Unavailable):
        await known.merge(book(1))
    assert file.read_bytes() == b"{}"


async def test_the_used_share_of_the_book_counts_what_has_not_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh()
    known = register(mesh)
    assert known.used() == 0
    await known.merge(book(800))
    assert known.used() == 0.1
    monkeypatch.setattr("sidecar.sts.revocations._MOST_BYTES", sum(len(one.row()) for one in book(800).orders.values()))
    assert known.used() == 1
    mesh.now += 3600
    assert known.used() == 0


async def test_only_a_listed_operator_gives_orders_and_of_its_kinds_alone() -> None:
    mesh = Mesh()
    settings = RevocationSettings(operators={orders.ANN: frozenset({Kind.TXN}), orders.BOB: frozenset({Kind.JTI})})
    known = Register(settings, mesh.log, clock=lambda: mesh.now)
    known.load()

    async def give(operator: SpiffeId, register: Register = known) -> Order:
        certificate = orders.SVIDS[operator].chain_der[0]
        raw = orders.order(operator, jti=f"by-{operator}")
        return await register.accept(raw, operator=operator, certificate=certificate, audience=orders.STS, known=ANY)

    assert (await give(orders.ANN)).kind is Kind.TXN
    with pytest.raises(Denied, match="may not revoke this kind"):
        await give(orders.BOB)
    with pytest.raises(Denied, match="not a listed operator"):
        await give(orders.ANN, Register(RevocationSettings(), mesh.log, clock=lambda: mesh.now))
