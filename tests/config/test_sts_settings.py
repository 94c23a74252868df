from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import load_sts
from sidecar.config.record_settings import RecordSettings
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar.sts.rate import RateSettings
from sidecar.sts.schedule import KeyLags
from tests.config.documents import EXAMPLES

RUNNING = load_sts(EXAMPLES / "sts.yaml", {})


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="the same"),
        pytest.param(
            {"policy": replace(RUNNING.policy, rules=(), foreign_issuers={}, token_life_s=60)}, id="another policy"
        ),
        pytest.param({"login_keys": ()}, id="a login issuer less"),
    ],
)
def test_a_policy_can_change_while_the_service_runs(changes: dict[str, Any]) -> None:
    assert RUNNING.needs_restart(replace(RUNNING, **changes)) == []


def test_an_issuer_more_needs_a_restart() -> None:
    fewer = replace(RUNNING, login_keys=())
    assert [problem.field for problem in fewer.needs_restart(RUNNING)] == ["login_issuers", "foreign_issuers"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"policy": replace(RUNNING.policy, issuer="https://sts2.acme.example")}, "issuer", id="issuer"),
        pytest.param({"identity": WorkloadApiSettings(address="unix:///other.sock")}, "identity", id="identity"),
        pytest.param({"server": replace(RUNNING.server, port=1)}, "listen", id="listener"),
        pytest.param({"key_directory": None}, "keys", id="keys"),
        pytest.param({"key_lags": KeyLags(mount_lag_s=1)}, "keys", id="times of keys"),
        pytest.param({"rate": RateSettings(burst=1)}, "exchange_rate", id="exchange rate"),
        pytest.param({"actor_rate": RateSettings(burst=1)}, "actor_rate", id="actor rate"),
        pytest.param({"introspection": RateSettings()}, "introspection", id="introspection"),
        pytest.param({"records": RecordSettings(file=Path("/x"))}, "records", id="records"),
        pytest.param(
            {"login_keys": (replace(RUNNING.login_keys[1], url="https://sts.partner.example/other"),)},
            "foreign_issuers",
            id="a foreign issuer's keys elsewhere",
        ),
        pytest.param(
            {"login_keys": (replace(RUNNING.login_keys[0], url="https://login.acme.example/other"),)},
            "login_issuers",
            id="a login issuer's keys elsewhere",
        ),
    ],
)
def test_what_cannot_change_is_named_with_its_fix(changes: dict[str, Any], field: str) -> None:
    (problem,) = RUNNING.needs_restart(replace(RUNNING, **changes))
    assert (problem.field, problem.fix) == (field, "restart it")
