import asyncio
import errno
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

from delegation_core.errors import ConfigError
from delegation_core.spiffe_id import SpiffeId
from sidecar.config import load_sidecar, load_sts
from sidecar.config.handover import HandoverError
from sidecar.config.loader import (
    LOADING_BYTES,
    SettingsFiles,
    load_again,
    load_at_start,
    load_in_fork,
    prefer_to_be_killed,
)
from sidecar.config.settings import SidecarSettings
from tests.config.documents import EXAMPLES, changed, example, written
from tests.integration.world import PATIENCE_S

pytestmark = pytest.mark.integration  # most start an interpreter

AGENT = SettingsFiles("sidecar", EXAMPLES / "agent.yaml")
STS = SettingsFiles("sts", EXAMPLES / "sts.yaml")
WRITER = SpiffeId("spiffe://acme.example/agent/writer")


async def test_settings_loaded_by_a_fresh_interpreter_are_the_same() -> None:
    loaded = await load_again(STS, os.environ)
    assert loaded == (load_sts(STS.path, {}), STS, STS.fingerprint())
    sidecar = await load_again(AGENT, os.environ)
    assert sidecar.settings.issuers == load_sidecar(AGENT.path, {}).issuers


async def test_the_environment_counts_as_it_did_at_the_start() -> None:
    loaded = await load_again(STS, {**os.environ, "SIDECAR__TOKEN_LIFE_S": "60"})
    assert loaded.settings.policy.token_life_s == 60


async def test_every_problem_comes_back(tmp_path: Path) -> None:
    path = written(tmp_path, changed(example("sts"), ("token_life_s", 0), ("typo", 1)))
    with pytest.raises(ConfigError) as here:
        load_sts(path, {})
    with pytest.raises(ConfigError) as again:
        await load_again(SettingsFiles("sts", path), os.environ)
    assert again.value.problems == here.value.problems
    with pytest.raises(ConfigError) as first:
        load_at_start(SettingsFiles("sts", path), {})
    assert first.value.problems == here.value.problems


async def test_an_interpreter_that_dies_gives_no_settings(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="could not be loaded"):
        await load_again(STS, {"PYTHONHOME": "/nowhere"})
    assert "encodings" in capfd.readouterr().err


async def test_an_interpreter_that_cannot_be_started_gives_no_settings() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(ConfigError, match="could not be loaded"):
            await load_again(STS, os.environ)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_an_interpreter_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "sts.yaml")  # it has no writer
    with pytest.raises(ConfigError, match="too long"):
        await load_again(SettingsFiles("sts", tmp_path / "sts.yaml"), os.environ, timeout_s=0.05)


async def test_a_folder_that_looks_like_ours_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sidecar").mkdir()
    (tmp_path / "sidecar" / "__init__.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert await load_again(STS, os.environ)


async def test_the_running_process_neither_forks_nor_imports_what_loading_needs() -> None:
    code = (
        "import asyncio, os, sys; from pathlib import Path; "
        "from sidecar.config.loader import SettingsFiles, load_again; "
        f"asyncio.run(load_again(SettingsFiles('sts', Path({str(STS.path)!r})), os.environ)); "
        "print([name for name in ('pydantic', 'yaml') if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    answer, _ = await process.communicate()
    assert answer == b"[]\n"


def test_the_interpreter_asks_the_kernel_to_end_it_before_us(tmp_path: Path) -> None:
    prefer_to_be_killed(tmp_path / "adjustment")
    assert (tmp_path / "adjustment").read_text() == "1000"
    prefer_to_be_killed(tmp_path / "nowhere" / "adjustment")


_MEASURING = """
import resource, subprocess, sys
command = [sys.executable, "-P", "-m", "sidecar.config.loader", "sidecar", sys.argv[1]]
subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.budget
def test_loading_takes_no_more_memory_than_is_asked_for() -> None:
    # Measured by a small process: a forked child starts with its parent's memory.
    command = [sys.executable, "-c", _MEASURING, str(EXAMPLES / "agent.yaml")]
    most_kib = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert most_kib * 1024 < LOADING_BYTES + 24 * 1024 * 1024  # all processes share pages of files


@pytest.mark.parametrize("name", ["agent", "entry", "tool"])
def test_settings_loaded_by_a_fork_are_the_same(name: str) -> None:
    files = SettingsFiles("sidecar", EXAMPLES / f"{name}.yaml")
    here, there = load_sidecar(files.path, {}), load_at_start(files, {}).settings
    assert isinstance(there, SidecarSettings)
    assert (there.inbound, there.outbound, there.exchanges, there.entry) == (
        here.inbound,
        here.outbound,
        here.exchanges,
        here.entry,
    )
    assert (there.keys, there.issuers, there.identity) == (here.keys, here.issuers, here.identity)
    assert there.inbound_routes.routes == here.inbound_routes.routes
    assert all(peer.trust_domain for route in there.inbound_routes.routes for peer in route.peers)
    assert there.policy(WRITER, 1).outbound.routes == here.outbound_routes.routes
    assert load_at_start(STS, {}) == (load_sts(STS.path, {}), STS, STS.fingerprint())


def test_a_fork_that_dies_gives_no_settings() -> None:
    def be_killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    for end in (_die, be_killed):
        with pytest.raises(HandoverError):
            load_in_fork(end)


def test_a_fork_that_hangs_is_killed() -> None:
    with pytest.raises(TimeoutError):
        load_in_fork(lambda: time.sleep(3600), timeout_s=0.1)  # longer than any test may take
    with pytest.raises(ChildProcessError):  # none is left
        os.waitpid(-1, os.WNOHANG)


def test_at_the_start_a_child_that_hangs_dies_or_cannot_be_made_is_told_as_at_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sts.yaml"
    os.mkfifo(path)  # it has no writer
    with pytest.raises(ConfigError, match="took too long to load; see standard error, and try again"):
        load_at_start(SettingsFiles("sts", path), {}, timeout_s=0.05)
    monkeypatch.setattr(SettingsFiles, "load", _die)
    with pytest.raises(ConfigError, match="could not be loaded; see standard error"):
        load_at_start(STS, {})
    monkeypatch.setattr(os, "fork", _no_process)
    with pytest.raises(ConfigError, match=r"could not be loaded \(Resource temporarily unavailable\)"):
        load_at_start(STS, {})


def _die(*_: object) -> NoReturn:
    os._exit(9)


def _no_process() -> NoReturn:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_a_process_does_not_keep_what_loading_at_its_start_needs() -> None:
    code = (
        "import sys; from pathlib import Path; from sidecar.config.loader import SettingsFiles, load_at_start; "
        f"load_at_start(SettingsFiles('sidecar', Path({str(AGENT.path)!r})), {{}}); "
        "print([name for name in ('pydantic', 'pydantic_core', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_platform_file_that_changes_is_a_change_too(tmp_path: Path) -> None:
    files = SettingsFiles("sidecar", AGENT.path, tmp_path / "platform.yaml")
    absent = files.fingerprint()
    (tmp_path / "platform.yaml").touch()
    assert files.fingerprint() != absent


_PARENT = """
import asyncio, os, sys
from pathlib import Path
from sidecar.config.loader import SettingsFiles, load_again, load_in_fork
async def again():
    loading = asyncio.ensure_future(load_again(SettingsFiles("sts", Path(sys.argv[2])), os.environ))
    while not (children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    print(children[0], flush=True)
    await loading
def hold():
    print(os.getpid(), flush=True)
    while True:
        os.sched_yield()
asyncio.run(again()) if sys.argv[1] == "again" else load_in_fork(hold)
"""


@pytest.mark.parametrize("how", ["again", "fork"])
def test_a_child_ends_with_its_parent_however_that_ends(how: str, tmp_path: Path) -> None:
    pipe = tmp_path / "sts.yaml"
    os.mkfifo(pipe)  # nobody writes: the child would read for ever
    words = [sys.executable, "-c", _PARENT, how, str(pipe)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        ended = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        readable, _, _ = select.select([ended], [], [], PATIENCE_S)
        assert readable
    finally:
        os.close(ended)
