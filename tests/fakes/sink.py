"""A sink in memory that fails or blocks on demand. Tests wait for its content; they never sleep."""

import threading
from collections.abc import Callable

import orjson

from sidecar.observe.sink import Room


def _nothing() -> None:
    """See ``on_script_end``."""


class FakeSink:
    """Passes the same tests as the real sinks in ``tests/observe/test_writer.py``."""

    name = "fake"
    begins_line = False

    def __init__(self) -> None:
        self.data = b""
        self.error: OSError | None = None
        self.blocked = False
        self.most_bytes = 1 << 20
        self.script: list[int | OSError] = []  # results of the next writes: bytes taken, or an error
        self.on_script_end: Callable[[], None] = _nothing
        self.renewed = 0
        self.replaced = False  # the next renew finds another sink in its place
        self.tries = 0
        self.closed = False
        self.changed = threading.Condition()

    def write(self, data: memoryview) -> int:
        with self.changed:
            self.tries += 1
            self.changed.notify_all()
            if self.error is not None:
                raise self.error
            while self.blocked:
                self.changed.wait(5)
            step = self.script.pop(0) if self.script else self.most_bytes
            if not self.script:
                self.on_script_end()
                self.on_script_end = _nothing
            if isinstance(step, OSError):
                raise step
            written = bytes(data[:step])
            self.data += written
            self.changed.notify_all()
            return len(written)

    def renew(self) -> bool:
        self.renewed += 1
        replaced, self.replaced = self.replaced, False
        return replaced

    def room(self) -> Room | None:
        return None

    def settle(self) -> None:
        """Do nothing: there are no other writers."""

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def fail(self, error: OSError | None) -> None:
        """Raise ``error`` from now on; None: writes succeed again."""
        with self.changed:
            self.error = error
            self.changed.notify_all()

    def block(self, *, blocked: bool) -> None:
        """Block writes from now on; False: they return again."""
        with self.changed:
            self.blocked = blocked
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; it is checked whenever the sink is used."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout=5)

    def wait_for_lines(self, count: int) -> list[bytes]:
        """Return the first ``count`` lines."""
        self.wait_for(lambda: self.data.count(b"\n") >= count)
        return self.data.splitlines(keepends=True)[:count]

    def wait_for_records(self, count: int) -> list[dict[str, object]]:
        """Return the first lines, parsed."""
        return [orjson.loads(line) for line in self.wait_for_lines(count)]
