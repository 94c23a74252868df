"""The command against a real admin socket."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import main
from sidecar.proxy.admin import AdminSocket, admin_app
from tests.status.documents import NOW, status

pytestmark = pytest.mark.integration

ROW = {
    "request_id": "q1",
    "direction": "inbound",
    "since": NOW - 61,
    "verified": False,
    "peer": None,
    "subject": "alice\x1b[2J",
    "actor": None,
    "chain": ["spiffe://acme.example/a", "spiffe://acme.example/b"],
    "route": None,
}
CHAINS = {"being_served": 1, "chains": [ROW]}


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        yield Path(folder) / "admin.sock"


@contextmanager
def serving(path: Path, document: dict[str, Any]) -> Iterator[None]:
    """A sidecar's admin socket in a thread of its own: the command blocks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    admin = AdminSocket(admin_app(lambda: document, lambda: CHAINS), path)
    asyncio.run_coroutine_threadsafe(admin.open(), loop).result(5)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(admin.close(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_sidecar_that_is_well_is_shown_in_a_plain_table(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(path, status(("refused", {"no_token": 3}))):
        assert main(["status", "--socket", str(path)]) == 0
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "ready, sidecar 1, run r, up 2 h 1 min"
    assert "identity ready, spiffe://acme.example/agent/writer" in lines
    assert "SVID generation 2, ends in 1 h" in lines
    assert "issuer https://sts.acme.example, keys 1 min old" in lines
    assert "inbound listener 0.0.0.0:7443, 1 of 100" in lines
    assert any(line.startswith("no_token 3 ") for line in lines)
    assert "cure" not in out
    assert err == ""
    assert "\x1b" not in out


def test_what_is_wrong_is_told_in_words_with_its_cure(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = status(("ready", False), ("identity.state", "denied"), ("identity.spiffe_id", None))
    with serving(path, {**document, "missing": ["identity: denied"]}):
        assert main(["status", "--socket", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("NOT READY")
    assert "WRONG: identity: this workload has no registration entry" in out
    assert "  cure: create or mend the entry" in out


def test_for_machines_it_is_the_document_with_the_troubles(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(path, status(("records.lost", 2))):
        assert main(["status", "--socket", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["identity"]["generation"] == 2
    assert [one["grade"] for one in told["troubles"]] == ["note"]


def test_what_is_served_now_is_shown_and_acts_on_no_terminal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(path, status()):
        assert main(["status", "--socket", str(path), "--chains"]) == 0
    out = capsys.readouterr().out
    assert "q1" in out
    assert "alice\\u{1b}[2J (unverified)" in out
    assert "spiffe://acme.example/a ← spiffe://acme.example/b" in out


def test_without_a_socket_the_exit_code_is_2(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--socket", str(path)]) == 2
    assert "is not there: set admin.socket" in capsys.readouterr().err


def test_a_socket_that_a_killed_sidecar_left_is_told_as_such(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert main(["status", "--socket", str(path)]) == 2
    assert "nobody listens" in capsys.readouterr().err


@pytest.mark.parametrize("document", [{}, {"ready": True}], ids=["empty", "of-something-else"])
def test_another_programs_socket_is_no_sidecars(
    path: Path, document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(path, document):
        assert main(["status", "--socket", str(path)]) == 2
    assert "no sidecar's admin socket" in capsys.readouterr().err
