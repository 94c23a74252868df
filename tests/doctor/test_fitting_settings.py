"""The settings that the doctor prints are accepted by the loader, and fit the tokens that it saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from delegation_core.rfc8693 import TOKEN_TYPE_JWT
from sidecar.config import load_sidecar
from sidecar.doctor.clients import Method, TestClient
from sidecar.doctor.conclusion import conclude
from sidecar.doctor.fitting_settings import exchange_settings, issuer_settings, login_settings, profile_of
from sidecar.doctor.messages import Held
from sidecar.doctor.report import propose
from sidecar.doctor.verdicts import verdicts_of
from tests.doctor.world import World
from tests.fakes.foreign_sts import Knobs

TABLE = {"actor": "table", "actor_table": [{"sub": "agent-a", "spiffe_id": "spiffe://acme.example/agent/agent-a"}]}


@pytest.mark.parametrize(
    ("knobs", "profile"),
    [
        (Knobs(), {"preset": "sts", **TABLE}),
        (Knobs(typ="JWT"), {"preset": "spring", "scope_shape": "string", **TABLE}),  # sts goes by typ
        (Knobs(typ="JWT", scope_claim=("scp", "array")), {"preset": "zitadel", **TABLE}),
        (
            Knobs(typ=None, scope_claim=("scope", "array"), act_members=("iss", "sub")),
            {
                "preset": "spring",
                "actor": "table",
                "actor_table": [{"iss": "https://foreign.example", **TABLE["actor_table"][0]}],  # type: ignore[dict-item]
            },
        ),
        (Knobs(extra={"azp": "a", "typ": "Bearer"}, typ="JWT"), {"preset": "keycloak", **TABLE}),
        (Knobs(act="none"), "sts"),
        (
            Knobs(typ="X"),
            {"preset": "spring", "typ": ["x"], "scope_shape": "string", **TABLE},
        ),
    ],
)
def test_the_nearest_preset_is_chosen_with_its_changes(knobs: Knobs, profile: object) -> None:
    assert profile_of(World(knobs).examine()) == profile


def test_untyped_tokens_that_may_be_id_tokens_have_no_profile() -> None:
    assert profile_of(World(Knobs(typ="JWT", extra={"nonce": "n"})).examine()) is None


def test_a_spiffe_id_in_act_needs_no_table() -> None:
    found = World(Knobs(act_members=("sub",))).examine()
    attempt = found.attempts["own actor token"]
    claims: Any = attempt.reading.claims
    claims["act"]["sub"] = "spiffe://acme.example/agent/a"
    assert profile_of(found) == "sts"
    claims["act"]["iss"] = "https://foreign.example"
    assert profile_of(found) == {"preset": "sts", "actor": "act.iss+act.sub"}
    claims["act"]["iss"] = "spiffe://acme.example"
    assert profile_of(found) == {"preset": "sts", "actor": "act.iss+act.sub", "act_iss": "spiffe://acme.example"}
    claims["act"] = {"sub": "uuid", "client_id": "spiffe://acme.example/agent/a"}
    assert profile_of(found) == {"preset": "sts", "actor": "act.client_id"}


def test_an_opaque_token_has_no_profile() -> None:
    assert profile_of(World(Knobs(opaque="opaque")).examine()) is None
    assert issuer_settings(World(Knobs(opaque="opaque")).examine()) is None


@pytest.mark.parametrize("knobs", [Knobs(), Knobs(typ="JWT"), Knobs(scope_claim=("scp", "array"))])
def test_the_loader_accepts_what_is_printed(knobs: Knobs, tmp_path: Path) -> None:
    found = World(knobs).examine()
    settings = propose(found, conclude(verdicts_of(found)))
    assert set(settings) == {"issuers", "exchange"}
    route = {
        "name": "crm",
        "match": {"prefix": "/crm"},
        "upstream": "https://crm.internal:7443",
        "peer": "spiffe://acme.example/tool/crm",
        "audience": "tool-crm",
        "scopes": ["crm.read"],
    }
    file = tmp_path / "sidecar.yaml"
    file.write_text(yaml.safe_dump({**settings, "outbound": {"routes": [route]}}))
    loaded = load_sidecar(file, {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/spire/agent.sock"})
    assert [one.issuer for one in loaded.exchanges] == ["https://foreign.example"]


def test_the_exchange_authenticates_as_client_1_and_shows_what_was_accepted() -> None:
    base = {
        "issuer": "https://foreign.example",
        "token_endpoint": "https://foreign.example/token",
        "tls": {"ca": "/etc/ssl/certs/ca-certificates.crt"},
    }
    secret = {
        "client_auth": "client-secret-basic",
        "client_id": "agent-a",
        "credential_file": "/etc/sidecar/client.credential",
        "allow_static_credential": True,
    }
    own = {"options": {"actor_token": "own-token"}}
    assert exchange_settings(World().examine()) == {**base, **secret, **own}
    named = World(Knobs(actor="ignore", act="client")).examine()
    assert exchange_settings(named) == {**base, **secret, "options": {"actor_token": "client"}}
    given = World()
    held = Held(given.sts.user_token(sub="agent-a"), "actor of client 1", TOKEN_TYPE_JWT)
    given.case = replace(given.case, actors=(held, None))
    assert exchange_settings(given.examine()) == {**base, **secret}  # the default: our JWT-SVID


@pytest.mark.parametrize(
    ("method", "name", "settings"),
    [
        (Method.TLS, "spiffe://acme.example/agent/a", {"client_auth": "tls-client-auth-san-uri"}),
        (Method.SPIFFE, "spiffe://acme.example/agent/a", {"client_auth": "jwt-spiffe"}),
        (Method.SPIFFE, "agent-a", {"client_auth": "jwt-spiffe", "client_id": "agent-a"}),
        (Method.NONE, "agent-a", {}),
    ],
)
def test_a_client_that_is_known_by_its_svid_needs_no_file(method: Method, name: str, settings: dict[str, Any]) -> None:
    found = World().examine()
    found.case = replace(found.case, clients=(TestClient(client_id=name, method=method), found.case.clients[1]))
    made = exchange_settings(found) or {}
    assert {key: made[key] for key in ("client_auth", "client_id", "credential_file") if key in made} == settings


def test_a_server_that_does_not_fit_may_still_serve_logins() -> None:
    found = World(Knobs(actor="ignore")).examine()
    settings: Any = propose(found, conclude(verdicts_of(found)))
    assert settings == {
        "login_issuers": [
            {
                "issuer": "https://foreign.example",
                "jwks": "https://foreign.example/jwks",
                "tls": {"ca": "/etc/ssl/certs/ca-certificates.crt"},
                "profile": "oidc-access-token",
                "scope_from": {
                    "claim": "scope",
                    "map": {"crm.read": ["crm.read"], "docs.read": ["docs.read"]},
                },
            }
        ]
    }


def test_an_opaque_subject_is_no_login() -> None:
    found = World().examine()
    found.subject = type(found.subject)(kind="opaque")
    assert login_settings(found) is None
    assert exchange_settings(found) is not None
