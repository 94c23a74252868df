"""The book of orders as a document, for a file or another replica: each order is encoded as JSON once.

A book is up to 64 MiB long, so the document is written in pieces.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import orjson

from delegation_core.steps import Steps, slices
from sidecar.sts.book import Book

_IN_A_PIECE: Final = 64  # orders


def rows_of(book: Book, known: Mapping[str, bytes]) -> Steps[Mapping[str, bytes]]:
    """Return, in steps, each order as JSON, by ID; reuses the JSON in ``known``."""
    rows: dict[str, bytes] = {}
    for some in slices(book.orders.items()):
        yield
        rows.update((name, known.get(name) or one.row()) for name, one in some)
    return rows


def pieces_of(members: Mapping[str, object], rows: Mapping[str, bytes]) -> Iterator[bytes]:
    """Yield a book as JSON, in short pieces."""
    yield orjson.dumps(members)[:-1] + b',"orders":['
    begun = False
    for some in slices(rows.values(), _IN_A_PIECE):
        yield (b"," if begun else b"") + b",".join(some)
        begun = True
    yield b"]}"


def write_atomically(file: Path, content: Iterable[bytes]) -> None:
    """Replace a file as a whole; it survives a loss of power. Raises OSError."""
    fresh = file.with_name(f".{file.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.writelines(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
