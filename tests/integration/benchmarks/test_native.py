"""The load generator against the backend, both freshly compiled. Skipped without a compiler."""

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.histogram import percentile
from benchmarks.native import BuildError, Programs, build
from benchmarks.scenarios import VARIES
from sidecar_dev.processes import Processes, free_ports, listens

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    try:
        return build(tmp_path_factory.mktemp("bin"))
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture
def backend(programs: Programs, tmp_path: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    processes = Processes(tmp_path)
    processes.start("backend", [str(programs.backend), "--port", str(port)])
    try:
        processes.wait_for("backend", lambda: listens(port))
        yield port
    finally:
        processes.stop()


def load(programs: Programs, port: int, folder: Path, *options: str, head: str = "GET /x HTTP/1.1") -> dict[str, Any]:
    request = folder / "request"
    request.write_bytes(f"{head}\r\nHost: a\r\n\r\n".encode())
    command = [str(programs.load), "--connect", f"127.0.0.1:{port}", "--request", str(request), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_each_answer_is_counted_once_with_its_latency(programs: Programs, backend: int, tmp_path: Path) -> None:
    seen = load(programs, backend, tmp_path, "--seconds", "0.2", "--connections", "4")
    assert seen["requests"] > 0
    assert list(seen["statuses"]) == ["200"]
    assert 0 <= seen["statuses"]["200"] - seen["requests"] <= 4  # answers after the window to what was asked in it
    assert sum(count for _, count in seen["latency"]) == seen["calls_answered"] == seen["calls"]
    assert percentile(seen["latency"], 0.5) > 0
    assert seen["lost"] == {"connect": 0, "tls": 0, "answer": 0}


def test_a_schedule_is_kept(programs: Programs, backend: int, tmp_path: Path) -> None:
    options = ["--seconds", "1", "--warmup", "0.1", "--connections", "2", "--rate", "100"]
    seen = load(programs, backend, tmp_path, *options)
    assert 80 <= seen["sent"] <= 120


def test_tokens_take_turns_and_how_many_were_used_is_told(programs: Programs, backend: int, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("one\ntwo\nthree\n")
    options = ["--requests", "5", "--tokens", str(tmp_path / "tokens")]
    seen = load(programs, backend, tmp_path, *options, head="GET /x HTTP/1.1\r\nAuthorization: Bearer @TOKEN@")
    assert seen["tokens"] == 3
    assert seen["tokens_used"] >= 5


def test_each_request_has_digits_of_its_own_where_they_are_asked_for(programs: Programs, tmp_path: Path) -> None:
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                while head := connection.recv(4096):
                    heads.append(head)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        serving = threading.Thread(target=serve)
        serving.start()
        port = listening.getsockname()[1]
        load(programs, port, tmp_path, "--requests", "9", head=f"GET /x/{VARIES} HTTP/1.1\r\nTrace: {VARIES}-{VARIES}")
        serving.join()
    found = [re.findall(rb"[0-9a-f]{16}", head) for head in heads]
    assert len(heads) >= 9
    assert {len(digits) for digits in found} == {3}
    assert len({one for digits in found for one in digits}) == 3 * len(heads)


def test_a_new_connection_for_each_request_is_one_each(programs: Programs, backend: int, tmp_path: Path) -> None:
    seen = load(programs, backend, tmp_path, "--seconds", "0.2", "--fresh")
    assert seen["requests"] > 0
    assert seen["connects"] >= seen["requests"]


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_body_of_any_size_comes_whole(programs: Programs, backend: int, tmp_path: Path, size: int) -> None:
    seen = load(programs, backend, tmp_path, "--requests", "1", head=f"GET /bytes/{size} HTTP/1.1")
    assert seen["statuses"] == {"200": 1}
    assert seen["bytes_in"] >= size


def test_events_tell_their_delay(programs: Programs, backend: int, tmp_path: Path) -> None:
    seen = load(programs, backend, tmp_path, "--seconds", "0.3", "--events", head="GET /events HTTP/1.1")
    assert sum(count for _, count in seen["event_delay"]) > 5


def test_without_a_compiler_the_fix_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="apt-get install gcc"):
        build(tmp_path)
