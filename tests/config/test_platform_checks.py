"""Each ceiling of a platform: settings above it, beside settings that just fit."""

from pathlib import Path

import pytest

from delegation_core.errors import Problem
from sidecar.check import check
from tests.config.documents import ABSENT, changed, example, written

AGENT = example("agent")
ENTRY = example("entry")
DOMAINS = example("domains")
PLATFORM = example("platform")
STS = PLATFORM["issuers"][0]
REPLICAS = [f"https://sts.acme.example/{name}" for name in "ab"]
TABLE = {"preset": "entra", "actor_table": [{"sub": "a", "spiffe_id": "spiffe://acme.example/a"}]}
WIDE_TABLE = {**TABLE, "actor_table": [*TABLE["actor_table"], {"sub": "b", "spiffe_id": "spiffe://acme.example/b"}]}

Change = tuple[str, object]


def found(folder: Path, document: object, platform: object, **environ: str) -> list[Problem]:
    path = written(folder, document)
    ceiling = folder / "platform"
    ceiling.mkdir()
    return check(path, environ, platform=written(ceiling, platform)).problems


def sts_profile(**changes: object) -> dict[str, object]:
    return {"preset": "sts", **changes}


@pytest.mark.parametrize("name", ["agent", "domains", "entry", "files", "tool"])
def test_every_example_is_below_the_ceiling_of_the_platforms_example(name: str, tmp_path: Path) -> None:
    assert found(tmp_path, example(name), PLATFORM) == []


LIST = {"url": "https://sts.acme.example/revocations"}


@pytest.mark.parametrize(
    ("own", "fields"),
    [
        pytest.param(LIST, [], id="the platform's"),
        pytest.param({**LIST, "every_s": 1, "max_stale_s": 60}, [], id="more often, for less long"),
        pytest.param(ABSENT, ["issuers[0].revocations"], id="none"),
        pytest.param({"url": "https://sts.acme.example/empty"}, ["issuers[0].revocations.url"], id="another list"),
        pytest.param(
            {**LIST, "tls": {"peer": "spiffe://acme.example/x"}}, ["issuers[0].revocations.url"], id="another server"
        ),
        pytest.param({**LIST, "every_s": 3}, ["issuers[0].revocations.every_s"], id="less often"),
        pytest.param({**LIST, "max_stale_s": 301}, ["issuers[0].revocations.max_stale_s"], id="stale for longer"),
    ],
)
def test_a_workload_cannot_leave_out_or_loosen_the_platforms_list_of_revocations(
    own: object, fields: list[str], tmp_path: Path
) -> None:
    ceiling = changed(PLATFORM, ("issuers.0.revocations", LIST))
    document = AGENT if own is ABSENT else changed(AGENT, ("issuers.0.revocations", own))
    assert [one.field for one in found(tmp_path, document, ceiling)] == fields


@pytest.mark.parametrize(
    ("ceiling", "fits", "above", "field"),
    [
        pytest.param(
            [],
            [],
            [("issuers.0.issuer", "https://x"), ("exchange.issuer", "https://x")],
            "issuers[0].issuer",
            id="issuer",
        ),
        pytest.param(
            [],
            [("issuers.0.jwks", STS["jwks"])],
            [("issuers.0.jwks", "https://sts.acme.example/other")],
            "issuers[0].jwks",
            id="jwks",
        ),
        pytest.param(
            [],
            [("issuers.0.tls", STS["tls"])],
            [("issuers.0.tls", {"peer": "spiffe://acme.example/other"})],
            "issuers[0].tls",
            id="tls-peer",
        ),
        pytest.param([], [], [("issuers.0.tls", {"ca": "/etc/ca.pem"})], "issuers[0].tls", id="tls-ca-for-peer"),
        pytest.param(
            [],
            [("issuers.0.max_age_s", 3600.0)],
            [("issuers.0.max_age_s", 3600.5)],
            "issuers[0].max_age_s",
            id="max-age",
        ),
        pytest.param(
            [("issuers.0.max_age_s", 60.0)],
            [("issuers.0.max_age_s", 60.0)],
            [],
            "issuers[0].max_age_s",
            id="max-age-by-default",
        ),
        pytest.param(
            [("issuers.0.refresh_s", 60.0)],
            [("issuers.0.refresh_s", 60.0)],
            [("issuers.0.refresh_s", 61.0)],
            "issuers[0].refresh_s",
            id="refresh",
        ),
        pytest.param(
            [("issuers.0.refresh_s", 60.0)],
            [("issuers.0.refresh_s", 1.0)],
            [],
            "issuers[0].refresh_s",
            id="refresh-left-to-the-issuer",
        ),
        pytest.param(
            [],
            [("issuers.0.refresh_s", 300.0)],
            [("issuers.0.refresh_s", 301.0)],
            "issuers[0].refresh_s",
            id="refresh-above-the-default",
        ),
        pytest.param(
            [],
            [("issuers.0.scopes", ["docs.read", "crm.read", "crm.write"])],
            [("issuers.0.scopes", ["docs.read", "crm.read", "mail.send"])],
            "issuers[0].scopes",
            id="scopes",
        ),
        pytest.param(
            [("issuers.0.scopes", [])],
            [("issuers.0.scopes", [])],
            [],
            "issuers[0].scopes",
            id="empty-scopes-are-nothing",
        ),
        pytest.param(
            [],
            [("issuers.0.actor_trust_domains", ["acme.example", "partner.example"])],
            [("issuers.0.actor_trust_domains", ["acme.example", "other.example"])],
            "issuers[0].actor_trust_domains",
            id="actor-trust-domains",
        ),
        pytest.param([], [], [("issuers.0.profile", "zitadel")], "issuers[0].profile", id="profile"),
        pytest.param(
            [("issuers.0.profile", sts_profile(actor="act.iss+act.sub"))],
            [("issuers.0.profile", sts_profile(actor="act.iss+act.sub"))],
            [],
            "issuers[0].profile",
            id="actor-form",
        ),
        pytest.param(
            [("issuers.0.profile", sts_profile(actor="act.iss+act.sub", act_iss="https://a"))],
            [("issuers.0.profile", sts_profile(actor="act.iss+act.sub", act_iss="https://a"))],
            [("issuers.0.profile", sts_profile(actor="act.iss+act.sub", act_iss="https://b"))],
            "issuers[0].profile",
            id="act-iss",
        ),
        pytest.param(
            [],
            [("issuers.0.profile", sts_profile(scope_claim="scope"))],
            [("issuers.0.profile", sts_profile(scope_claim="scp"))],
            "issuers[0].profile",
            id="scope-claim",
        ),
        pytest.param(
            [],
            [("issuers.0.profile", sts_profile(typ=["at+jwt"]))],
            [("issuers.0.profile", sts_profile(typ=["at+jwt", "jwt"]))],
            "issuers[0].profile",
            id="typ",
        ),
        pytest.param(
            [("issuers.0.profile", sts_profile(algorithms=["ES256"]))],
            [("issuers.0.profile", sts_profile(algorithms=["ES256"]))],
            [("issuers.0.profile", sts_profile(algorithms=["ES256", "RS256"]))],
            "issuers[0].profile",
            id="algorithms",
        ),
        pytest.param(
            [("issuers.0.profile", sts_profile(required_claims=["txn"]))],
            [("issuers.0.profile", sts_profile(required_claims=["txn", "amr"]))],
            [("issuers.0.profile", sts_profile(required_claims=["amr"]))],
            "issuers[0].profile",
            id="required-claims",
        ),
        pytest.param(
            [("issuers.0.profile", TABLE)],
            [("issuers.0.profile", TABLE)],
            [("issuers.0.profile", WIDE_TABLE)],
            "issuers[0].profile",
            id="actor-table",
        ),
        pytest.param(
            [("issuers.0.profile", sts_profile(max_act_depth=3))],
            [("issuers.0.profile", sts_profile(max_act_depth=3))],
            [("issuers.0.profile", sts_profile(max_act_depth=4))],
            "issuers[0].profile",
            id="act-depth",
        ),
        pytest.param(
            [],
            [("issuers.0.profile", sts_profile(leeway_s=30))],
            [("issuers.0.profile", sts_profile(leeway_s=31))],
            "issuers[0].profile",
            id="leeway",
        ),
        pytest.param(
            [("issuers.0.profile", sts_profile(max_lifetime_s=600))],
            [("issuers.0.profile", sts_profile(max_lifetime_s=600))],
            [("issuers.0.profile", sts_profile(max_lifetime_s=601))],
            "issuers[0].profile",
            id="lifetime",
        ),
        pytest.param(
            [("allow_self", True)],
            [("inbound.routes.0.allow_self", True)],
            None,
            "inbound.routes[0].allow_self",
            id="allow-self",
        ),
        pytest.param(
            [("pass_token", True)],
            [("inbound.routes.0.pass_token", True)],
            None,
            "inbound.routes[0].pass_token",
            id="pass-token",
        ),
        pytest.param(
            [],
            [("inbound.routes.0.linger_s", 30.0)],
            [("inbound.routes.0.linger_s", 30.5)],
            "inbound.routes[0].linger_s",
            id="linger",
        ),
        pytest.param(
            [],
            [("exchange.token_endpoint", STS["token_endpoint"])],
            [("exchange.token_endpoint", "https://sts.acme.example/elsewhere")],
            "exchange.token_endpoint",
            id="token-endpoint",
        ),
        pytest.param(
            [("issuers.0.token_endpoint", ABSENT), ("issuers.0.token_endpoints", REPLICAS)],
            [("exchange.token_endpoint", ABSENT), ("exchange.token_endpoints", REPLICAS[1:])],
            [("exchange.token_endpoint", ABSENT), ("exchange.token_endpoints", [REPLICAS[0], "https://else/token"])],
            "exchange.token_endpoints[1]",
            id="replica",
        ),
        pytest.param(
            [],
            [("exchange.peer", STS["tls"]["peer"])],
            [("exchange.peer", "spiffe://acme.example/other"), ("issuers.0.tls", STS["tls"])],
            "exchange.tls",
            id="token-endpoint-of-another",
        ),
        pytest.param(
            [("issuers.0.tls", {"ca": "/a.pem"})],
            [("exchange.peer", ABSENT), ("exchange.tls", {"ca": "/a.pem"})],
            [("exchange.peer", ABSENT), ("exchange.tls", {"ca": "/b.pem"}), ("issuers.0.tls", {"ca": "/a.pem"})],
            "exchange.tls",
            id="token-endpoint-by-another-ca",
        ),
        pytest.param(
            [],
            [("exchange.issuer", STS["issuer"])],
            [("exchange.issuer", "https://x"), ("issuers.0.tls", STS["tls"])],
            "exchange.issuer",
            id="exchange-issuer",
        ),
    ],
)
def test_settings_just_below_a_ceiling_fit_and_those_above_are_told(
    ceiling: list[Change], fits: list[Change], above: list[Change] | None, field: str, tmp_path: Path
) -> None:
    platform = changed(PLATFORM, *ceiling)
    (tmp_path / "fits").mkdir()
    assert [p for p in found(tmp_path / "fits", changed(AGENT, *fits), platform) if p.field == field] == []
    (tmp_path / "above").mkdir()
    if above is None:  # a listed value fits; an unlisted one is forbidden
        told = found(tmp_path / "above", changed(AGENT, *fits), changed(PLATFORM, (field.rpartition(".")[2], ABSENT)))
    else:
        told = found(tmp_path / "above", changed(AGENT, *above), platform)
    assert [p for p in told if p.field == field and "platform" in f"{p.wrong} {p.fix}"], told
    assert all(problem.fix for problem in told)


USER = "entry.issuers.0"
MAP = "entry.issuers.0.scope_from.map"


@pytest.mark.parametrize(
    ("fits", "above", "field"),
    [
        pytest.param([], [(f"{USER}.issuer", "https://x")], "issuer", id="issuer"),
        pytest.param([], [(f"{USER}.jwks", "https://login.acme.example/other")], "jwks", id="jwks"),
        pytest.param([], [(f"{USER}.tls", {"ca": "/etc/other.pem"})], "tls", id="tls"),
        pytest.param([(f"{USER}.max_age_s", 3600.0)], [(f"{USER}.max_age_s", 4000.0)], "max_age_s", id="max-age"),
        pytest.param([], [(f"{USER}.profile", "oidc-id-token")], "kind", id="kind"),
        pytest.param([], [(f"{USER}.profile", "oidc-id-token")], "profile", id="profile"),
        pytest.param([], [(f"{USER}.subject_prefix", "")], "subject_prefix", id="subject-prefix"),
        pytest.param([], [(f"{USER}.scope_from.claim", "groups")], "scope_from.claim", id="claim"),
        pytest.param(
            [(MAP, {"documents": ["docs.read"]})],
            [(MAP, {"documents": ["docs.read", "crm.read"]})],
            "scope_from.map",
            id="worth-more",
        ),
        pytest.param([(MAP, {})], [(MAP, {"anything": ["docs.read"]})], "scope_from.map", id="another-value"),
    ],
)
def test_logins_at_an_entry_have_a_ceiling_too(
    fits: list[Change], above: list[Change], field: str, tmp_path: Path
) -> None:
    for name, change in (("fits", fits), ("above", above)):
        (tmp_path / name).mkdir()
        told = [p.field for p in found(tmp_path / name, changed(ENTRY, *change), PLATFORM)]
        assert (f"entry.issuers[0].{field}" in told) is (name == "above"), told


@pytest.mark.parametrize(
    ("word", "change", "field"),
    [
        ("observe_until", ("inbound.routes.0.observe_until", "2026-12-01"), "inbound.routes[0].observe_until"),
        ("observe_until", ("outbound.routes.0.observe_until", "2026-12-01"), "outbound.routes[0].observe_until"),
        ("observe_until", ("outbound.observe", ["a"]), "outbound.observe"),
        ("allow_self", ("outbound.routes.0.token", "self"), "outbound.routes[0].token"),
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
def test_a_loosening_is_forbidden_unless_the_platform_names_it(
    word: str, change: Change, field: str, allowed: bool, tmp_path: Path
) -> None:
    told = found(tmp_path, changed(AGENT, change), changed(PLATFORM, (word, allowed)))
    assert (Problem(field, "is forbidden by the platform", "remove it, or have the platform allow it") in told) is (
        not allowed
    )


@pytest.mark.parametrize("section", ["inbound", "outbound"])
def test_a_loosening_that_is_not_set_is_none(section: str, tmp_path: Path) -> None:
    assert found(tmp_path, changed(AGENT, (f"{section}.routes.0.observe_until", None)), PLATFORM) == []


@pytest.mark.parametrize("value", [["self"], {"self": 1}, 1, "unheard"])
def test_a_way_to_a_token_that_is_none_is_left_to_the_schema(value: object, tmp_path: Path) -> None:
    told = found(tmp_path, changed(AGENT, ("outbound.routes.0.token", value)), PLATFORM)
    assert [problem.field for problem in told] == ["outbound.routes[0].token"]
    assert "platform" not in told[0].wrong


@pytest.mark.parametrize("value", [{"a": {}}, "x", None, ["x"], [None]])
def test_routes_of_another_form_are_left_to_the_schema(value: object, tmp_path: Path) -> None:
    told = found(tmp_path, changed(AGENT, ("outbound.routes", value)), PLATFORM)
    assert told
    assert not [problem for problem in told if "platform" in problem.wrong]


def test_an_empty_platform_file_allows_nobody(tmp_path: Path) -> None:
    assert {problem.field for problem in found(tmp_path, AGENT, {})} == {"issuers[0].issuer", "exchange.issuer"}


def test_what_the_environment_says_is_below_the_ceiling_too(tmp_path: Path) -> None:
    routes = str(changed(AGENT, ("inbound.routes.0.linger_s", 31.0))["inbound"]["routes"])
    (problem,) = found(tmp_path, AGENT, PLATFORM, SIDECAR__INBOUND__ROUTES=routes)
    field = "inbound.routes[0].linger_s (SIDECAR__INBOUND__ROUTES)"
    assert problem == Problem(field, "is above the platform's ceiling", "write at most 30")


def test_the_environment_of_a_workload_cannot_raise_the_ceiling(tmp_path: Path) -> None:
    (problem,) = found(tmp_path, AGENT, PLATFORM, SIDECAR__PASS_TOKEN="true")
    assert problem.field.startswith("pass_token")  # an unknown setting of the workload's, and not of the platform's


def test_everything_above_the_ceiling_is_told_at_once_beside_other_problems(tmp_path: Path) -> None:
    worst = changed(
        AGENT,
        ("issuers.0.scopes", ["docs.read", "crm.read", "mail.send"]),
        ("inbound.routes.0.pass_token", True),
        ("typo", 1),
        ("exchange.token_endpoint", "https://sts.acme.example/elsewhere"),
    )
    assert {problem.field for problem in found(tmp_path, worst, PLATFORM)} == {
        "issuers[0].scopes",
        "inbound.routes[0].pass_token",
        "typo",
        "exchange.token_endpoint",
    }


def test_two_domains_profile_of_the_partner_must_be_the_platforms(tmp_path: Path) -> None:
    bare = changed(DOMAINS, ("issuers.1.profile", "sts"))
    assert [problem.field for problem in found(tmp_path, bare, PLATFORM)] == ["issuers[1].profile"]
