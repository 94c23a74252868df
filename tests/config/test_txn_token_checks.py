"""Transaction tokens in settings: the page's own, and each agreement with one fact changed."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.check import check
from sidecar.config import load_sidecar
from sidecar.config.document import parse_document
from tests.config.documents import ABSENT, changed, example, written

PAGE = Path(__file__).parents[2] / "docs" / "transaction-tokens.md"
FIRST, LATER = (
    changed(example(base), *dict(parse_document(block, name=base)).items())  # type: ignore[call-overload]
    for base, block in zip(
        ("entry", "agent"), re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL), strict=True
    )
)
ENDPOINT = {"url": "https://tts.acme.example/token", "tls": {"peer": "spiffe://acme.example/tts"}}


def found(folder: Path, document: dict[str, Any], platform: object = None) -> list[tuple[str, str]]:
    ceiling = None
    if platform is not None:
        (folder / "platform").mkdir()
        ceiling = written(folder / "platform", platform)
    return [(one.field, one.wrong) for one in check(written(folder, document), {}, platform=ceiling).problems]


@pytest.mark.parametrize("document", [FIRST, LATER], ids=["first", "later"])
def test_the_settings_of_the_page_have_no_fault(document: dict[str, Any], tmp_path: Path) -> None:
    assert found(tmp_path, document) == []


def test_the_service_is_made_from_its_section(tmp_path: Path) -> None:
    settings = load_sidecar(written(tmp_path, FIRST), {})
    made = settings.txn_tokens
    assert made is not None
    assert made.endpoint is not None
    assert pickle.loads(pickle.dumps(made)) == made  # a reload loads settings in another process
    assert (made.source.trust_domain, made.endpoint.url) == ("acme.example", ENDPOINT["url"])
    assert made.source.issuer in {keys.issuer for keys in settings.keys} & settings.needed_issuers
    assert settings.outbound_routes.routes[0].txn_token
    later = load_sidecar(written(tmp_path, LATER), {})
    assert later.inbound is not None
    assert later.inbound.txn_token
    assert later.txn_tokens is not None
    assert later.txn_tokens.endpoint is None


def test_a_change_of_the_service_needs_a_restart_and_one_of_a_route_does_not(tmp_path: Path) -> None:
    def settings(*changes: tuple[str, object]) -> Any:
        return load_sidecar(written(tmp_path, changed(FIRST, *changes)), {})

    other = settings(("txn_tokens.timeout_s", 1.0))
    assert [one.field for one in settings().needs_restart(other)] == ["txn_tokens"]
    plain = settings(("outbound.routes.0.scopes", ["docs.read"]))
    assert settings().needs_restart(plain) == []


@pytest.mark.parametrize(
    ("document", "change", "field", "words"),
    [
        pytest.param(
            FIRST, ("txn_tokens", ABSENT), "outbound.routes[0].txn_token", "needs txn_tokens", id="no section"
        ),
        pytest.param(LATER, ("txn_tokens", ABSENT), "inbound.txn_token", "needs txn_tokens", id="no section to verify"),
        pytest.param(
            FIRST, ("outbound.routes.0.txn_token", False), "txn_tokens", "is used by nothing", id="used by nothing"
        ),
        pytest.param(
            FIRST, ("txn_tokens.trust_domain", "partner.example"), "outbound.routes[0].txn_token",
            "leads out of partner.example", id="out of the domain",
        ),
        pytest.param(
            FIRST, ("txn_tokens.token_endpoint", ABSENT), "txn_tokens.token_endpoint", "is missing", id="no endpoint"
        ),
        pytest.param(
            LATER, ("inbound.txn_token", False), "outbound.routes[0].txn_token", "carries what no request brings",
            id="nobody brings one",
        ),
        pytest.param(
            FIRST, ("txn_tokens.client_auth", "client-secret-basic"), "txn_tokens.client_auth",
            "is a static credential", id="a static credential",
        ),
        pytest.param(
            FIRST, ("txn_tokens.token_endpoint", "http://tts.acme.example/token"), "txn_tokens.tls",
            "plain http proves nobody", id="an open connection",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_told_at_its_field(
    document: dict[str, Any], change: tuple[str, object], field: str, words: str, tmp_path: Path
) -> None:
    assert any(words in wrong for name, wrong in found(tmp_path, changed(document, change)) if name == field)


def test_a_route_with_crossings_carries_none(tmp_path: Path) -> None:
    domains = example("domains")
    service = {**LATER["txn_tokens"]}
    document = changed(
        domains,
        ("txn_tokens", service),
        ("inbound.txn_token", True),
        ("outbound.routes.1.txn_token", True),
    )
    assert ("outbound.routes[1].txn_token", "is beside crossings, which change the subject") in found(
        tmp_path, document
    )


def test_the_platform_lists_who_gets_access_tokens(tmp_path: Path) -> None:
    platform = example("platform")
    fields = [name for name, _ in found(tmp_path, FIRST, platform)]
    assert "txn_tokens.token_endpoint" in fields
    (tmp_path / "listed").mkdir()
    listed = {**platform, "exchange_endpoints": [ENDPOINT]}
    assert "txn_tokens.token_endpoint" not in [name for name, _ in found(tmp_path / "listed", FIRST, listed)]


def test_the_keys_of_a_service_that_is_also_an_issuer_are_the_same(tmp_path: Path) -> None:
    issuer = LATER["issuers"][0]["issuer"]
    same = changed(LATER, ("txn_tokens.issuer", issuer), ("txn_tokens.jwks", "https://other.example/jwks"))
    assert ("txn_tokens", "has other keys than the same issuer elsewhere") in found(tmp_path, same)
