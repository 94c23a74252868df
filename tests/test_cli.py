from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from sidecar import __version__
from sidecar.cli import main

COMMANDS = ["run", "check", "sts", "injector", "demo", "explain", "healthcheck", "audit", "dev"]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(re.search(rf"^    {command}\s", told, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("words", [[], ["nonsense"], ["run", "--nonsense"], ["dev"], ["audit"], ["demo", "--nonsense"]])
def test_wrong_usage_is_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: sidecar" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"sidecar {__version__}\n"


@pytest.mark.parametrize("word", ["workload-api", "user-issuer", "svid", "run"])
def test_a_development_command_knows_its_options(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dev", word, "--help"])
    assert ended.value.code == 0
    assert "--" in capsys.readouterr().out.replace("--help", "")


@pytest.mark.parametrize("words", [["dev", "run"], ["demo"]])
def test_without_the_tools_a_command_says_how_to_get_them(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "pip install ./dev" in capsys.readouterr().err


def test_parsing_imports_no_room_and_no_library() -> None:
    script = (
        "import sys, contextlib, sidecar.cli\n"
        "with contextlib.suppress(SystemExit): sidecar.cli.main(['--version'])\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'aiohttp', 'pydantic', 'rich', 'cryptography'}))"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("what", ["--schema", "config/agent.yaml"], ids=["while printing", "at the end"])
def test_a_reader_that_goes_away_is_no_traceback(what: str) -> None:
    command = [sys.executable, "-m", "sidecar.cli", "check", what]
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    finished = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=buffered)
    os.close(writer)
    assert (finished.stderr, finished.returncode) == ("", 141)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("words", [["run"], ["sts"]])
def test_who_is_told_to_end_while_still_loading_does_not_die_of_it(words: list[str], number: signal.Signals) -> None:
    """As the first process of a container it would not even hear of it, and be killed in the end."""
    program = (
        "import importlib, os, types; from sidecar import cli\n"
        f"load = lambda name: os.kill(os.getpid(), {int(number)}) or importlib.import_module(name)\n"
        "cli.importlib = types.SimpleNamespace(import_module=load)\n"
        f"raise SystemExit(cli.main({[*words, '--config', '/nowhere']}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, "cannot be read" in ended.stderr) == (2, True)
