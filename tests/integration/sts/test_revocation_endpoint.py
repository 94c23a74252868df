from __future__ import annotations

import json
import secrets
import time
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from delegation_core.keyset import parse_jwks
from delegation_core.profile import DEFAULT_ALGORITHMS
from delegation_core.revocation import Kind
from delegation_core.revocation_list import parse_list, verify_list
from delegation_core.revocations_kept import Listed
from delegation_core.spiffe_id import SpiffeId
from delegation_core.steps import at_once
from sidecar.identity.tls import client_context
from sidecar.sts.orders import ORDER, sign_order
from sidecar.sts.revocations import Register, RevocationSettings
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.sts import LOGIN, Mesh
from tests.fakes.sts_server import STS, Answer, RunningSts, running_sts, token_request
from tests.fakes.tokens import ISSUER, WRITER
from tests.integration.sts.test_replicas import order

pytestmark = pytest.mark.integration

ANN, BOB, EVE = (SpiffeId(f"spiffe://acme.example/operator/{name}") for name in ("ann", "bob", "eve"))
OPERATORS: Final = {ANN: frozenset(Kind), BOB: frozenset((Kind.SUBJECT, Kind.TXN))}
USER: Final[dict[str, Any]] = {"kind": "subject", "value": "alice", "of_issuer": LOGIN}


def mesh_with_register() -> Mesh:
    mesh = Mesh(start=int(time.time()))
    mesh.log.workload = STS
    mesh.service.register = Register(RevocationSettings(operators=OPERATORS), mesh.log)
    mesh.service.register.load()
    return mesh


async def post(sts: RunningSts, by: SpiffeId = ANN, *, content_type: str = ORDER, **changes: object) -> Answer:
    """Send an order of ``by``, lawful unless changed."""
    source = OwnIdentity(sts.authority, by)
    assert source.current is not None
    svid = source.current.svid
    claims: dict[str, object] = {"iss": by, "aud": STS, "iat": int(time.time()), "jti": secrets.token_urlsafe(8)}
    claims |= {"action": "revoke", "kind": "txn", "value": "txn-1", "reason": "INC-42", "until": int(time.time()) + 60}
    key = load_der_private_key(svid.key_der, None)
    body = sign_order(claims | changes, key=key, certificate=svid.chain[0]).encode()
    request = token_request(body, f"Content-Type: {content_type}", target="/revocations")
    return await sts.send(request, tls=client_context(source, expected=STS))


async def listed(sts: RunningSts, *fields: str) -> Answer:
    return await sts.send("\r\n".join(["GET /revocations HTTP/1.1", "Host: sts", *fields, "", ""]).encode())


async def said(sts: RunningSts, answer: Answer) -> Listed:
    keys = parse_jwks((await sts.get("/jwks")).body)
    jws = at_once(parse_list(answer.body))
    key = keys.find(jws.kid)
    assert key is not None
    return at_once(verify_list(jws, issuer=ISSUER, key=key, algorithms=DEFAULT_ALGORITHMS, now=int(time.time())))


async def test_an_operators_order_is_in_force_before_it_is_answered_and_in_the_list_of_every_workload() -> None:
    async with running_sts(mesh_with_register()) as sts:
        before = await listed(sts)
        assert (before.status, bool((await said(sts, before)).revoked)) == (200, False)
        unchanged = await listed(sts, f"If-None-Match: {before.headers['etag']}")
        assert (unchanged.status, unchanged.body) == (304, b"")
        assert unchanged.headers["revocations-unchanged"].count(".") == 2
        answer = await post(sts)
        assert (answer.status, answer.members["state"]) == (200, "revoke")
        refused = await sts.send(token_request(sts.mesh.exchange_form()))
        assert (refused.status, refused.headers["delegation-reason"]) == (400, "revoked")
        after = await listed(sts, f"If-None-Match: {before.headers['etag']}")
        assert [one.value for one in (await said(sts, after)).revoked.values()] == ["txn-1"]


@pytest.mark.parametrize(
    ("by", "changes"),
    [
        pytest.param(EVE, {}, id="somebody who is not listed"),
        pytest.param(WRITER, {}, id="a workload"),
        pytest.param(BOB, {"kind": "actor", "value": str(WRITER)}, id="an operator who may not stop workloads"),
        pytest.param(ANN, {"iss": str(BOB)}, id="in the name of another"),
        pytest.param(ANN, {"aud": "spiffe://acme.example/else"}, id="for another token service"),
        pytest.param(ANN, {"content_type": "application/json"}, id="of another type"),
    ],
)
async def test_an_order_with_one_fact_changed_is_refused_and_recorded(by: SpiffeId, changes: dict[str, Any]) -> None:
    async with running_sts(mesh_with_register()) as sts:
        answer = await post(sts, by, **changes)
        assert (answer.status, answer.headers["delegation-reason"]) == (403, "order_refused")
        assert ("detail" in answer.members) is (by in OPERATORS)
        ((event, fields),) = sts.mesh.log.events
        assert (event, fields["peer"], fields["reason"]) == ("revocation.refused", by, "order_refused")
        assert (await post(sts)).status == 200


async def test_a_whole_user_waits_for_a_second_operator() -> None:
    async with running_sts(mesh_with_register()) as sts:
        first = await post(sts, **USER)
        assert first.members["state"] == "waiting"
        assert (await sts.send(token_request(sts.mesh.exchange_form()))).status == 200
        own = await post(sts, action="confirm", of=first.members["id"])
        assert own.status == 403
        second = await post(sts, BOB, action="confirm", of=first.members["id"])
        assert (second.status, second.members) == (200, {"id": first.members["id"], "state": "confirm"})
        assert (await sts.send(token_request(sts.mesh.exchange_form()))).status == 400
        lifted = await post(sts, BOB, action="lift", of=first.members["id"])
        assert lifted.members["state"] == "lift"
        assert (await sts.send(token_request(sts.mesh.exchange_form()))).status == 200


@pytest.mark.parametrize(("by", "status"), [(STS, 200), (ANN, 200), (WRITER, 403), (EVE, 403)])
async def test_all_orders_are_told_to_replicas_and_operators_only(by: SpiffeId, status: int) -> None:
    async with running_sts(mesh_with_register()) as sts:
        await post(sts)
        request = b"GET /revocations/orders HTTP/1.1\r\nHost: sts\r\n\r\n"
        answer = await sts.send(request, tls=client_context(OwnIdentity(sts.authority, by), expected=STS))
        assert answer.status == status
        assert (b"INC-42" in answer.body) is (status == 200)


async def give(sts: RunningSts, by: SpiffeId, body: bytes) -> Answer:
    tls = client_context(OwnIdentity(sts.authority, by), expected=STS)
    return await sts.send(token_request(body, "Content-Type: application/json", target="/revocations/orders"), tls=tls)


@pytest.mark.parametrize(
    ("by", "changes", "status"),
    [
        pytest.param(STS, {}, 200, id="a replica"),
        pytest.param(ANN, {}, 403, id="an operator, who would need no signature"),
        pytest.param(WRITER, {}, 403, id="a workload"),
        pytest.param(STS, {"kind": "user"}, 403, id="of an unknown kind"),
        pytest.param(STS, {"more": 1}, 403, id="with another member"),
    ],
)
async def test_orders_are_taken_as_they_are_from_replicas_alone(
    by: SpiffeId, changes: dict[str, Any], status: int
) -> None:
    async with running_sts(mesh_with_register()) as sts:
        register = sts.mesh.service.register
        assert register is not None
        row = json.loads(order("txn-1").row()) | changes
        answer = await give(sts, by, json.dumps({"seq": 2**53 - 1, "orders": [row]}).encode())
        assert answer.status == status
        assert (len(register.book.orders), register.book.seq) == ((1, 1) if status == 200 else (0, 0))
        assert [name for name, _ in sts.mesh.log.events] == ([] if status == 200 else ["revocation.refused"])


async def test_an_operator_is_told_which_replicas_may_lack_the_order() -> None:
    mesh = mesh_with_register()
    assert mesh.service.register is not None
    async with running_sts(mesh) as sts:
        mesh.service.register.peers.follow(["https://10.0.0.9:7444"])
        answer = await post(sts, jti="order-1")
        assert (answer.status, answer.members["missing"]) == (200, ["10.0.0.9:7444"])
        mesh.service.register.peers.note_heard("https://10.0.0.9:7444", 0.0, [])
        assert "missing" not in (await post(sts, jti="order-1")).members


async def test_a_replica_that_may_lack_orders_is_not_ready_and_gives_no_list() -> None:
    mesh = mesh_with_register()
    assert mesh.service.register is not None
    peers = mesh.service.register.peers
    async with running_sts(mesh) as sts:
        peers.follow(["https://other"])
        assert (await listed(sts)).status == 503
        assert (await sts.probe("/readyz")).status == 503
        assert any("revocations" in reason for reason in sts.server.missing())
        peers.note_heard("https://other", peers.monotonic())
        assert (await listed(sts)).status == 200
        assert (await sts.probe("/readyz")).status == 200


async def test_without_the_setting_nothing_is_revoked_here() -> None:
    async with running_sts() as sts:
        assert (await listed(sts)).status == 404
        assert json.loads((await post(sts)).body)["error"] == "invalid_request"
