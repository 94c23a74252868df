"""Settings for production: each is one that `sidecar check` takes, and holds what was seen."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sidecar.check import check
from sidecar_dev import run_settings
from sidecar_dev.production_settings import seen_in, text_of
from tests.dev.test_run_settings import AGENT, GRPC, SPEAKING, TOOLS, places

SEEN = {
    ("outbound", "crm", "allow"): Counter({"tools/call:search": 3}),
    ("outbound", "docs", "allow"): Counter({"tools/call:other": 1, "tools/list": 1}),
    ("outbound", "docs", "deny"): Counter({"tools/call:delete\n": 2}),
    ("inbound", "agent", "allow"): Counter({"POST /ask": 1}),
    ("inbound", "docs-mcp", "allow"): Counter({"tools/list": 1}),
}
CONFIGURED = {"crm", "crm-mcp", "post", "post-a2a"}


@pytest.mark.parametrize("name", ["agent", "crm", "docs", "post"])
def test_every_text_is_one_that_is_taken_and_names_nothing_of_the_run(tmp_path: Path, name: str) -> None:
    files = run_settings.files(places(tmp_path, SPEAKING), replace(AGENT, may_call=tuple(SPEAKING)), SPEAKING)
    text = text_of(name, files[name], SEEN, configured=CONFIGURED)
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert check(path, {}).problems == []
    assert str(tmp_path) not in text
    assert "127.0.0.1:2" not in text


def test_operations_are_those_seen_and_comments_say_what_was_refused(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, SPEAKING), replace(AGENT, may_call=tuple(SPEAKING)), SPEAKING)
    text = text_of("agent", files["agent"], SEEN, configured=CONFIGURED)
    made = yaml.safe_load(text)
    assert made["inbound"]["routes"][0]["match"]["methods"] == ["POST"]
    assert made["inbound"]["routes"][0]["may_call"] == ["crm", "docs", "post"]
    routes = {route["name"]: route for route in made["outbound"]["routes"]}
    assert routes["crm"]["operations"] == [{"allow": ["tools/call:search", "tools/list"]}]
    unasked = yaml.safe_load(text_of("agent", files["agent"], SEEN))["outbound"]["routes"][0]
    assert (unasked["name"], unasked["operations"]) == ("crm", [{"allow": ["tools/call:search"]}])
    assert routes["docs"]["operations"] == [{"allow": ["tools/call:*", "tools/list"]}]
    assert routes["post"]["operations"] == [{"allow": ["message/send"]}]
    assert "mail" not in routes
    for line in (
        "# the route mail is left out: nothing was allowed there in the run",
        "# allowed in the run: POST /ask (1)",
        "# allowed in the run: tools/call:search (3)",
        "# refused in the run: tools/call:delete? (2)",
    ):
        assert line in text


def test_services_of_plain_http_are_printed_too(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, TOOLS), AGENT, TOOLS)
    path = tmp_path / "settings.yaml"
    text = text_of("mail", files["mail"], {("inbound", "mail", "allow"): Counter({"GET /x": 1})})
    assert "exchange" not in yaml.safe_load(text)  # it calls nobody
    path.write_text(text)
    assert check(path, {}).problems == []


def test_a_sidecar_that_nobody_asked_anything_allows_nothing(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, TOOLS), AGENT, TOOLS)
    made = yaml.safe_load(text_of("agent", files["agent"], {}))
    assert (made["inbound"]["routes"], made["outbound"]["routes"]) == ([], [])


def test_what_was_seen_is_counted_by_route_and_decision(tmp_path: Path) -> None:
    usual = {"event": "request", "direction": "inbound", "route": "a", "decision": "allow", "method": "GET"}
    records = [
        {**usual, "op": None, "path": "/x"},
        {**usual, "op": "tools/list", "path": "/mcp"},
        {**usual, "op": "tools/list", "path": "/mcp"},
        {**usual, "op": "tools/call:other", "path": "/mcp", "decision": "deny"},
        {**usual, "op": None, "path": "/", "route": None},
        {**usual, "op": None, "path": "/", "event": "started"},
    ]
    file = tmp_path / "a.records"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert seen_in(file) == {
        ("inbound", "a", "allow"): Counter({"GET /x": 1, "tools/list": 2}),
        ("inbound", "a", "deny"): Counter({"tools/call:other": 1}),
    }
    assert seen_in(tmp_path / "none.records") == {}


def test_methods_of_grpc_that_were_called_become_operations(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, GRPC), replace(AGENT, may_call=tuple(GRPC)), GRPC)
    seen = Counter({"POST /shop.Mail/Send": 2, "POST /shop.Mail/List": 1, "GET /": 1, "POST /": 1})
    text = text_of("mail", files["mail"], {("inbound", "mail", "allow"): seen})
    (route,) = yaml.safe_load(text)["inbound"]["routes"]
    assert (route["match"], route["protocol"]) == ({"path_prefix": "/"}, "grpc")
    assert route["operations"] == [{"allow": ["shop.Mail/List", "shop.Mail/Send"]}]
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert check(path, {}).problems == []
    nothing = text_of("mail", files["mail"], {("inbound", "mail", "allow"): Counter({"GET /": 1})})
    assert yaml.safe_load(nothing)["inbound"]["routes"] == []
