"""The other end cannot prove its identity: record and status name the cause, the caller learns only the class."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.proxy.listening.status import SettingsState, status_of
from sidecar.status.troubles import troubles
from sidecar_dev.pki import IssuedSvid, TrustDomainAuthority
from tests.fakes.lying_sts import Reply
from tests.integration.hops import Hops
from tests.integration.world import ACME, CRM, STS, WRITER, Agent, World

pytestmark = pytest.mark.integration

Make = Callable[[World, SpiffeId], IssuedSvid]


def expired(world: World, spiffe_id: SpiffeId) -> IssuedSvid:
    return world.acme.issue_x509(spiffe_id, issued_at=int(time.time()) - 6, ttl_s=5)


def wrong_id(world: World, _spiffe_id: SpiffeId) -> IssuedSvid:
    return world.acme.issue_x509(SpiffeId("spiffe://acme.example/other"))


def unknown_ca(_world: World, spiffe_id: SpiffeId) -> IssuedSvid:
    return TrustDomainAuthority(ACME).issue_x509(spiffe_id)


def wrong_domain(_world: World, _spiffe_id: SpiffeId) -> IssuedSvid:
    domain = TrustDomain("elsewhere.example")
    return TrustDomainAuthority(domain).issue_x509(SpiffeId("spiffe://elsewhere.example/other"))


CAUSES = [
    pytest.param(expired, "svid_expired: ", id="expired"),
    pytest.param(wrong_id, "it is spiffe://acme.example/other, not {wanted}", id="wrong-id"),
    pytest.param(unknown_ca, "untrusted_chain: ", id="unknown-ca"),
    pytest.param(wrong_domain, "unknown_trust_domain: elsewhere.example", id="wrong-domain"),
]


def serving_as(svid: IssuedSvid, folder: Path) -> ssl.SSLContext:
    """Run a server that shows this certificate to everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain, key = folder / "other.pem", folder / "other.key"
    chain.write_bytes(svid.chain_pem)
    key.write_bytes(svid.key_pem)
    context.load_cert_chain(chain, key)
    return context


def told(hops: Hops) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the status, and the problems of `sidecar status` by subject."""
    document = status_of(hops.writer.server, SettingsState(loaded_at=5), since=7, now=int(time.time()))
    document = json.loads(json.dumps(document))
    return document, {one.what: f"{one.wrong} / {one.fix}" for one in troubles(document)}


@pytest.mark.parametrize(("make", "cause"), CAUSES)
async def test_a_next_hop_that_is_not_believed_is_told_with_its_cause(hops: Hops, make: Make, cause: str) -> None:
    other = Agent()
    tls = serving_as(make(hops.world, CRM), hops.world.folder)
    lawful, hops.ports["crm"] = hops.ports["crm"], await hops.world.listen(other.serve, ssl=tls)
    await hops.start()
    async with hops.serving() as held:
        refused = await hops.call(held.shown)
    assert (refused.status, refused.reason, other.requests) == (502, "upstream_identity", [])
    (record,) = await hops.outbound_records(1)
    cause = cause.format(wanted=CRM)
    assert cause in record["detail"]
    assert cause not in str(refused)
    document, wrong = told(hops)
    (failing,) = document["upstreams"]
    assert (failing["address"], failing["reason"]) == (f"127.0.0.1:{hops.ports['crm']}", "upstream_identity")
    assert cause in wrong[f"next hop 127.0.0.1:{hops.ports['crm']}"]
    assert lawful != hops.ports["crm"]


@pytest.mark.parametrize(("make", "cause"), CAUSES)
async def test_a_token_service_that_is_not_believed_is_told_with_its_cause(hops: Hops, make: Make, cause: str) -> None:
    other = Agent()
    port = await hops.world.listen(other.serve, ssl=serving_as(make(hops.world, STS), hops.world.folder))
    service = {"token_endpoint": f"https://127.0.0.1:{port}/token", "peer": str(STS)}
    await hops.start(exchange=service)
    async with hops.serving() as held:
        refused = await hops.call(held.shown)
    assert (refused.status, refused.reason, other.requests) == (502, "sts_identity", [])
    (record,) = await hops.outbound_records(1)
    cause = cause.format(wanted=STS)
    assert cause in record["detail"]
    assert cause not in str(refused)
    document, wrong = told(hops)
    assert cause in document["exchanges"][0]["last_refusal"]["detail"]
    assert cause in wrong["token service"]


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_a_token_service_that_answers_5xx_is_not_called_unreachable(hops: Hops, code: int) -> None:
    await hops.start()
    hops.sts.behaviour = lambda _sts, _form: Reply(status=code)
    async with hops.serving() as held:
        refused = await hops.call(held.shown)
    assert (refused.status, refused.reason) == (503, "sts_unavailable")
    assert b"cannot be reached" not in refused.body
    (record,) = await hops.outbound_records(1)
    assert record["detail"] == f"it answered with status {code}"
    _, wrong = told(hops)
    assert f"it answered with status {code}" in wrong["token service"]
    assert "cannot be reached" not in wrong["token service"]


async def test_a_token_service_that_nobody_can_reach_is_called_so(hops: Hops) -> None:
    await hops.start()
    await hops.stop_sts()
    async with hops.serving() as held:
        refused = await hops.call(held.shown)
    assert (refused.status, refused.reason) == (503, "sts_unavailable")
    _, wrong = told(hops)
    assert "the connection failed" in wrong["token service"]
    assert WRITER not in refused.body.decode()
