"""The calls that ``sidecar dev run`` prints, by the protocol of what they call."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar_dev.printed_calls import address, by_the_user, path, question
from sidecar_dev.run_plan import Service

HTTP = Service(origin="http://127.0.0.1:9001")
GRPC = replace(HTTP, protocol="grpc", host="crm")
SIDECAR = "http://127.0.0.1:7080"


@pytest.mark.parametrize(
    ("service", "where"),
    [
        (HTTP, "http://127.0.0.1:7080/crm"),
        (replace(HTTP, host="crm.test"), "http://crm.test/ with http://127.0.0.1:7080 as its HTTP proxy"),
        (GRPC, "127.0.0.1:7080 by gRPC with the authority crm"),
    ],
)
def test_a_service_is_reached_by_a_prefix_a_host_or_an_authority(service: Service, where: str) -> None:
    assert address("crm", service, SIDECAR) == where


def test_the_users_call_is_one_of_curl_or_of_grpc() -> None:
    header = Path("/tmp/a folder/alice")
    url = "http://127.0.0.1:43393/agent/"
    _, line = by_the_user(HTTP, "alice", header, url)
    assert shlex.split(line) == ["curl", "-H", "@/tmp/a folder/alice", url]
    told, line = by_the_user(GRPC, "alice", header, url)
    assert "as alice: at 127.0.0.1:43393 with the authority crm and the metadata in /tmp/a folder/alice;" in told
    assert line.endswith(" 127.0.0.1:43393 list")


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (replace(HTTP, protocol="mcp", path="/mcp", operations=("tools/list",)), "/mcp"),
        (GRPC, "/"),
        (replace(GRPC, operations=("shop.Customers/Find", "shop.Customers/Delete")), "/shop.Customers/Find"),
        (replace(GRPC, operations=("shop.Customers/*",)), "/shop.Customers/Any"),
    ],
)
def test_a_call_of_grpc_names_a_method_that_is_listed(service: Service, expected: str) -> None:
    assert path(service) == expected


def test_curl_asks_in_the_services_protocol() -> None:
    assert question(HTTP) == ""
    assert "--http2" in shlex.split(question(GRPC))
    assert "tools/list" in question(replace(HTTP, protocol="mcp"))
    assert "SendMessage" in question(replace(HTTP, protocol="a2a"))
