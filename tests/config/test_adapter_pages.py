"""Settings on the pages of adapters: each block, laid over a shipped example, has no fault; one fact changed has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.check import check
from sidecar.config import load_sidecar
from sidecar.config.document import parse_document
from sidecar.exchange.adapters import BUILT_IN
from tests.config.documents import changed, example, written

PAGES = Path(__file__).parents[2] / "docs" / "adapters"
LOGIN = "https://login.acme.example"


def settings_of(page: str, base: str) -> dict[str, Any]:
    """Return the settings of a page, laid over an example."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (PAGES / f"{page}.md").read_text(), re.DOTALL)
    sections = parse_document(block, name=page)
    assert isinstance(sections, dict)
    return changed(example(base), *sections.items())


ID_JAG = settings_of("id-jag-04", "entry")
CHAINING = settings_of("identity-chaining", "agent")
KEYCLOAK = settings_of("keycloak-26.7", "entry")
DELEGATION = settings_of("keycloak-26.8", "entry")
ENTRA = settings_of("entra-agent-id", "entry")


def test_each_adapter_has_a_row_and_a_page() -> None:
    rows = re.findall(
        r"^\| `([^`]+)`.*\(adapters/([^)]+)\.md\) \|$", (PAGES.parent / "adapters.md").read_text(), re.MULTILINE
    )
    missing = sorted(set(BUILT_IN) - {"rfc8693"} - {name for name, page in rows if name == page})
    assert not missing, f"docs/adapters.md has a row for each adapter, with its page: {missing}"


def fields(folder: Path, document: dict[str, Any]) -> list[str]:
    return [problem.field for problem in check(written(folder, document), {}).problems]


@pytest.mark.parametrize(
    "document",
    [ID_JAG, CHAINING, KEYCLOAK, DELEGATION, ENTRA],
    ids=["id-jag-04", "identity-chaining", "keycloak-26.7", "keycloak-26.8", "entra-agent-id"],
)
def test_the_settings_of_a_page_have_no_fault(document: dict[str, Any], tmp_path: Path) -> None:
    assert fields(tmp_path, document) == []


def test_the_endpoint_of_an_adapter_counts_among_the_peers(tmp_path: Path) -> None:
    document = changed(CHAINING, ("exchange.endpoints.home.tls", {"peer": "spiffe://home.example/as"}))
    assert "home.example" in load_sidecar(written(tmp_path, document), {}).peer_trust_domains
    assert "home.example" not in load_sidecar(written(tmp_path, CHAINING), {}).peer_trust_domains


ROUTE = {
    "name": "search",
    "match": {"path": "/search", "methods": ["POST"]},
    "scopes": ["crm.read"],
    "peers": ["spiffe://acme.example/agent/planner"],
    "may_call": ["crm"],
}
SECOND = {**ID_JAG["entry"]["issuers"][0], "issuer": "https://other.example", "subject_prefix": "other:"}


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        pytest.param(
            ("entry.issuers.0.profile", "oidc-access-token"),
            "entry.issuers[0].kind",
            "is access_token, but id-jag-04, which the route crm uses, does not accept such tokens",
            id="logins by access token",
        ),
        pytest.param(
            ("inbound", {"agent": "http://127.0.0.1:8080", "routes": [ROUTE]}),
            "outbound.routes[0].name",
            "is opened by inbound routes, but id-jag-04 accepts only login tokens",
            id="a route of requests",
        ),
        pytest.param(
            ("entry.issuers", [{**ID_JAG["entry"]["issuers"][0], "subject_prefix": "acme:"}, SECOND]),
            "entry.issuers",
            "would send the tokens of all to one",
            id="two login issuers",
        ),
        pytest.param(("exchange.endpoints", {}), "exchange.endpoints", "id-jag-04 asks at idp", id="no idp"),
        pytest.param(
            ("entry.issuers.0.subject_prefix", "acme:"),
            "entry.issuers[0].subject_prefix",
            "changes subjects, but subject_issuer says that they stay the same",
            id="a prefix that the server does not write",
        ),
        pytest.param(
            ("outbound.routes.0.token", "self"),
            "outbound.routes[0].token",
            "does not issue such tokens",
            id="own authority",
        ),
    ],
)
def test_id_jag_serves_logins_by_id_token_of_one_issuer(
    change: tuple[str, object], field: str, words: str, tmp_path: Path
) -> None:
    problems = check(written(tmp_path, changed(ID_JAG, change)), {}).problems
    assert any(words in f"{problem.wrong} {problem.fix}" for problem in problems if problem.field == field)


def test_other_adapters_take_logins_of_both_kinds(tmp_path: Path) -> None:
    document = changed(
        ID_JAG,
        ("exchange.adapter", "rfc8693"),
        ("exchange.endpoints", {}),
        ("entry.issuers.0.profile", "oidc-access-token"),
    )
    assert fields(tmp_path, document) == []


def test_chaining_needs_the_crossing_of_its_route(tmp_path: Path) -> None:
    assert "outbound.routes[0].crossings" not in fields(tmp_path, CHAINING)
    assert fields(tmp_path, changed(CHAINING, ("outbound.routes.0.crossings", []))) != []
    assert fields(tmp_path, changed(CHAINING, ("exchange.options", {"scope": "first"}))) == ["exchange.options"]


@pytest.mark.parametrize("document", [KEYCLOAK, DELEGATION], ids=["keycloak-26.7", "keycloak-26.8"])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param(("entry.issuers.0.profile", "oidc-id-token"), "entry.issuers[0].kind", id="ID tokens"),
        pytest.param(("exchange.client_auth", "jwt-svid"), "exchange.client_auth", id="an assertion it does not know"),
        pytest.param(
            ("exchange.client_auth", "tls-client-auth-san-uri"), "exchange.client_auth", id="a certificate's name"
        ),
        pytest.param(("exchange.options", {"actor_token": "jwt-svid"}), "exchange.options", id="an actor token"),
        pytest.param(
            ("inbound", {"agent": "http://127.0.0.1:8080", "routes": [ROUTE]}),
            "outbound.routes[0].name",
            id="a route of requests",
        ),
        pytest.param(("outbound.routes.0.token", "self"), "outbound.routes[0].token", id="own authority"),
    ],
)
def test_keycloak_serves_logins_by_access_token(
    change: tuple[str, object], field: str, document: dict[str, Any], tmp_path: Path
) -> None:
    assert field in fields(tmp_path, changed(document, change))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param(("exchange.options", {}), "exchange.options", id="no agent identity"),
        pytest.param(("exchange.options.scope", "all"), "exchange.options", id="other scopes"),
        pytest.param(("exchange.client_auth", "x509-svid"), "exchange.client_auth", id="our certificate"),
        pytest.param(("exchange.client_auth", "private-key-jwt"), "exchange.client_auth", id="a key"),
        pytest.param(("exchange.client_auth", "client-secret-post"), "exchange.client_auth", id="a secret, by the way"),
        pytest.param(("issuers.0.profile", "entra"), "issuers[0].profile", id="no table of agents"),
        pytest.param(("entry.issuers.0.kind", "id_token"), "entry.issuers[0].kind", id="ID tokens"),
        pytest.param(
            ("inbound", {"agent": "http://127.0.0.1:8080", "routes": [ROUTE]}),
            "outbound.routes[0].name",
            id="a route of requests",
        ),
        pytest.param(("outbound.routes.0.token", "self"), "outbound.routes[0].token", id="own authority"),
    ],
)
def test_entra_serves_logins_by_access_token_for_one_agent_identity(
    change: tuple[str, object], field: str, tmp_path: Path
) -> None:
    assert field in fields(tmp_path, changed(ENTRA, change))
