"""A faulty platform file allows nothing: every fault is reported, with the word platform before its field."""

from pathlib import Path

import pytest

from delegation_core.errors import ConfigError
from sidecar.check import check
from sidecar.config import load_sidecar
from sidecar.config.platform_file import load_platform
from tests.config.documents import ABSENT, EXAMPLES, changed, example, written

PLATFORM = example("platform")


def test_what_is_not_written_is_off(tmp_path: Path) -> None:
    platform = load_platform(written(tmp_path, ""))
    assert (platform.issuers, platform.logins, platform.linger_s) == ({}, {}, 0.0)
    words = (platform.allow_self, platform.pass_token, platform.passthrough, platform.inject, platform.observe_until)
    assert not any((*words, platform.refuse_other_listeners, platform.connect, platform.connect_without_handle))
    assert not platform.federate


def test_the_environment_of_the_process_is_the_workloads_and_raises_no_ceiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDECAR__PASS_TOKEN", "true")
    assert not load_platform(written(tmp_path, "")).pass_token


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param(("isuers", []), "isuers", id="unknown-key"),
        pytest.param(("issuers.0.scope", []), "issuers[0].scope", id="unknown-key-inside"),
        pytest.param(("allow_self", "yes"), "allow_self", id="text-for-a-word"),
        pytest.param(("linger_s", True), "linger_s", id="word-for-a-number"),
        pytest.param(("linger_s", -1), "linger_s", id="negative"),
        pytest.param(("issuers.0.scopes", ABSENT), "issuers[0].scopes", id="no-scopes"),
        pytest.param(("issuers.0.tls", ABSENT), "issuers[0].tls", id="nobody-answers-for-the-keys"),
        pytest.param(("issuers.0.profile", "oidc-id-token"), "issuers[0].profile", id="login-profile"),
        pytest.param(("issuers", PLATFORM["issuers"][:1] * 2), "issuers", id="issuer-twice"),
        pytest.param(("login_issuers", PLATFORM["login_issuers"] * 2), "login_issuers", id="login-issuer-twice"),
        pytest.param(("login_issuers.0.profile", "keycloak"), "login_issuers[0].kind", id="no-kind"),
    ],
)
def test_a_fault_is_told_and_nothing_can_be_loaded(change: tuple[str, object], field: str, tmp_path: Path) -> None:
    path = written(tmp_path, changed(PLATFORM, change))
    with pytest.raises(ConfigError) as error:
        load_sidecar(EXAMPLES / "agent.yaml", {}, path)
    assert f"platform {field}" in {problem.field for problem in error.value.problems}
    assert all(problem.fix for problem in error.value.problems)


def test_a_platform_file_that_is_not_there_is_no_ceiling_at_all_and_refused(tmp_path: Path) -> None:
    (problem,) = check(EXAMPLES / "agent.yaml", {}, platform=tmp_path / "gone.yaml").problems
    assert problem.field == f"platform {tmp_path / 'gone.yaml'}"
    assert problem.wrong.startswith("cannot be read")


def test_faults_of_both_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "platform").mkdir()
    path = written(tmp_path, changed(example("agent"), ("typo", 1)))
    ceiling = written(tmp_path / "platform", changed(PLATFORM, ("other", 1)))
    assert {problem.field for problem in check(path, {}, platform=ceiling).problems} == {"typo", "platform other"}


def test_a_token_service_has_no_platform_file() -> None:
    (problem,) = check(EXAMPLES / "sts.yaml", {}, sts=True, platform=EXAMPLES / "platform.yaml").problems
    assert problem.field == "--platform"
