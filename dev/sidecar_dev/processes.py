"""Processes of a development mesh: started, waited for, stopped in order."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

_PATIENCE_S: Final = 60.0
STOP_S: Final = 5.0
_LOOK_S: Final = 0.02
_LAST_LINES: Final = 12
_PORTS: Final = range(20_032, 32_768)  # below Linux's default range for outgoing connections
_BLOCK: Final = 64  # ports; more than a mesh needs
_locks: Final[list[socket.socket]] = []  # the first port of each of our blocks, bound while we live
_left: Final[list[int]] = []  # ports of our blocks that are not in use yet


class ProcessError(Exception):
    """A process ended, or did not start in time. The text names it and quotes its last output."""


class Processes:
    """Named processes, each with a log file ``NAME.log`` in ``directory``, unless it keeps our terminal."""

    def __init__(self, directory: Path, *, stop_s: float = STOP_S) -> None:
        """``stop_s``: seconds that a process may take to stop."""
        self._directory = directory
        self._stop_s = stop_s
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        logged: bool = True,
        stdout: IO[str] | None = None,
    ) -> int:
        """Start a program and return its pid. ``logged`` false: it shares our input and outputs, or has ``stdout``.

        Each program runs in its own session: only this process receives Ctrl-C, and stops all others in order.

        Raises:
            OSError: the program does not exist or cannot be run.
        """
        surroundings = {**os.environ, **(environment or {})}
        if not logged:
            process = subprocess.Popen(  # noqa: S603 - the user's own
                command, stdout=stdout, env=surroundings, start_new_session=True
            )
        else:
            with self._log(name).open("wb") as log:
                process = subprocess.Popen(  # noqa: S603 - our own programs
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=surroundings,
                    start_new_session=True,
                )
        self._running[name] = process
        return process.pid

    def start_sidecar(self, name: str, *arguments: str) -> int:
        """Start a subcommand of ``sidecar``; returns its pid."""
        return self.start(name, [sys.executable, "-m", "sidecar.cli", *arguments])

    def pid(self, name: str) -> int:
        """The process id of a process."""
        return self._running[name].pid

    def exit_code(self, name: str) -> int | None:
        """Return the exit code of a process (negative: ended by that signal); None while it runs."""
        return self._running[name].poll()

    def require_running(self, *names: str) -> None:
        """Raise ProcessError if one of these processes has ended."""
        for name in names:
            code = self.exit_code(name)
            if code is not None:
                raise ProcessError(f"{name} ended with exit code {code}:\n{self._last_words(name)}")

    def wait_for(self, name: str, is_there: Callable[[], bool]) -> None:
        """Wait until a condition on a process holds.

        Raises:
            ProcessError: the process has ended, or the condition takes too long.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while not is_there():
            self.require_running(name)
            if time.monotonic() > deadline:
                raise ProcessError(f"{name} is not there after {_PATIENCE_S:.0f} s:\n{self._last_words(name)}")
            time.sleep(_LOOK_S)

    def wait_for_end(self, name: str) -> None:
        """Wait until a process has ended with exit code 0.

        Raises:
            ProcessError: the process failed, or takes too long.
        """
        try:
            code = self._running[name].wait(_PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"{name} does not end:\n{self._last_words(name)}") from error
        if code != 0:
            raise ProcessError(f"{name} ended with exit code {code}:\n{self._last_words(name)}")

    def stop(self, *names: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop these processes, the last started first, and wait; without names, all of them.

        The signal goes to the whole group: a shell would otherwise leave its program behind. A process that does not
        end in time is killed.
        """
        stopping = [(name, self._running[name]) for name in reversed(self._running) if not names or name in names]
        for _, process in stopping:
            _signal(process, number)
        deadline = time.monotonic() + self._stop_s
        for _, process in stopping:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _last_words(self, name: str) -> str:
        log = self._log(name)
        return "\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:]) if log.exists() else ""


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:  # so its pid, which is its group's too, is still its own
        os.killpg(process.pid, number)


def free_ports(count: int) -> list[int]:
    """Return free ports on loopback, reserved for this process among the callers of this function.

    Ports come in blocks; a process owns a block while it has bound the block's first port. All ports are outside the
    kernel's range for outgoing connections.

    Raises:
        ProcessError: all blocks are in use.
    """
    found: list[int] = []
    while len(found) < count:
        if not _left:
            _left.extend(_take_block())
        port = _left.pop()
        one = _bind(port)
        if one is not None:
            one.close()
            found.append(port)
    return found


def _take_block() -> list[int]:
    blocks = [*_PORTS[::_BLOCK]]
    secrets.SystemRandom().shuffle(blocks)
    for first in blocks:
        lock = _bind(first)
        if lock is not None:
            _locks.append(lock)
            return [*range(first + _BLOCK - 1, first, -1)]
    raise ProcessError(f"no free ports between {_PORTS.start} and {_PORTS.stop}: stop other development meshes")


def _bind(port: int) -> socket.socket | None:
    one = socket.socket()
    try:
        one.bind(("127.0.0.1", port))
    except OSError:
        one.close()
        return None
    return one


def answers(url: str) -> bool:
    """Return True if a GET is answered with 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def listens(port: int, address: str = "127.0.0.1") -> bool:
    """Return True if a port of loopback accepts connections."""
    try:
        socket.create_connection((address, port)).close()
    except OSError:
        return False
    return True
