"""Loader of settings, in a child process that hands back finished dataclasses or every problem.

The validation library and the models take about 12 MiB, a fifth of an idle sidecar, for a few milliseconds of work. So
they never enter a serving process. At the start the child is a fork: there is no thread yet, and a new interpreter
needs four times the CPU (1.4 s, not 0.33 s). In a running process it is a new interpreter, because a fork of a process
with threads is unsafe: ``-m sidecar.config.loader KIND PATH [PLATFORM]``. It uses ``LOADING_BYTES`` for a second, and
asks the kernel to kill it before the sidecar if memory runs out. The parent of several workers loads once for all of
them. A child ends with its parent: the parent's end of their pipe closes, and the kernel signals that to the child.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from delegation_core.errors import ConfigError, Problem
from sidecar.config.handover import MAX_BYTES, HandoverError, decode, encode
from sidecar.file_watch import fingerprint, tree_fingerprint

T = TypeVar("T")

TIMEOUT_S: Final = 60.0
LOADING_FACTOR: Final = 20  # bytes for each byte of the files: make settings-size
LOADING_BYTES: Final = 48 * 1024 * 1024  # 44 MiB measured, and 22 more of files that all processes share


class SettingsFiles(NamedTuple):
    """The files that settings are loaded from. Only a sidecar's may have a ``platform`` file above it."""

    kind: Literal["sidecar", "sts"]
    path: Path
    platform: Path | None = None
    included: tuple[Path, ...] = ()  # from the latest read, even of refused settings

    def fingerprint(self) -> tuple[Hashable, ...]:
        """Return a value that changes whenever one of the files changes."""
        own = (fingerprint(path) for path in (self.path, self.platform) if path is not None)
        return (*own, *map(tree_fingerprint, self.included))

    def following(self, followed: Sequence[tuple[Path, Hashable]]) -> SettingsFiles:
        """Return a copy whose included files are those of ``followed``."""
        return self._replace(included=tuple(path for path, _ in followed))

    def after(self, error: ConfigError) -> SettingsFiles:
        """Return a copy with the included files of refused settings; unchanged if ``error`` names none."""
        return self.following(error.followed) if error.followed else self

    def need_bytes(self) -> int:
        """Return the bytes of memory that loading takes; it grows with the size of the files."""
        return LOADING_BYTES + self.settings_bytes()

    def settings_bytes(self) -> int:
        """Return the bytes of memory for a second version of the settings: ``LOADING_FACTOR`` per byte of the files."""
        paths = (self.path, self.platform, *self.included)
        return LOADING_FACTOR * sum(_size_of(path) for path in paths if path is not None)

    def load(self, environ: Mapping[str, str]) -> Any:
        """Load the settings in this process.

        Raises:
            ConfigError: every problem.
        """
        from sidecar.config import load_sidecar, load_sts

        return load_sts(self.path, environ) if self.kind == "sts" else load_sidecar(self.path, environ, self.platform)


class Loaded(NamedTuple, Generic[T]):
    """Settings, the files that they came from, and the fingerprint of these before they were read."""

    settings: T
    files: SettingsFiles
    fingerprint: Hashable


def load_at_start(files: SettingsFiles, environ: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> Loaded[Any]:
    """Load settings in a forked child. For the start of a process: there must be no other thread yet.

    Raises:
        ConfigError: every problem; or the child could not be started, died or took longer than ``timeout_s``.
    """
    before = files.following(()).fingerprint()
    try:
        settings = load_in_fork(lambda: files.load(environ), timeout_s)
    except TimeoutError:
        raise _failed(files.path, "took too long to load") from None
    except OSError as error:  # no descriptors, processes or memory left
        raise _failed(files.path, f"could not be loaded ({error.strerror})") from error
    except HandoverError:
        raise _failed(files.path, "could not be loaded") from None
    return _loaded(settings, files, before)


async def load_again(files: SettingsFiles, environ: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> Loaded[Any]:
    """Load settings in a new interpreter, while this process serves.

    Raises:
        ConfigError: every problem; or the interpreter could not be started, died or took longer than ``timeout_s``.
    """
    before = files.following(()).fingerprint()
    arguments = [files.kind, str(files.path), *(() if files.platform is None else (str(files.platform),))]
    try:
        end, held = os.pipe()
    except OSError as error:
        raise _failed(files.path, f"could not be loaded ({error.strerror})") from error
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", __name__, *arguments),
            stdin=end,
            stdout=asyncio.subprocess.PIPE,
            env=dict(environ),
        )
        end_with_pipe(end, process.pid)
    except OSError as error:  # out of descriptors, processes or memory: the sidecar must outlive that
        os.close(held)
        raise _failed(files.path, f"could not be loaded ({error.strerror})") from error
    finally:
        os.close(end)
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _read(process.stdout)
            await process.wait()
    except TimeoutError:
        raise _failed(files.path, "took too long to load") from None
    except HandoverError:
        raise _failed(files.path, "could not be loaded") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(held)
    if process.returncode != 0:
        raise _failed(files.path, "could not be loaded")
    try:
        return _loaded(decode(answer), files, before)
    except HandoverError:
        raise _failed(files.path, "could not be loaded") from None


def _loaded(settings: Any, files: SettingsFiles, before: tuple[Hashable, ...]) -> Loaded[Any]:
    followed = getattr(settings, "included", ())
    return Loaded(settings, files.following(followed), (*before, *(seen for _, seen in followed)))


def _size_of(path: Path) -> int:
    """Return the bytes of a file, or of the files directly in a folder; 0 for one that cannot be read."""
    try:
        if path.is_dir():
            return sum(_size_of(one) for one in path.iterdir() if not one.name.startswith("."))
        return path.stat().st_size
    except OSError:
        return 0


def load_in_fork(load: Callable[[], T], timeout_s: float = TIMEOUT_S) -> T:
    """Return what ``load`` returns in a forked child, or raise its ConfigError. The child is gone afterwards.

    Raises:
        HandoverError: it died without an answer; its standard error says why.
        TimeoutError: it took longer than ``timeout_s``, and was killed.
        OSError: there is no descriptor, process or memory for it.
    """
    opened: list[int] = []
    try:
        opened += os.pipe()
        opened += os.pipe()
        child = os.fork()
    except OSError:
        for one in opened:
            os.close(one)
        raise
    reader, writer, end, held = opened
    if child == 0:
        os.close(reader)
        os.close(held)
        end_with_pipe(end, os.getpid())
        end_if_orphaned(end)
        _answer_and_exit(writer, load)
    os.close(writer)
    os.close(end)
    status = 1
    try:
        answer = _read_until_end(reader, time.monotonic() + timeout_s)
        _, status = os.waitpid(child, 0)  # its end of the pipe is closed: it has ended
        child = 0
    finally:
        os.close(reader)
        os.close(held)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status != 0:
        raise HandoverError("the process that loads the settings ended without an answer")
    settings: T = decode(answer)
    return settings


def _read_until_end(reader: int, deadline: float) -> bytes:
    answer = bytearray()
    waiting = select.poll()
    waiting.register(reader, select.POLLIN)
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not waiting.poll(left_s * 1000):
            raise TimeoutError
        piece = os.read(reader, 65536)
        if not piece:
            return bytes(answer)
        _add(answer, piece)


async def _read(output: asyncio.StreamReader | None) -> bytes:
    assert output is not None  # noqa: S101 - for the type only: it is a pipe
    answer = bytearray()
    while piece := await output.read(65536):
        _add(answer, piece)
    return bytes(answer)


def _add(answer: bytearray, piece: bytes) -> None:
    answer += piece
    if len(answer) > MAX_BYTES:
        raise HandoverError("the loader's answer is too large")


def _failed(path: Path, wrong: str) -> ConfigError:
    return ConfigError([Problem(str(path), wrong, "see standard error, and try again")], transient=True)


def end_with_pipe(end: int, process: int) -> None:
    """Have the kernel end a process (SIGIO) when the other end of this pipe closes, as when its holder is killed.

    The parent calls this, because a new interpreter may need seconds before it runs its first line.
    """
    fcntl.fcntl(end, fcntl.F_SETOWN, process)
    fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_ASYNC)


# In the child


def _answer_and_exit(writer: int, load: Callable[[], object]) -> None:
    """Answer and exit the fork, without the parent's exit handlers and buffers."""
    status = 1
    try:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(encode(load))
        status = 0
    finally:
        if status:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(status)


def end_if_orphaned(end: int) -> None:
    """End this process if its parent ended before it could call ``end_with_pipe``."""
    waiting = select.poll()
    waiting.register(end, 0)  # POLLHUP is always reported
    if waiting.poll(0):
        os._exit(1)


def prefer_to_be_killed(adjustment: Path = Path("/proc/self/oom_score_adj")) -> None:
    """Ask the kernel to kill this process before any other one of its cgroup when memory runs out."""
    with suppress(OSError):  # another system, or no permission
        adjustment.write_text("1000")


def _main(kind: Literal["sidecar", "sts"], path: str, platform: str | None = None) -> None:
    prefer_to_be_killed()
    end_if_orphaned(sys.stdin.fileno())
    files = SettingsFiles(kind, Path(path), None if platform is None else Path(platform))
    sys.stdout.buffer.write(encode(lambda: files.load(os.environ)))


if __name__ == "__main__":
    _main(*sys.argv[1:])  # type: ignore[arg-type]
