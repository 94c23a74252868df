import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar_dev.processes import ProcessError, Processes, answers, free_ports, listens

SLEEP = "import signal; print('up', flush=True); signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.stop(number=signal.SIGKILL)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def start(processes: Processes, tmp_path: Path, name: str, code: str = SLEEP) -> None:
    processes.start(name, python(code))
    processes.wait_for(name, lambda: "up" in (tmp_path / f"{name}.log").read_text())


def test_a_process_that_ends_too_early_is_told_with_its_last_words(processes: Processes) -> None:
    processes.start("one", python("import sys; sys.stderr.write('no such thing'); sys.exit(3)"))
    with pytest.raises(ProcessError, match=r"one ended with exit code 3:\nno such thing"):
        processes.wait_for("one", lambda: False)


def test_what_a_process_was_started_for_may_fail(processes: Processes) -> None:
    processes.start("good", python(""))
    processes.wait_for_end("good")
    processes.start("bad", python("raise SystemExit(4)"))
    with pytest.raises(ProcessError, match="bad ended with exit code 4"):
        processes.wait_for_end("bad")


def test_some_are_stopped_while_the_others_run(processes: Processes, tmp_path: Path) -> None:
    for name in ("one", "two"):
        start(processes, tmp_path, name)
    processes.stop("one")
    assert (processes.exit_code("one"), processes.exit_code("two")) == (-signal.SIGTERM, None)
    processes.require_running("two")
    processes.stop(number=signal.SIGINT)
    assert processes.exit_code("two") not in (None, 0)


def test_a_program_ends_with_the_shell_that_runs_it(processes: Processes, tmp_path: Path) -> None:
    code = "import os, signal; print(os.getpid(), 'up', flush=True); signal.pause()"
    processes.start("shell", ["/bin/sh", "-c", f'"{sys.executable}" -c "$CODE"; true'], {"CODE": code})
    log = tmp_path / "shell.log"
    processes.wait_for("shell", lambda: "up" in log.read_text())
    program = Path("/proc") / log.read_text().split()[0]
    assert program.exists()
    processes.stop("shell")
    deadline = time.monotonic() + 5
    while program.exists() and "\nState:\tZ" not in (program / "status").read_text() and time.monotonic() < deadline:
        os.sched_yield()
    assert time.monotonic() < deadline


def test_what_does_not_end_is_killed(tmp_path: Path) -> None:
    processes = Processes(tmp_path, stop_s=0.1)
    start(processes, tmp_path, "deaf", DEAF)
    processes.stop()
    assert processes.exit_code("deaf") == -signal.SIGKILL


def test_variables_are_added_to_our_own(processes: Processes, tmp_path: Path) -> None:
    processes.start("one", python("import os; print(os.environ['MINE'], 'PATH' in os.environ)"), {"MINE": "x"})
    processes.wait_for_end("one")
    assert (tmp_path / "one.log").read_text() == "x True\n"


def test_a_program_that_is_not_there_is_the_callers_to_tell(processes: Processes) -> None:
    with pytest.raises(FileNotFoundError):
        processes.start("one", ["/nowhere/at-all"])


def test_ports_are_free_and_differ() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    assert max(ports) < 32_768  # the kernel gives none of these to outgoing connections
    assert not any(map(listens, ports))
    with socket.create_server(("127.0.0.1", ports[0])):
        assert listens(ports[0])
        assert not listens(ports[0], "::1")
    assert not answers(f"http://127.0.0.1:{ports[0]}/")


def test_ports_are_given_to_one_process_while_it_lives() -> None:
    ours = {port // 64 for port in free_ports(3)}
    others = "from sidecar_dev.processes import free_ports; print(*free_ports(130))"
    done = subprocess.run([sys.executable, "-c", others], capture_output=True, text=True, check=True)
    theirs = {int(port) // 64 for port in done.stdout.split()}
    assert len(theirs) >= 3
    assert not ours & theirs
