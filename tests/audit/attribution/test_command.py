import json
from pathlib import Path
from typing import Any

import pytest

from delegation_audit.command import main
from tests.audit.attribution.samples import AGENTS, COMBINED, WRITER, cloudtrail, iam_user

ALICE = '10.0.0.1 - alice [24/Nov/2026:21:04:05 +0000] "GET /{n} HTTP/1.1" 200 12 "-" "python-httpx/0.27"\n'
DELEGATED = json.dumps({"sub": "alice", "act": {"sub": WRITER}, "method": "GET", "path": "/x"}) + "\n"
IMPERSONATED = json.dumps({"sub": "alice", "client_id": "writer-client", "method": "GET", "path": "/x"}) + "\n"


@pytest.fixture
def agents(tmp_path: Path) -> str:
    file = tmp_path / "agents.txt"
    file.write_text(AGENTS)
    return str(file)


def log(tmp_path: Path, content: str, name: str = "access.log") -> str:
    file = tmp_path / name
    file.write_text(content)
    return str(file)


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_an_agent_that_impersonates_is_told_with_evidence(
    tmp_path: Path, agents: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = log(tmp_path, IMPERSONATED * 3 + ALICE.format(n=1) + '{"level":"info","msg":"started"}\nwhat is this\n')
    assert main(["attribution", "--agents", agents, file]) == 1
    out, err = capsys.readouterr()
    assert f"writer  impersonates  medium      3         only the user is named  client_id, sub  {file}:1" in out
    assert "agents that impersonate the user in at least one request: 1 of 1." in out
    assert "requests without an agent, set aside: 1 of 4" in out
    assert f"{file}: json (4), common-log (1); no requests: 1; not understood, and not counted: 1" in out
    assert "exchange the user's token with the agent as the actor" in out
    assert "Limits of this report" in out
    assert err == ""


def test_an_agent_that_delegates_is_fine(tmp_path: Path, agents: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attribution", "--agents", agents, log(tmp_path, DELEGATED)]) == 0
    assert "delegates: 1; the agent is named as the actor beside the user" in capsys.readouterr().out


def test_an_agent_that_does_both_is_mixed(tmp_path: Path, agents: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attribution", "--agents", agents, log(tmp_path, DELEGATED + IMPERSONATED)]) == 1
    out = capsys.readouterr().out
    assert "writer  mixed" in out
    assert "impersonates: only the user is named" in out
    assert "delegates: actor and user are named" in out


def test_without_a_list_what_cannot_be_told_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attribution", log(tmp_path, ALICE.format(n=1))]) == 1
    out = capsys.readouterr().out
    assert "(not named)  cannot tell" in out
    assert "impersonates" not in out
    assert "python-httpx" not in out
    assert main(["attribution", log(tmp_path, DELEGATED)]) == 0


def test_machines_get_every_request_the_agents_and_the_summary(
    tmp_path: Path, agents: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = log(tmp_path, IMPERSONATED + "what is this\n" + DELEGATED + ALICE.format(n=1))
    assert main(["attribution", "--json", "--agents", agents, file]) == 1
    found = document(capsys)
    assert [(one["verdict"], one["agent"], one["place"]) for one in found["requests"]] == [
        ("impersonates", "writer", f"{file}:1"),
        ("delegates", "writer", f"{file}:3"),
        ("no_agent", None, f"{file}:4"),
    ]
    (agent,) = found["agents"]
    assert (agent["agent"], agent["verdict"], agent["requests"]) == ("writer", "mixed", 2)
    assert agent["evidence"]["impersonates"] == {
        "requests": 1,
        "refused": 0,
        "places": [f"{file}:1"],
        "fields": {"client_id, sub": 1},
        "reasons": {"only the user is named": 1},
        "formats": {"json": 1},
    }
    assert found["files"][file] == {"formats": {"json": 2, "common-log": 1}, "no_requests": 0, "not_understood": 1}
    summary = found["summary"]
    assert (summary["impersonating_agents"], summary["mixed"], summary["requests"], summary["no_agent"]) == (1, 1, 3, 1)


def test_a_document_of_a_cloud_is_read_whole(tmp_path: Path, agents: str, capsys: pytest.CaptureFixture[str]) -> None:
    records = [cloudtrail(iam_user("alice"), sourceIPAddress="10.0.3.7"), cloudtrail(iam_user("bob"))]
    file = log(tmp_path, json.dumps({"Records": records}, indent=2), "trail.json")
    assert main(["attribution", "--json", "--agents", agents, file]) == 1
    found = document(capsys)
    assert [one["verdict"] for one in found["requests"]] == ["impersonates", "no_agent"]
    assert found["requests"][1]["place"].endswith(", item 2")


def test_the_operator_names_the_fields_of_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = log(tmp_path, '{"who":"alice","App":"writer"}\n')
    assert main(["attribution", "--user", "who", "--actor", "app", file]) == 0
    assert "writer  delegates" in capsys.readouterr().out


def test_the_operator_adds_a_format(tmp_path: Path, agents: str, capsys: pytest.CaptureFixture[str]) -> None:
    mapping = log(
        tmp_path,
        'name = "own"\ntitle = "own"\nkind = "template"\ntemplates = ["{who} for {user} {request}"]\n'
        '[fields]\nuser = ["user"]\nactor = ["who"]\nrequest = ["request"]\n',
        "own.toml",
    )
    file = log(tmp_path, "writer-client for alice GET /x HTTP/1.1\n")
    assert main(["attribution", "--agents", agents, "--mapping", mapping, file]) == 0
    assert f"{file}: own (1)" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--agents", "--mapping"])
def test_a_file_of_the_operator_that_cannot_be_used_is_a_usage_error(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "absent")
    assert main(["attribution", option, absent, log(tmp_path, DELEGATED)]) == 2
    assert f"{absent}: cannot be read: No such file" in capsys.readouterr().err


def test_more_agents_than_a_table_holds_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (json.dumps({"sub": "alice", "act": {"sub": f"agent-{n}"}}) for n in range(130))
    assert main(["attribution", log(tmp_path, "\n".join(lines))]) == 0
    assert "and 30 more agents; --json lists all" in capsys.readouterr().out


@pytest.mark.parametrize("output", [[], ["--json"]], ids=["table", "json"])
def test_text_in_a_log_does_not_act_on_the_reader(
    output: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"sub": "alice", "act": {"sub": "\x1b[31mwriter\u202e"}, "\x1b[2J": "x", "method": "GET"}
    main(["attribution", log(tmp_path, json.dumps(line)), *output])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[31mwriter" in out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(
            "no log at all\n", "no entry is a request; entries of another kind: 0, not understood: 1", id="no-log"
        ),
        pytest.param(
            '{"msg":"x"}\n', "no entry is a request; entries of another kind: 1, not understood: 0", id="events"
        ),
        pytest.param("", "no entry is a request", id="empty"),
        pytest.param(None, "No such file", id="absent"),
    ],
)
def test_what_cannot_be_judged_is_a_usage_error(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "absent") if content is None else log(tmp_path, content)
    assert main(["attribution", file]) == 2
    assert said in capsys.readouterr().err


def test_a_document_without_requests_is_still_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attribution", "--json", log(tmp_path, '{"msg":"x"}\n')]) == 2
    found = document(capsys)
    assert (found["requests"], found["agents"]) == ([], [])


@pytest.mark.parametrize("output", [[], ["--json"]], ids=["table", "json"])
def test_a_token_in_a_log_goes_no_further(
    output: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = f"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.{'x' * 86}"
    lines = [
        {"user": "alice", "act": {"sub": f"w {token}"}, "method": "GET", "path": f"/reset/{token}"},
        {"user": f"token {token}", "actor": token, "method": "GET", "path": "/"},
    ]
    main(["attribution", log(tmp_path, "\n".join(map(json.dumps, lines))), *output])
    out = capsys.readouterr().out
    assert "token:" in out
    assert token[:40] not in out


def test_a_combined_line_with_a_listed_user_agent_is_an_agents(
    tmp_path: Path, agents: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [COMBINED.format(ip="10.9.9.9", user="alice", agent=agent) for agent in ("writer/1.0", "Mozilla/5.0")]
    assert main(["attribution", "--json", "--agents", agents, log(tmp_path, "\n".join(lines))]) == 1
    assert [one["verdict"] for one in document(capsys)["requests"]] == ["impersonates", "no_agent"]
