"""Several processes, one sink: each with a lock on its own descriptor, as after an exec."""

from __future__ import annotations

import errno
import os

import pytest

from sidecar.observe.shared_sink import SharedSink, new_lock
from tests.fakes.sink import FakeSink


@pytest.mark.parametrize(
    ("script", "written"),
    [
        ([0], b"two\n"),  # full: no byte was written
        ([OSError(errno.ENOSPC, "")], b"two\n"),
        ([2, OSError(errno.ENOSPC, "")], b"on\ntwo\n"),
        ([2, OSError(errno.EPIPE, "")], b"ontwo\n"),  # the reader left with half a line: the next one gets a whole line
    ],
)
def test_only_a_line_that_was_begun_is_ended(script: list[int | OSError], written: bytes) -> None:
    lock, sink = new_lock(), FakeSink()
    shared = SharedSink(sink, lock)
    shared.renew()
    sink.script = list(script)
    data = memoryview(b"one\n")
    for _ in script:
        try:
            data = data[shared.write(data) :]
        except OSError:
            break
    shared.settle()
    shared.renew()
    shared.write(memoryview(b"two\n"))
    shared.close()
    assert sink.data == written
    os.close(lock)
