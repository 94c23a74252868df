"""The command as a process: its imports, a closed pipe, and signals during loading."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration


def test_parsing_imports_no_room_and_no_library() -> None:
    script = (
        "import sys, contextlib, sidecar.cli\n"
        "with contextlib.suppress(SystemExit): sidecar.cli.main(['--version'])\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'aiohttp', 'pydantic', 'rich', 'cryptography'}))"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "[]"


def test_a_sidecar_that_reads_pem_files_holds_no_library_that_it_does_not_use() -> None:
    unused = {"grpclib", "google", "h2", "xml", "pydantic", "yaml", "rich", "duckdb"}
    script = (
        "import sys, sidecar.one_process; from pathlib import Path; from sidecar.identity.files import FileSettings\n"
        "from sidecar.identity.source_factory import source_of; from sidecar.identity.workload_settings import *\n"
        "names = lambda: {name.split('.')[0] for name in sys.modules}\n"
        "source_of(FileSettings(certificate=Path('c'), key=Path('k'), bundle=Path('b')))\n"
        f"print(sorted(names() & {unused}))\n"
        "source_of(WorkloadApiSettings(address='unix:///run/spire/api.sock'))\n"
        "print('grpclib' in names())"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines() == ["[]", "True"]


@pytest.mark.parametrize("what", ["--schema", "config/agent.yaml"], ids=["while printing", "at the end"])
def test_a_reader_that_goes_away_is_no_traceback(what: str) -> None:
    command = [sys.executable, "-m", "sidecar.cli", "check", what]
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    finished = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=buffered)
    os.close(writer)
    assert (finished.stderr, finished.returncode) == ("", 141)


@pytest.mark.parametrize(
    ("words", "number"), [(["run"], signal.SIGTERM), (["sts"], signal.SIGINT), (["run"], signal.SIGHUP)]
)
def test_who_is_told_to_end_while_still_loading_does_not_die_of_it(words: list[str], number: signal.Signals) -> None:
    """As the first process of a container it would not receive the signal, and be killed in the end."""
    program = (
        "import importlib, os, types; from sidecar import cli\n"
        f"load = lambda name: os.kill(os.getpid(), {int(number)}) or importlib.import_module(name)\n"
        "cli.importlib = types.SimpleNamespace(import_module=load)\n"
        f"raise SystemExit(cli.main({[*words, '--config', '/nowhere']}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, "cannot be read" in ended.stderr) == (2, True)
