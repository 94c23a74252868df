"""`sidecar explain` on records of a door: what was decided live is judged the same again, allowed and refused."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from delegation_core.records.reading import parse_record
from sidecar.cli import main
from sidecar.config import load_sidecar
from sidecar.explain.explanation import Explanation, explain
from tests.integration.door_world import PAGE, TOOLS, DoorWorld, open_door_world
from tests.integration.test_door import ASK, HELLO, LIST, WELL_KNOWN, call, opens_sessions
from tests.integration.world import FRONT, Record

pytestmark = pytest.mark.integration

GET: Final = {"method": "GET", "message": b""}
STRANGER: Final = {"token": ""}


@pytest.fixture
async def door() -> AsyncIterator[DoorWorld]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_door_world(Path(folder)) as opened:
            opens_sessions(opened)
            yield opened


def judged(record: Record, settings: Path) -> Explanation:
    return explain(parse_record(json.dumps(record).encode()), load_sidecar(settings, {}).policy(FRONT, 0))


# changes of a lawful call → the recorded reason, the check that decides, and if the record's word decides
REFUSED: list[tuple[str, dict[str, Any], str, str, bool]] = [
    ("no listed operation", {"message": call("nothing")}, "operation_refused", "operation", False),
    ("a login worth too little", {"claims": {"scope": "openid"}}, "insufficient_scope", "scope to ask for", False),
    ("another route", {"target": "/hidden/mcp"}, "no_route", "route", False),
    ("no route", {"target": "/else"}, "no_route", "route", False),
    ("a path of ours", {"target": "/.sidecar/subject"}, "no_route", "route", False),
    ("no canonical path", {"target": "/tools//mcp"}, "path_refused", "target", False),
    ("no method of MCP", {"method": "PUT", "message": b""}, "method_refused", "method", False),
    ("metadata is read", {"target": WELL_KNOWN, "method": "POST", **STRANGER}, "method_refused", "method", False),
    ("no token", STRANGER, "no_token", "handle or login", True),
    ("another audience", {"claims": {"aud": "https://api.example"}}, "wrong_audience", "handle or login", True),
    ("another issuer", {"claims": {"iss": "https://else.example"}}, "wrong_issuer", "handle or login", True),
    ("expired", {"claims": {"exp": 1_700_000_000}}, "token_expired", "time left", True),
    ("a handle", {"fields": [("delegation-handle", "x" * 43)]}, "no_request_context", "handle or login", True),
    ("another host", {"host": "other.acme.example"}, "target_denied", "host", True),
    ("another page", {"fields": [("origin", "https://evil.example")]}, "origin_refused", "page", True),
    ("no message", {"message": b"{"}, "operation_malformed", "message", True),
]


async def send(door: DoorWorld, changes: dict[str, Any]) -> None:
    asked = {"message": LIST, "fields": [], "claims": {}, **changes}
    message, fields, claims = asked.pop("message"), asked.pop("fields"), asked.pop("claims")
    await door.send(message, *fields, **{"token": door.token(**claims), **asked})


async def test_each_refusal_at_the_door_is_judged_the_same_again(door: DoorWorld) -> None:
    for count, (what, changes, reason, check, word) in enumerate(REFUSED, 1):
        await send(door, changes)
        record = await door.last(count)
        explanation = judged(record, door.front.settings_path)
        judgement = explanation.judgement
        assert judgement is not None, (what, explanation.verdict())
        assert (what, record["decision"], record["reason"]) == (what, "deny", reason)
        found = (judgement.decided_by, judgement.judged, explanation.agrees)
        assert (what, *found) == (what, check, None if word else reason, True)
        assert judgement.steps[0].saw.endswith("from 127.0.0.1")


async def test_each_call_that_the_door_let_through_is_judged_the_same_again(door: DoorWorld) -> None:
    session = ("Mcp-Session-Id", (await door.send(HELLO)).headers["mcp-session-id"])
    lawful: list[dict[str, Any]] = [
        {"message": call("search")},
        {"fields": [session]},
        {"fields": [session], **GET},
        {"fields": [session], "claims": {"sub": "bob"}},  # permitted, and refused as nobody's session
        {"fields": [("origin", PAGE)]},
    ]
    for changes in lawful:
        await send(door, changes)
    records = await door.front.wait_for_records(1 + len(lawful))
    assert [record["reason"] for record in records] == ["ok", "ok", "ok", "ok", "session_unknown", "ok"]
    for record in records:
        explanation = judged(record, door.front.settings_path)
        judgement = explanation.judgement
        assert judgement is not None
        assert (judgement.judged, judgement.decided_by, explanation.agrees) == ("ok", None, True), record["op"]


async def test_what_the_sidecar_answers_by_itself_is_not_judged(door: DoorWorld) -> None:
    await send(door, {"target": WELL_KNOWN, **GET, **STRANGER})
    await send(door, {"fields": [("origin", PAGE), *ASK.items()], "method": "OPTIONS", "message": b"", **STRANGER})
    for record in await door.front.wait_for_records(2):
        explanation = judged(record, door.front.settings_path)
        assert (record["op"] in {"metadata", "preflight"}, explanation.judgement, explanation.agrees) == (
            True, None, True
        )  # fmt: skip
        assert "answered it by itself" in (explanation.not_judged or "")


async def test_other_settings_judge_a_call_at_the_door_otherwise(door: DoorWorld) -> None:
    await door.send(call("search"))
    record = await door.last(1)
    lawful = yaml.safe_load(door.front.settings_path.read_text())

    def under(**entry: Any) -> Explanation:
        changed = json.loads(json.dumps(lawful))
        operations = entry.pop("operations", None)
        if operations is not None:
            changed["outbound"]["routes"][1]["operations"] = operations
        changed["entry"]["door"].update(entry)
        path = door.world.folder / "other.yaml"
        path.write_text(yaml.safe_dump(changed))
        return judged(record, path)

    assert under().agrees
    narrower = under(operations=[{**TOOLS, "allow": ["tools/list"]}])
    assert narrower.judgement is not None
    assert (narrower.judgement.judged, narrower.judgement.decided_by) == ("operation_refused", "operation")
    elsewhere = under(routes=["hidden"])
    assert elsewhere.judgement is not None
    assert (elsewhere.judgement.judged, elsewhere.judgement.decided_by) == ("no_route", "route")
    without = json.loads(json.dumps(lawful))
    del without["entry"]["door"]
    (path := door.world.folder / "other.yaml").write_text(yaml.safe_dump(without))
    assert judged(record, path).not_judged == "it is a request at a door, and these settings have none"


async def test_the_command_judges_by_the_request_id(door: DoorWorld, capsys: pytest.CaptureFixture[str]) -> None:
    await door.send(call("search"))
    await door.send(call("nothing"))
    records = await door.front.wait_for_records(2)
    file = door.world.folder / "records"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    for record, said in zip(records, ("judged again: the same", "decided by: operation"), strict=True):
        words = ["explain", str(file), "--request", record["request_id"], "--config", str(door.front.settings_path)]
        assert main(words) == 0
        assert said in capsys.readouterr().out
