"""Routes to hosts outside the mesh in settings: the example, and each agreement with one fact changed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from delegation_core.connect import ConnectRoute
from delegation_core.errors import Problem
from delegation_core.outside import FederatedKey, InjectedKey
from sidecar.check import check
from sidecar.config import load_sidecar
from tests.config.documents import ABSENT, EXAMPLES, changed, example, written

OUTSIDE = example("outside")
PLATFORM = EXAMPLES / "platform.yaml"
MODEL = "outbound.routes.0"


def found(folder: Path, *changes: tuple[str, object], platform: Path | None = PLATFORM) -> list[Problem]:
    return check(written(folder, changed(OUTSIDE, *changes)), {}, platform=platform).problems


def test_the_example_makes_routes_of_each_kind() -> None:
    settings = load_sidecar(EXAMPLES / "outside.yaml", {}, PLATFORM)
    model, chat, claude = settings.outbound_routes.outside
    assert isinstance(model.key, InjectedKey)
    assert isinstance(claude.key, FederatedKey)
    assert (model.key.field, model.key.scheme, model.key.owner) == (
        "authorization", "Bearer ", "ml-platform@acme.example",
    )  # fmt: skip
    assert model.key.until == int(datetime(2027, 3, 31, tzinfo=UTC).timestamp())
    assert "/v1/organization" in model.key.makes_credentials
    assert sorted(model.fields) == ["openai-beta"]
    assert sorted(claude.fields) == ["anthropic-beta", "anthropic-version"]
    assert chat.fields == frozenset()
    assert (chat.token, chat.key, chat.upstream.port) == ("passthrough", None, 443)
    assert settings.exchanges == ()


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        pytest.param([(f"{MODEL}.upstream", "http://api.openai.com")], "upstream", "plain http", id="plain-http"),
        pytest.param([(f"{MODEL}.paths", ABSENT)], "paths", "so is path_prefixes", id="no-path"),
        pytest.param([(f"{MODEL}.methods", [])], "methods", "is empty", id="no-method"),
        pytest.param([(f"{MODEL}.inject", ABSENT)], "inject", "is missing", id="no-key"),
        pytest.param([(f"{MODEL}.inject.owner", ABSENT)], "inject.owner", "is missing", id="no-owner"),
        pytest.param([(f"{MODEL}.inject.until", ABSENT)], "inject.until", "is missing", id="no-end"),
        pytest.param([(f"{MODEL}.inject.until", "soon")], "inject.until", "is not a date", id="no-day"),
        pytest.param([(f"{MODEL}.inject.until", "")], "inject.until", "is not a date", id="empty-day"),
        pytest.param([(f"{MODEL}.inject.file", "key")], "inject.file", "absolute", id="relative-file"),
        pytest.param([(f"{MODEL}.inject.preset", ABSENT)], "inject.field", "no preset", id="no-field"),
        pytest.param([(f"{MODEL}.inject.field", "cookie")], "inject.field", "has an unknown value", id="cookie"),
        pytest.param(
            [(f"{MODEL}.paths", ["/v1/organization/projects"])], "paths", "gives out credentials", id="credentials"
        ),
        pytest.param(
            [
                (f"{MODEL}.inject.preset", ABSENT),
                (f"{MODEL}.inject.field", "authorization"),
                (f"{MODEL}.path_prefixes", ["/v1/organization"]),
            ],
            "path_prefixes",
            "gives out credentials",
            id="credentials-of-the-host-without-its-preset",
        ),
        *(
            pytest.param([(f"{MODEL}.fields", [name])], "fields[0]", "must not go beside a key", id=name)
            for name in (
                "X-Api-Key",
                "Cookie",
                "Accept",
                "A-IM",
                "Accept-Encoding",
                "Range",
                "Delegation-Handle",
                "Host",
            )
        ),
        pytest.param([(f"{MODEL}.fields", ["a b"])], "fields[0]", "cannot be used", id="no-field-name"),
        pytest.param([(f"{MODEL}.scopes", ["a"])], "scopes", "is not a setting", id="scopes-of-no-token"),
        pytest.param([(f"{MODEL}.upstream", "https://else.example")], "upstream", "platform's inject", id="unlisted"),
        pytest.param([(f"{MODEL}.match", {})], "match", "exactly one", id="no-match"),
    ],
)
def test_one_fact_changed_is_named_with_its_fix(
    changes: list[tuple[str, Any]], field: str, words: str, tmp_path: Path
) -> None:
    assert found(tmp_path) == []
    problems = found(tmp_path, *changes)
    told = [problem for problem in problems if problem.field == f"outbound.routes[0].{field}"]
    assert any(words in problem.wrong and problem.fix for problem in told), problems


def test_a_token_of_a_provider_s_goes_beside_no_credential_either(tmp_path: Path) -> None:
    (problem,) = found(tmp_path, ("outbound.routes.3.fields", ["Anthropic-Beta", "X-Api-Key"]))
    assert problem.field == "outbound.routes[3].fields[1]"


def test_a_key_is_injected_only_where_a_platform_file_lists_the_host(tmp_path: Path) -> None:
    problems = found(tmp_path, platform=None)
    assert [problem.field for problem in problems] == ["outbound.routes[0].token", "outbound.routes[3].token"]
    assert all("platform file" in problem.wrong for problem in problems)
    nothing = tmp_path / "platform"
    nothing.mkdir()
    listed = {problem.field for problem in found(tmp_path, platform=written(nothing, "inject: false"))}
    assert {f"outbound.routes[{number}].upstream" for number in (0, 1, 3)} <= listed


def test_a_mesh_target_is_no_host_outside(tmp_path: Path) -> None:
    agent = example("agent")
    crm = agent["outbound"]["routes"][0]
    route = {**OUTSIDE["outbound"]["routes"][1], "upstream": crm["upstream"]}
    document = changed(agent, ("outbound.routes", [crm, route]))
    told = check(written(tmp_path, document), {}).problems
    assert [problem.field for problem in told] == ["outbound.routes[1].upstream"]
    assert "mesh target" in told[0].wrong


TUNNEL = "outbound.routes.2"


def test_the_example_makes_a_tunnel_s_route() -> None:
    settings = load_sidecar(EXAMPLES / "outside.yaml", {}, PLATFORM)
    (registry,) = settings.outbound_routes.tunnels
    assert registry == ConnectRoute(name="registry", host="registry.example:443")
    assert not registry.without_handle


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        pytest.param([(f"{TUNNEL}.match.host", "registry.example")], "match.host", "HOST:PORT", id="no-port"),
        pytest.param([(f"{TUNNEL}.match.host", "Registry.example:443")], "match.host", "HOST:PORT", id="capitals"),
        pytest.param([(f"{TUNNEL}.match.host", "*.example:443")], "match.host", "HOST:PORT", id="pattern"),
        pytest.param([(f"{TUNNEL}.match", {})], "match.host", "is missing", id="no-host"),
        pytest.param([(f"{TUNNEL}.match.prefix", "/registry")], "match.prefix", "not a setting", id="prefix"),
        pytest.param([(f"{TUNNEL}.upstream", "https://else.example")], "upstream", "not a setting", id="upstream"),
        pytest.param(
            [(f"{TUNNEL}.match.host", "registry.example:22")], "match.host", "platform's connect", id="unlisted-port"
        ),
        pytest.param([(f"{TUNNEL}.without_handle", True)], "without_handle", "forbidden", id="without-handle"),
        pytest.param([(f"{TUNNEL}.match.host", "localhost:443")], "match.host", "this machine", id="localhost"),
        pytest.param([(f"{TUNNEL}.match.host", "127.0.0.1:7080")], "match.host", "a listener of", id="own-listener"),
    ],
)
def test_a_tunnel_s_route_with_one_fact_changed_is_named_with_its_fix(
    changes: list[tuple[str, Any]], field: str, words: str, tmp_path: Path
) -> None:
    problems = found(tmp_path, *changes)
    told = [problem for problem in problems if problem.field == f"outbound.routes[2].{field}"]
    assert any(words in problem.wrong and problem.fix for problem in told), problems


def test_a_tunnel_needs_no_platform_file_and_one_that_allows_it_is_enough(tmp_path: Path) -> None:
    loose = changed(OUTSIDE, ("outbound.routes", [{**OUTSIDE["outbound"]["routes"][2], "without_handle": True}]))
    loose["inbound"]["routes"][0]["may_call"] = ["registry"]
    assert check(written(tmp_path, loose), {}).problems == []
    folder = tmp_path / "platform"
    folder.mkdir()
    allows = {**example("platform"), "connect_without_handle": True}
    assert check(written(tmp_path, loose), {}, platform=written(folder, allows)).problems == []


def test_a_mesh_target_is_reached_by_no_tunnel(tmp_path: Path) -> None:
    agent = example("agent")
    crm = agent["outbound"]["routes"][0]
    host = crm["upstream"].removeprefix("https://")
    route = {"name": "tunnel", "match": {"host": host}, "token": "connect"}
    told = check(written(tmp_path, changed(agent, ("outbound.routes", [crm, route]))), {}).problems
    assert [problem.field for problem in told] == ["outbound.routes[1].match.host"]
    assert "mesh target" in told[0].wrong


@pytest.mark.parametrize("host", ["API.openai.com", "https://api.openai.com", "a b", "u@h", ""])
def test_the_platform_lists_hosts(host: str, tmp_path: Path) -> None:
    folder = tmp_path / "platform"
    folder.mkdir()
    told = found(tmp_path, platform=written(folder, {"inject": [host]}))
    assert any(problem.field == "platform inject[0]" for problem in told), told
