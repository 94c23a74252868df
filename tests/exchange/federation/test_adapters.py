"""Adapters of providers: the golden messages of each trade, and every answer that gives no token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest

from delegation_core.errors import Reason, Unavailable
from delegation_core.outside import FederatedKey, Provider
from sidecar.exchange.federation.tokens import ADAPTERS
from sidecar.exchange.federation.trade import MAX_LIFE_S, Ask, Steps, Traded

SVID: Final = "header.claims.signature"
NOW: Final = 1_800_000_000.0
TOKEN: Final = "token-of-the-provider"
ANSWER: Final = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
IMPERSONATE: Final = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com:generateAccessToken"

TERMS: Final[Mapping[Provider, Mapping[str, str]]] = {
    "openai": {"identity_provider_id": "idp_1", "service_account_id": "sa_1"},
    "anthropic": {
        "federation_rule_id": "fdrl_1", "organization_id": "0f0e", "service_account_id": "svac_1",
        "workspace_id": "wrkspc_1",
    },
    "google": {"pool_provider": "//iam.googleapis.com/p", "scope": "https://www.googleapis.com/auth/cloud-platform"},
    "azure": {"client_id": "app-1", "scope": "https://cognitiveservices.azure.com/.default"},
}  # fmt: skip


def key(provider: Provider, **terms: str) -> FederatedKey:
    told = {**TERMS[provider], **terms}
    return FederatedKey(
        provider=provider, audience="aud", endpoint="https://token.example/t", terms=tuple(sorted(told.items()))
    )


def begun(provider: Provider, **terms: str) -> tuple[Steps, Ask]:
    steps = ADAPTERS[provider](key(provider, **terms), SVID, NOW)
    return steps, next(steps)


def end(steps: Steps, answer: object) -> Traded:
    """Answer the last step; return the outcome."""
    with pytest.raises(StopIteration) as stopped:
        steps.send(answer if isinstance(answer, bytes) else json.dumps(answer).encode())
    outcome: Traded = stopped.value.value
    return outcome


def told(ask: Ask) -> dict[str, Any]:
    """Read what is asked: a form or a document."""
    if ask.content_type == "application/json":
        members: dict[str, Any] = json.loads(ask.body)
        return members
    assert ask.content_type == "application/x-www-form-urlencoded"
    return dict(parse_qsl(ask.body.decode(), strict_parsing=True))


GOLDEN: Final[Mapping[Provider, tuple[str, dict[str, str]]]] = {
    "openai": (
        "application/json",
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "subject_token": SVID,
            "identity_provider_id": "idp_1",
            "service_account_id": "sa_1",
        },
    ),
    "anthropic": (
        "application/json",
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": SVID,
            "federation_rule_id": "fdrl_1",
            "organization_id": "0f0e",
            "service_account_id": "svac_1",
            "workspace_id": "wrkspc_1",
        },
    ),
    "google": (
        "application/x-www-form-urlencoded",
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": "//iam.googleapis.com/p",
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "subject_token": SVID,
        },
    ),
    "azure": (
        "application/x-www-form-urlencoded",
        {
            "grant_type": "client_credentials",
            "client_id": "app-1",
            "scope": "https://cognitiveservices.azure.com/.default",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": SVID,
        },
    ),
}


@pytest.mark.parametrize("provider", list(GOLDEN))
def test_a_trade_asks_as_the_provider_documents_and_gets_its_token(provider: Provider) -> None:
    steps, ask = begun(provider)
    content_type, members = GOLDEN[provider]
    assert (ask.url, ask.content_type, told(ask)) == ("https://token.example/t", content_type, members)
    assert ask.headers == (
        {"anthropic-beta": "oauth-2025-04-20,oidc-federation-2026-04-01"} if provider == "anthropic" else {}
    )
    assert SVID not in repr(ask)
    outcome = end(steps, ANSWER)
    assert outcome == Traded(TOKEN, 3600)
    assert TOKEN not in repr(outcome)


@pytest.mark.parametrize("provider", list(GOLDEN))
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"expires_in": None}, id="no-expiry"),
        pytest.param({"expires_in": True}, id="expiry-true"),
        pytest.param({"expires_in": "3600"}, id="expiry-text"),
        pytest.param({"expires_in": 0}, id="expired"),
        pytest.param({"expires_in": MAX_LIFE_S + 1}, id="static"),
        pytest.param({"access_token": None}, id="no-token"),
        pytest.param({"access_token": "a b c d e f"}, id="spaces"),
        pytest.param({"access_token": "line\r\nX-Evil: 1"}, id="two-lines"),
        pytest.param({"token_type": "N_A"}, id="no-bearer"),
        pytest.param(b"<html>sign in</html>", id="html"),
        pytest.param(b'{"access_token": "token-one", "access_token": "token-two"}', id="two-tokens"),
    ],
)
def test_an_answer_without_one_short_lived_token_is_refused(provider: Provider, answer: Any) -> None:
    steps, _ = begun(provider)
    said = answer if isinstance(answer, bytes) else json.dumps({**ANSWER, **answer}).encode()
    with pytest.raises(Unavailable) as refused:
        steps.send(said)
    assert refused.value.reason is Reason.CREDENTIAL_UNAVAILABLE
    assert "sign in" not in str(refused.value)


def test_a_google_service_account_is_asked_for_with_the_federated_token() -> None:
    steps, _ = begun("google", service_account_impersonation_url=IMPERSONATE, scope="https://a.example/s b")
    ask = steps.send(json.dumps(ANSWER).encode())
    assert (ask.url, ask.headers) == (IMPERSONATE, {"Authorization": f"Bearer {TOKEN}"})
    assert told(ask) == {"scope": ["https://a.example/s", "b"]}
    assert TOKEN not in repr(ask)
    assert end(steps, {"accessToken": "token-of-the-account", "expireTime": "2027-01-15T08:10:00Z"}) == Traded(
        "token-of-the-account", 600
    )


@pytest.mark.parametrize("expires", [None, "soon", "2027-01-15T08:10:00", "2027-01-15T08:00:00Z"])
def test_a_google_service_account_s_token_needs_a_time_of_expiry(expires: object) -> None:
    steps, _ = begun("google", service_account_impersonation_url=IMPERSONATE)
    steps.send(json.dumps(ANSWER).encode())
    with pytest.raises(Unavailable):
        steps.send(json.dumps({"accessToken": "token-of-the-account", "expireTime": expires}).encode())


def test_an_anthropic_workspace_is_named_only_if_it_is_set() -> None:
    terms = dict(TERMS["anthropic"])
    del terms["workspace_id"]
    bare = FederatedKey(provider="anthropic", audience="aud", endpoint="https://t.example", terms=tuple(terms.items()))
    assert "workspace_id" not in told(next(ADAPTERS["anthropic"](bare, SVID, NOW)))
