from __future__ import annotations

import stat
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path

import pytest

from delegation_core.steps import at_once
from sidecar.sts.book import parse_book
from sidecar.sts.book_file import pieces_of, rows_of, write_atomically
from tests.sts.test_revocations import book


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_a_book_is_read_as_it_was_written(count: int) -> None:
    rows = at_once(rows_of(book(count), {}))
    pieces = list(pieces_of({"seq": count, "replica": "a"}, rows))
    assert len(pieces) == 2 + (count + 63) // 64
    assert at_once(parse_book(b"".join(pieces))) == (book(count), {"seq": count, "replica": "a"})


def test_an_order_is_written_as_json_once() -> None:
    known = at_once(rows_of(book(2), {}))
    again = at_once(rows_of(book(3), known))
    assert [again[name] is known[name] for name in known] == [True, True]
    assert len(again) == 3


def test_a_file_is_replaced_as_a_whole_and_for_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "orders.json"
    file.write_bytes(b"before")

    def failing() -> Iterator[bytes]:
        yield b"af"
        raise OSError(ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        write_atomically(file, failing())
    assert file.read_bytes() == b"before"
    write_atomically(file, [b"af", b"ter"])
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"after", 0o600)
