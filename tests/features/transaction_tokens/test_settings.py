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

PAGE = Path(__file__).parents[3] / "docs" / "transaction-tokens.md"
FIRST, LATER = (
    changed(example(base), *dict(parse_document(block, name=base)).items())  # type: ignore[call-overload]
    for base, block in zip(
        ("entry", "agent"), re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL), strict=True
    )
)
ISSUER = FIRST["issuers"][0]["issuer"]
ENDPOINT = {
    "url": "https://tts.acme.example/token",
    "tls": {"peer": "spiffe://acme.example/tts"},
    "issuers": [ISSUER],
}


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
    abroad = changed(FIRST, ("txn_tokens.tls", {"peer": "spiffe://tts.example/tts"}))
    assert "tts.example" in load_sidecar(written(tmp_path, abroad), {}).peer_trust_domains
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
            FIRST, ("outbound.routes.0.txn_token", False), "txn_tokens", "no route uses it", id="no route"
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
            "needs a static credential", id="a static credential",
        ),
        pytest.param(
            FIRST, ("txn_tokens.token_endpoint", "http://tts.acme.example/token"), "txn_tokens.tls",
            "plain http does not verify the server", id="an open connection",
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


@pytest.mark.parametrize(
    ("endpoints", "wrong"),
    [
        ([ENDPOINT], []),
        ([], ["is not one of the platform's exchange_endpoints"]),
        (
            [{**ENDPOINT, "tls": {"peer": "spiffe://acme.example/other"}}],
            ["is not one of the platform's exchange_endpoints"],
        ),
        ([{**ENDPOINT, "issuers": ["https://other.example"]}], [f"would receive tokens of {ISSUER}"]),
    ],
)
def test_the_platform_lists_who_gets_access_tokens_and_whose(
    endpoints: list[object], wrong: list[str], tmp_path: Path
) -> None:
    problems = found(tmp_path, FIRST, {**example("platform"), "exchange_endpoints": endpoints})
    assert [told for name, told in problems if name == "txn_tokens.token_endpoint"] == wrong
    assert not any(name.startswith("platform") for name, _ in problems)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, False),
        ({"assertion_audience": "https://tts.acme.example/assertions"}, False),
        ({"assertion_audience": ISSUER}, True),
        ({"assertion_audience": "spiffe://acme.example/sts"}, True),
        ({"assertion_audience": ISSUER, "client_auth": "x509-svid"}, False),
    ],
)
def test_the_service_is_shown_no_jwt_svid_that_another_takes(
    changes: dict[str, object], refused: bool, tmp_path: Path
) -> None:
    section = {**FIRST["txn_tokens"], "client_auth": "jwt-svid", **changes}
    fields = [name for name, _ in found(tmp_path, changed(FIRST, ("txn_tokens", section)))]
    assert fields == (["txn_tokens.assertion_audience"] if refused else [])


def test_the_platform_lists_where_a_static_credential_may_be_used(tmp_path: Path) -> None:
    secret = {
        **FIRST["txn_tokens"],
        "client_auth": "client-secret-basic",
        "credential_file": "/run/keys/tts",
        "allow_static_credential": True,
    }
    document = changed(FIRST, ("txn_tokens", secret))
    platform = {**example("platform"), "exchange_endpoints": [ENDPOINT]}
    assert "txn_tokens.client_auth" in [name for name, _ in found(tmp_path, document, platform)]
    (tmp_path / "listed").mkdir()
    listed = {**platform, "static_client_auth": [ENDPOINT["url"]]}
    assert "txn_tokens.client_auth" not in [name for name, _ in found(tmp_path / "listed", document, listed)]


SECOND = {
    **LATER["issuers"][0],
    "issuer": "https://sts.partner.example",
    "jwks": "https://sts.partner.example/jwks",
    "tls": {"peer": "spiffe://acme.example/sts-of-partner"},
}


@pytest.mark.parametrize(
    ("named", "field", "words"),
    [
        (ABSENT, "txn_tokens.subject_issuer", "it is missing"),
        ("https://sts.partner.example", "outbound.routes[0].txn_token", "the sub is a name of"),
        ("https://elsewhere.example", "txn_tokens.subject_issuer", "is not one of the issuers"),
        (ISSUER, None, ""),
    ],
)
def test_where_there_are_several_issuers_the_settings_say_whose_name_the_sub_is(
    named: object, field: str | None, words: str, tmp_path: Path
) -> None:
    section = {**LATER["txn_tokens"], **({} if named is ABSENT else {"subject_issuer": named})}
    document = changed(
        LATER,
        ("issuers", [LATER["issuers"][0], SECOND]),
        ("txn_tokens", section),
        ("inbound.routes.0.issuers", [ISSUER]),
    )
    problems = found(tmp_path, document)
    if field is None:
        assert problems == []
        assert (made := load_sidecar(written(tmp_path, document), {}).txn_tokens) is not None
        assert made.source.subject_issuer == ISSUER
    else:
        assert any(name == field and words in wrong for name, wrong in problems)


def test_the_keys_of_a_service_that_is_also_an_issuer_are_the_same(tmp_path: Path) -> None:
    issuer = LATER["issuers"][0]["issuer"]
    same = changed(LATER, ("txn_tokens.issuer", issuer), ("txn_tokens.jwks", "https://other.example/jwks"))
    assert ("txn_tokens", "has different keys than the same issuer elsewhere") in found(tmp_path, same)
