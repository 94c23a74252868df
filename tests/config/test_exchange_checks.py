"""Token services in settings: each way of authentication, and each agreement with one fact changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Problem
from sidecar.check import check
from sidecar.config import load_sidecar
from sidecar.exchange import adapters
from sidecar.exchange.adapters.adapter import ClientAuth
from sidecar.exchange.adapters.rfc8693 import ADAPTER
from tests.config.documents import changed, example, written

AGENT = example("agent")
ENTRY = example("entry")
PLATFORM = example("platform")
ISSUER = "https://sts.acme.example"
SECRET: dict[str, Any] = {
    **AGENT["exchange"],
    "client_auth": "client-secret-basic",
    "credential_file": "/run/keys/sts",
    "allow_static_credential": True,
}


def found(folder: Path, document: dict[str, Any], platform: object = None) -> list[Problem]:
    ceiling = None
    if platform is not None:
        (folder / "platform").mkdir()
        ceiling = written(folder / "platform", platform)
    return check(written(folder, document), {}, platform=ceiling).problems


@pytest.mark.parametrize("method", ["x509-svid", "tls-client-auth-san-uri", "jwt-svid", "jwt-spiffe"])
def test_each_way_without_a_secret_is_one_word(method: str, tmp_path: Path) -> None:
    file = written(tmp_path, changed(AGENT, ("exchange.client_auth", method)))
    (exchange,) = load_sidecar(file, {}).exchanges
    assert (exchange.authentication.method, exchange.authentication.audience) == (ClientAuth(method), ISSUER)
    assert exchange.authentication.client_id is None


def test_a_client_s_name_and_the_audience_of_its_assertions_can_be_others(tmp_path: Path) -> None:
    section = {**AGENT["exchange"], "client_auth": "jwt-svid", "client_id": "writer", "assertion_audience": "https://x"}
    (exchange,) = load_sidecar(written(tmp_path, changed(AGENT, ("exchange", section))), {}).exchanges
    assert (exchange.authentication.client_id, exchange.authentication.audience) == ("writer", "https://x")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("tls_client_auth", "which all workloads of a SPIRE server share"),
        ("tls-client-auth-subject-dn", "which all workloads of a SPIRE server share"),
        ("self_signed_tls_client_auth", "an SVID changes each hour"),
        ("password", "has an unknown value"),
    ],
)
def test_a_way_that_proves_no_workload_is_refused_with_the_one_that_does(
    method: str, words: str, tmp_path: Path
) -> None:
    (problem,) = found(tmp_path, changed(AGENT, ("exchange.client_auth", method)))
    assert problem.field == "exchange.client_auth"
    assert words in f"{problem.wrong} {problem.fix}"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"allow_static_credential": False}, "exchange.client_auth"),
        ({"credential_file": None}, "exchange.credential_file"),
        ({"client_auth": "jwt-svid"}, "exchange.credential_file"),
        ({"key_id": "k"}, "exchange.key_id"),
        ({"adapter": "acme-7"}, "exchange.adapter"),
        ({"options": {"colour": "red"}}, "exchange.options"),
        ({"endpoints": {"idp": {"url": "http://127.0.0.1/token"}}}, "exchange.endpoints"),
    ],
)
def test_a_static_credential_needs_its_file_and_a_word_that_allows_it(
    change: dict[str, object], field: str, tmp_path: Path
) -> None:
    assert found(tmp_path, changed(AGENT, ("exchange", SECRET))) == []
    (problem,) = found(tmp_path, changed(AGENT, ("exchange", {**SECRET, **change})))
    assert problem.field == field


def test_the_platform_lists_where_a_static_credential_may_be_used(tmp_path: Path) -> None:
    document = changed(AGENT, ("exchange", SECRET))
    listed = {**PLATFORM, "static_client_auth": [ISSUER]}
    assert found(tmp_path, document, listed) == []
    (tmp_path / "other").mkdir()
    (problem,) = found(tmp_path / "other", document, PLATFORM)
    assert (problem.field, problem.fix) == (
        "exchange.client_auth", "write jwt-svid or x509-svid, or list it there",
    )  # fmt: skip


IDP = {"url": "https://idp.acme.example/token", "tls": {"ca": "/etc/ssl/idp.pem"}, "client_auth": "jwt-svid"}


@pytest.mark.parametrize(
    ("listed", "fields"),
    [
        ([{"url": IDP["url"], "tls": IDP["tls"], "issuers": [ISSUER]}], []),
        (
            [{"url": IDP["url"], "tls": IDP["tls"], "issuers": ["https://other.example"]}],
            ["exchange.endpoints.idp.url"],
        ),
        ([], ["exchange.endpoints.idp.url"]),
        (
            [{"url": IDP["url"], "tls": {"ca": "/etc/ssl/other.pem"}, "issuers": [ISSUER]}],
            ["exchange.endpoints.idp.url"],
        ),
        (
            [{"url": "https://idp.acme.example/other", "tls": IDP["tls"], "issuers": [ISSUER]}],
            ["exchange.endpoints.idp.url"],
        ),
    ],
)
def test_an_adapter_asks_no_endpoint_that_the_platform_does_not_list(
    listed: list[object], fields: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = replace(ADAPTER, endpoints=("idp",))
    monkeypatch.setattr("sidecar.exchange.sts_settings.find_adapter", lambda _name: two)
    document = changed(AGENT, ("exchange", {**AGENT["exchange"], "endpoints": {"idp": IDP}}))
    problems = found(tmp_path, document, {**PLATFORM, "exchange_endpoints": listed})
    assert [one.field for one in problems] == fields


def test_an_adapter_that_keeps_no_chain_serves_entries_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = replace(ADAPTER, own=None, capabilities=replace(ADAPTER.capabilities, nests_act=False))
    monkeypatch.setattr("sidecar.exchange.sts_settings.find_adapter", lambda _name: flat)
    problems = found(tmp_path, AGENT)
    assert {problem.field for problem in problems} == {"outbound.routes[0].name"}
    assert "drops the actor chain" in problems[0].wrong
    (tmp_path / "entry").mkdir()
    assert found(tmp_path / "entry", ENTRY) == []
    own = changed(AGENT, ("outbound.routes.0.token", "self"), ("inbound.routes.0.may_call", []))
    fields = [problem.field for problem in found(tmp_path, own)]
    assert "outbound.routes[0].token" in fields


def test_a_file_identity_needs_the_jwt_svids_that_the_exchange_sends(tmp_path: Path) -> None:
    files = {
        "certificate": "/run/svid.pem", "key": "/run/key.pem", "bundle": "/run/bundle.pem",
        "jwt_svids": {ISSUER: "/run/sts.jwt"},
    }  # fmt: skip
    document = changed(AGENT, ("identity", {"files": files}))
    assert found(tmp_path, document) == []
    section = {**AGENT["exchange"], "client_auth": "jwt-svid", "assertion_audience": "https://other.example"}
    (problem,) = found(tmp_path, changed(document, ("exchange", section)))
    assert "https://other.example, but the exchange sends a JWT-SVID for it as client assertion" in problem.wrong
    without = changed(document, ("identity.files.jwt_svids", {}))
    (problem,) = found(tmp_path, without)
    assert "as actor token" in problem.wrong
    by_client = {**AGENT["exchange"], "options": {"actor_token": "client"}}
    assert found(tmp_path, changed(without, ("exchange", by_client))) == []


@pytest.mark.parametrize(
    ("profile", "prefix", "fields"),
    [
        ("spring", None, []),
        ("spring", "x:", ["entry.issuers[0].subject_prefix"]),
        ("sts", None, ["entry.issuers[0].issuer"]),
    ],
)
def test_an_issuer_may_be_login_and_token_service_at_once_unless_it_is_ours(
    profile: str, prefix: str | None, fields: list[str], tmp_path: Path
) -> None:
    issuer, section = ENTRY["entry"]["issuers"][0]["issuer"], ENTRY["entry"]["issuers"][0]
    login = {name: value for name, value in section.items() if name != "subject_prefix"}
    login["profile"] = {"preset": "oidc-access-token", "required_claims": ["client_id"]}
    trusted = {**ENTRY["issuers"][0], "issuer": issuer, "jwks": login["jwks"], "profile": profile}
    if "tls" in login:
        trusted["tls"] = login["tls"]
    document = changed(
        ENTRY,
        ("issuers", [trusted]),
        ("exchange", {**ENTRY["exchange"], "issuer": issuer}),
        ("entry.issuers.0", login if prefix is None else {**login, "subject_prefix": prefix}),
    )
    mine = [problem.field for problem in found(tmp_path, document) if problem.field.startswith("entry.issuers")]
    assert mine == fields


def test_names_of_adapters_are_those_that_are_installed(tmp_path: Path) -> None:
    (problem,) = found(tmp_path, changed(AGENT, ("exchange.adapter", "keycloack")))
    assert ", ".join(adapters.names()) in problem.fix


OWN_LOGIN: dict[str, Any] = changed(
    ENTRY,
    ("issuers.0.profile", {"preset": "keycloak-26.7", "actor": "client-table"}),
    ("issuers.0.profile.actor_table", [{"sub": "front-agent", "spiffe_id": "spiffe://acme.example/front"}]),
    ("exchange.adapter", "keycloak-26.7"),
    ("exchange.client_auth", "jwt-spiffe"),
    ("exchange.client_id", "front-agent"),
    (
        "entry.issuers.0",
        {
            "issuer": ISSUER,
            "jwks": ENTRY["issuers"][0]["jwks"],
            "profile": {"preset": "oidc-access-token", "required_claims": ["azp"]},
            "client_id": "front-app",
            "scope_from": ENTRY["entry"]["issuers"][0]["scope_from"],
        },
    ),
)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ((), []),
        ((("entry.issuers.0.client_id", "front-agent"),), ["entry.issuers[0].client_id"]),
        ((("entry.issuers.0.client_id", "spiffe://acme.example/front"),), ["entry.issuers[0].client_id"]),
        ((("entry.issuers.0.profile", "oidc-access-token"),), ["entry.issuers[0].profile"]),
    ],
)
def test_a_token_that_was_issued_to_an_agent_is_no_login_at_the_same_issuer(
    change: tuple[tuple[str, object], ...], fields: list[str], tmp_path: Path
) -> None:
    problems = found(tmp_path, changed(OWN_LOGIN, *change))
    assert [one.field for one in problems if one.field.startswith("entry")] == fields


BY_CLIENT = {"preset": "keycloak", "actor": "client"}


@pytest.mark.parametrize(
    ("profile", "fields"),
    [
        (BY_CLIENT, ["issuers[0].profile"]),
        ({**BY_CLIENT, "required_values": {"kind": ["delegated"]}}, []),
        ("keycloak-26.7", []),
        ("keycloak", []),
    ],
)
def test_an_inbound_route_takes_a_client_for_an_actor_only_where_a_claim_tells_delegation(
    profile: object, fields: list[str], tmp_path: Path
) -> None:
    tool = example("tool")
    problems = found(tmp_path, changed(tool, ("issuers.0.profile", profile)))
    assert [one.field for one in problems if one.field.startswith("issuers")] == fields


def test_tokens_of_one_actor_are_not_exchanged_onwards(tmp_path: Path) -> None:
    profile = {**BY_CLIENT, "required_values": {"kind": ["delegated"]}}
    problems = found(tmp_path, changed(AGENT, ("issuers.0.profile", profile)))
    assert any("profile has one actor and no chain" in one.wrong for one in problems)


@pytest.mark.parametrize(
    ("audience", "fields"),
    [
        ("https://sts.partner.example", []),
        ("api://of-the-partner", []),
        (ISSUER, ["exchange.assertion_audience"]),
        (f"{ISSUER}/token", ["exchange.assertion_audience"]),
        ("spiffe://acme.example/tool/crm", ["exchange.assertion_audience"]),
    ],
)
def test_no_server_is_shown_a_jwt_svid_that_another_of_the_mesh_would_take(
    audience: str, fields: list[str], tmp_path: Path
) -> None:
    partner = {
        **AGENT["issuers"][0],
        "issuer": "https://sts.partner.example",
        "jwks": "https://sts.partner.example/jwks",
    }
    section = {
        **AGENT["exchange"], "issuer": partner["issuer"], "token_endpoint": "https://sts.partner.example/token",
        "client_auth": "jwt-svid", "assertion_audience": audience,
    }  # fmt: skip
    document = changed(AGENT, ("issuers", [*AGENT["issuers"], partner]), ("exchange", section))
    problems = found(tmp_path, document)
    assert [one.field for one in problems if "assertion_audience" in one.field] == fields


def test_an_endpoint_s_own_server_may_be_the_audience_of_what_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = replace(ADAPTER, endpoints=("idp",))
    monkeypatch.setattr("sidecar.exchange.sts_settings.find_adapter", lambda _name: two)
    at_sts = {
        **IDP,
        "url": f"{ISSUER}/other",
        "tls": {"peer": "spiffe://acme.example/sts"},
        "assertion_audience": ISSUER,
    }
    elsewhere = {**IDP, "assertion_audience": ISSUER}
    fields = []
    for endpoint in (at_sts, elsewhere):
        document = changed(AGENT, ("exchange", {**AGENT["exchange"], "endpoints": {"idp": endpoint}}))
        fields.append([one.field for one in found(tmp_path, document) if "assertion_audience" in one.field])
    assert fields == [[], ["exchange.endpoints.idp.assertion_audience"]]
