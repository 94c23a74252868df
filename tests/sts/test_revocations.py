from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from sidecar.delegation.keyset import parse_jwks
from sidecar.delegation.profile import DEFAULT_ALGORITHMS
from sidecar.delegation.revocation import Kind
from sidecar.delegation.revocation_list import parse_list, verify_list
from sidecar.delegation.rfc8693 import CLIENT_CREDENTIALS
from sidecar.errors import Denied, Reason, Unavailable
from sidecar.steps import at_once
from sidecar.sts.orders import Action, Book, Order
from sidecar.sts.revocations import Register, RevocationSettings
from tests.fakes.sts import FRONT, LOGIN, Mesh, small_policy
from tests.fakes.tokens import CRM, ISSUER, NOW, PLANNER, WRITER

POLICY: Final = small_policy()


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
    known.add(stopped)
    assert await reason_of(mesh, onward) is (Reason.REVOKED if exchange else None)
    assert await reason_of(mesh, login, FRONT) is (Reason.REVOKED if first else None)
    mesh.now += 3600
    known.revocations(mesh.policy)
    assert not known.revocations(mesh.policy).in_force


async def test_a_revoked_workload_gets_no_token_of_its_own() -> None:
    mesh = Mesh()
    form: dict[str, object] = {"grant_type": CLIENT_CREDENTIALS, "audience": CRM, "scope": "crm.read"}
    known = register(mesh)
    assert await reason_of(mesh, form, PLANNER) is None
    known.add(order(Kind.ACTOR, PLANNER))
    assert await reason_of(mesh, form, PLANNER) is Reason.REVOKED


async def test_the_login_is_named_in_every_token_of_the_chain() -> None:
    mesh = Mesh()
    assert (await mesh.claims_for(mesh.login_form(subject_token=mesh.login(sid="s")), FRONT))["sid"] == "s"
    assert (await mesh.claims_for(mesh.exchange_form(subject_token=mesh.own(sid="s"))))["sid"] == "s"
    assert "sid" not in await mesh.claims_for(mesh.exchange_form())


def test_orders_are_on_the_disk_for_nobody_else_and_come_back_after_a_restart(tmp_path: Path) -> None:
    mesh = Mesh()
    file = tmp_path / "orders.json"
    register(mesh, file).add(order(Kind.TXN, "txn-1"))
    again = register(mesh, file)
    assert again.revocations(POLICY).names(Kind.TXN) == {"txn-1"}
    assert again.book.seq == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["orders.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"seq": 1, "seq": 2, "orders": []}'])
async def test_a_file_that_cannot_be_read_stops_exchanges_and_lists(content: bytes, tmp_path: Path) -> None:
    mesh = Mesh()
    file = tmp_path / "orders.json"
    file.write_bytes(content)
    known = register(mesh, file)
    assert known.lacking()
    assert await reason_of(mesh, mesh.exchange_form()) is Reason.NOT_READY
    with pytest.raises(Unavailable):
        known.signed_list(POLICY, mesh.ring)
    with pytest.raises(Unavailable):
        known.add(order(Kind.TXN, "t"))
    assert file.read_bytes() == content


def test_an_order_that_cannot_be_kept_or_recorded_does_not_count(tmp_path: Path) -> None:
    mesh = Mesh()
    known = register(mesh, tmp_path / "missing" / "orders.json")
    with pytest.raises(Unavailable) as refused:
        known.add(order(Kind.TXN, "t"))
    assert (refused.value.reason, known.book, mesh.log.events) == (Reason.NOT_READY, Book(), [])
    recorded = register(mesh)
    mesh.log.healthy = False
    with pytest.raises(Unavailable) as refused:
        recorded.add(order(Kind.TXN, "t"))
    assert (refused.value.reason, recorded.book) == (Reason.AUDIT_UNAVAILABLE, Book())


def test_a_replica_with_peers_is_ready_only_once_one_has_answered() -> None:
    mesh = Mesh()
    known = register(mesh, replicas=("https://sts.example",))
    assert known.lacking()
    with pytest.raises(Unavailable):
        known.revocations(POLICY)
    known.heard = True
    assert known.lacking() is None
    assert known.revocations(POLICY).seq == 0


def test_the_tag_of_a_list_changes_with_what_it_says_and_with_nothing_else() -> None:
    mesh = Mesh()
    known = register(mesh)
    tag, first = known.signed_list(POLICY, mesh.ring)
    assert known.signed_list(POLICY, mesh.ring) == (tag, first)
    mesh.now += 31
    again, later = known.signed_list(POLICY, mesh.ring)
    assert again == tag
    assert later != first, "signed again: a list must not look old"
    known.add(order(Kind.TXN, "txn-1"))
    other, raw = known.signed_list(POLICY, mesh.ring)
    assert other != tag
    key = parse_jwks(mesh.ring.jwks()).find(mesh.ring.active.kid)
    assert key is not None
    jws = at_once(parse_list(raw))
    said = at_once(verify_list(jws, issuer=ISSUER, key=key, algorithms=DEFAULT_ALGORITHMS, now=int(mesh.now)))
    assert [one.value for one in said.revoked.values()] == ["txn-1"]
    assert (said.seq, said.ttl_s) == (1, POLICY.token_life_s)


def test_an_order_is_recorded_and_one_operators_alone_is_counted() -> None:
    mesh = Mesh()
    known = register(mesh)
    known.add(order(Kind.TXN, "txn-1"))
    known.add(order(Kind.TXN, "txn-1"))
    assert mesh.log.metrics.revoked_alone == 0
    known.add(order(Kind.SUBJECT, "alice", LOGIN))
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
    monkeypatch.setattr("sidecar.sts.orders.MAX_REVOCATIONS", 5)
    monkeypatch.setattr("sidecar.sts.orders._FOR_OPERATORS", 2)
    book = Book()
    for number in range(3):
        book = book.with_order(order(Kind.LOGIN, f"s{number}", "https://login.example"), now=NOW)
    with pytest.raises(Denied):
        book.with_order(order(Kind.LOGIN, "s3", "https://login.example"), now=NOW)
    book = book.with_order(replace(order(Kind.TXN, "t1"), signed="a.b.c", certificate="eA=="), now=NOW)
    assert len(book.orders) == 4
