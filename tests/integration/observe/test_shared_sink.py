"""Several processes, one sink: each with a lock on its own descriptor, as after an exec."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.observe.shared_sink import SharedSink, new_lock
from tests.fakes.sink import FakeSink

pytestmark = pytest.mark.integration


WRITES = """
import sys
from pathlib import Path
from sidecar.observe.shared_sink import SharedSink
from sidecar.observe.sink import FileSink
from sidecar.observe.writer import Writer
lock, name, path, count = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
writer = Writer(SharedSink(FileSink(path), lock), b"".join, flush_s=0.0)
for number in range(count):
    writer.put((name * 20_000 + f"{number}\\n").encode())
    if number == count // 2 and name == "a":
        path.rename(f"{path}.1")
raise SystemExit(len(writer.close(60)))
"""


HOLDS = """
import os, sys
from sidecar.observe.shared_sink import SharedSink
from sidecar.observe.sink import StdoutSink
sink = SharedSink(StdoutSink(int(sys.argv[2])), int(sys.argv[1]))
sink.renew()
sink.write(memoryview(b"half a line"))
os.write(1, b"holding")
import signal; signal.pause()
"""


def python(program: str, lock: int, *arguments: str, fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(lock), *arguments], pass_fds=(lock, *fds), stdout=subprocess.PIPE
    )


def test_lines_of_several_processes_never_mix_also_while_the_file_is_rotated(tmp_path: Path) -> None:
    lock, path = new_lock(), tmp_path / "records"
    path.touch()
    running = [python(WRITES, lock, name, str(path), "40") for name in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    lines = [line for file in (tmp_path / "records.1", path) for line in file.read_text().splitlines()]
    for name in "abc":
        assert [line for line in lines if line[0] == name] == [name * 20_000 + str(number) for number in range(40)]
    for process in running:
        process.communicate()
    os.close(lock)


def test_who_is_killed_inside_a_line_leaves_the_lock_and_the_next_line_begins_anew() -> None:
    lock, (reader, writer) = new_lock(), os.pipe()
    holder = python(HOLDS, lock, str(writer), fds=(writer,))
    assert holder.stdout is not None
    assert holder.stdout.read(7) == b"holding"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    sink = FakeSink()
    shared = SharedSink(sink, lock)
    shared.renew()
    shared.write(memoryview(b"whole\n"))
    shared.settle()
    shared.renew()
    shared.write(memoryview(b"another\n"))
    shared.close()
    assert os.read(reader, 100) == b"half a line"
    assert sink.data == b"\nwhole\nanother\n"
    for fd in (lock, reader, writer):
        os.close(fd)
