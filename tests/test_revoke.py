from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.identity.files import FileSettings, FileSource
from sidecar.revoke import _identity, add_arguments, claims_of, run
from tests.identity.pem_cells import CELLS, OURS
from tests.identity.shapes import NOW as SHAPES_NOW
from tests.identity.test_files import ROOT_A, contents, own, restore, spoil

NOW = 1_790_000_000
TO = ["--to", "https://127.0.0.1:1", "--peer", "spiffe://acme.example/sts"]


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([*words, *TO])


def claims(*words: str) -> dict[str, object]:
    return claims_of(parsed(*words), now=NOW, name="id-1")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--txn", "t", "--for", "8h"], {"action": "revoke", "kind": "txn", "value": "t", "until": NOW + 28_840}),
        (["--txn=-t", "--for", "8h"], {"kind": "txn", "value": "-t"}),  # of another token service
        (["--jti", "j", "--for", "30m"], {"kind": "jti", "value": "j", "until": NOW + 1840}),
        (["--actor", "spiffe://a/b", "--for", "7d"], {"kind": "actor", "value": "spiffe://a/b"}),
        (["--through", "spiffe://a/b", "--for", "7d"], {"kind": "through", "value": "spiffe://a/b"}),
        (
            ["--subject", "https://i", " -s", "--for", "8h"],
            {"kind": "subject", "of_issuer": "https://i", "value": "-s"},
        ),
        (["--login", "https://i", " -s", "--for", "8h"], {"kind": "login", "of_issuer": "https://i", "value": "-s"}),
        (["--login", "https://i", "s", "--for", "5s"], {"kind": "login", "of_issuer": "https://i", "value": "s"}),
        (["--subject", "https://i", "u", "--for", "1h"], {"kind": "subject", "value": "u", "alone": False}),
        (["--subject", "https://i", "u", "--for", "1h", "--alone"], {"kind": "subject", "alone": True}),
        (["--confirm", "x"], {"action": "confirm", "of": "x"}),
        (["--lift", "x"], {"action": "lift", "of": "x"}),
    ],
)
def test_the_options_say_what_is_ordered(words: list[str], expected: dict[str, Any]) -> None:
    made = claims(*words, "--reason", "INC-42")
    assert made | expected == made
    assert (made["jti"], made["iat"], made["reason"]) == ("id-1", NOW, "INC-42")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--txn", "t", "--for", "8h"], id="without a reason"),
        pytest.param(["--txn", "t", "--reason", "r"], id="without an end"),
        pytest.param(["--txn", "t", "--reason", "r", "--for", "8"], id="an end without a unit"),
        pytest.param(["--txn", "t", "--reason", "r", "--for", "8h", "--alone"], id="alone without a user"),
        pytest.param(["--lift", "x", "--reason", "r", "--for", "8h"], id="a lift with an end"),
        pytest.param(
            ["--txn", "t", "--reason", "r", "--for", "8h", "--svid", "a.pem"], id="a certificate without a key"
        ),
    ],
)
def test_an_order_that_says_too_little_or_too_much_is_not_sent(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(parsed(*words)) == 2
    assert "sidecar sts revoke: --" in capsys.readouterr().err


# The emergency brake has no cold start: on a busy machine each module is time before the order is sent.
ABSENT = {
    "aiohttp": "orders are sent by the engine of the data plane",
    "jwt": "an order is signed by the cryptography library itself",
    "pydantic": "there are no settings",
    "yaml": "as pydantic",
    "sidecar.config": "as pydantic",
    "sidecar.proxy": "nothing is served",
    "sidecar.exchange": "nothing is exchanged",
    "sidecar.observe": "nothing is recorded",
    "sidecar.sts.service": "no token is issued",
    "sidecar.sts.revocations": "no order is kept",
    "urllib.request": "of other HTTP libraries",
    "http.client": "as urllib.request",
    "importlib.metadata": "no entry point is looked for",
    "uvloop": "one call needs no faster loop",
    "rich": "the output is lines",
}
MOST_MODULES = 420  # there were 671, and the start took four times as long
_LIST_MODULES = """
import sys
from sidecar.cli import build_parser
words = ["sts", "revoke", "--list", "--to", "https://127.0.0.1:1", "--peer", "spiffe://a/b", *sys.argv[1:]]
arguments = build_parser(words).parse_args(words)
from sidecar import revoke
try:
    revoke._source(arguments, {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/api.sock"})
except ValueError as error:
    assert "/a is missing" in str(error), error
print(*sys.modules)
"""


@pytest.mark.parametrize("source", [[], ["--svid", "/a", "--key", "/b", "--bundle", "/c"]], ids=["workload", "files"])
def test_the_command_loads_only_what_sends_an_order(source: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _LIST_MODULES, *source], capture_output=True, text=True, check=True, timeout=60
    )
    modules = done.stdout.split()
    assert "sidecar.identity.endpoint_client" in modules
    assert ("sidecar.identity.files" in modules) == bool(source)
    assert ("sidecar.identity.workload_api" in modules) != bool(source)
    assert {name: ABSENT[name] for name in ABSENT if name in modules} == {}
    assert len(modules) < MOST_MODULES


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({}, "SPIFFE_ENDPOINT_SOCKET is missing"),
        (
            {"SPIFFE_ENDPOINT_SOCKET": "/run/api.sock"},
            "SPIFFE_ENDPOINT_SOCKET: a Workload API address must be unix:///",
        ),
    ],
)
def test_without_a_source_of_its_svid_the_command_says_where_to_name_one(
    environ: dict[str, str], why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert run(parsed("--txn", "t", "--reason", "r", "--for", "8h")) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("lacking", ["svid", "key", "bundle"])
def test_a_file_that_cannot_be_read_is_named_before_anything_is_sent(
    lacking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The brake says at once what is wrong, and does not wait for an identity that cannot come."""
    words: list[str] = []
    for name in ("svid", "key", "bundle"):
        path = tmp_path / name
        if name != lacking:
            path.write_text("PEM")
            path.chmod(0o600)
        words += [f"--{name}", str(path)]
    assert run(parsed("--txn", "t", "--reason", "r", "--for", "8h", *words)) == 2
    assert f"{tmp_path / lacking} is missing" in capsys.readouterr().err


def settings_in(folder: Path) -> FileSettings:
    paths = {which: folder / which for which in OURS}
    certificate, key, bundle = paths.values()
    settings = FileSettings(certificate=certificate, key=key, bundle=bundle, look_every_s=0.02, settle_s=0.01)
    for which, content in contents(own(1), ROOT_A).items():
        paths[which].touch(mode=0o600)
        paths[which].write_bytes(content)
    return settings


@pytest.mark.parametrize("which", OURS)
@pytest.mark.parametrize("case", [case for case, cell in CELLS.items() if not cell.waited_for])
def test_files_that_are_whole_but_wrong_are_refused_without_waiting(
    which: str, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.revoke._WAIT_FOR_IDENTITY_S", 3600.0)  # longer than any test may take
    settings = settings_in(tmp_path)
    spoil(settings, which, case)
    words = [f"--{option}={tmp_path / name}" for option, name in (("svid", "certificate"), ("key", "key"))]
    assert run(parsed("--txn", "t", "--reason", "r", "--for", "8h", *words, f"--bundle={tmp_path / 'bundle'}")) == 1
    assert "we have no identity: our own SVID" in capsys.readouterr().out


@pytest.mark.parametrize("which", OURS)
@pytest.mark.parametrize("case", [case for case, cell in CELLS.items() if cell.waited_for])
async def test_files_that_may_be_half_written_are_waited_for(which: str, case: str, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    spoil(settings, which, case)
    source = FileSource(settings, clock=lambda: float(SHAPES_NOW))
    running, waiting = asyncio.ensure_future(source.run()), asyncio.ensure_future(_identity(source))
    async with asyncio.timeout(5):
        while source.last_error is None:  # noqa: ASYNC110 - the source tells nobody
            await asyncio.sleep(0)
    assert not waiting.done()
    restore(settings, 1)
    identity = await asyncio.wait_for(waiting, 5)
    assert identity is not None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
