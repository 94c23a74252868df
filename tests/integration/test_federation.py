"""Two token services with their own keys and users: chains cross the border only where that is lawful."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.cli import main
from tests.integration.federation import BUYER, SHOP, Crossings, Federation, Lie, open_federation
from tests.integration.world import CRM, FRONT, STS, Record, until

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


async def test_a_chain_never_changes_its_token_service_where_no_crossing_is_listed(federation: Federation) -> None:
    # The buyer's route accepts either issuer, but its sidecar exchanges at acme's, and `crm` lists no crossing.
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


async def test_a_chain_of_the_partner_crosses_to_acme_and_stays_one(federation: Federation) -> None:
    federation.onwards = "/stock/customers"
    answer = await federation.ask("shop", "partner", "/buyer/either")
    assert (answer.status, answer.body) == (200, b"served")
    at_buyer, at_crm = await federation.record("buyer", "inbound"), await federation.record("crm", "inbound")
    assert (at_buyer["subject_iss"], at_buyer["chain"]) == (federation.issuer("partner"), [SHOP])
    assert (at_crm["subject_iss"], at_crm["chain"]) == (federation.issuer("acme"), [BUYER, SHOP])
    assert at_crm["subject"] == f"partner:{at_buyer['subject']}"
    assert at_crm["txn"] == at_buyer["txn"] is not None
    assert at_crm["parent_jti"] == at_buyer["jti_in"]
    assert at_crm["scope"] == ["crm.read"]
    assert (await federation.ask("front", "acme", "/buyer/either")).status == 200, "acme's own tokens need no crossing"


async def test_the_audit_sees_one_chain_over_both_trust_domains_and_token_services(
    federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    federation.onwards = "/stock/customers"
    assert (await federation.ask("shop", "partner", "/buyer/either")).status == 200
    at_crm = await federation.record("crm", "inbound")
    lines = await federation.all_lines()
    assert await chains(lines, federation, capsys) == ([at_crm["txn"]], set())
    of_crossing = {"crossed_from": federation.issuer("partner"), "jti_out": at_crm["jti_in"]}
    told = [line["event"] for line in lines if of_crossing.items() <= line.items()]
    assert sorted(told) == ["request", "token.exchanged", "token.exchanged"], "the caller twice, its token service"

    for changes in ({"crossed_from": None}, {"crossed_from": "https://else.example"}):
        forged = [line | changes if line["jti_out"] == at_crm["jti_in"] else line for line in lines]
        assert (await chains(forged, federation, capsys))[1] == {"splice"}
    runs = {line["run"] for line in lines if line["workload"] in {STS, CRM}}
    ours = [line for line in lines if line["run"] in runs]
    assert (await chains(ours, federation, capsys))[1] == {"missing_hop", "missing_witness"}
    mallory = [line | {"subject": "acme:m"} if line["subject"] == at_crm["subject"] else line for line in lines]
    assert (await chains(mallory, federation, capsys))[1] == {"splice"}


async def chains(
    lines: list[Record], federation: Federation, capsys: pytest.CaptureFixture[str]
) -> tuple[list[str], set[str]]:
    """Audit the lines; return the names of the chains and the kinds of findings."""
    file = federation.world.folder / "all.records"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    await asyncio.to_thread(main, ["audit", "chains", "--json", str(file)])
    found = json.loads(capsys.readouterr().out)
    return [chain["chain"] for chain in found["chains"]], {finding["kind"] for finding in found["findings"]}


@pytest.mark.parametrize(
    ("crossings", "reason"),
    [
        pytest.param(Crossings(sidecar=None), "issuer_not_for_route", id="not listed at the sidecar"),
        pytest.param(Crossings(service=None), "exchange_denied", id="not listed at the token service"),
        pytest.param(Crossings(audience=BUYER), "exchange_denied", id="another target is listed there"),
        pytest.param(
            Crossings(sidecar={"buy.pay": ["crm.read"]}), "insufficient_scope", id="no scope is in the sidecar's map"
        ),
        pytest.param(
            Crossings(service={"buy.pay": ["crm.read"]}), "exchange_denied", id="no scope is in the service's map"
        ),
    ],
)
async def test_what_is_not_listed_on_both_sides_does_not_cross(crossings: Crossings, reason: str) -> None:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_federation(Path(folder), crossings) as federation:
            federation.onwards = "/stock/customers"
            assert (await federation.ask("shop", "partner", "/buyer/either")).status == 403
            outbound = await federation.record("buyer", "outbound")
            assert (outbound["decision"], outbound["reason"]) == ("deny", reason)
            assert federation.agents["crm"].requests == []
            assert (await federation.ask("front", "acme", "/buyer/either")).status == 200


async def test_a_token_service_that_lies_at_the_border_is_found_out(federation: Federation) -> None:
    federation.onwards = "/stock/customers"
    lies: dict[str, tuple[Lie, str]] = {
        "another prefix": (lambda told: told.update(sub=f"acme:{told['sub']}"), "sts_subject_mismatch"),
        "sub_id dropped": (lambda told: told.pop("sub_id"), "sts_subject_mismatch"),
        "sub_id of another": (
            lambda told: told.update(sub_id={"format": "iss_sub", "iss": told["iss"], "sub": told["sub"]}),
            "sts_subject_mismatch",
        ),
        "another txn": (lambda told: told.update(txn="another"), "sts_chain_broken"),
        "shorter chain": (lambda told: told.update(act={"sub": BUYER}), "sts_chain_broken"),
        "more scope": (lambda told: told.update(scope="buy.plan crm.read"), "sts_scope_widened"),
        "longer life": (lambda told: told.update(exp=int(str(told["exp"])) + 60), "sts_lifetime"),
    }
    for number, (lie, reason) in enumerate(lies.values(), start=1):
        federation.lie = lie
        assert (await federation.ask("shop", "partner", "/buyer/either")).status == 502
        await until(lambda number=number: len(outbound(federation)) == number)  # type: ignore[misc]
        assert outbound(federation)[-1]["reason"] == reason
    assert federation.agents["crm"].requests == []
    federation.lie = lambda _told: None
    assert (await federation.ask("shop", "partner", "/buyer/either")).status == 200


def outbound(federation: Federation) -> list[Record]:
    return [
        record
        for record in federation.sidecars["buyer"].records()
        if record["event"] == "request" and record["direction"] == "outbound"
    ]
