import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from delegation_audit.chains.findings import MEANINGS, Kind
from sidecar.cli import main
from tests.audit.evidence import Evidence, lawful, record

RECORDED = [str(file) for file in sorted((Path(__file__).parents[3] / "audit" / "recorded").glob("*.records"))]


def files(tmp_path: Path, told: Evidence) -> list[str]:
    """The evidence as the streams of its workloads."""
    streams: dict[str, list[dict[str, Any]]] = {}
    for one in told.values():
        stream = streams.setdefault(one["run"], [])
        stream.append({**one, "seq": len(stream) + 1})
    names = []
    for number, stream in enumerate(streams.values()):
        file = tmp_path / f"{number}.records"
        file.write_text("".join(f"{json.dumps(one)}\n" for one in stream))
        names.append(str(file))
    return names


def test_a_whole_chain_is_shown_hop_by_hop_with_its_witnesses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "chains", *files(tmp_path, lawful())]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "chain t1, for alice (https://sts.acme.example) (spiffe://acme.example left out)"
    assert " ".join(lines[4].split()) == "3 /agent/writer → /tool/crm crm.read allow 200 ok all three"
    assert lines[-2:] == [
        "1 chain, 3 hops, from 12 records",
        "nothing found: every hop has its witnesses, and they agree",
    ]
    assert err == ""


def test_a_missing_witness_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = lawful()
    del told["caller3"]
    assert main(["audit", "chains", *files(tmp_path, told)]) == 1
    out = capsys.readouterr().out
    assert "MISSING: caller" in out
    assert f"missing_witness (1): {MEANINGS[Kind.MISSING_WITNESS]}" in out
    assert "spiffe://acme.example/agent/writer → spiffe://acme.example/tool/crm: the caller has no record of it" in out


def test_a_missing_hop_is_shown_where_it_must_have_been(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {name: one for name, one in lawful().items() if not name.endswith("2")}
    assert main(["audit", "chains", *files(tmp_path, told)]) == 1
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.endswith("none")]
    assert [line[1:4] for line in shown] == [["/agent/planner", "→", "/agent/writer"]]


def test_machines_get_chains_hops_and_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = lawful()
    told["callee3"].update(decision="deny", reason="insufficient_scope", status=403)
    assert main(["audit", "chains", "--json", *files(tmp_path, told)]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["records"] == 12
    (chain,) = document["chains"]
    assert (chain["chain"], chain["subjects"]) == ("t1", [{"iss": "https://sts.acme.example", "sub": "alice"}])
    hop = chain["hops"][2]
    assert (hop["depth"], hop["jti"], hop["decision"], hop["reason"]) == (2, "j3", "deny", "insufficient_scope")
    assert hop["witnesses"] == {
        "caller": "spiffe://acme.example/agent/writer/3",
        "token_service": "sts/3",
        "callee": "spiffe://acme.example/tool/crm/1",
    }
    (finding,) = document["findings"]
    assert (finding["kind"], finding["chain"]) == ("refused_hop", "t1")
    assert finding["records"] == ["spiffe://acme.example/tool/crm/1"]


def test_kinds_that_are_ignored_are_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = lawful()
    del told["caller3"]
    assert main(["audit", "chains", *files(tmp_path, told), "--ignore", "missing_witness"]) == 0
    assert main(["audit", "chains", *files(tmp_path, told), "--ignore", "no_such_kind"]) == 2
    assert "no_such_kind is not a kind of finding" in capsys.readouterr().err


def test_lines_that_are_no_records_are_named_and_the_rest_is_audited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = files(tmp_path, lawful())
    junk = tmp_path / "junk"
    junk.write_bytes(b"what\n" * 7 + b"x" * (2 << 20))
    assert main(["audit", "chains", *names, str(junk), "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["kind"] == "unreadable"
    assert finding["text"] == f"8 lines are not records: {', '.join(f'{junk}:{n}' for n in range(1, 6))}, …"


@pytest.mark.parametrize("text", ["", "no record at all\n"], ids=["empty", "no-record"])
@pytest.mark.parametrize("options", [[], ["--json"], ["--ignore", "unreadable"]], ids=["", "json", "ignored"])
def test_where_there_is_no_record_nothing_is_said_to_hold(
    options: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.records"
    file.write_text(text)
    assert main(["audit", "chains", *options, str(file)]) == 2
    out, err = capsys.readouterr()
    assert "no line is a record" in err
    assert "nothing found" not in out


def test_a_file_that_is_not_there_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "chains", "/no/such/file"]) == 2
    assert "No such file" in capsys.readouterr().err


def test_text_in_a_record_does_not_act_on_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = lawful(subject="\x1b[31malice\u202e\n")
    told["refused"] = record(
        event="connection.refused", ts="2026-11-24T21:04:00.000000Z", run="x", reason="\x1b[2J", decision="deny"
    )
    main(["audit", "chains", *files(tmp_path, told)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_the_recorded_demo_is_rebuilt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "chains", *RECORDED]) == 1
    out = capsys.readouterr().out
    assert "outside any chain: 1 wrong_bundle" in out
    assert "/agent/intruder → /agent/writer" in out
    assert "deny 403 actor_mismatch" in out


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["chains", "attribution", "export --as=ecs", "verify"])
def test_a_reader_that_goes_away_is_no_error(command: str, unbuffered: str) -> None:
    """The buffer decides if the pipe breaks while a command prints or at its end; the exit code is the same."""
    program = [sys.executable, "-m", "sidecar.cli", "audit", *command.split(), *RECORDED * 40]
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(program, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_every_kind_has_a_meaning() -> None:
    assert MEANINGS.keys() == set(Kind)


def test_a_filter_that_chooses_no_chain_does_not_say_that_all_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = files(tmp_path, lawful())
    assert main(["audit", "chains", "--subject", "nobody-here", *names]) == 0
    out = capsys.readouterr().out
    assert "no chain to judge" in out
    assert "nothing found" not in out
    assert out.splitlines()[-2].split() == ["t1", "alice", "2026-11-24T21:04:01", "3", "3", "whole", "--txn=t1"]
    assert main(["audit", "chains", "--subject", "nobody-here", "--json", *names]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["chains"], document["others"]) == ([], ["t1"])
    assert main(["audit", "chains", "--subject", "alice", *names]) == 0
    assert "nothing found" in capsys.readouterr().out


def listed(out: str) -> list[list[str]]:
    """Return the lines of the list of chains, without its head."""
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:2] == ["chain", "for"])
    return [line.split() for line in lines[start + 1 : lines.index("", start)]]


def test_chains_are_listed_with_depth_verdict_and_the_option_that_chooses_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["audit", "chains", *RECORDED]) == 1
    first, second = listed(capsys.readouterr().out)
    assert first[3:] == ["3", "11", "broken", "(7", "findings)", "--txn=haHaAJejPxJhJqbGd8Wh4A"]
    assert second[3:] == ["1", "1", "broken", "(1", "finding)", "--jti=9pGBF78G8a2r-_2tBnMEBA"]
    for row in (first, second):
        assert main(["audit", "chains", *RECORDED, *row[-1:], "--json"]) == 1
        (chain,) = json.loads(capsys.readouterr().out)["chains"]
        assert (chain["chain"], chain["depth"], len(chain["hops"])) == (row[0], int(row[3]), int(row[4]))
        assert chain["verdict"] == "broken"


def test_of_many_chains_only_the_list_is_shown_until_one_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: Evidence = {}
    for number in range(6):
        for name, one in lawful().items():
            ids = {key: f"{one[key]}-{number}" for key in ("txn", "jti_in", "jti_out", "parent_jti", "call_in",
                "call_out", "request_id", "run") if one.get(key) is not None}  # fmt: skip
            told[f"{name}-{number}"] = {**one, **ids}
    told["callee3-2"].update(decision="deny", reason="insufficient_scope", status=403)
    names = files(tmp_path, told)
    assert main(["audit", "chains", *names]) == 1
    out = capsys.readouterr().out
    assert [row[0] for row in listed(out)] == ["t1-2", "t1-0", "t1-1", "t1-3", "t1-4", "t1-5"]
    assert listed(out)[0][5:10] == ["whole,", "1", "refused", "or", "observed"]
    assert "all three" not in out
    assert main(["audit", "chains", *names, "--txn", "t1-2"]) == 1
    out = capsys.readouterr().out
    assert "all three" in out
    assert "chosen by" not in out
    assert main(["audit", "chains", *names, "--txn", "t1-2", "--json"]) == 1
    assert [chain["verdict"] for chain in json.loads(capsys.readouterr().out)["chains"]] == ["whole"]


def test_a_chain_s_name_is_quoted_where_it_is_to_be_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {name: {**one, "txn": "a; rm -rf ~" if one.get("txn") else None} for name, one in lawful().items()}
    main(["audit", "chains", *files(tmp_path, told), "--txn", "nothing"])
    assert "--txn='a; rm -rf ~'" in capsys.readouterr().out
