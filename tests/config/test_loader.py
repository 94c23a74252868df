"""Answers of the process that loads settings, without a process. With one: ``integration``."""

from __future__ import annotations

import asyncio
import errno
import pickle
from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError, Problem
from delegation_core.profile_presets import PRESETS
from sidecar.config import loader
from sidecar.config.loader import SettingsFiles, load_again
from sidecar.exchange.adapters import BUILT_IN
from sidecar.exchange.adapters.adapter import STATIC, Adapter
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.sts import EndpointSettings, ExchangeSettings
from sidecar.identity.endpoint import Endpoint
from tests.config.documents import EXAMPLES

FILES = SettingsFiles("sts", EXAMPLES / "sts.yaml")
GOOD = pickle.dumps(("settings", ()))


class Process:
    """A child that answers ``answer`` and exits with ``status``; with None it says nothing until it is killed."""

    def __init__(self, answer: bytes | None, status: int = 0) -> None:
        self.answer = answer
        self.status = status
        self.returncode: int | None = None
        self.pid = 0  # nobody: the kernel signals no process
        self.killed = False

    @property
    def stdout(self) -> asyncio.StreamReader:
        output = asyncio.StreamReader()
        if self.answer is not None:
            output.feed_data(self.answer)
            output.feed_eof()
        return output

    def kill(self) -> None:
        self.killed = True

    async def wait(self) -> None:
        self.returncode = -9 if self.killed else self.status


async def loaded(monkeypatch: pytest.MonkeyPatch, process: Process | OSError, timeout_s: float = 10) -> Any:
    async def start(*_: object, **__: object) -> Any:
        if isinstance(process, OSError):
            raise process
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    return await load_again(FILES, {}, timeout_s=timeout_s)


@pytest.mark.parametrize("preset", PRESETS)
def test_profiles_cross_from_the_process_that_loads_them(preset: str) -> None:
    assert pickle.loads(pickle.dumps(PRESETS[preset])) == PRESETS[preset]


@pytest.mark.parametrize("adapter", BUILT_IN.values(), ids=BUILT_IN.keys())
def test_token_services_cross_from_the_process_that_loads_them(adapter: Adapter) -> None:
    auth = ClientAuthSettings(method=adapter.client_auth[0], audience="https://sts.example", **_static(adapter))
    endpoint = EndpointSettings(endpoint=Endpoint(url="http://127.0.0.1/other"), client_auth=auth)
    settings = ExchangeSettings(
        issuer="http://127.0.0.1",
        token_endpoint="http://127.0.0.1/token",
        adapter=adapter.name,
        client_auth=auth,
        options=dict.fromkeys(adapter.required_options, "x"),
        endpoints=dict.fromkeys(adapter.endpoints, endpoint),
    )
    crossed = pickle.loads(pickle.dumps(settings))
    assert crossed == settings
    assert crossed.known is adapter


def _static(adapter: Adapter) -> dict[str, Any]:
    if adapter.client_auth[0] not in STATIC:
        return {}
    return {"credential_file": "/run/key", "allow_static": True}


async def test_a_good_answer_is_the_settings_with_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(GOOD)
    assert await loaded(monkeypatch, process) == ("settings", FILES, FILES.fingerprint())
    assert not process.killed


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (Process(GOOD, status=1), "could not be loaded"),
        (OSError(errno.EMFILE, "too many"), "too many"),
        (Process(pickle.dumps((None, (Problem("x", "is wrong", "fix"),)))), "is wrong"),
    ],
    ids=["it failed", "it did not start", "it found problems"],
)
async def test_anything_else_is_no_settings(
    monkeypatch: pytest.MonkeyPatch, process: Process | OSError, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        await loaded(monkeypatch, process)


@pytest.mark.parametrize("more", [0, 1])
async def test_a_process_that_says_too_much_is_killed(monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    monkeypatch.setattr(loader, "MAX_BYTES", len(GOOD) + 1 - more)
    process = Process(GOOD + bytes(1))
    if more:
        with pytest.raises(ConfigError, match="could not be loaded"):
            await loaded(monkeypatch, process)
    else:
        assert (await loaded(monkeypatch, process)).settings == "settings"
    assert process.killed is bool(more)


async def test_a_process_that_says_nothing_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(None)
    with pytest.raises(ConfigError, match="took too long"):
        await loaded(monkeypatch, process, timeout_s=0)
    assert process.killed


def test_a_change_of_either_file_changes_the_fingerprint(tmp_path: Path) -> None:
    path, platform = tmp_path / "a", tmp_path / "b"
    path.write_text("1")
    platform.write_text("1")
    one, both = SettingsFiles("sidecar", path), SettingsFiles("sidecar", path, platform)
    before = one.fingerprint(), both.fingerprint()
    platform.write_text("22")
    assert (one.fingerprint() == before[0], both.fingerprint() == before[1]) == (True, False)
