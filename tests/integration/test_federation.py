"""Two token services with their own keys and users: chains cross the border only where that is lawful."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.federation import BUYER, SHOP, Federation, open_federation
from tests.integration.world import FRONT

pytestmark = pytest.mark.integration


@pytest.fixture
async def federation() -> AsyncIterator[Federation]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_federation(Path(folder)) as opened:
            yield opened


async def test_a_chain_of_one_organisation_crosses_the_border_and_comes_back_whole(federation: Federation) -> None:
    answer = await federation.ask("front", "acme", "/buyer/plan")
    assert (answer.status, answer.body) == (200, b"served")
    at_buyer, at_crm = await federation.record("buyer", "inbound"), await federation.record("crm", "inbound")
    assert at_buyer["chain"] == [FRONT]
    assert at_crm["chain"] == [BUYER, FRONT]
    assert at_crm["peer"] == at_crm["actor"] == BUYER
    assert {at_buyer["subject_iss"], at_crm["subject_iss"]} == {federation.issuer("acme")}
    assert at_buyer["txn"] == at_crm["txn"]
    assert at_crm["scope"] == ["crm.read"]


async def test_the_other_organisations_chain_is_served_on_its_own_route(federation: Federation) -> None:
    assert (await federation.ask("shop", "partner", "/crm/orders", method="GET")).status == 200
    record = await federation.record("crm", "inbound")
    assert (record["chain"], record["subject_iss"]) == ([SHOP], federation.issuer("partner"))


async def test_a_token_of_the_other_issuer_is_refused_on_a_route_that_does_not_name_it(federation: Federation) -> None:
    answer = await federation.ask("shop", "partner", "/crm/customers", method="GET")
    assert (answer.status, answer.reason) == (403, "issuer_not_for_route")
    assert federation.agents["crm"].requests == []


async def test_a_chain_never_changes_its_token_service_on_the_way(federation: Federation) -> None:
    # The buyer's route accepts either issuer, but its sidecar exchanges at acme's: the partner's tokens end here.
    refused = await federation.ask("shop", "partner", "/buyer/either")
    assert refused.status == 403
    outbound = await federation.record("buyer", "outbound")
    assert (outbound["decision"], outbound["reason"]) == ("deny", "issuer_not_for_route")
    assert federation.agents["crm"].requests == []
    assert (await federation.ask("front", "acme", "/buyer/either")).status == 200


async def test_a_login_of_the_other_organisation_starts_no_chain(federation: Federation) -> None:
    answer = await federation.ask("front", "partner", "/buyer/plan")
    assert (answer.status, answer.reason) == (401, "wrong_issuer")
    assert federation.agents["buyer"].requests == []
