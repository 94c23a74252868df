from pathlib import Path
from typing import Any

import pytest

from sidecar.config import load_sts
from sidecar.sts.keygen import add_key
from sidecar.sts.rules import ANYONE, LoginKind, SubjectMatch
from tests.config.documents import ABSENT, EXAMPLES, changed, example, problems, written

STS = example("sts")
LOGIN = "https://login.acme.example"


def test_a_star_is_anyone_and_nothing_else_is_a_pattern(tmp_path: Path) -> None:
    subjects = [{"issuer": LOGIN, "subject": "acme-*"}, {"issuer": LOGIN, "subject": "*"}]
    settings = load_sts(written(tmp_path, changed(STS, ("rules.0.subjects", subjects))), {})
    assert settings.policy.rules[0].subjects == {SubjectMatch(LOGIN, "acme-*"), SubjectMatch(LOGIN, ANYONE)}


@pytest.mark.parametrize(
    ("changes", "act_iss"),
    [
        ([], None),
        ([("profile", "rfc8693")], None),
        ([("profile", "actor-profile-01")], STS["issuer"]),
        ([("profile", "actor-profile-01"), ("act_iss", "spiffe://acme.example")], "spiffe://acme.example"),
    ],
)
def test_tokens_follow_the_profile_that_the_settings_name(
    changes: list[tuple[str, Any]], act_iss: str | None, tmp_path: Path
) -> None:
    assert load_sts(written(tmp_path, changed(STS, *changes)), {}).policy.act_iss == act_iss


def test_the_kind_of_a_login_token_follows_from_its_profile() -> None:
    assert load_sts(EXAMPLES / "sts.yaml", {}).policy.login_issuers[LOGIN].kind is LoginKind.ACCESS_TOKEN


def test_the_kind_of_a_login_token_can_be_told(tmp_path: Path) -> None:
    told = changed(STS, ("login_issuers.0.profile", "keycloak"), ("login_issuers.0.kind", "id_token"))
    assert load_sts(written(tmp_path, told), {}).policy.login_issuers[LOGIN].kind is LoginKind.ID_TOKEN


def test_the_exchange_rate_can_be_set_and_never_below_one_a_second(tmp_path: Path) -> None:
    settings = load_sts(written(tmp_path, changed(STS, ("exchange_rate", {"burst": 5, "per_s": 1}))), {})
    assert (settings.rate.burst, settings.rate.per_s) == (5, 1.0)
    (problem,) = problems(tmp_path, changed(STS, ("exchange_rate", {"per_s": 0.5})), sts=True)
    assert problem.field == "exchange_rate.per_s"


def test_the_keys_of_every_login_issuer_and_foreign_issuer_are_fetched() -> None:
    settings = load_sts(EXAMPLES / "sts.yaml", {})
    issuers = [*settings.policy.login_issuers, *settings.policy.foreign_issuers]
    assert [keys.issuer for keys in settings.login_keys] == issuers == [LOGIN, "https://sts.partner.example"]


def test_two_listeners_may_each_take_any_free_port(tmp_path: Path) -> None:
    free = changed(STS, ("listen", "127.0.0.1:0"), ("probe", {"listen": "127.0.0.1:0"}))
    assert problems(tmp_path, free, sts=True) == []


def test_keys_are_checked_where_they_are_on_this_machine(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    settings = changed(STS, ("keys", {"directory": str(keys)}))
    assert problems(tmp_path, settings, sts=True) == []
    keys.mkdir()
    assert [problem.field for problem in problems(tmp_path, settings, sts=True)] == [str(keys)]
    assert add_key(keys, now=0)
    assert problems(tmp_path, settings, sts=True) == []


DEV_LOGIN = {
    **{name: value for name, value in STS["login_issuers"][0].items() if name != "tls"},
    "issuer": "http://127.0.0.1:7300",
    "jwks": "http://127.0.0.1:7300/jwks",
    "subject_prefix": "dev:",
}
ALONE: tuple[tuple[str, Any], ...] = ("foreign_issuers", []), ("rules", STS["rules"][:2])
AT_HOME = (*ALONE, ("login_issuers.0.jwks", "http://127.0.0.1:7300/keys"), ("login_issuers.0.tls", ABSENT))


def test_a_key_can_be_made_at_the_start_where_nothing_hangs_on_it(tmp_path: Path) -> None:
    ephemeral = changed(STS, ("keys", "ephemeral"), *AT_HOME)
    assert load_sts(written(tmp_path, ephemeral), {}).key_directory is None


def test_an_issuer_on_loopback_is_no_production_one_for_being_https(tmp_path: Path) -> None:
    at_home = changed(
        STS,
        ("keys", "ephemeral"),
        ("login_issuers.0.issuer", "https://127.0.0.1:7300"),
        ("login_issuers.0.jwks", "https://127.0.0.1:7300/keys"),
        ("entries", []),
        ("foreign_issuers", []),
        ("rules", []),
    )
    assert problems(tmp_path, at_home, sts=True) == []


def test_issuers_on_loopback_may_stand_beside_each_other(tmp_path: Path) -> None:
    both = changed(changed(STS, *AT_HOME), ("login_issuers.0.subject_prefix", "a:"))
    both["login_issuers"].append(DEV_LOGIN)
    assert problems(tmp_path, both, sts=True) == []


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        pytest.param([("targets", STS["targets"] * 2)], "targets", "listed twice", id="target-twice"),
        pytest.param([("entries", STS["entries"] * 2)], "entries", "listed twice", id="entry-twice"),
        pytest.param([("login_issuers", STS["login_issuers"] * 2)], "login_issuers", "listed twice", id="issuer-twice"),
        pytest.param([("login_issuers.0.profile", "keycloak")], "login_issuers[0].kind", "is missing", id="no-kind"),
        pytest.param([("login_issuers.0.kind", "id_token")], "login_issuers[0].kind", "not the kind", id="other-kind"),
        pytest.param([("login_issuers.0.tls", ABSENT)], "login_issuers[0].tls", "it is missing", id="unproven"),
        pytest.param(
            [("login_issuers", [STS["login_issuers"][0], DEV_LOGIN])],
            "login_issuers[1].issuer",
            "development only",
            id="development-beside-production",
        ),
        pytest.param([("keys", "ephemeral")], "keys", "development", id="keys-for-development"),
        pytest.param([("listen", "127.0.0.1:7090")], "listen", "port of probe", id="one-port"),
        pytest.param(
            [("records", {"countersign": {"issuer": "https://x", "peer": "spiffe://acme.example/sts"}})],
            "records.countersign",
            "is for sidecars",
            id="countersigned-by-another",
        ),
        pytest.param(
            [("rules.0.audience", "spiffe://acme.example/x")], "rules[0].audience", "not a target", id="no-target"
        ),
        pytest.param([("rules.0.scopes", ["x"])], "rules[0].scopes", "does not have", id="unknown-scope"),
        pytest.param([("issuer", "https://sts.example/?x")], "issuer", "not an https URL", id="issuer-with-query"),
        pytest.param(
            [("act_iss", "spiffe://acme.example")], "act_iss", "has no effect", id="namespace-without-profile"
        ),
        pytest.param([("profile", "actor-profile-00")], "profile", "", id="unknown-profile"),
        pytest.param([("token_life_s", 0)], "token_life_s", "outside", id="no-life"),
        pytest.param([("rules.0.subjects", "*")], "rules[0].subjects", "is not a list", id="star-for-a-list"),
        pytest.param([("keys", {})], "keys.directory", "is missing", id="no-directory"),
        pytest.param([("keys", "none")], "keys", "has an unknown value", id="no-keys"),
        pytest.param([("identity", {})], "identity.workload_api", "is missing", id="no-identity"),
        pytest.param([("typo", 1)], "typo", "is not a setting", id="unknown"),
    ],
)
def test_a_contradiction_is_told_with_its_field_and_fix(
    change: list[tuple[str, Any]], field: str, words: str, tmp_path: Path
) -> None:
    found = problems(tmp_path, changed(STS, *change), sts=True)
    assert [problem for problem in found if problem.field == field and words in problem.wrong], found
    assert all(problem.fix for problem in found)
