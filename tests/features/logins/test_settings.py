"""Settings of logins at token services: each agreement with one fact changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import Problem
from sidecar.check import check
from sidecar.config import load_sidecar
from sidecar.config.document import parse_document
from tests.config.documents import ABSENT, changed, example, problems, written

PAGES = Path(__file__).parents[3] / "docs" / "adapters"


def blocks(page: str) -> list[dict[str, Any]]:
    """Return the blocks of settings on a page."""
    found = re.findall(r"```yaml\n(.*?)```", (PAGES / f"{page}.md").read_text(), re.DOTALL)
    documents = [parse_document(block, name="block") for block in found]
    return [document for document in documents if isinstance(document, dict)]


(LOGINS,) = blocks("obo-draft-02")
ISSUER = "https://login.acme.example"


def found(folder: Path, *changes: tuple[str, object]) -> list[Problem]:
    return problems(folder, changed(LOGINS, *changes))


@pytest.mark.parametrize("adapter", ["obo-draft-02", "agent-grant-draft"])
def test_either_adapter_is_one_line(adapter: str, tmp_path: Path) -> None:
    settings = load_sidecar(written(tmp_path, changed(LOGINS, ("exchange.adapter", adapter))), {})
    (exchange,) = settings.exchanges
    assert exchange.known.name == adapter
    assert exchange.metadata_url == f"{ISSUER}/.well-known/oauth-authorization-server"
    assert settings.entry is not None
    assert settings.entry.issuers == {}
    assert settings.entry.redirect_uris == {"https://app.acme.example/callback"}


def test_the_page_of_the_agent_grant_changes_one_line_or_the_profile_too(tmp_path: Path) -> None:
    exchange, issuers = blocks("agent-grant-draft")
    assert exchange["exchange"] == {**LOGINS["exchange"], "adapter": "agent-grant-draft"}
    assert problems(tmp_path, {**LOGINS, **exchange}) == []
    assert problems(tmp_path, {**LOGINS, **exchange, **issuers}) == []


def test_endpoints_that_are_set_need_no_metadata(tmp_path: Path) -> None:
    elsewhere = {"url": "https://agents.acme.example/ask", "tls": {"ca": "/etc/ssl/certs/ca-certificates.crt"}}
    for changes in (
        [("exchange.authorization_endpoint", "https://people.acme.example/authorize")],
        [("exchange.adapter", "agent-grant-draft"), ("exchange.endpoints", {"agent_authorization": elsewhere})],
    ):
        (exchange,) = load_sidecar(written(tmp_path, changed(LOGINS, *changes)), {}).exchanges
        assert exchange.discovered == {}


def test_one_workload_takes_browser_logins_at_one_issuer(tmp_path: Path) -> None:
    other = "https://login.partner.example"
    (issuer,), exchange, (route, *_) = LOGINS["issuers"], LOGINS["exchange"], LOGINS["outbound"]["routes"]
    document = changed(
        LOGINS,
        ("issuers", [issuer, {**issuer, "issuer": other, "jwks": f"{other}/jwks"}]),
        ("exchange", [exchange, {**exchange, "issuer": other, "token_endpoint": f"{other}/token"}]),
        (
            "outbound.routes",
            [
                *({**one, "exchange": ISSUER} for one in LOGINS["outbound"]["routes"]),
                {**route, "name": "partner", "match": {"prefix": "/partner"}, "exchange": other},
            ],
        ),
        ("entry.may_call", [*LOGINS["entry"]["may_call"], "partner"]),
    )
    (problem,) = [one for one in problems(tmp_path, document) if one.field == "entry.redirect_uris"]
    assert problem.wrong == (f"serves browser logins at {ISSUER} and {other}, so one could pass off the other's answer")
    both = changed(document, ("exchange.1.adapter", "agent-grant-draft"))
    assert [one for one in problems(tmp_path, both) if one.field == "entry.redirect_uris"] == []


PROBLEMS: dict[str, tuple[list[tuple[str, object]], str, str]] = {
    "an adapter without logins": ([("exchange.adapter", "rfc8693")], "outbound.routes[0].token", "no logins of users"),
    "an exchange by one that does": (
        [("outbound.routes.0.token", "exchange")], "outbound.routes[0].token", "needs a login for each token"
    ),
    "no entry": ([("entry", ABSENT)], "outbound.routes[0].token", "no entry opens"),
    "a login token's route without its issuer": (
        [("entry.may_call", ["crm", "mail"])], "entry.issuers", "mail is opened by login tokens"
    ),
    "an entry that opens nothing": ([("entry.may_call", [])], "entry.issuers", "so is may_call"),
    "nowhere to come back to": ([("entry.redirect_uris", [])], "entry.redirect_uris", "a login returns there"),
    "a way back without TLS": (
        [("entry.redirect_uris", ["http://app.acme.example/callback"])], "entry.redirect_uris[0]", "plain http"
    ),
    "metadata elsewhere": (
        [("exchange.metadata", "https://else.example/metadata")], "exchange.metadata", "on another host"
    ),
    "metadata that is not read": (
        [("exchange.authorization_endpoint", "https://a.example"), ("exchange.metadata", f"{ISSUER}/m")],
        "exchange.metadata",
        "all endpoints are set",
    ),
    "a login without TLS": (
        [("exchange.authorization_endpoint", "http://login.acme.example/a")],
        "exchange.authorization_endpoint",
        "is not an https URL",
    ),
    "a browser that is sent nowhere": (
        [("exchange.adapter", "agent-grant-draft"), ("exchange.authorization_endpoint", "https://a.example")],
        "exchange.authorization_endpoint",
        "sends no browser",
    ),
    "an endpoint of another adapter": (
        [("exchange.endpoints", {"agent_authorization": {"url": "https://a.example", "tls": {"ca": "/ca.pem"}}})],
        "exchange.endpoints",
        "asks at none",
    ),
    "a transaction token": ([("outbound.routes.0.txn_token", True)], "outbound.routes[0].txn_token", "requests no"),
    "an observed route": ([("outbound.routes.0.observe_until", "2099-01-01")], "outbound.routes[0].observe_until", ""),
    "a crossing": (
        [(
            "outbound.routes.0.crossings",
            [{"from": "https://sts.else.example", "subject_prefix": "x:", "scopes": {"a": ["crm.read"]}}],
        )],
        "outbound.routes[0].crossings",
        "exchanges no token",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "field", "words"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_what_does_not_agree_is_told(changes: list[tuple[str, object]], field: str, words: str, tmp_path: Path) -> None:
    assert found(tmp_path) == []
    told = [problem for problem in found(tmp_path, *changes) if problem.field == field]
    assert told, found(tmp_path, *changes)
    assert any(words in problem.wrong for problem in told), told


def test_a_request_of_a_peer_opens_no_login_route(tmp_path: Path) -> None:
    inbound: dict[str, Any] = {
        "agent": "http://127.0.0.1:8080",
        "routes": [
            {
                "name": "ask",
                "match": {"path": "/ask", "methods": ["POST"]},
                "scopes": [],
                "peers": ["spiffe://acme.example/agent/other"],
                "may_call": ["crm"],
            }
        ],
    }
    (problem,) = found(tmp_path, ("inbound", inbound))
    assert (problem.field, problem.wrong) == (
        "inbound.routes[0].may_call",
        "crm is a login route, which only its own logins open",
    )


def test_redirect_uris_without_a_login_say_nothing(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, changed(example("entry"), ("entry.redirect_uris", ["https://app.example/back"])))
    assert (problem.field, problem.fix) == ("entry.redirect_uris", "remove it")


APP, LOGIN = "https://app.acme.example/callback", "https://people.acme.example/authorize"
LISTED = {**LOGINS["issuers"][0], "tls": LOGINS["exchange"]["tls"]}
KEYS_BY = ("issuers.0.tls", LOGINS["exchange"]["tls"])  # the platform has keys and tokens from one server


def below(folder: Path, platform: dict[str, Any], *changes: tuple[str, object]) -> list[Problem]:
    """Return the problems of settings below a platform file in ``folder``."""
    (folder / "platform").mkdir()
    path = written(folder, changed(LOGINS, KEYS_BY, *changes))
    return check(path, {}, platform=written(folder / "platform", {"issuers": [LISTED], **platform})).problems


@pytest.mark.parametrize(
    ("listed", "own", "refused"),
    [
        ([APP], [APP], []),
        ([APP, f"{APP}/2"], [APP], []),
        ([APP], [APP, f"{APP}/2"], [1]),
        ([f"{APP}/"], [APP], [0]),
        ([], [APP], [0]),
    ],
)
def test_a_browser_comes_back_only_where_the_platform_lists(
    listed: list[str], own: list[str], refused: list[int], tmp_path: Path
) -> None:
    found = below(tmp_path, {"redirect_uris": listed}, ("entry.redirect_uris", own))
    assert [one.field for one in found] == [f"entry.redirect_uris[{number}]" for number in refused]
    for problem, number in zip(found, refused, strict=True):
        (platform,) = (tmp_path / "platform").iterdir()
        assert problem.wrong == f"{own[number]} is not in redirect_uris of {platform}"


@pytest.mark.parametrize(
    ("listed", "own", "allowed"),
    [
        (None, None, True),
        (LOGIN, None, True),
        (LOGIN, LOGIN, True),
        (None, LOGIN, False),
        (LOGIN, f"{LOGIN}2", False),
        (LOGIN, "https://people.evil.example/authorize", False),
    ],
)
def test_a_user_is_sent_only_where_the_platform_or_the_issuer_says(
    listed: str | None, own: str | None, allowed: bool, tmp_path: Path
) -> None:
    issuer = LISTED if listed is None else {**LISTED, "authorization_endpoint": listed}
    changes = [] if own is None else [("exchange.authorization_endpoint", own)]
    found = below(tmp_path, {"issuers": [issuer], "redirect_uris": [APP]}, *changes)
    assert [one.field for one in found] == ([] if allowed else ["exchange.authorization_endpoint"])
    for problem in found:
        (platform,) = (tmp_path / "platform").iterdir()
        assert problem.wrong == f"is not the one that {platform} has for {ISSUER}"


def test_without_a_platform_file_the_settings_say_where(tmp_path: Path) -> None:
    assert found(tmp_path, ("exchange.authorization_endpoint", LOGIN)) == []
