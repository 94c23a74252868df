"""The settings that retire a credential are settings: the product's own loader accepts them beside an example's."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml

from delegation_audit.credentials.kinds import KINDS, Kind
from delegation_audit.credentials.retire import settings_for
from delegation_core.errors import ConfigError
from sidecar.config import load_sidecar
from tests.audit.credentials.drawn import AWS_ID, AWS_KEY, GITHUB, PASSWORD, PEM
from tests.audit.credentials.labelled import text
from tests.audit.credentials.test_command import run
from tests.config.documents import example

WITH_SETTINGS = [kind for kind in KINDS if settings_for(kind) is not None]


def load(snippet: str, folder: Path, *, listed: bool = True, host: str = "host.internal") -> object:
    """Load a piece of settings beside an example's. ``listed``: the platform file lists the routes' hosts.

    ``host``: replaces HOST, as a reader does where the audit knows none.
    """
    snippet = snippet.replace("https://HOST", f"https://{host}")
    document = example("agent")
    document["inbound"]["routes"][0]["may_call"] = []
    document.update(yaml.safe_load(snippet))
    file, platform = folder / "sidecar.yaml", folder / "platform.yaml"
    file.write_text(yaml.safe_dump(document))
    ceiling = example("platform")
    for kind in ("inject", "federate"):
        ceiling[kind] = [host for host in hosts_of(document, kind) if listed]
    platform.write_text(yaml.safe_dump(ceiling))
    return load_sidecar(file, {}, platform)


def hosts_of(document: dict[str, Any], kind: str) -> list[str]:
    routes = document.get("outbound", {}).get("routes", [])
    return [urlsplit(route["upstream"]).netloc for route in routes if route.get("token") == kind]


@pytest.mark.parametrize("kind", WITH_SETTINGS)
def test_the_settings_of_each_kind_load(kind: Kind, tmp_path: Path) -> None:
    snippet = settings_for(kind)
    assert snippet is not None
    assert load(snippet, tmp_path)


@pytest.mark.parametrize(
    ("kind", "provider", "token"),
    [
        (Kind.MODEL_PROVIDER_KEY, "OpenAI", "federate"),
        (Kind.MODEL_PROVIDER_KEY, "Anthropic", "federate"),
        (Kind.MODEL_PROVIDER_KEY, "Azure OpenAI", "federate"),
        (Kind.MODEL_PROVIDER_KEY, "Google", "federate"),
        (Kind.AWS_ACCESS_KEY, "AWS", "federate"),
        (Kind.GCP_SERVICE_ACCOUNT_KEY, None, "federate"),
        (Kind.AZURE_KEY, "Azure", "federate"),
        (Kind.MODEL_PROVIDER_KEY, "Mistral", "inject"),
        (Kind.GIT_HOST_TOKEN, "GitHub", "inject"),
        (Kind.GIT_HOST_TOKEN, "GitLab", "inject"),
        (Kind.SERVICE_TOKEN, "Slack", "inject"),
        (Kind.DATABASE_PASSWORD, None, None),
        (Kind.DATABASE_PASSWORD, "AWS", None),
    ],
)
def test_the_route_is_of_the_kind_that_needs_the_fewest_keys(
    kind: Kind, provider: str | None, token: str | None, tmp_path: Path
) -> None:
    snippet = settings_for(kind, provider)
    assert snippet is not None
    (route,) = yaml.safe_load(snippet)["outbound"]["routes"]
    assert route.get("token") == token
    assert load(snippet, tmp_path)
    if token is not None:
        with pytest.raises(ConfigError, match="platform"):
            load(snippet, tmp_path, listed=False)


def test_the_same_settings_with_one_key_changed_are_refused(tmp_path: Path) -> None:
    snippet = settings_for(Kind.API_KEY)
    assert snippet is not None
    with pytest.raises(ConfigError):
        load(snippet.replace("audience:", "audiense:"), tmp_path)


def test_most_kinds_have_settings_and_every_kind_has_a_fix() -> None:
    assert len(WITH_SETTINGS) >= 12
    assert all(declared.rule.fix for declared in KINDS.values())


@pytest.mark.parametrize(
    ("provider", "target", "host"),
    [
        ("SendGrid", None, "api.sendgrid.com"),
        ("SendGrid", "other.internal", "api.sendgrid.com"),
        ("Unheard", "api.unheard.internal:8443", "api.unheard.internal:8443"),
        ("Unheard", "[masked]", "HOST"),
        ("Unheard", "host\nx: y", "HOST"),
        ("Unheard", None, "HOST"),
        (None, None, "HOST"),
    ],
)
def test_a_host_is_written_only_where_it_is_known(provider: str | None, target: str | None, host: str) -> None:
    snippet = settings_for(Kind.SERVICE_TOKEN, provider, target)
    assert snippet is not None
    assert f"upstream: https://{host}\n" in snippet


@pytest.mark.parametrize("kind", WITH_SETTINGS)
def test_no_settings_name_a_host_that_was_made_up(kind: Kind) -> None:
    hosts = {line.rpartition("//")[2] for line in (settings_for(kind) or "").split("\n") if "upstream:" in line}
    assert not [host for host in hosts if host.endswith((".example", ".internal:7443"))]


def test_settings_with_an_unknown_host_are_refused(tmp_path: Path) -> None:
    snippet = settings_for(Kind.SERVICE_TOKEN)
    assert snippet is not None
    with pytest.raises(ConfigError, match="write its lower-case name"):
        load(snippet, tmp_path, host="HOST")


def test_a_provider_that_is_no_name_is_not_written(tmp_path: Path) -> None:
    snippet = settings_for(Kind.SERVICE_TOKEN, "x\ny: {")
    assert snippet is not None
    assert load(snippet, tmp_path)


_RNG: Final = random.Random(20261128)
TEN: Final = {
    "a model": ("OPENAI_API_KEY", f"sk-proj-{text(_RNG, 74)}T3BlbkFJ{text(_RNG, 74)}"),
    "another model": ("ANTHROPIC_API_KEY", f"sk-ant-api03-{text(_RNG, 93)}AA"),
    "a code host": ("GITHUB_TOKEN", GITHUB),
    "a cloud": ("AWS_SECRET_ACCESS_KEY", AWS_KEY),
    "another cloud": ("GOOGLE_CREDENTIALS", ""),
    "a third cloud": ("AZURE_CLIENT_SECRET", f"{text(_RNG, 3)}8Q~{text(_RNG, 34)}"),
    "a database": ("DATABASE_URL", f"postgres://agent:{PASSWORD}@db.internal/crm"),
    "a hosted MCP server": ("LINEAR_API_KEY", f"lin_api_{text(_RNG, 40)}"),
    "another hosted MCP server": ("NOTION_TOKEN", f"ntn_{text(_RNG, 11, string.digits)}{text(_RNG, 35)}"),
    "a webhook": ("WEBHOOK_SECRET", text(_RNG, 40)),
}
"""The credentials of a typical agent."""


def test_of_ten_typical_credentials_six_and_more_are_gone_and_all_leave_the_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    account = {
        "type": "service_account", "project_id": "acme", "private_key_id": text(_RNG, 40, "0123456789abcdef"),
        "private_key": PEM, "client_email": "agent@acme.iam.gserviceaccount.com", "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }  # fmt: skip
    (folder / "account.json").write_text(json.dumps(account))
    lines = [f"{name}={secret}" for name, secret in TEN.values() if secret]
    (folder / ".env").write_text("\n".join([f"AWS_ACCESS_KEY_ID={AWS_ID}", *lines]) + "\n")
    assert run("--json", str(folder)) == 1
    found = json.loads(capsys.readouterr().out)["credentials"]
    assert len(found) == len(TEN), [(one["kind"], one["provider"]) for one in found]

    gone = []
    for one in found:
        assert one["settings"], one["kind"]
        load(one["settings"], tmp_path)
        (route,) = yaml.safe_load(one["settings"])["outbound"]["routes"]
        assert route.get("token") != "passthrough", "the agent's own key stays where it is"
        if route.get("token") != "inject" and one["kind"] != "api-key":  # a webhook's target may be nobody of ours
            gone.append((one["kind"], one["provider"]))
    assert len(gone) >= 6, gone
