"""The load generator and the agent of HTTP/2 against each other, without a proxy."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.native import Programs, build, http2_missing
from benchmarks.scenarios import SCENARIOS
from sidecar_dev.processes import Processes, free_ports, listens

pytestmark = pytest.mark.skipif(http2_missing() is not None, reason=http2_missing() or "")
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return build(tmp_path_factory.mktemp("bin"), http2=True)


@pytest.fixture
def port(programs: Programs, tmp_path: Path) -> Iterator[int]:
    """Return the port of a running agent."""
    (number,) = free_ports(1)
    processes = Processes(tmp_path)
    try:
        processes.start("agent", [str(programs.h2_backend), "--port", str(number)], {})
        processes.wait_for("agent", lambda: listens(number))
        yield number
    finally:
        processes.stop()


def load(programs: Programs, port: int, folder: Path, name: str, *more: str, head: str = "") -> Any:
    """Return the report of a run."""
    scenario = BY_NAME[name]
    request, tokens = folder / "request", folder / "tokens"
    request.write_text(head or scenario.head("a.example"), newline="")
    tokens.write_text("one\ntwo\n")
    command = [str(programs.h2_load), "--connect", f"127.0.0.1:{port}", "--request", str(request)]
    command += ["--tokens", str(tokens), "--connections", "2", "--streams", "5", "--body", str(scenario.body)]
    done = subprocess.run(
        [*command, "--seconds", "0.2", "--warmup", "0.05", *more],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["http2", "http2-varied", "grpc-unary"])
def test_every_call_is_counted_and_answered(programs: Programs, port: int, tmp_path: Path, name: str) -> None:
    seen = load(programs, port, tmp_path, name)
    assert seen["calls"] == seen["calls_answered"] > 10
    assert seen["statuses"].keys() == {"200"}
    assert not any(seen["lost"].values())
    assert seen["requests"] <= sum(seen["statuses"].values())
    assert seen["calls"] == sum(count for _, count in seen["latency"])
    assert seen["tokens_used"] >= seen["sent"]


def test_a_schedule_is_kept(programs: Programs, port: int, tmp_path: Path) -> None:
    seen = load(programs, port, tmp_path, "http2-500", "--rate", "500")
    assert seen["calls"] == seen["calls_answered"]
    assert 90 < seen["calls"] < 101


def test_each_request_has_a_connection_of_its_own(programs: Programs, port: int, tmp_path: Path) -> None:
    seen = load(programs, port, tmp_path, "http2-new-connection", "--fresh")
    assert seen["calls"] == seen["calls_answered"] > 10
    assert seen["connects"] >= seen["requests"] - 2


def test_an_answer_that_is_not_of_grpc_is_no_success_of_a_call(programs: Programs, port: int, tmp_path: Path) -> None:
    """A proxy that refuses a call also answers with 200."""
    head = BY_NAME["grpc-unary"].head("a.example")
    head = head.replace("Content-Type: application/grpc", "Content-Type: application/grpc\r\nContent-Type: x")
    assert load(programs, port, tmp_path, "grpc-unary", head=head)["statuses"].keys() == {"0"}
