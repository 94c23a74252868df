from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.doctor.cells import Value
from sidecar.doctor.clients import Method, TestClient
from tests.doctor.world import World, cells, foreign_jwt, without
from tests.fakes.foreign_sts import KNOWN_RESOURCE, Knobs

YES, NO, REFUSED, NARROWED = Value.YES, Value.NO, Value.REFUSED, Value.NARROWED
CANNOT_SEE, NOT_TESTED = Value.CANNOT_SEE, Value.NOT_TESTED

ROWS: list[tuple[str, Knobs, Value, str]] = [
    ("accepts-actor", Knobs(), YES, "client 1's token, as access_token"),
    ("accepts-actor", Knobs(actor="ignore", act="none"), NO, "as if absent"),
    ("accepts-actor", Knobs(actor="refuse"), REFUSED, "400 invalid_request"),
    ("accepts-actor", Knobs(actor="refuse", refusal=(500, "server_error")), REFUSED, "500 server_error"),
    ("accepts-actor", Knobs(client_credentials=False, user_as_actor=True), YES, "the user's token"),
    ("accepts-actor", Knobs(actor="refuse", plain=False), NOT_TESTED, "no exchange was accepted"),
    ("accepts-actor", Knobs(actor="lenient"), YES, "client 1's token"),
    ("accepts-actor", Knobs(actor="ignore", opaque="jwe", introspects=False), CANNOT_SEE, "garbage passes too"),
    ("accepts-actor", Knobs(need_audience=True), YES, "client 1's token"),
    ("accepts-actor", Knobs(need_resource=True), YES, "client 1's token"),
    ("garbage-actor", Knobs(actor="lenient"), YES, "2 of 2, as if absent"),
    ("garbage-actor", Knobs(), REFUSED, "400 invalid_request"),
    ("garbage-actor", Knobs(actor="ignore"), YES, "2 of 2, as if absent"),
    ("garbage-actor", Knobs(refusal=(401, "")), REFUSED, "401 with an empty body"),
    ("garbage-actor", Knobs(actor="refuse", plain=False), NOT_TESTED, ""),
    ("forged-actor", Knobs(), REFUSED, "400 invalid_request"),
    ("forged-actor", Knobs(actor="decode"), YES, "4 of 4, act names its holder"),
    ("forged-actor", Knobs(actor="lenient"), YES, "4 of 4, as if absent"),
    ("forged-actor", Knobs(actor="refuse"), REFUSED, ""),
    ("foreign-actor", Knobs(), REFUSED, ""),
    ("foreign-actor", Knobs(foreign=True), YES, ""),
    ("foreign-actor", Knobs(actor="ignore"), YES, "as is garbage"),
    ("ignores-actor", Knobs(), NO, ""),
    ("ignores-actor", Knobs(actor="ignore", act="none"), YES, "never looked at"),
    ("ignores-actor", Knobs(actor="lenient"), YES, "a worthless one; a good one counts"),
    ("ignores-actor", Knobs(actor="drop"), YES, "after verifying it"),
    ("ignores-actor", Knobs(actor="refuse"), NO, "it refuses them"),
    ("ignores-actor", Knobs(actor="ignore", act="constant"), YES, "never looked at"),
    ("half-pairs", Knobs(), YES, ""),
    ("half-pairs", Knobs(halves="accept"), NO, "actor_token without its type"),
    ("half-pairs", Knobs(plain=False), CANNOT_SEE, "anyway"),
    ("emits-act", Knobs(), YES, "{sub}"),
    ("emits-act", Knobs(act_members=("iss", "sub")), YES, "{iss, sub}"),
    ("emits-act", Knobs(act="none"), NO, "never"),
    ("emits-act", Knobs(actor="lenient"), YES, "{sub}"),
    ("emits-act", Knobs(act="none", act_at_introspection=True), NO, "only at introspection"),
    ("emits-act", Knobs(plain=False, delegated_actor=True, extra={"act": {"sub": "agent-a"}}), NO, "constant"),
    ("emits-act", Knobs(act="text"), NO, "act is no object"),
    ("emits-act", Knobs(act_members=("iss",)), NO, "without sub"),
    ("emits-act", Knobs(act="constant"), NO, "constant"),
    ("emits-act", Knobs(opaque="opaque"), YES, "{sub}"),
    ("emits-act", Knobs(opaque="opaque", introspects=False), CANNOT_SEE, "opaque"),
    ("emits-act", Knobs(opaque="jwe", introspects=False), CANNOT_SEE, "encrypted"),
    ("emits-act", Knobs(opaque="opaque", introspects=False, id_tokens=True), YES, "{sub}"),
    ("binds-actor", Knobs(), YES, "400 invalid_request"),
    ("binds-actor", Knobs(bind="no"), NO, "act names client 2"),
    ("binds-actor", Knobs(bind="replace"), YES, "act names the client that asked"),
    ("binds-actor", Knobs(actor="ignore"), NOT_TESTED, "refused or ignored"),
    ("binds-actor", Knobs(actor="refuse"), NOT_TESTED, "refused or ignored"),
    ("binds-actor", Knobs(actor="drop", bind="no"), NOT_TESTED, "no act to bind"),
    ("binds-actor", Knobs(bind="no", opaque="jwe", introspects=False), CANNOT_SEE, "cannot be read"),
    ("user-as-actor", Knobs(), REFUSED, ""),
    ("user-as-actor", Knobs(user_as_actor=True), YES, ""),
]


@pytest.mark.parametrize(("cell", "knobs", "value", "detail"), ROWS)
def test_a_behaviour_has_its_verdict(cell: str, knobs: Knobs, value: Value, detail: str) -> None:
    found = cells(knobs, foreign=foreign_jwt(), resource=KNOWN_RESOURCE)[cell]
    assert found.value is value
    assert detail in found.detail


def test_a_server_that_names_the_client_that_asks_may_ignore_the_actor_token() -> None:
    found = cells(Knobs(actor="ignore", act="client"))
    assert (found["emits-act"].value, found["emits-act"].detail) == (YES, "{sub}: the client that asks")
    assert (found["ignores-actor"].value, found["ignores-actor"].bad) == (YES, False)
    assert found["binds-actor"].value is YES
    assert found["nests-act"].value is YES


def test_a_jwt_svid_that_authenticates_is_tried_as_actor_where_there_is_no_own_token() -> None:
    world = World(Knobs(client_credentials=False))
    svid = world.sts.user_token(sub="agent-a")
    client = TestClient(client_id="agent-a", method=Method.SPIFFE, secret=svid)
    world.case = replace(world.case, clients=(client, world.case.clients[1]))
    found = world.cells()["accepts-actor"]
    assert (found.value, found.detail) == (YES, "client 1's token, as jwt")


def test_an_act_that_names_another_than_the_actor_token_is_no_act() -> None:
    found = cells(Knobs(act="user"))["emits-act"]
    assert (found.value, found.bad) == (NO, True)
    assert "another than the actor token" in found.detail


def test_without_the_foreign_jwt_nothing_is_said_of_it() -> None:
    assert cells()["foreign-actor"].value is NOT_TESTED


def test_without_introspection_an_opaque_token_tells_nothing() -> None:
    world = without(World(Knobs(opaque="opaque")), introspection=None)
    found = world.cells()
    assert {found[cell].value for cell in ("emits-act", "ignores-actor", "nests-act", "keeps-sub")} == {CANNOT_SEE}
    assert found["garbage-actor"].value is REFUSED  # a refusal is seen all the same


@pytest.mark.parametrize("status", [429, 503, 0])
def test_a_busy_server_is_not_judged(status: int) -> None:
    found = cells(Knobs(refusal=(status, "")))
    assert {found[cell].value for cell in ("garbage-actor", "forged-actor", "half-pairs")} == {NOT_TESTED}


def test_evidence_has_the_status_and_the_claims() -> None:
    evidence: Any = cells(Knobs(bind="no"))["binds-actor"].evidence
    assert evidence[-1] == (
        "client 2's actor token from client 1: 200, act {sub: agent-b}, aud agent-a, scope crm.read docs.read"
    )
