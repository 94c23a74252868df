"""Metadata of a protected resource: where it is, and which URLs cannot be one."""

from __future__ import annotations

import json

import pytest

from delegation_core.resource_metadata import ProtectedResource

SERVERS = ("https://sts.acme.example",)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://h.example/mcp", "/mcp"),
        ("https://h.example:8443/a/b", "/a/b"),
        ("http://127.0.0.1:7080/mcp", "/mcp"),
        ("https://h.example/", ""),
        ("https://h.example", ""),
    ],
)
def test_it_is_between_the_host_and_the_path(url: str, path: str) -> None:
    resource = ProtectedResource(url, SERVERS)
    origin = url[: url.index("/", 8)] if "/" in url[8:] else url
    assert resource.metadata_url == f"{origin}/.well-known/oauth-protected-resource{path}"
    assert json.loads(resource.document(["b", "a"]))["scopes_supported"] == ["a", "b"]


@pytest.mark.parametrize(
    "url",
    [
        "/mcp",
        "ftp://h.example/mcp",
        "https://h.example/mcp?x=1",
        "https://h.example/mcp#x",
        "https://u@h.example/mcp",
        'https://h.example/m"cp',
        "https://h.example/m\\cp",
        "https://h.example/m cp",
        "https://h.example/mcp\n",
        "https://h.example/m^p",
        "https://h.example/é",
    ],
)
def test_a_url_that_a_challenge_cannot_hold_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="plain URL"):
        ProtectedResource(url, SERVERS)


def test_somebody_issues_its_tokens() -> None:
    with pytest.raises(ValueError, match="authorization_servers is empty"):
        ProtectedResource("https://h.example/mcp", ())
