"""Reads the entries of log files of any size, in constant memory: lines, or the objects of a JSON document.

Clouds and identity providers export one document: an array, or an object that holds one, such as ``Records``. A file is
read as such a document if it begins with an array of objects, or with ``{`` and its first line does not end with ``}``.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from delegation_audit.attribution.splitting import DECODER, Ambiguous, SplitError
from delegation_core.records.folders import find_files
from delegation_core.records.log_lines import MAX_LINE_BYTES, lines_of, open_file, show_progress
from delegation_core.records.unpacking import ArchiveError, Rewound, Stream

_HEAD_BYTES: Final = 1 << 16
_SNIFFED_BYTES: Final = 1024
_CHUNK_BYTES: Final = 1 << 18
_ENTRIES_PER_STEP: Final = 2048
CONTAINERS: Final = ("records", "value", "items", "events")
_UNFINISHED: Final = re.compile(r"[0-9.eE+-]*+")  # a number may continue in the next chunk
_SPACE: Final = re.compile(r"[\s,]*+")
_BLANK: Final = re.compile(r"\s*+")


@dataclass(frozen=True, slots=True)
class Element:
    """One entry: the text of a line, or a JSON object. ``content`` is None if it is malformed or exceeds the size limit
    of about MAX_LINE_BYTES. ``item`` numbers the entries of a document from 1; None for a line.
    """

    file: str
    line: int
    item: int | None
    content: bytes | dict[str, object] | None

    @property
    def place(self) -> str:
        """The place as ``file:line``, and in a document the number of the entry."""
        return f"{self.file}:{self.line}" + ("" if self.item is None else f", item {self.item}")


def read_elements(paths: Sequence[str]) -> Iterator[Element]:
    """Yield the entries of all files. Below folders, skips hidden files, binary files and archives.

    Raises:
        OSError: a file cannot be read, or a compressed file is corrupt, truncated or too large; the text names it.
        ArchiveError: a path is an archive.
    """
    found = find_files(paths)
    files = list(dict.fromkeys(path for path, named in found if named or not Path(path).name.startswith(".")))
    given = frozenset(paths)
    with show_progress(files) as advance:
        for file in files:
            with contextlib.ExitStack() as stack:
                try:
                    stream, position = stack.enter_context(open_file(file))
                except ArchiveError:
                    if file in given:
                        raise
                    continue  # a binary in a folder
                head = stream.read(_HEAD_BYTES)
                if b"\0" in head[:_SNIFFED_BYTES] and file not in given:
                    continue
                for number, entry in enumerate(entries_of(file, head, stream)):
                    yield entry
                    if number % _ENTRIES_PER_STEP == 0:
                        advance(file, position())


def entries_of(file: str, head: bytes, stream: Stream) -> Iterator[Element]:
    """Yield the entries of a file; ``head`` holds its first bytes, which were already read from ``stream``."""
    rewound = Rewound(head, stream)
    return Document(file, rewound).entries() if _is_document(head) else _lines(file, rewound)


def _lines(file: str, stream: Stream) -> Iterator[Element]:
    for line in lines_of(file, stream):
        yield Element(file, line.number, None, line.content)


def _is_document(head: bytes) -> bool:
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b"["):  # a text line of Envoy begins with a time in brackets
        return text[1:].lstrip()[:1] in {b"{", b"]", b""}
    if not text.startswith(b"{"):
        return False
    return not text.partition(b"\n")[0].rstrip().endswith(b"}")


class Document:
    """Incremental parser for the objects of one JSON document, or of several in sequence."""

    def __init__(self, file: str, stream: Stream) -> None:
        self._file = file
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._text = ""
        self._at = 0
        self._line = 1
        self._item = 0
        self._ended = False
        self._null = False  # the last value read was ``null``

    def entries(self) -> Iterator[Element]:
        """Yield the objects, and the lines of text between them."""
        while character := self._next():
            if character == "{":
                yield from self._object()
            elif character == "[" and self._within() in "{[]":  # a text line of Envoy begins with a time in brackets
                self._at += 1
                yield from self._array()
            else:
                yield self._text_line()

    def _array(self) -> Iterator[Element]:
        depth = 1
        while character := self._next():
            if character in "[]":
                self._at += 1
                depth += 1 if character == "[" else -1
                if not depth:
                    return
                continue
            value = self._value()
            yield self._skip_line() if value is None and not self._null else self._entry(value)

    def _object(self) -> Iterator[Element]:
        """Yield the elements of an object's list of records, or the object itself if it has no such list."""
        line = self._line
        members: dict[str, object] = {}
        doubled = contained = closed = False
        self._at += 1
        while character := self._next():
            if character == "}":
                self._at += 1
                closed = True
                break
            name = self._value() if character == '"' else None
            if not isinstance(name, str) or self._next() != ":":
                yield self._skip_line()
                return
            self._at += 1
            if self._next() == "[" and name.lower() in CONTAINERS and self._within() == "{":
                contained = True
                self._at += 1
                yield from self._array()
                continue
            value = self._value()
            if value is None and not self._null:
                yield self._skip_line()
                return
            doubled = doubled or name in members
            members[name] = value
            if len(members) > 4096:
                yield self._skip_line()
                return
        if not closed:
            yield self._skip_line()
        elif not contained:
            self._item += 1
            yield Element(self._file, line, self._item, Ambiguous(members) if doubled else members)

    def _value(self) -> object:
        """Return the next JSON value; None for ``null`` (``_null`` is then True), or if it cannot be parsed."""
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError, SplitError) as error:
                if not isinstance(error, json.JSONDecodeError) or not self._more():
                    self._null = False
                    return None
                continue
            if self._text[self._at] not in '"{[' and _UNFINISHED.fullmatch(self._text, end) and self._more():
                continue
            self._null = value is None
            self._move(end)
            return value

    def _within(self) -> str:
        """Return the first non-blank character inside the list that begins here; "" at the end of the file."""
        while True:
            at = _BLANK.match(self._text, self._at + 1).end()  # type: ignore[union-attr]
            if at < len(self._text):
                return self._text[at]
            if not self._more():
                return ""

    def _entry(self, value: object) -> Element:
        self._item += 1
        return Element(self._file, self._line, self._item, value if isinstance(value, dict) else None)

    def _skip_line(self) -> Element:
        """Skip the rest of the line; return an entry without content for it."""
        return replace(self._text_line(), content=None)

    def _text_line(self) -> Element:
        """Return an entry with the rest of the line; its content is None if the line exceeds the buffer's limit."""
        self._item += 1
        line, whole = self._line, True
        while (end := self._text.find("\n", self._at)) < 0:
            if not self._more():
                if self._ended:
                    end = len(self._text)
                    break
                self._at, whole = len(self._text), False
        text = self._text[self._at : end]
        self._move(min(end + 1, len(self._text)))
        return Element(self._file, line, self._item, text.encode() if whole else None)

    def _next(self) -> str:
        """Skip spaces and commas; return the next character, "" at the end of the file."""
        while True:
            self._move(_SPACE.match(self._text, self._at).end())  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _move(self, at: int) -> None:
        self._line += self._text.count("\n", self._at, at)
        self._at = at

    def _more(self) -> bool:
        """Read more text. Returns False at the end, and while more than MAX_LINE_BYTES characters are pending."""
        if self._ended or len(self._text) - self._at > MAX_LINE_BYTES:
            return False
        chunk = self._stream.read(max(_CHUNK_BYTES, len(self._text) - self._at))
        self._ended = not chunk
        self._text = self._text[self._at :] + self._decode.decode(chunk, final=self._ended)
        self._at = 0
        return bool(chunk)
