from importlib.util import find_spec

import pytest

from delegation_audit.chains import clickhouse
from delegation_audit.chains.clickhouse import EngineError, client_options, open_engine
from delegation_audit.command import main
from delegation_core.console.extras import needs

ENVIRONMENT = {"CLICKHOUSE_USER": "auditor", "CLICKHOUSE_PASSWORD": "hunter2", "SSL_CERT_FILE": "/ca.pem"}


def test_an_engine_is_reached_with_tls_as_the_user_of_the_environment() -> None:
    options = client_options("clickhouse://ch.example/logs", ENVIRONMENT)
    assert (options["interface"], options["port"], options["ca_cert"]) == ("https", 8443, "/ca.pem")
    assert (options["host"], options["database"]) == ("ch.example", "logs")
    assert (options["username"], options["password"]) == ("auditor", "hunter2")
    assert options["query_retries"] == 0


def test_without_tls_only_if_the_url_says_so() -> None:
    options = client_options("clickhouse://ch.example?secure=false", {})
    assert (options["interface"], options["port"], options["database"]) == ("http", 8123, "default")
    assert client_options("clickhouse://ch.example:9?secure=true", {})["interface"] == "https"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        pytest.param("clickhouse://auditor:hunter2@ch.example", "CLICKHOUSE_PASSWORD", id="password"),
        pytest.param("clickhouse://auditor@ch.example", "CLICKHOUSE_USER", id="user"),
        pytest.param("postgres://ch.example", "write clickhouse://", id="another-engine"),
        pytest.param("clickhouse:///logs", "write clickhouse://", id="no-host"),
        pytest.param("clickhouse://ch.example:port", "not a URL", id="no-port"),
        pytest.param("clickhouse://ch.example?verify=false", "the only one is secure=false", id="unverified"),
        pytest.param("clickhouse://ch.example?secure=false&secure=true", "the only one is secure=false", id="both"),
    ],
)
def test_another_url_is_refused_and_not_told(url: str, told: str) -> None:
    with pytest.raises(EngineError) as refused:
        client_options(url, ENVIRONMENT)
    assert told in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["a b", "a;DROP DATABASE logs", "1a", "a.b", "x" * 65, "a`", "ä"])
def test_a_name_of_a_scratch_database_is_no_sql(name: str) -> None:
    with pytest.raises(EngineError, match="--scratch"), open_engine("chdb:", scratch=name):
        pass


def test_without_ibis_the_command_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clickhouse, "find_spec", lambda name: None if name == "ibis" else find_spec(name))
    assert main(["chains", "--engine", "chdb:", "--table", "records"]) == 2
    assert capsys.readouterr().err == (f"sidecar audit chains: --engine {needs('clickhouse')}\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param([], "or an engine by --engine and --table", id="nothing"),
        pytest.param(
            ["records/", "--engine", "chdb:", "--table", "t"], "or an engine by --engine and --table", id="both"
        ),
        pytest.param(["--engine", "chdb:"], "need each other", id="no-table"),
        pytest.param(["records/", "--table", "t"], "need each other", id="no-engine"),
        pytest.param(["records/", "--scratch", "s"], "need each other", id="scratch-without-engine"),
    ],
)
def test_files_or_an_engine_are_asked(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chains", *options]) == 2
    assert told in capsys.readouterr().err
