"""Trust built from sections of issuers, and refusals beside the same section with one fact changed."""

from pathlib import Path
from typing import Any

import pytest

from delegation_core.spiffe_id import SpiffeId
from sidecar.config.endpoints import same_origin
from sidecar.config.issuers import development_problems, is_production, key_settings
from sidecar.config.sections import IssuerSection, TlsSection, UserIssuerSection
from tests.config.documents import ABSENT, changed, example, problems

AGENT = example("agent")
ENTRY = example("entry")
PEER = "spiffe://acme.example/sts"


def issuer(**changes: Any) -> IssuerSection:
    return IssuerSection.model_validate({**AGENT["issuers"][0], **changes})


def login(**changes: Any) -> UserIssuerSection:
    return UserIssuerSection.model_validate({**changed(ENTRY["entry"]["issuers"][0], ("client_id", ABSENT)), **changes})


def test_keys_are_fetched_as_it_is_written_and_otherwise_by_default() -> None:
    tls = TlsSection(peer=PEER)
    usual = key_settings(issuer(), tls)
    written = key_settings(issuer(refresh_s=7.0, max_age_s=70.0, cooldown_s=3.0, timeout_s=2.0), tls)
    assert usual.peer == SpiffeId(PEER)
    assert (written.refresh_s, written.max_age_s, written.cooldown_s, written.timeout_s) == (7.0, 70.0, 3.0, 2.0)
    assert (usual.refresh_s, usual.max_age_s, usual.cooldown_s, usual.timeout_s) == (None, 3600.0, 30.0, 5.0)


def test_a_refused_url_is_named_as_the_setting_is() -> None:
    with pytest.raises(ValueError, match=r"^jwks: "):
        key_settings(issuer(jwks="http://keys.example/jwks"), None)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("https://a.example:1/y", True),
        ("http://a.example:1/x", False),
        ("https://b.example:1/x", False),
        ("https://a.example:2/x", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(other: str, same: bool) -> None:
    assert same_origin("https://a.example:1/x", other) is same


@pytest.mark.parametrize(
    ("name", "jwks", "production"),
    [
        ("https://a.example", "https://a.example/jwks", True),
        ("http://a.example", "https://a.example/jwks", False),
        ("https://a.example", "http://127.0.0.1/jwks", False),
        ("https://localhost", "https://a.example/jwks", False),
        ("https://a.example", "https://127.0.0.1/jwks", False),
        ("https:", "https://a.example/jwks", False),
        ("https://[", "https://a.example/jwks", False),
    ],
)
def test_an_issuer_is_in_production_when_name_and_keys_are_on_the_network_over_https(
    name: str, jwks: str, production: bool
) -> None:
    section = issuer(issuer=name, jwks=jwks)
    assert is_production(section) is production
    clear = issuer(issuer="HTTP://dev.example", jwks="http://127.0.0.1/jwks")
    told = [one.field for one in development_problems([("one", section), ("other", clear)])]
    assert ("other.issuer" in told) is production
    assert "one.issuer" not in told


def test_the_identity_of_the_token_service_counts_for_keys_at_its_own_origin_only(tmp_path: Path) -> None:
    assert "tls" not in AGENT["issuers"][0]
    assert problems(tmp_path, AGENT) == []
    elsewhere = changed(AGENT, ("issuers.0.jwks", "https://keys.example/jwks"))
    assert [one.field for one in problems(tmp_path, elsewhere)] == ["issuers[0].tls"]
    assert problems(tmp_path, changed(elsewhere, ("issuers.0.tls", {"peer": PEER}))) == []


def test_the_identity_of_the_token_service_does_not_count_for_another_issuer_at_its_origin(tmp_path: Path) -> None:
    other = {**AGENT["issuers"][0], "issuer": "https://other.example"}
    route = ("inbound.routes.0.issuers", [AGENT["issuers"][0]["issuer"]])
    both = changed(AGENT, ("issuers", [AGENT["issuers"][0], other]), route)
    assert [one.field for one in problems(tmp_path, both)] == ["issuers[1].tls"]
    told = changed(both, ("issuers.1.tls", {"peer": PEER}))
    assert problems(tmp_path, told) == []


def test_one_issuer_has_the_same_keys_wherever_it_is_listed(tmp_path: Path) -> None:
    user = ENTRY["entry"]["issuers"][0]
    again = {**AGENT["issuers"][0], "issuer": user["issuer"], "jwks": user["jwks"]}
    for ca, told in (("/etc/other.pem", ["entry.issuers[0]"]), (user["tls"]["ca"], [])):
        both = changed(ENTRY, ("issuers", [*ENTRY["issuers"], {**again, "tls": {"ca": ca}}]))
        found = [one.field for one in problems(tmp_path, both) if "has different keys" in one.wrong]
        assert found == told


LIST = "https://sts.acme.example/revocations"


@pytest.mark.parametrize(
    ("revocations", "fields"),
    [
        pytest.param({"url": LIST}, [], id="at the token service, whose identity is known"),
        pytest.param({"url": "https://else.example/list"}, ["issuers[0].revocations.tls"], id="elsewhere, by nobody"),
        pytest.param({"url": "https://else.example/list", "tls": {"peer": PEER}}, [], id="elsewhere, by somebody"),
        pytest.param({"url": "http://sts.acme.example/list"}, ["issuers[0].revocations.url"], id="in the clear"),
        pytest.param({"url": LIST, "max_stale_s": 3601}, ["issuers[0].revocations.max_stale_s"], id="stale for long"),
        pytest.param(
            {"url": LIST, "every_s": 10, "max_stale_s": 15}, ["issuers[0].revocations.max_stale_s"], id="one poll"
        ),
    ],
)
def test_a_list_of_revocations_has_a_proven_origin_and_a_bound(
    revocations: dict[str, object], fields: list[str], tmp_path: Path
) -> None:
    found = problems(tmp_path, changed(AGENT, ("issuers.0.revocations", revocations)))
    assert [one.field for one in found] == fields


@pytest.mark.parametrize(("life_s", "fields"), [(300, []), (299, ["issuers[0].revocations.max_stale_s"])])
def test_a_list_is_never_relied_on_for_longer_than_a_token_lives(
    life_s: int, fields: list[str], tmp_path: Path
) -> None:
    profile = ("issuers.0.profile", {"preset": "sts", "max_lifetime_s": life_s})
    found = problems(tmp_path, changed(AGENT, ("issuers.0.revocations", {"url": LIST}), profile))
    assert [one.field for one in found] == fields
