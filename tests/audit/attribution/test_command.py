import json
from pathlib import Path

import pytest

from sidecar.cli import main

ALICE = '10.0.0.1 - alice [24/Nov/2026:21:04:05 +0000] "GET /{n} HTTP/1.1" 200 12 "-" "python-httpx/0.27"\n'
DELEGATED = '{"sub":"alice","act":{"sub":"writer"},"path":"/x"}\n'


def log(tmp_path: Path, text: str) -> str:
    file = tmp_path / "access.log"
    file.write_text(text)
    return str(file)


def test_three_logs_that_say_alice_say_impersonating(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = log(tmp_path, "".join(ALICE.format(n=n) for n in range(3)))
    assert main(["audit", "attribution", file]) == 1
    out, err = capsys.readouterr()
    assert "impersonating: 3 of 3 requests; the log does not name the agent" in out
    assert f"GET /2   impersonating  alice  -      -       {file}:3" in out
    assert "Limits of this report:" in out
    assert "python-httpx" not in out
    assert err == ""


def test_logs_that_name_the_actor_are_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "attribution", log(tmp_path, DELEGATED)]) == 0
    assert "delegating: 1 of 1 request;" in capsys.readouterr().out


def test_machines_get_every_request_and_the_summary_in_one_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = log(tmp_path, ALICE.format(n=1) + "what is this\n" + DELEGATED)
    assert main(["audit", "attribution", "--json", file]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [(one["attribution"], one["place"]) for one in document["requests"]] == [
        ("impersonating", f"{file}:1"),
        ("delegating", f"{file}:3"),
    ]
    summary = document["summary"]
    assert (summary["requests"], summary["impersonating"], summary["not_understood"]) == (2, 1, 1)


def test_many_requests_are_shown_by_whom_they_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = log(tmp_path, "".join(ALICE.format(n=n) for n in range(100)) + DELEGATED)
    assert main(["audit", "attribution", file]) == 1
    out = capsys.readouterr().out
    assert "100       impersonating  alice  -       -" in out
    assert "GET /7" not in out


def test_more_names_than_a_table_holds_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = log(tmp_path, "".join(f'{{"user":"u{n}"}}\n' for n in range(1100)))
    assert main(["audit", "attribution", file]) == 1
    assert "and 1060 more; --json lists every request" in capsys.readouterr().out


def test_text_in_a_log_does_not_act_on_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["audit", "attribution", log(tmp_path, '{"user":"\\u001b[31malice\\u202e"}\n')])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\u{1b}[31malice" in out


def test_the_operator_names_the_fields_of_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = log(tmp_path, '{"who":"alice","App":"writer"}\n')
    assert main(["audit", "attribution", "--user", "who", "--actor", "app", file]) == 0
    assert "delegating: 1 of 1 request" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("no log at all\n", "no line is a request; lines not understood: 1", id="no-log"),
        pytest.param("", "no line is a request; lines not understood: 0", id="empty"),
        pytest.param(None, "No such file", id="absent"),
    ],
)
def test_what_cannot_be_judged_is_a_usage_error(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "absent") if text is None else log(tmp_path, text)
    assert main(["audit", "attribution", file]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("output", [[], ["--json"]], ids=["table", "json"])
def test_a_token_in_a_log_goes_no_further(
    output: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = f"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.{'x' * 86}"
    lines = [{"user": "alice", "method": "GET", "path": f"/reset/{token}"}, {"user": f"token {token}", "path": "/"}]
    main(["audit", "attribution", log(tmp_path, "\n".join(map(json.dumps, lines))), *output])
    out = capsys.readouterr().out
    assert "/reset/" in out
    assert token[:40] not in out
