"""Addresses and URLs in settings: each form that is accepted, and the same with one fact changed."""

import pytest

from sidecar.config.addresses import parse_address, parse_origin, parse_url
from sidecar.config.settings import Address
from sidecar.identity.endpoint import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example", "10.0.0.1", "0.0.0.0", "::", "::2", ""])
def test_any_other_host_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:7080", "127.0.0.1", 7080), ("[::1]:65535", "::1", 65535), ("[0:0::1]:0", "::1", 0), ("a:1", "a", 1)],
)
def test_a_listen_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)


@pytest.mark.parametrize("text", ["127.0.0.1", "a:65536", "::1:80", "a:1 ", ":1", "[127.0.0.1]:1", "[1::2::3]:1"])
def test_anything_else_is_no_listen_address(text: str) -> None:
    with pytest.raises(ValueError, match="address; write "):
        parse_address(text)


@pytest.mark.parametrize("text", ["https://a.example:7443", "https://a.example/", "http://127.0.0.1:1"])
def test_an_origin_is_scheme_host_and_port(text: str) -> None:
    assert parse_origin(text).geturl() == text


@pytest.mark.parametrize("text", ["https://a.example/x", "https://a.example?x", "https://a.example/?"])
def test_an_origin_has_no_path_and_no_query(text: str) -> None:
    with pytest.raises(ValueError, match=r"^holds a path or a query; write scheme"):
        parse_origin(text)


@pytest.mark.parametrize("text", ["https://a.example/x?y", "http://127.0.0.1/x"])
def test_a_url_is_absolute(text: str) -> None:
    assert parse_url(text).geturl() == text


@pytest.mark.parametrize(
    "text", ["", "/x", "ftp://a.example", "https://", "https://u:p@a.example", "https://a.example:x"]
)
def test_anything_else_is_refused_and_never_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="; ") as refused:
        parse_url(text)
    assert "example/" not in str(refused.value).replace("https://host/path", "")
