from __future__ import annotations

import pytest

from delegation_agent import ConfigurationError, Outbound, headers, serving
from delegation_agent.outbound import VARIABLE, bypasses_proxy, environment_proxy

SIDECAR = "http://127.0.0.1:7080"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url",
    [SIDECAR, f"{SIDECAR}/crm/customers?q=1", "HTTP://127.0.0.1:7080/crm"],
)
def test_a_call_to_the_sidecar_gets_the_handle(url: str) -> None:
    assert headers(url, outbound=SIDECAR) == {}
    with serving("alice"):
        assert headers(url, outbound=SIDECAR) == {"Delegation-Handle": "alice"}


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:7080/crm",
        "http://127.0.0.1:7081/crm",
        "http://127.0.0.1/crm",
        "http://127.0.0.2:7080/crm",
        "http://localhost:7080/crm",
        "http://127.0.0.1.evil.example:7080/crm",
        "http://evil.example/?http://127.0.0.1:7080",
        "http://127.0.0.1:7080@evil.example/",
        "http://evil.example@127.0.0.1:7080/",
        "http://127.0.0.1:7080\\@evil.example/",
        "http://127.0.0.1:7080\t/",
        " http://127.0.0.1:7080/",
        "http://[127.0.0.1:7080/",
        "//127.0.0.1:7080/",
        "/crm",
        "",
    ],
)
def test_no_other_call_gets_it(url: str) -> None:
    with serving("alice"):
        assert headers(url, outbound=SIDECAR) == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://localhost", "http://LOCALHOST:80/"),
        ("http://[::1]:7080/", "http://[::1]:7080/crm"),
        ("http://127.0.0.1:80", "http://127.0.0.1/crm"),
    ],
)
def test_an_address_has_one_meaning_in_each_of_its_spellings(one: str, other: str) -> None:
    with serving("alice"):
        assert headers(other, outbound=one) != {}


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_no_handle_is_given_out_where_another_proxy_would_get_it(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUEST_METHOD", raising=False)  # in CGI, HTTP_PROXY is a caller's header
    monkeypatch.setenv(variable.lower(), "http://proxy.example:3128")
    with serving("alice"):
        with pytest.raises(ConfigurationError, match=r"add 127\.0\.0\.1 to NO_PROXY"):
            headers(f"{SIDECAR}/crm", outbound=SIDECAR)
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        assert headers(f"{SIDECAR}/crm", outbound=SIDECAR) == {"Delegation-Handle": "alice"}
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv(variable.lower(), SIDECAR)
        assert headers(f"{SIDECAR}/crm", outbound=SIDECAR) == {"Delegation-Handle": "alice"}


def test_the_variable_names_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, SIDECAR)
    with serving("alice"):
        assert headers(f"{SIDECAR}/crm") != {}
        assert headers(f"{SIDECAR}/crm", outbound="http://127.0.0.1:7081") == {}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (None, "SIDECAR_OUTBOUND_URL is not set: write the sidecar's outbound address, such as http://127.0.0.1:7080"),
        ("", "outbound is not set"),
        ("https://127.0.0.1:7080", "is not plain http"),
        ("127.0.0.1:7080", "is not plain http"),
        ("http://alice:secret@127.0.0.1:7080", "is not plain http"),
        ("http://127.0.0.1:70800", "is not a URL"),
        ("http://sidecar.example:7080", "a handle never leaves the machine; write the sidecar's address"),
        ("http://10.0.0.1:7080", "is not on loopback"),
        ("http://", "is not on loopback"),
        ("http://127.0.0.1:7080/crm", "remove the path, so that it reads http://127.0.0.1:7080"),
        ("http://127.0.0.1:7080?a", "remove the path"),
    ],
)
def test_an_unusable_address_is_an_error_that_names_the_fix_and_quotes_nothing(url: str | None, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Outbound(url)
    assert told in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:7080", "127.0.0.1:7080", "http://127.0.0.1:7080/"])
def test_the_environments_proxy_may_be_the_sidecar(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    found = environment_proxy()
    assert found is not None
    assert found.startswith("http://")
    assert Outbound(SIDECAR).is_proxy(found)
    assert not Outbound("http://127.0.0.1:7081").is_proxy(found)


def test_no_proxy_excepts_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment_proxy() is None
    monkeypatch.setenv("all_proxy", SIDECAR)
    monkeypatch.setenv("no_proxy", "localhost,example.com")
    assert environment_proxy() == SIDECAR
    assert bypasses_proxy("api.example.com")
    assert not bypasses_proxy("crm.mesh")
