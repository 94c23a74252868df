import asyncio
import os
import resource
import sys
from pathlib import Path

import pytest

from sidecar.config import load_sidecar, load_sts
from sidecar.config.afresh import load_afresh
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
