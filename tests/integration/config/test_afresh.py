import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.config import load_sidecar, load_sts
from sidecar.config.afresh import LOADING_BYTES, be_expendable, load_afresh, wait_for_turn
from sidecar.errors import ConfigError
from tests.config.documents import EXAMPLES, changed, example, written

pytestmark = pytest.mark.integration  # each starts an interpreter


async def test_settings_loaded_by_a_fresh_interpreter_are_the_same() -> None:
    assert await load_afresh("sts", EXAMPLES / "sts.yaml", os.environ) == load_sts(EXAMPLES / "sts.yaml", {})
    sidecar = await load_afresh("sidecar", EXAMPLES / "agent.yaml", os.environ)
    assert sidecar.issuers == load_sidecar(EXAMPLES / "agent.yaml", {}).issuers


async def test_the_environment_counts_as_it_did_at_the_start() -> None:
    settings = await load_afresh("sts", EXAMPLES / "sts.yaml", {**os.environ, "SIDECAR__TOKEN_LIFE_S": "60"})
    assert settings.policy.token_life_s == 60


async def test_every_problem_comes_back(tmp_path: Path) -> None:
    path = written(tmp_path, changed(example("sts"), ("token_life_s", 0), ("typo", 1)))
    with pytest.raises(ConfigError) as here:
        load_sts(path, {})
    with pytest.raises(ConfigError) as afresh:
        await load_afresh("sts", path, os.environ)
    assert afresh.value.problems == here.value.problems


async def test_an_interpreter_that_dies_gives_no_settings(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="could not be loaded"):
        await load_afresh("unheard-of", EXAMPLES / "sts.yaml", os.environ)
    assert "KeyError" in capfd.readouterr().err


async def test_an_interpreter_that_cannot_be_started_gives_no_settings() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(ConfigError, match="could not be loaded"):
            await load_afresh("sts", EXAMPLES / "sts.yaml", os.environ)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_an_interpreter_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "sts.yaml")  # nobody ever writes to it
    with pytest.raises(ConfigError, match="too long"):
        await load_afresh("sts", tmp_path / "sts.yaml", os.environ, timeout_s=0.05)


async def test_a_folder_that_looks_like_ours_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sidecar").mkdir()
    (tmp_path / "sidecar" / "__init__.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert await load_afresh("sts", EXAMPLES / "sts.yaml", os.environ)


async def test_the_running_process_neither_forks_nor_imports_what_loading_needs() -> None:
    code = (
        "import asyncio, os, sys; from pathlib import Path; from sidecar.config.afresh import load_afresh; "
        f"asyncio.run(load_afresh('sts', Path({str(EXAMPLES / 'sts.yaml')!r}), os.environ)); "
        "print([name for name in ('pydantic', 'yaml') if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    answer, _ = await process.communicate()
    assert answer == b"[]\n"


def test_the_interpreter_asks_the_kernel_to_end_it_before_us(tmp_path: Path) -> None:
    be_expendable(tmp_path / "adjustment")
    assert (tmp_path / "adjustment").read_text() == "1000"
    be_expendable(tmp_path / "nowhere" / "adjustment")


def test_of_several_that_load_one_file_one_does_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    assert wait_for_turn(path) is None
    path.touch()
    first = wait_for_turn(path)
    assert first is not None
    waiting = subprocess.Popen([sys.executable, "-c", _WAITING, str(path)], stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waits\n"
    os.close(first)
    assert waiting.communicate()[0] == "its turn\n"


_WAITING = """
import fcntl, sys
from pathlib import Path
from sidecar.config.afresh import wait_for_turn
try:
    fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("waits", flush=True)
wait_for_turn(Path(sys.argv[1]), patience_s=60)
print("its turn")
"""


def test_whoever_holds_the_file_for_ever_keeps_nobody_from_loading(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    path.touch()
    held = wait_for_turn(path)
    late = wait_for_turn(path, patience_s=0.0)
    assert held is not None
    assert late is not None
    os.close(held)
    os.close(late)


_MEASURING = """
import resource, subprocess, sys
command = [sys.executable, "-P", "-m", "sidecar.config.afresh", "sidecar", sys.argv[1]]
subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_loading_takes_no_more_memory_than_is_asked_for() -> None:
    # Measured by a small process: a child that is forked counts with what its parent has.
    command = [sys.executable, "-c", _MEASURING, str(EXAMPLES / "agent.yaml")]
    most_kib = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert most_kib * 1024 < LOADING_BYTES + 24 * 1024 * 1024  # pages of files are shared by all
