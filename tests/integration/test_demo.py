"""The demo, judged from outside: nothing of ours is imported; only the command, curl, PyJWT and its files are used."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.integration.refusals import OF_OPERATIONS, REFUSALS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
SIDECAR = Path(sys.executable).with_name("sidecar")
SPIFFE = "spiffe://acme.example"
FRONT, PLANNER, WRITER = (f"{SPIFFE}/agent/{name}" for name in ("front", "planner", "writer"))
CRM = f"{SPIFFE}/tool/crm"


@dataclass(frozen=True)
class Kept:
    """A demo that was kept running: its output, and its folder."""

    process: subprocess.Popen[str]
    said: dict[str, Any]
    folder: Path

    def shell(self, command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command], cwd=self.folder, capture_output=True, text=True, check=True, timeout=30
        ).stdout

    def records(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{name}.records").read_text().splitlines()]

    @property
    def commands(self) -> list[str]:
        commands: list[str] = self.said["kept"]["commands"]
        return commands


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    process = subprocess.Popen(
        [SIDECAR, "demo", "--json", "--keep"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            break
    said = json.loads(text)
    yield Kept(process, said, Path(said["kept"]["folder"]))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    process.stdout.close()


def test_everything_held_and_in_time(kept: Kept) -> None:
    assert kept.said["held"] is True
    assert all(check["held"] for scene in kept.said["scenes"] for check in scene["checks"])
    assert [scene["act"] for scene in kept.said["scenes"]].count("act 1: without sidecars") == 3


def refusal(said: str) -> tuple[int, str] | None:
    """Return status and reason, if the output holds them."""
    status, _, rest = said.partition(" ")
    if said == "no handshake":
        return 0, ""
    return (int(status), rest.partition(" ")[0]) if status.isdigit() and status != "200" else None


def test_every_attack_is_refused_for_its_own_reason_beside_a_twin_that_is_served(kept: Kept) -> None:
    attacker = [scene for scene in kept.said["scenes"] if scene["act"] == "act 2: the attacker"]
    said = {check["title"]: refusal(check["said"]) for scene in attacker for check in scene["checks"]}
    assert {title: told for title, told in said.items() if told} == REFUSALS | OF_OPERATIONS
    for scene in attacker:
        assert "200" in [check["said"] for check in scene["checks"]], scene["title"]


def test_each_callee_recorded_alice_and_the_agent_that_called(kept: Kept) -> None:
    hops = [
        next(r for r in kept.records(name) if r["direction"] == "inbound" and r["peer"] == peer)
        for name, peer in (("planner", FRONT), ("crm", PLANNER), ("writer", PLANNER), ("crm", WRITER))
    ]
    assert [hop["subject"] for hop in hops] == ["alice"] * 4
    assert [hop["op"] for hop in hops] == [
        "SendMessage", "tools/call:read_notes", "SendMessage", "tools/call:read_customer",
    ]  # fmt: skip
    assert [hop["chain"] for hop in hops] == [[FRONT], *([PLANNER, FRONT],) * 2, [WRITER, PLANNER, FRONT]]
    assert all(hop["actor"] == hop["peer"] for hop in hops)
    planning, notes, writing, customer = (set(hop["scope"]) for hop in hops)
    assert planning > writing > customer == notes == {"crm.read"}
    assert len({hop["jti_in"] for hop in hops}) == 4
    assert len({hop["txn"] for hop in hops}) == 1


def test_the_second_tool_is_refused_by_its_name_in_the_record_and_in_what_the_planner_is_told(kept: Kept) -> None:
    (scene,) = (scene for scene in kept.said["scenes"] if scene["title"] == "the same document, the same order")
    assert scene["lines"] == ["operation_refused: the route does not allow this operation (operation_refused)"]
    (record,) = scene["records"]
    told = {key: record[key] for key in ("workload", "direction", "op", "reason", "subject", "chain", "route")}
    assert told == {
        "workload": PLANNER,
        "direction": "outbound",
        "op": "tools/call:export_customers",
        "reason": "operation_refused",
        "subject": "alice",
        "chain": [FRONT],
        "route": "crm",
    }
    metrics = kept.shell(next(command for command in kept.commands if "/metrics" in command))
    assert 'op="tools/call:read_notes"' in metrics
    assert not any(
        record["op"] == "tools/call:export_customers" and record["decision"] == "allow"
        for name in ("planner", "writer", "crm")
        for record in kept.records(name)
        if "op" in record
    )


def test_the_token_verifies_with_the_published_keys_and_names_the_whole_chain(kept: Kept) -> None:
    jwks = json.loads(kept.shell(next(command for command in kept.commands if "/jwks" in command)))
    token = json.loads((kept.folder / "crm.seen").read_text())["headers"]["delegation-token"]
    kid = jwt.get_unverified_header(token)["kid"]
    (key,) = (one for one in jwks["keys"] if one["kid"] == kid)
    claims = jwt.decode(token, jwt.PyJWK(key), algorithms=["ES256"], audience=CRM)
    assert claims["sub"] == "alice"
    assert claims["act"] == {"sub": WRITER, "act": {"sub": PLANNER, "act": {"sub": FRONT}}}
    assert claims["scope"] == "crm.read"
    assert claims["exp"] - claims["iat"] <= 300


def test_the_printed_commands_work(kept: Kept) -> None:
    folder, login, ask, poison = kept.commands[:4]
    answer = json.loads(kept.shell(f"{folder}; {login}; {ask}"))
    assert answer == {"draft": "Globex renews on 2027-01-31."}
    poisoned = json.loads(kept.shell(f"{folder}; {login}; {poison}"))
    assert (poisoned["obeyed"], poisoned["got"]["data"]["reason"]) == ("export_customers", "operation_refused")
    assert 'decision="allow"' in kept.shell(next(command for command in kept.commands if "/metrics" in command))


def test_no_log_and_no_record_holds_a_token_or_a_control_byte(kept: Kept) -> None:
    files = [path for path in kept.folder.iterdir() if path.suffix in {".records", ".log"} and path.stat().st_size]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        assert b"eyJ" not in content, path
        assert not set(content) & (set(range(32)) - {10}) | set(content) & {127}, path


def test_agents_hold_no_token_but_where_the_route_says_so(kept: Kept) -> None:
    for name, may_hold in (("planner", False), ("writer", False), ("crm", True)):
        headers = json.loads((kept.folder / f"{name}.seen").read_text())["headers"]
        assert any(value.startswith("eyJ") for value in headers.values()) is may_hold
        assert len(headers["authorization"]) == len("Bearer ") + 43


def test_each_command_of_the_checks_works_where_it_is_pasted(kept: Kept) -> None:
    """Each is run again while the mesh is kept; only those with the handle end otherwise, as its request is over."""
    tried = [
        (command, check["said"])
        for scene in kept.said["scenes"]
        for check in scene["checks"]
        for command in check["commands"]
    ]
    assert len(tried) > 30
    answers = {}
    for command, said in tried:
        shown = "curl -sD /dev/stderr" + command.removeprefix("curl") if command.startswith("curl ") else command
        ran = subprocess.run(
            ["bash", "-c", f"cd {kept.folder} && {shown}"],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if not command.startswith("curl "):
            assert ran.returncode == (1 if " audit " in command else 0), (command, ran.stderr)  # 1: there are findings
        elif "@handle.header" in command:
            assert "no_request_context" in ran.stderr or "operation_refused" in ran.stderr, command
        else:
            answers[command] = (said.partition(" ")[0], ran.stderr.split()[1] if ran.stderr else "no")
    assert {command: pair for command, pair in answers.items() if pair[0] != pair[1]} == {}


def demo(*arguments: str) -> str:
    environment = {**os.environ, "COLUMNS": "100"}
    finished = subprocess.run(
        [SIDECAR, "demo", *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert finished.returncode == 0, finished.stdout[-2000:]
    assert "\x1b" not in finished.stdout
    return finished.stdout


def test_under_a_pipe_the_story_is_plain_text_of_60_lines_and_80_columns_and_ends_by_itself() -> None:
    lines = demo().splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert len(lines) <= 60
    assert "everything held" in lines[-2]
    assert any("cannot tell" in line and "3 of 3 name alice and no agent" in line for line in lines)
    assert f"    alice asks {FRONT}" in lines
    attacks = [
        line for line in lines if any(reason in line for _, reason in (REFUSALS | OF_OPERATIONS).values() if reason)
    ]
    assert len(attacks) >= len(REFUSALS)


def drawn() -> list[str]:
    """Return the lines of the README's picture, which must load nothing from elsewhere."""
    picture = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\"' )<]*", picture) == ["http://www.w3.org/2000/svg"]
    lines: dict[float, str] = {}
    for place, text in re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>(.*?)</text>', picture):
        lines[float(place)] = lines.get(float(place), "") + html.unescape(text)
    return [line.replace("\xa0", " ").strip() for _, line in sorted(lines.items()) if line.strip("\xa0 \n")]


def test_the_long_form_prints_whole_spiffe_ids_and_commands_that_name_their_folder() -> None:
    text = demo("--verbose")
    assert f"hop 4, for alice, scope crm.read: tools/call:read_customer at {CRM}\n        by {WRITER}" in text
    commands = [line for line in text.splitlines() if line.startswith("  $ ")]
    assert len(commands) > 30
    assert all(line.startswith("  $ cd /") for line in commands)
    assert '"/agent/' not in text
    assert "record {" in text
