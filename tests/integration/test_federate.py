"""Calls with a provider's token over real sockets: the trade and the call over TLS, a Workload API for the JWT-SVID."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from delegation_core.bearer import fingerprint_of
from delegation_core.errors import Unavailable
from delegation_core.outside import FederatedKey
from sidecar.exchange.federation import tokens
from sidecar_dev.pki import TrustDomainAuthority
from tests.config.documents import written
from tests.fakes.token_provider import ACCOUNT, TokenProvider, answer
from tests.integration.hops import Hops
from tests.integration.test_outside import ask, authority, server_context
from tests.integration.world import ACME, WRITER, Agent, Answer

pytestmark = pytest.mark.integration

AUDIENCE = "https://provider.example"
SECTIONS: dict[str, dict[str, Any]] = {
    "openai": {"identity_provider_id": "idp_1", "service_account_id": "sa_1"},
    "anthropic": {"federation_rule_id": "fdrl_1", "organization_id": "0f0e", "service_account_id": "svac_1"},
    "google": {"pool_provider": "//iam.googleapis.com/pool"},
    "azure": {"tenant_id": "acme.example", "client_id": "app-1", "scope": "https://ai.example/.default"},
}


@dataclass
class Outside:
    """A provider: its token endpoint, its API, and both ports."""

    provider: TokenProvider
    api: Agent
    token_port: int
    api_port: int
    ca: str

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.token_port}"


@pytest.fixture
async def outside(hops: Hops) -> Outside:
    _, signer, ca = authority(hops.world.folder, "models")
    provider, api = TokenProvider(hops.world.acme, AUDIENCE, str(WRITER)), Agent()
    tls = server_context(hops.world.folder, "models", signer)
    token_port = await hops.world.listen(provider.serve, ssl=tls)
    api_port = await hops.world.listen(api.serve, ssl=tls)
    return Outside(provider, api, token_port, api_port, str(ca))


async def start(hops: Hops, outside: Outside, provider: str = "openai", **changes: Any) -> None:
    """Run the writer's sidecar with a route to the provider, below a platform file that lists its hosts."""
    settings = hops.settings(route={"may_call": ["crm", "model"]})
    federate = {
        "provider": provider, "audience": AUDIENCE, "ca": outside.ca, "token_endpoint": f"{outside.url}/{provider}",
        **SECTIONS[provider], **changes,
    }  # fmt: skip
    settings["outbound"]["routes"].append(
        {
            "name": "model",
            "match": {"prefix": "/model"},
            "upstream": f"https://127.0.0.1:{outside.api_port}",
            "ca": outside.ca,
            "methods": ["POST"],
            "paths": ["/v1/responses"],
            "token": "federate",
            "federate": federate,
        }
    )
    folder = hops.world.folder / "platform"
    folder.mkdir()
    issuers = [{**one, "token_endpoint": settings["exchange"]["token_endpoint"]} for one in settings["issuers"]]
    hosts = [f"127.0.0.1:{port}" for port in (outside.api_port, outside.token_port)]
    platform = written(folder, {"issuers": issuers, "federate": hosts})
    hops.writer = await hops.world.sidecar(WRITER, settings, platform=platform)


async def asked(hops: Hops) -> Answer:
    async with hops.serving({"sub": "alice"}) as held:
        return await ask(hops, held.shown)


@pytest.mark.parametrize("provider", list(SECTIONS))
async def test_each_provider_s_token_goes_on_calls_and_is_traded_once(
    hops: Hops, outside: Outside, provider: str
) -> None:
    await start(hops, outside, provider)
    assert [(await asked(hops)).status for _ in range(2)] == [200, 200]
    assert (outside.provider.refused, len(outside.provider.issued)) == ([], 1)
    token = outside.provider.issued[0]
    for number in range(2):
        assert outside.api.headers(number)["authorization"] == f"Bearer {token}"
    record = (await hops.outbound_records(2))[0]
    assert (record["subject"], record["credential"]) == (
        "alice", f"federate:{provider}:{fingerprint_of(token)}",
    )  # fmt: skip
    text = hops.writer.records_path.read_text()
    assert token not in text
    assert outside.provider.shown[0] not in text


async def test_a_google_service_account_s_token_goes_on_the_call(hops: Hops, outside: Outside) -> None:
    await start(hops, outside, "google", service_account_impersonation_url=f"{outside.url}{ACCOUNT}")
    assert (await asked(hops)).status == 200
    assert (outside.provider.refused, len(outside.provider.issued)) == ([], 2)
    assert outside.api.headers()["authorization"] == f"Bearer {outside.provider.issued[1]}"


async def test_aws_s_credentials_become_a_bedrock_key(hops: Hops, outside: Outside) -> None:
    terms = {"region": "eu-central-1", "role_arn": "arn:aws:iam::1:role/agent", "session_name": "writer"}
    key = FederatedKey(
        provider="aws", audience=AUDIENCE, endpoint=f"{outside.url}/aws", ca_file=outside.ca, terms=tuple(terms.items())
    )
    trades = tokens.FederatedTokens(await hops.world.source(WRITER))
    token = await trades.of(key)
    signed = base64.b64decode(token.value.removeprefix(b"bedrock-api-key-")).decode()
    assert f"X-Amz-Security-Token={outside.provider.issued[0]}&" in signed
    with pytest.raises(Unavailable):
        await trades.of(replace(key, audience="https://else.example"))
    assert outside.provider.refused == ["InvalidAudienceError"]


async def refused(hops: Hops, outside: Outside) -> None:
    told = await asked(hops)
    assert (told.status, told.reason) == (503, "credential_unavailable")
    assert outside.api.requests == []


async def lifted(hops: Hops) -> None:
    assert (await asked(hops)).status == 200


async def test_a_jwt_svid_for_another_audience_buys_no_token(hops: Hops, outside: Outside) -> None:
    await start(hops, outside)
    outside.provider.audience = "https://else.example"
    await refused(hops, outside)
    assert outside.provider.refused == ["InvalidAudienceError"]
    outside.provider.audience = AUDIENCE
    await lifted(hops)


async def test_a_jwt_svid_of_another_trust_domain_buys_no_token(hops: Hops, outside: Outside) -> None:
    await start(hops, outside)
    outside.provider.authority = TrustDomainAuthority(ACME)
    await refused(hops, outside)
    assert outside.provider.refused == ["InvalidSignatureError"]
    outside.provider.authority = hops.world.acme
    await lifted(hops)


@pytest.mark.parametrize("change", ["second-audience", "expired"])
async def test_a_jwt_svid_that_is_not_for_the_provider_alone_or_over_is_never_shown(
    hops: Hops, outside: Outside, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(hops, outside)
    issue = TrustDomainAuthority.issue_jwt

    def worse(self: TrustDomainAuthority, spiffe_id: Any, audience: Any, **options: Any) -> str:
        if change == "expired":
            return issue(self, spiffe_id, audience, **{**options, "issued_at": 1_000_000_000})
        return issue(self, spiffe_id, [*audience, "https://else.example"], **options)

    with monkeypatch.context() as patched:
        patched.setattr(TrustDomainAuthority, "issue_jwt", worse)
        told = await asked(hops)
    assert (told.status, told.reason, outside.provider.shown) == (503, "not_ready", [])
    await lifted(hops)


def said(**changes: object) -> bytes:
    members = {"access_token": "token-of-a-liar", "token_type": "Bearer", "expires_in": 3600, **changes}
    return answer(
        json.dumps({name: one for name, one in members.items() if one is not None}).encode(), b"application/json"
    )


ELSEWHERE = b"location: https://127.0.0.1:1/\r\n"
LIES = {
    "no-expiry": said(expires_in=None),
    "html": answer(b"<html>sign in</html>", b"text/html"),
    "html-as-json": answer(b"<html>sign in</html>", b"application/json"),
    "redirect": answer(b"", b"application/json", b"307 Temporary Redirect", ELSEWHERE),
    "too-large": said(padding="x" * 70_000),
    "encoded": said().replace(b"content-type", b"content-encoding: gzip\r\ncontent-type"),
    "down": b"",
}


@pytest.mark.parametrize("lie", list(LIES))
async def test_an_answer_without_a_short_lived_token_is_refused(hops: Hops, outside: Outside, lie: str) -> None:
    await start(hops, outside)
    outside.provider.lie = LIES[lie]
    await refused(hops, outside)
    outside.provider.lie = None
    await lifted(hops)


async def test_a_slow_provider_is_not_waited_for(hops: Hops, outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    await start(hops, outside)
    outside.provider.lie = asyncio.get_running_loop().create_future()
    with monkeypatch.context() as patched:
        patched.setattr(tokens, "TRADE_S", 0.2)
        await refused(hops, outside)
    outside.provider.lie.cancel()
    outside.provider.lie = None
    await lifted(hops)


async def test_a_token_endpoint_that_cannot_prove_its_name_sees_no_jwt_svid(hops: Hops, outside: Outside) -> None:
    others = authority(hops.world.folder, "others")[2]
    await start(hops, outside, ca=str(others))
    await refused(hops, outside)
    assert outside.provider.shown == []
