from __future__ import annotations

import pytest

from sidecar.doctor.cells import Value
from sidecar.doctor.clients import Method, TestClient
from tests.doctor.world import World, cells, client, without
from tests.fakes.foreign_sts import Knobs

YES, NO, REFUSED = Value.YES, Value.NO, Value.REFUSED
CANNOT_SEE, NOT_TESTED = Value.CANNOT_SEE, Value.NOT_TESTED

ROWS: list[tuple[str, Knobs, Value, str]] = [
    ("verifies-subject", Knobs(), REFUSED, "400 invalid_request"),
    ("verifies-subject", Knobs(subject="decode"), YES, "subject token, one character changed"),
    ("verifies-subject", Knobs(refusal=(400, "invalid_grant")), REFUSED, "400 invalid_grant"),
    ("refuses-duplicates", Knobs(), YES, "400 invalid_request"),
    ("refuses-duplicates", Knobs(duplicates="accept"), NO, "200"),
    ("refuses-repeated-scope", Knobs(), YES, "400 invalid_request"),
    ("refuses-repeated-scope", Knobs(duplicates="accept"), NO, "200"),
    ("refuses-duplicates", Knobs(duplicates="crash"), YES, "500 with an empty body: an exception"),
    ("sender-bound", Knobs(), YES, ""),
    ("sender-bound", Knobs(dpop="free"), NO, "unbound"),
    ("sender-bound", Knobs(dpop="off"), NOT_TESTED, "no token bound by DPoP"),
    ("sender-bound", Knobs(audience="ignore"), CANNOT_SEE, "unbound token, too"),
    ("wrong-secret", Knobs(), REFUSED, "401 invalid_client"),
    ("wrong-secret", Knobs(wrong_secret=(401, "")), REFUSED, "401 with an empty body"),
    ("wrong-secret", Knobs(secret="ignore"), YES, "200"),
    ("no-secret", Knobs(), REFUSED, "401 invalid_client"),
    ("no-secret", Knobs(secret="ignore"), YES, "200"),
    ("ends-with-subject", Knobs(), NO, "the earlier token lives on"),
    ("ends-with-subject", Knobs(revokes="chain"), YES, "by introspection"),
    ("ends-with-subject", Knobs(revokes="nothing"), NO, "still exchanged"),
    ("ends-with-subject", Knobs(introspects=False), CANNOT_SEE, "new exchanges are refused"),
]
EVERY_CELL = (
    "verifies-subject",
    "refuses-duplicates",
    "sender-bound",
    "wrong-secret",
    "no-secret",
    "ends-with-subject",
)


@pytest.mark.parametrize(("cell", "knobs", "value", "detail"), ROWS)
def test_a_behaviour_has_its_verdict(cell: str, knobs: Knobs, value: Value, detail: str) -> None:
    found = cells(knobs)[cell]
    assert found.value is value
    assert detail in found.detail


def test_where_no_exchange_is_accepted_nothing_is_said() -> None:
    found = cells(Knobs(actor="refuse", plain=False))
    assert {found[cell].value for cell in EVERY_CELL} == {NOT_TESTED}


def test_without_the_endpoint_nothing_is_revoked() -> None:
    world = without(World(), revocation=None)
    assert world.cells()["ends-with-subject"].value is NOT_TESTED
    assert world.sts.revoked == set()


def test_the_subject_token_is_never_revoked() -> None:
    world = World()
    world.examine()
    assert world.sts.revoked != set()
    assert world.case.subject.value not in world.sts.revoked


def test_a_public_client_has_no_credential_to_spoil() -> None:
    public = TestClient(client_id="agent-a", method=Method.NONE)
    found = cells(Knobs(secret="public"), clients=(public, client("agent-b")))
    assert (found["wrong-secret"].value, found["no-secret"].value) == (NOT_TESTED, NOT_TESTED)
