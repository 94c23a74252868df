from __future__ import annotations

from typing import Any

import pytest

from sidecar.doctor.cells import Value
from sidecar.doctor.messages import Answer, Request
from sidecar.doctor.names import Probe
from sidecar.doctor.verdicts import verdicts_of
from tests.doctor.world import World, cells
from tests.fakes.foreign_sts import Knobs

YES, NO, REFUSED, NARROWED = Value.YES, Value.NO, Value.REFUSED, Value.NARROWED
CANNOT_SEE, NOT_TESTED = Value.CANNOT_SEE, Value.NOT_TESTED

ROWS: list[tuple[str, Knobs, Value, str]] = [
    ("scope-absent", Knobs(), YES, "the subject's scopes"),
    ("scope-absent", Knobs(scope_absent="client"), NO, "others: crm.write"),
    ("scope-absent", Knobs(scope_absent="none"), NARROWED, "(none)"),
    ("scope-absent", Knobs(scope_absent="refuse"), REFUSED, "invalid_scope"),
    ("scope-absent", Knobs(scope_claim=None), CANNOT_SEE, ""),
    ("narrows-scope", Knobs(), YES, "to crm.read"),
    ("narrows-scope", Knobs(narrows=False), NO, "got crm.read docs.read"),
    ("narrows-scope", Knobs(scope_claim=None), CANNOT_SEE, ""),
    ("narrows-scope", Knobs(scope_claim=("scp", "array")), YES, "to crm.read"),
    ("widens-scope", Knobs(), REFUSED, "400 invalid_scope"),
    ("widens-scope", Knobs(scope="widen"), YES, "to crm.write"),
    ("widens-scope", Knobs(scope="any"), YES, "even an invented scope"),
    ("widens-scope", Knobs(scope="intersect"), NARROWED, "cut without an error; alone: 400 invalid_scope"),
    ("widens-scope", Knobs(scope="silent", scope_claim=None), CANNOT_SEE, ""),
    ("widens-scope", Knobs(refusal=(500, "server_error")), REFUSED, "500"),
    ("audience", Knobs(), YES, ""),
    ("audience", Knobs(audience="ignore", requester=False), NO, "ignored: aud is agent-a"),
    ("audience", Knobs(audience="hide"), NO, "checked, but the token has no aud"),
    ("audience", Knobs(audience="more"), NO, "beside others"),
    ("audience", Knobs(opaque="jwe", introspects=False), CANNOT_SEE, ""),
    ("unknown-audience", Knobs(), REFUSED, "invalid_target"),
    ("unknown-audience", Knobs(audience="copy"), YES, "copied, unchecked"),
    ("unknown-audience", Knobs(audience="ignore"), YES, "ignored"),
    ("two-audiences", Knobs(), YES, "tool-crm tool-mail"),
    ("two-audiences", Knobs(two_audiences="first"), NARROWED, "to tool-crm"),
    ("two-audiences", Knobs(two_audiences="refuse"), REFUSED, ""),
    ("two-audiences", Knobs(audience="ignore"), NO, "ignored"),
    ("two-audiences", Knobs(opaque="jwe", introspects=False), CANNOT_SEE, ""),
    ("resource", Knobs(), YES, "invalid_target"),
    ("resource", Knobs(resource="ignore"), NO, "ignored"),
    ("resource", Knobs(resource="copy"), NO, "copied into aud"),
    ("resource", Knobs(resource="syntax"), NO, "ignored; only its syntax is checked"),
    ("requester-in-audience", Knobs(), YES, "403 access_denied"),
    ("requester-in-audience", Knobs(requester=False), NO, "a client outside aud"),
    ("requester-in-audience", Knobs(audience="hide"), CANNOT_SEE, "no token at hand"),
    ("caps-life", Knobs(), YES, "by the claims"),
    ("caps-life", Knobs(life="new"), NO, "outlives"),
    ("caps-life", Knobs(life="new", life_s=20), NO, "by 3 s"),
    ("caps-life", Knobs(life="new", life_s=100, life_of_b_s=50), NO, "by 50 s"),
    ("caps-life", Knobs(life_s=100, life_of_b_s=50), YES, "by the claims"),
    ("caps-life", Knobs(life="new", life_s=50, life_of_b_s=100), NO, "by 53 s"),
    ("caps-life", Knobs(opaque="jwe", introspects=False), CANNOT_SEE, ""),
]
EVERY_CELL = (
    "scope-absent", "narrows-scope", "widens-scope", "audience", "unknown-audience", "two-audiences", "resource",
    "requester-in-audience", "caps-life",
)  # fmt: skip


@pytest.mark.parametrize(("cell", "knobs", "value", "detail"), ROWS)
def test_a_behaviour_has_its_verdict(cell: str, knobs: Knobs, value: Value, detail: str) -> None:
    found = cells(knobs)[cell]
    assert found.value is value
    assert detail in found.detail


def test_where_no_exchange_is_accepted_nothing_is_said() -> None:
    found = cells(Knobs(actor="refuse", plain=False))
    assert {found[cell].value for cell in EVERY_CELL} == {NOT_TESTED}


@pytest.mark.parametrize(
    ("cell", "given", "option"),
    [
        ("narrows-scope", {"subject": {"scope": "crm.read"}}, "no two scopes"),
        ("widens-scope", {"wider": ()}, "--wider-scope"),
        ("audience", {"audiences": ()}, "--audience"),
        ("two-audiences", {"audiences": ("tool-crm",)}, "--audience"),
    ],
)
def test_without_its_names_a_question_is_not_tested(cell: str, given: dict[str, Any], option: str) -> None:
    found = cells(**given)[cell]
    assert found.value is NOT_TESTED
    assert option in found.detail


def test_without_a_wider_scope_those_that_the_server_lists_are_tried() -> None:
    listed = ("openid", "crm.read", "crm.write")
    assert cells(Knobs(scope="widen"), wider=(), supported=listed)["widens-scope"].detail == "to crm.write"
    assert cells(wider=(), supported=listed)["widens-scope"].value is REFUSED


def test_a_scope_that_widens_only_without_an_actor_token_widens() -> None:
    class Lax(World):
        def answer(self, request: Request) -> Answer:
            lax = "actor_token" not in dict(request.pairs)
            self.sts.knobs = Knobs(scope="widen" if lax else "refuse")
            return super().answer(request)

    found = Lax().cells()["widens-scope"]
    assert (found.value, found.evidence[0].partition(":")[0]) == (YES, "a wider scope without an actor token")


def test_a_scope_that_the_subject_has_is_not_wider() -> None:
    assert cells(Knobs(scope="widen"), wider=("crm.read",))["widens-scope"].value is NOT_TESTED


def test_a_short_life_of_its_own_is_not_taken_for_a_cap() -> None:
    """Neither the subject nor hop 1 ends before a token would, where there is no hop 2."""
    found = cells(Knobs(life="new", life_s=20, audience="ignore"))
    assert found["nests-act"].value is REFUSED
    assert found["caps-life"].value is CANNOT_SEE


def test_lives_of_two_clients_are_not_compared() -> None:
    """Agent-b's tokens are short by themselves: beside agent-a's they look cut."""
    found = World(Knobs(life="new", life_s=200, life_of_b_s=20)).examine()
    for name in (Probe.FOR_FIRST, Probe.HOP_3):
        del found.attempts[name]
    (cell,) = [cell for cell in verdicts_of(found) if cell.id == "caps-life"]
    assert cell.value is CANNOT_SEE


def test_a_server_that_insists_on_an_audience_is_judged_by_exchanges_with_one() -> None:
    found = cells(Knobs(need_audience=True))
    assert (found["accepts-actor"].value, found["nests-act"].value, found["caps-life"].value) == (YES, YES, YES)


def test_the_answers_scope_counts_only_without_a_claim() -> None:
    assert cells(Knobs(scope_claim=("scp", "string")))["widens-scope"].value is REFUSED
