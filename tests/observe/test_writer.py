import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.observe.sink import FileSink, StdoutSink
from sidecar.observe.writer import AT_ONCE, FLUSH_S, STALL_S, Writer
from tests.disk import disk
from tests.fakes.sink import FakeSink

JOIN: Callable[[list[bytes]], bytes] = b"".join  # most tests put finished lines
LINES = [b'{"n":%d}\n' % number for number in range(500)]


@pytest.fixture
def sink() -> Iterator[FakeSink]:
    sink = FakeSink()
    yield sink
    sink.fail(None)
    sink.block(blocked=False)


@pytest.fixture
def writer(sink: FakeSink) -> Iterator[Writer[bytes]]:
    writer = Writer(sink, JOIN)
    yield writer
    sink.fail(None)
    sink.block(blocked=False)
    writer.close(5)


def test_lines_come_out_whole_and_in_order(sink: FakeSink, writer: Writer[bytes]) -> None:
    for line in LINES:
        writer.put(line)
    assert sink.wait_for_lines(len(LINES)) == LINES


def test_a_line_is_written_within_fifty_milliseconds(sink: FakeSink, writer: Writer[bytes]) -> None:
    assert FLUSH_S <= 0.025  # the other half is for a thread that wakes late
    writer.put(LINES[0])
    assert sink.wait_for_lines(1) == LINES[:1]


def test_a_sink_that_cannot_be_opened_is_trouble_before_the_first_line(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    writer = Writer(FileSink(folder), JOIN)
    try:
        deadline = time.monotonic() + 5
        while writer.trouble(time.monotonic()) is None and time.monotonic() < deadline:
            os.sched_yield()
        assert writer.trouble(time.monotonic()) == "the record sink failed: EISDIR"
        folder.rmdir()
        while writer.trouble(time.monotonic()) is not None and time.monotonic() < deadline:
            os.sched_yield()
        assert writer.trouble(time.monotonic()) is None
    finally:
        writer.close(5)


def test_a_pipe_that_nobody_reads_is_trouble_before_the_first_line(tmp_path: Path) -> None:
    pipe = tmp_path / "records"
    os.mkfifo(pipe)
    writer = Writer(FileSink(pipe), JOIN, stall_s=0.05)
    deadline = time.monotonic() + 5
    while writer.trouble(time.monotonic()) is None and time.monotonic() < deadline:
        os.sched_yield()
    assert writer.trouble(time.monotonic()) == "the record sink failed: ENXIO"
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while writer.trouble(time.monotonic()) is not None and time.monotonic() < deadline:
            os.sched_yield()
        assert writer.trouble(time.monotonic()) is None
    finally:
        writer.close(5)
        os.close(reader)


def test_short_writes_are_continued_where_they_ended(sink: FakeSink, writer: Writer[bytes]) -> None:
    sink.most_bytes = 3
    for line in LINES[:20]:
        writer.put(line)
    assert sink.wait_for_lines(20) == LINES[:20]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF])
def test_a_failing_sink_is_trouble_until_it_works_again_and_nothing_is_lost(
    code: int, sink: FakeSink, writer: Writer[bytes]
) -> None:
    sink.fail(OSError(code, "no"))
    writer.put(LINES[0])
    sink.wait_for(lambda: sink.tries >= 2)
    assert writer.trouble(time.monotonic()) == f"the record sink failed: {errno.errorcode[code]}"
    assert writer.pending_lines == 1
    writer.put(LINES[1])
    sink.fail(None)
    assert sink.wait_for_lines(2) == LINES[:2]
    assert writer.close(5) == b""
    assert writer.trouble(time.monotonic()) is None


def test_a_line_cut_off_by_a_lost_reader_is_written_again_from_its_start(sink: FakeSink, writer: Writer[bytes]) -> None:
    sink.script = [len(LINES[0]) + 4, OSError(errno.EPIPE, "gone")]
    writer.put(LINES[0] + LINES[1])
    sink.wait_for(lambda: sink.data.endswith(LINES[1]))
    assert sink.data == LINES[0] + LINES[1][:4] + LINES[1]


def test_a_full_disk_does_not_repeat_what_was_written(sink: FakeSink, writer: Writer[bytes]) -> None:
    sink.script = [len(LINES[0]) + 4, OSError(errno.ENOSPC, "full")]
    writer.put(LINES[0] + LINES[1])
    assert sink.wait_for_lines(2) == LINES[:2]


def test_a_line_that_was_begun_goes_on_while_the_sink_is_the_same(sink: FakeSink, writer: Writer[bytes]) -> None:
    sink.script = [len(LINES[0]), OSError(errno.EIO, "no"), 4, OSError(errno.EIO, "no")]
    writer.put(LINES[0] + LINES[1])
    assert sink.wait_for_lines(2) == LINES[:2]


@pytest.mark.parametrize("how", [OSError(errno.EIO, "no"), 0], ids=["it failed", "it took nothing"])
def test_a_line_that_was_begun_begins_again_in_the_sink_that_took_its_place(
    how: int | OSError, sink: FakeSink, writer: Writer[bytes]
) -> None:
    def replace() -> None:
        sink.replaced = True

    sink.script = [len(LINES[0]) + 4, how]
    sink.on_script_end = replace
    writer.put(LINES[0] + LINES[1])
    sink.wait_for(lambda: sink.data.endswith(LINES[1]))
    assert sink.data == LINES[0] + LINES[1][:4] + LINES[1]


def test_a_blocked_sink_is_trouble_once_it_made_no_progress_for_a_while(sink: FakeSink, writer: Writer[bytes]) -> None:
    sink.block(blocked=True)
    writer.put(LINES[0])
    sink.wait_for(lambda: sink.tries == 1)
    now = time.monotonic()
    assert writer.trouble(now) is None
    assert writer.trouble(now + STALL_S + 0.1) == "the record sink is blocked"
    sink.block(blocked=False)
    sink.wait_for_lines(1)
    assert writer.close(5) == b""
    assert writer.trouble(time.monotonic() + 100) is None


def test_closing_writes_what_is_pending(sink: FakeSink, writer: Writer[bytes]) -> None:
    for line in LINES:
        writer.put(line)
    assert writer.close(5) == b""
    assert sink.data == b"".join(LINES)
    assert sink.closed


def test_closing_does_not_wait_for_a_dead_sink_longer_than_told_and_says_what_is_lost(
    sink: FakeSink, writer: Writer[bytes]
) -> None:
    sink.fail(OSError(errno.EPIPE, "gone"))
    for line in LINES[:3]:
        writer.put(line)
    assert writer.close(0.05) == b"".join(LINES[:3])


def test_what_is_taken_and_what_is_written_is_counted(sink: FakeSink, writer: Writer[bytes]) -> None:
    sink.block(blocked=True)
    for line in LINES[:3]:
        writer.put(line)
    sink.wait_for(lambda: sink.tries == 1)
    assert (writer.pending_lines, writer.lines_out) == (3, 0)
    assert writer.bytes_in - writer.bytes_out == sum(map(len, LINES[:3]))
    sink.block(blocked=False)
    sink.wait_for_lines(3)
    writer.close(5)
    assert (writer.pending_lines, writer.lines_out) == (0, 3)
    assert writer.bytes_in == writer.bytes_out


def test_what_waits_is_encoded_by_who_puts_it_as_soon_as_it_is_many_whatever_the_sink_does(sink: FakeSink) -> None:
    encoded: list[tuple[str, int]] = []

    def encode(lines: list[bytes]) -> bytes:
        encoded.append((threading.current_thread().name, len(lines)))
        return JOIN(lines)

    writer = Writer(sink, encode)
    sink.block(blocked=True)
    writer.put(LINES[0])
    sink.wait_for(lambda: sink.tries == 1)
    for line in LINES[1 : 3 * AT_ONCE]:
        writer.put(line)
    assert writer.bytes_in == sum(map(len, LINES[: 2 * AT_ONCE + 1]))
    assert writer.pending_lines == 3 * AT_ONCE
    sink.block(blocked=False)
    assert sink.wait_for_lines(3 * AT_ONCE) == LINES[: 3 * AT_ONCE]
    assert writer.close(5) == b""
    own, putting = "records", threading.current_thread().name
    assert [one for one in encoded if one[1]] == [(own, 1), *2 * [(putting, AT_ONCE)], (own, AT_ONCE - 1)]


def test_who_puts_does_not_wait_while_the_thread_encodes_and_the_order_stays(sink: FakeSink) -> None:
    encoding, go_on = threading.Event(), threading.Event()

    def encode(lines: list[bytes]) -> bytes:
        encoding.set()
        assert go_on.wait(5)
        return JOIN(lines)

    writer = Writer(sink, encode)
    writer.put(LINES[0])
    assert encoding.wait(5)
    for line in LINES[1 : 2 * AT_ONCE]:
        writer.put(line)
    assert writer.pending_lines >= 2 * AT_ONCE  # never too low, even while lines are being encoded
    go_on.set()
    assert sink.wait_for_lines(2 * AT_ONCE) == LINES[: 2 * AT_ONCE]
    assert writer.close(5) == b""


def test_what_is_put_by_the_garbage_collector_within_the_encoding_is_written_too(sink: FakeSink) -> None:
    late = iter(LINES[AT_ONCE : 2 * AT_ONCE])

    def encode(lines: list[bytes]) -> bytes:
        for line in late if lines else ():  # as when an abandoned journey ends; not before there is a writer
            filled.put(line)
        return JOIN(lines)

    filled = Writer(sink, encode)
    for line in LINES[:AT_ONCE]:
        filled.put(line)
    assert sorted(sink.wait_for_lines(2 * AT_ONCE)) == sorted(LINES[: 2 * AT_ONCE])
    assert filled.close(5) == b""


def test_what_was_put_and_encoded_just_before_the_thread_rests_is_written_without_another(
    sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(sink, JOIN)
    clear, late = writer._wake.clear, iter(LINES[1 : AT_ONCE + 1])

    def put_before() -> None:  # as the loop's thread does when it runs at that moment
        for line in late:
            writer.put(line)
        clear()

    monkeypatch.setattr(writer._wake, "clear", put_before)
    writer.put(LINES[0])
    assert sink.wait_for_lines(AT_ONCE + 1) == LINES[: AT_ONCE + 1]
    assert writer.close(5) == b""


def test_a_thread_that_is_told_to_end_just_before_it_rests_does_not_rest(
    sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(sink, JOIN)
    clear = writer._wake.clear

    def told_before() -> None:
        writer.close(0)
        clear()

    monkeypatch.setattr(writer._wake, "clear", told_before)
    monkeypatch.setattr(writer._thread, "join", lambda _timeout_s: None)  # the test's own thread calls close
    writer.put(LINES[0])
    sink.wait_for(lambda: sink.closed)
    assert sink.data == LINES[0]


def test_lines_keep_their_order_though_two_threads_encode(sink: FakeSink) -> None:
    writer = Writer(sink, JOIN, flush_s=0.0)
    lines = [b"%d\n" % number for number in range(20_000)]
    for line in lines:
        writer.put(line)
    assert writer.close(5) == b""
    assert sink.data == b"".join(lines)
    assert (writer.lines_out, writer.bytes_out) == (len(lines), len(sink.data))


@pytest.mark.parametrize("count", [3, AT_ONCE], ids=["by the thread", "by who puts"])
def test_a_record_that_cannot_be_encoded_costs_no_other_and_not_the_thread(
    sink: FakeSink, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(lines: list[bytes]) -> bytes:
        if b"bad" in lines:
            raise TypeError("a bug")
        return b"".join(lines)

    writer = Writer(sink, encode)
    lines = [*LINES[: count - 1], b"bad"]
    for line in lines:
        writer.put(line)
    assert sink.wait_for_lines(count - 1) == LINES[: count - 1]
    writer.put(LINES[count])
    assert sink.wait_for_lines(count)[-1] == LINES[count]
    assert writer.close(5) == b""
    assert caplog.text.count("a record cannot be written") == 1


def test_a_record_that_cannot_be_encoded_and_is_alone_waits_no_more(sink: FakeSink) -> None:
    def encode(_lines: list[bytes]) -> bytes:
        raise TypeError("a bug")

    writer = Writer(sink, encode)
    writer.put(b"bad")
    assert writer.close(5) == b""


def test_a_pipe_that_a_neighbour_made_non_blocking_is_waited_for() -> None:
    reader, fd = os.pipe()
    os.set_blocking(fd, False)
    writer = Writer(StdoutSink(fd), JOIN)
    lines = [b"x" * 999 + b"\n"] * 300  # several times a pipe's capacity
    for line in lines:
        writer.put(line)
    received = bytearray()
    while len(received) < 300_000:
        received += os.read(reader, 4096)
    assert received == b"".join(lines)
    assert writer.close(5) == b""
    assert os.get_blocking(fd) is False
    os.close(reader)
    os.close(fd)


def test_a_pipe_without_a_reader_is_trouble() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    failed = threading.Event()

    class Watched(StdoutSink):
        def write(self, data: memoryview) -> int:
            try:
                return super().write(data)
            except BrokenPipeError:
                failed.set()
                raise

    writer = Writer(Watched(fd), JOIN)
    writer.put(LINES[0])
    assert failed.wait(5)
    assert writer.close(0.05) == LINES[0]
    assert writer.trouble(time.monotonic()) == "the record sink failed: EPIPE"
    os.close(fd)


def test_a_file_is_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    for line in LINES[:2]:
        sink = FileSink(path)
        writer = Writer(sink, JOIN)
        writer.put(line)
        assert writer.close(5) == b""
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_bytes().endswith(line)
    assert path.read_bytes() == LINES[0] + LINES[1]


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    sink = FileSink(path)
    sink.renew()
    sink.write(memoryview(LINES[0]))
    path.rename(tmp_path / "old")
    sink.renew()
    sink.write(memoryview(LINES[1]))
    sink.renew()
    sink.write(memoryview(LINES[2]))
    sink.close()
    assert (tmp_path / "old").read_bytes() == LINES[0]
    assert path.read_bytes() == LINES[1] + LINES[2]


def test_a_file_stays_open_while_it_is_there_and_is_closed_when_left(tmp_path: Path) -> None:
    before = open_files()
    sink = FileSink(tmp_path / "records.jsonl")
    for _ in range(3):
        sink.renew()
    assert open_files() == before + 1
    (tmp_path / "records.jsonl").unlink()
    sink.renew()
    assert open_files() == before + 1
    sink.close()
    assert open_files() == before


def test_a_file_that_cannot_be_opened_is_trouble_and_works_once_it_can(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "records.jsonl"
    tried = threading.Event()

    class Watched(FileSink):
        def renew(self) -> bool:
            try:
                return super().renew()
            except FileNotFoundError:
                tried.set()
                raise

    writer = Writer(Watched(path), JOIN)
    writer.put(LINES[0])
    assert tried.wait(5)
    path.parent.mkdir()
    assert writer.close(5) == b""
    assert path.read_bytes() == LINES[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b""), (b'{"n":0}\n', b'{"n":0}\n'), (b'{"n":', b'{"n":\n'), (b"\n", b"\n")],
    ids=["empty", "whole lines", "half a line", "a newline"],
)
def test_a_record_is_never_glued_to_half_a_line(before: bytes, after: bytes, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(before)
    writer = Writer(FileSink(path), JOIN)
    writer.put(LINES[0])
    assert writer.close(5) == b""
    assert path.read_bytes() == after + LINES[0]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_for_trouble(writer: Writer[bytes]) -> str | None:
    """Return the trouble, as soon as there is any."""
    deadline = time.monotonic() + 5
    while writer.trouble(time.monotonic()) is None and time.monotonic() < deadline:
        os.sched_yield()
    return writer.trouble(time.monotonic())


def wait_for_settled(writer: Writer[bytes]) -> None:
    deadline = time.monotonic() + 5
    while writer.pending_lines and time.monotonic() < deadline:
        os.sched_yield()
    assert writer.pending_lines == 0


def test_rotation_under_load_loses_and_tears_nothing(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    writer = Writer(FileSink(path), JOIN, flush_s=0.0001)
    for number, line in enumerate(LINES):
        writer.put(line)
        if number % 50 == 25:
            wait_for_settled(writer)
            path.rename(tmp_path / f"records.jsonl.{number // 50}")
            if number % 100 == 25:
                path.touch(mode=0o600)  # as logrotate's `create` does
    assert writer.close(5) == b""
    rotated = [tmp_path / f"records.jsonl.{number}" for number in range(10)]
    assert b"".join(one.read_bytes() for one in [*rotated, path]) == b"".join(LINES)
    assert all(one.read_bytes().endswith(b"\n") for one in rotated)


def test_a_removed_folder_is_trouble_until_it_is_back_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "records.jsonl"
    path.parent.mkdir()
    writer = Writer(FileSink(path), JOIN)
    writer.put(LINES[0])
    wait_for_settled(writer)
    path.unlink()
    path.parent.rmdir()
    writer.put(LINES[1])
    assert wait_for_trouble(writer) == "the record sink failed: ENOENT"
    writer.put(LINES[2])
    path.parent.mkdir()
    assert writer.close(5) == b""
    assert path.read_bytes() == LINES[1] + LINES[2]


def test_a_device_without_room_is_trouble() -> None:
    writer = Writer(FileSink(Path("/dev/full")), JOIN)
    writer.put(LINES[0])
    assert wait_for_trouble(writer) == "the record sink failed: ENOSPC"
    assert writer.close(0.05) == LINES[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB."""
    with disk(tmp_path / "disk", "64k") as folder:
        yield folder


def test_a_full_disk_is_trouble_and_its_half_line_is_completed_once_there_is_room(small_disk: Path) -> None:
    path = small_disk / "records.jsonl"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    lines = [b'{"n":%d,"x":"%s"}\n' % (number, b"y" * 2000) for number in range(20)]
    writer = Writer(FileSink(path), JOIN)
    for line in lines:
        writer.put(line)
    assert wait_for_trouble(writer) == "the record sink failed: ENOSPC"
    assert not path.read_bytes().endswith(b"\n")  # so that there is a line to complete
    ballast.unlink()
    assert writer.close(5) == b""
    assert path.read_bytes() == b"".join(lines)


def test_after_a_full_disk_and_a_restart_the_half_line_stands_alone(small_disk: Path) -> None:
    path = small_disk / "records.jsonl"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    lines = [b'{"n":%d,"x":"%s"}\n' % (number, b"y" * 2000) for number in range(20)]
    killed = Writer(FileSink(path), JOIN)
    for line in lines:
        killed.put(line)
    wait_for_trouble(killed)
    assert killed.close(0) == b"".join(lines[path.read_bytes().count(b"\n") :])  # the torn line is among them, whole
    killed._thread.join(5)  # then it has closed its descriptor
    sink = FileSink(path)
    before = open_files()
    with pytest.raises(OSError, match="No space"):
        sink.renew()  # there is no space for the line break either
    assert open_files() == before
    ballast.unlink()
    writer = Writer(sink, JOIN)
    writer.put(LINES[7])
    assert writer.close(5) == b""
    *whole, half, last = path.read_bytes().splitlines(keepends=True)
    assert whole == lines[: len(whole)]
    assert lines[len(whole)].startswith(half.rstrip(b"\n"))
    assert last == LINES[7]


def test_a_disk_that_becomes_read_only_is_trouble_until_it_is_writable(small_disk: Path) -> None:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    path = small_disk / "records.jsonl"
    path.touch()
    remount("ro")
    writer = Writer(FileSink(path), JOIN)
    assert wait_for_trouble(writer) == "the record sink failed: EROFS"
    writer.put(LINES[0])
    remount("rw")
    assert writer.close(5) == b""
    assert path.read_bytes() == LINES[0]


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        FileSink(path).renew()


def test_a_failure_and_its_end_are_told_once_each_in_the_operations_log(
    sink: FakeSink, writer: Writer[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    sink.script = [OSError(errno.ENOSPC, "full"), OSError(errno.ENOSPC, "full")]
    writer.put(LINES[0])
    sink.wait_for_lines(1)
    writer.close(5)
    assert [record.message for record in caplog.records] == ["record sink failed", "record sink recovered"]


def full(small_disk: Path) -> tuple[Path, Writer[bytes], list[bytes]]:
    """Fill the disk with the record file alone, with a writer inside a line of it."""
    path = small_disk / "records.jsonl"
    lines = [b'{"n":%d,"x":"%s"}\n' % (number, b"y" * 2000) for number in range(60)]
    writer = Writer(FileSink(path), JOIN)
    for line in lines:
        writer.put(line)
    assert wait_for_trouble(writer) == "the record sink failed: ENOSPC"
    assert not path.read_bytes().endswith(b"\n")
    return path, writer, lines


def wait_for_recovery(writer: Writer[bytes]) -> None:
    wait_for_settled(writer)
    assert writer.trouble(time.monotonic()) is None


def test_a_full_disk_recovers_by_itself_when_its_record_file_is_removed(small_disk: Path) -> None:
    path, writer, lines = full(small_disk)
    written = path.read_bytes().count(b"\n")
    path.unlink()  # the blocks are free once the writer closes the file
    wait_for_recovery(writer)
    assert writer.close(5) == b""
    assert path.read_bytes() == b"".join(lines[written:])


def test_a_full_disk_recovers_by_itself_when_its_record_file_is_moved_to_another(
    small_disk: Path, tmp_path: Path
) -> None:
    path, writer, lines = full(small_disk)
    shutil.copy(path, tmp_path / "old")
    path.unlink()
    wait_for_recovery(writer)
    assert writer.close(5) == b""
    whole = [line for line in (tmp_path / "old").read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert b"".join(whole) + path.read_bytes() == b"".join(lines)


def test_a_pipe_in_the_place_of_a_full_file_is_no_end_either(small_disk: Path) -> None:
    path, writer, lines = full(small_disk)
    written = path.read_bytes().count(b"\n")
    path.unlink()
    os.mkfifo(path)
    deadline = time.monotonic() + 5
    while "ENXIO" not in str(writer.trouble(time.monotonic())) and time.monotonic() < deadline:
        os.sched_yield()
    path.unlink()
    wait_for_recovery(writer)
    assert writer.close(5) == b""
    assert path.read_bytes() == b"".join(lines[written:])


def test_a_pipe_that_is_read_no_more_may_be_replaced_by_a_file(tmp_path: Path) -> None:
    path = tmp_path / "records"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    lines = [b"%d%s\n" % (number, b"x" * 1500) for number in range(100)]
    writer = Writer(FileSink(path), JOIN, stall_s=0.05)
    for line in lines:
        writer.put(line)
    assert wait_for_trouble(writer) == "the record sink is blocked"
    path.unlink()
    wait_for_recovery(writer)
    assert writer.close(5) == b""
    received = b"".join(iter(lambda: os.read(reader, 65536), b""))
    os.close(reader)
    whole = received[: received.rfind(b"\n") + 1]
    assert whole + path.read_bytes() == b"".join(lines)


def test_a_removed_file_is_given_back_and_a_missing_folder_noticed_without_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.observe.writer.LOOK_S", 0.01)
    path = tmp_path / "logs" / "records"
    path.parent.mkdir()
    writer = Writer(FileSink(path), JOIN)
    writer.put(LINES[0])
    wait_for_settled(writer)
    shutil.rmtree(path.parent)
    assert wait_for_trouble(writer) == "the record sink failed: ENOENT"
    path.parent.mkdir()
    deadline = time.monotonic() + 5
    while writer.trouble(time.monotonic()) is not None and time.monotonic() < deadline:
        os.sched_yield()
    assert writer.trouble(time.monotonic()) is None
    assert writer.close(5) == b""


def test_a_descriptor_that_fails_for_ever_is_given_up_for_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "records"
    failing = [True]

    class Bad(FileSink):
        def write(self, data: memoryview) -> int:
            if failing.pop() if failing else False:
                os.close(self._fd)  # later errors are EBADF, like EIO or ESTALE of a dead disk or server
            return super().write(data)

    writer = Writer(Bad(path), JOIN)
    writer.put(LINES[0])
    assert writer.close(5) == b""
    assert path.read_bytes() == LINES[0]


def test_closing_hands_back_every_line_that_a_stuck_reader_did_not_take() -> None:
    reader, fd = os.pipe()
    writer = Writer(StdoutSink(fd), JOIN)
    lines = [b"%d%s\n" % (number, b"x" * 999) for number in range(300)]
    for line in lines:
        writer.put(line)
    rest = writer.close(0.1)
    received = b""
    while len(received) + len(rest) < sum(map(len, lines)):
        received += os.read(reader, 65536)
    assert set(lines) == {*received.splitlines(keepends=True)[:-1], *rest.splitlines(keepends=True)}
    os.close(reader)
    os.close(fd)


def test_a_bug_in_a_sink_is_trouble_and_nothing_is_lost(sink: FakeSink, writer: Writer[bytes]) -> None:
    sink.fail(ValueError("a bug"))  # type: ignore[arg-type]
    writer.put(LINES[0])
    assert wait_for_trouble(writer) == "the record sink failed: unknown"
    sink.fail(None)
    assert sink.wait_for_lines(1) == LINES[:1]


def test_the_room_of_a_files_disk_is_measured(small_disk: Path) -> None:
    writer = Writer(FileSink(small_disk / "records"), JOIN)
    writer.put(LINES[0])
    wait_for_settled(writer)
    deadline = time.monotonic() + 5
    while writer.filling is None and time.monotonic() < deadline:
        os.sched_yield()
    assert writer.filling is not None
    assert writer.filling.room.size_bytes == 65536
    assert 0 < writer.filling.room.free_bytes < 65536
    assert writer.close(5) == b""


def test_a_flush_is_told_once_all_before_it_is_written_and_not_earlier(sink: FakeSink) -> None:
    writer = Writer(sink, JOIN, flush_s=3600)  # nobody but the flush hurries it
    try:
        told = threading.Event()
        writer.flush(told.set)  # with nothing to write
        assert told.wait(5)
        sink.block(blocked=True)
        told.clear()
        for line in LINES:
            writer.put(line)
        writer.flush(told.set)
        with sink.changed:
            sink.changed.wait_for(lambda: sink.tries > 0, 5)
        assert not told.is_set()
        sink.block(blocked=False)
        assert told.wait(5)
        assert sink.data == b"".join(LINES)
    finally:
        sink.block(blocked=False)
        writer.close(5)


def test_nobody_to_be_told_does_not_end_the_thread(sink: FakeSink, writer: Writer[bytes]) -> None:
    def gone() -> None:
        raise RuntimeError("the loop is closed")

    writer.put(LINES[0])
    writer.flush(gone)
    writer.put(LINES[1])
    assert sink.wait_for_lines(2) == LINES[:2]
