"""Routes with a provider's token in settings: the example, and each agreement with one fact changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Problem
from delegation_core.outside import FederatedKey
from sidecar.check import check
from sidecar.config import load_sidecar
from tests.config.documents import ABSENT, EXAMPLES, changed, example, written

OUTSIDE = example("outside")
PLATFORM = EXAMPLES / "platform.yaml"
CLAUDE = "outbound.routes.3"

PROVIDERS: dict[str, dict[str, Any]] = {
    "openai": {"identity_provider_id": "idp_1", "service_account_id": "sa_1"},
    "google": {"pool_provider": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x"},
    "azure": {"tenant_id": "acme.example", "client_id": "app-1", "scope": "https://ai.example/.default"},
}
ENDPOINTS = {
    "openai": "https://auth.openai.com/oauth/token",
    "google": "https://sts.googleapis.com/v1/token",
    "azure": "https://login.microsoftonline.com/acme.example/oauth2/v2.0/token",
}


def found(folder: Path, *changes: tuple[str, object], platform: Path | None = PLATFORM) -> list[Problem]:
    return check(written(folder, changed(OUTSIDE, *changes)), {}, platform=platform).problems


def key_of(file: Path) -> FederatedKey:
    key = load_sidecar(file, {}, PLATFORM).outbound_routes.outside[2].key
    assert isinstance(key, FederatedKey)
    return key


def test_the_example_trades_with_anthropic_at_its_public_endpoint() -> None:
    key = key_of(EXAMPLES / "outside.yaml")
    assert (key.provider, key.endpoint) == ("anthropic", "https://api.anthropic.com/v1/oauth/token")
    assert (key.audience, key.term("federation_rule_id"), key.term("workspace_id")) == (
        "https://api.anthropic.com", "fdrl_01ABC", None,
    )  # fmt: skip
    assert key.also == (("anthropic-beta", "oauth-2025-04-20"),)


@pytest.mark.parametrize("provider", list(PROVIDERS))
def test_each_provider_has_terms_of_its_own(provider: str, tmp_path: Path) -> None:
    section = {"provider": provider, "audience": "of-the-provider", **PROVIDERS[provider]}
    key = key_of(written(tmp_path, changed(OUTSIDE, (f"{CLAUDE}.federate", section))))
    assert (key.provider, key.endpoint, key.also) == (provider, ENDPOINTS[provider], ())
    for name in PROVIDERS[provider]:
        without = {one: value for one, value in section.items() if one != name}
        assert any(name in problem.field for problem in found(tmp_path, (f"{CLAUDE}.federate", without)))


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        pytest.param([("federate", ABSENT)], "federate", "is missing", id="no-provider"),
        pytest.param(
            [("federate.provider", "else")], "federate.provider", "has an unknown value", id="unknown-provider"
        ),
        pytest.param([("federate.audience", ABSENT)], "federate.audience", "is missing", id="no-audience"),
        pytest.param(
            [("federate.audience", "https://sts.acme.example")],
            "federate.audience",
            "an audience of the mesh",
            id="issuer",
        ),
        pytest.param(
            [("federate.audience", "spiffe://acme.example/agent/writer")],
            "federate.audience",
            "an audience of the mesh",
            id="workload",
        ),
        pytest.param(
            [("federate.audience", "https://sts.acme.example/")],
            "federate.audience",
            "an audience of the mesh",
            id="slash",
        ),
        pytest.param(
            [("federate.audience", "https://sts.acme.example/token")],
            "federate.audience",
            "an audience of the mesh",
            id="token-endpoint-by-default",
        ),
        pytest.param(
            [("federate.audience", "https://sts.partner.example")],
            "federate.audience",
            "an audience of the mesh",
            id="issuer-of-the-platform",
        ),
        pytest.param(
            [("federate.audience", "https://login.acme.example")],
            "federate.audience",
            "an audience of the mesh",
            id="login-issuer-of-the-platform",
        ),
        pytest.param(
            [("federate.token_endpoint", "http://api.anthropic.com/t")],
            "federate.token_endpoint",
            "plain http",
            id="plain-http",
        ),
        pytest.param(
            [("federate.token_endpoint", "https://else.example/t")],
            "federate.token_endpoint",
            "platform's federate",
            id="unlisted-endpoint",
        ),
        pytest.param([("upstream", "https://else.example")], "upstream", "platform's federate", id="unlisted-host"),
        pytest.param([("upstream", "http://api.anthropic.com")], "upstream", "plain http", id="plain-upstream"),
        pytest.param([("paths", ["/v1/oauth/token"])], "paths", "gives out credentials", id="token-path"),
        pytest.param([("paths", ["/v1/organizations/me"])], "paths", "gives out credentials", id="admin-path"),
        pytest.param([("inject", {})], "inject", "is not a setting", id="two-keys"),
        pytest.param([("observe_until", "2026-12-01")], "observe_until", "is not a setting", id="observes"),
    ],
)
def test_one_fact_changed_is_named_with_its_fix(
    changes: list[tuple[str, Any]], field: str, words: str, tmp_path: Path
) -> None:
    assert found(tmp_path) == []
    problems = found(tmp_path, *[(f"{CLAUDE}.{key}", value) for key, value in changes])
    told = [problem for problem in problems if problem.field == f"outbound.routes[3].{field}"]
    assert any(words in problem.wrong and problem.fix for problem in told), problems


def test_one_audience_belongs_to_one_token_endpoint(tmp_path: Path) -> None:
    claude = OUTSIDE["outbound"]["routes"][3]
    twin = {**claude, "name": "twin", "match": {"prefix": "/twin"}}
    routes = [*OUTSIDE["outbound"]["routes"], twin]
    assert found(tmp_path, ("outbound.routes", routes)) == []
    section = {"provider": "openai", "audience": claude["federate"]["audience"], **PROVIDERS["openai"]}
    problems = found(tmp_path, ("outbound.routes", [*routes[:-1], {**twin, "federate": section}]))
    assert any("another token endpoint" in problem.wrong for problem in problems)


def test_an_identity_of_files_needs_a_jwt_svid_for_the_provider(tmp_path: Path) -> None:
    files = {"certificate": "/run/s/svid.pem", "key": "/run/s/key.pem", "bundle": "/run/s/bundle.pem"}
    (problem,) = found(tmp_path, ("identity", {"files": files}))
    assert (problem.field, "jwt_svids" in problem.wrong) == ("outbound.routes[3].federate.audience", True)
    files_of_svids = {**files, "jwt_svids": {"https://api.anthropic.com": "/run/s/anthropic.jwt"}}
    assert found(tmp_path, ("identity", {"files": files_of_svids})) == []


@pytest.mark.parametrize("name", ["apikeys", "iam", "iamcredentials", "oauth2", "sts"])
def test_of_google_no_service_is_called_that_gives_out_credentials(name: str, tmp_path: Path) -> None:
    section = {"provider": "google", "audience": "of-the-provider", **PROVIDERS["google"]}
    folder = tmp_path / "platform"
    folder.mkdir()
    refused, other = f"{name}.googleapis.com", "aiplatform.googleapis.com"
    platform = written(folder, changed(example("platform"), ("federate", [refused, other])))
    google = (f"{CLAUDE}.federate", section)
    assert found(tmp_path, google, (f"{CLAUDE}.upstream", f"https://{other}"), platform=platform) == []
    (problem,) = found(tmp_path, google, (f"{CLAUDE}.upstream", f"https://{refused}"), platform=platform)
    assert (problem.field, "gives out credentials" in problem.wrong) == ("outbound.routes[3].upstream", True)


def test_of_aws_only_bedrock_takes_a_bearer_token(tmp_path: Path) -> None:
    section = {
        "provider": "aws", "audience": "sts.amazonaws.com", "role_arn": "arn:aws:iam::1:role/agent",
        "session_name": "writer", "region": "eu-central-1",
    }  # fmt: skip
    host = "bedrock-runtime.eu-central-1.amazonaws.com"
    folder = tmp_path / "platform"
    folder.mkdir()
    others = ["s3.eu-central-1.amazonaws.com", "bedrock-runtime.us-east-1.amazonaws.com"]
    platform = written(folder, changed(example("platform"), ("federate", [host, *others])))
    aws = [(f"{CLAUDE}.federate", section), (f"{CLAUDE}.upstream", f"https://{host}")]
    assert found(tmp_path, *aws, platform=platform) == []
    for other in others:
        (problem,) = found(tmp_path, *aws[:1], (f"{CLAUDE}.upstream", f"https://{other}"), platform=platform)
        assert (problem.field, "require signed requests" in problem.wrong) == ("outbound.routes[3].upstream", True)
