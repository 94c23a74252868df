"""Reads the entries of log files: lines, or the objects of a JSON document, at any size and in constant memory.

Clouds and identity providers export one document: an array, or an object whose ``Records`` or ``value`` is one. A file
whose first line is no whole object is read as such a document; every other file is read line by line.
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

from sidecar.audit.attribution.splitting import DECODER, Ambiguous, SplitError
from sidecar.audit.folders import find_files
from sidecar.audit.log_lines import MAX_LINE_BYTES, lines_of, opened, shown_progress
from sidecar.audit.unpacking import ArchiveError, Rewound, Stream

_HEAD_BYTES: Final = 1 << 16
_SNIFFED_BYTES: Final = 1024
_CHUNK_BYTES: Final = 1 << 18
_ENTRIES_PER_STEP: Final = 2048
CONTAINERS: Final = ("records", "value", "items", "events")
_UNFINISHED: Final = re.compile(r"[0-9.eE+-]*+")  # a number may go on in what is not read yet
_SPACE: Final = re.compile(r"[\s,]*+")
_BLANK: Final = re.compile(r"\s*+")


@dataclass(frozen=True, slots=True)
class Element:
    """One entry: the text of a line, or a JSON object. ``content`` is None where it is larger than a megabyte, or
    broken.
    """

    file: str
    line: int
    item: int | None
    content: bytes | dict[str, object] | None

    @property
    def place(self) -> str:
        """The place as ``file:line``, in a document with the number of the object."""
        return f"{self.file}:{self.line}" + ("" if self.item is None else f", item {self.item}")


def read_elements(paths: Sequence[str]) -> Iterator[Element]:
    """Yield the entries of all files, and of those in folders that are neither hidden nor binary.

    Raises:
        OSError: a file cannot be read, or a compressed one is broken or ends early; the text names it.
        ArchiveError: a path is an archive.
    """
    found = find_files(paths)
    files = list(dict.fromkeys(path for path, named in found if named or not Path(path).name.startswith(".")))
    given = frozenset(paths)
    with shown_progress(files) as advance:
        for file in files:
            with contextlib.ExitStack() as stack:
                try:
                    stream, position = stack.enter_context(opened(file))
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
    """Yield the entries of a stream whose first bytes are ``head``."""
    rewound = Rewound(head, stream)
    return Document(file, rewound).entries() if _is_document(head) else _lines(file, rewound)


def _lines(file: str, stream: Stream) -> Iterator[Element]:
    for line in lines_of(file, stream):
        yield Element(file, line.number, None, line.content)


def _is_document(head: bytes) -> bool:
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b"["):  # Envoy begins a line of text with a time in brackets
        return text[1:].lstrip()[:1] in {b"{", b"]", b""}
    if not text.startswith(b"{"):
        return False
    return not text.partition(b"\n")[0].rstrip().endswith(b"}")


class Document:
    """The objects of a JSON document, or of several one after the other."""

    def __init__(self, file: str, stream: Stream) -> None:
        self._file = file
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._text = ""
        self._at = 0
        self._line = 1
        self._item = 0
        self._ended = False
        self._null = False  # the value just read is ``null``

    def entries(self) -> Iterator[Element]:
        """Yield the objects, and lines of text between them."""
        while character := self._next():
            if character == "{":
                yield from self._object()
            elif character == "[" and self._within() in "{[]":  # Envoy begins a line of text with a time in brackets
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
            yield self._make_finding() if value is None and not self._null else self._entry(value)

    def _object(self) -> Iterator[Element]:
        """Yield the elements of an object's list of records, or the object itself where it has none."""
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
                yield self._make_finding()
                return
            self._at += 1
            if self._next() == "[" and name.lower() in CONTAINERS and self._within() == "{":
                contained = True
                self._at += 1
                yield from self._array()
                continue
            value = self._value()
            if value is None and not self._null:
                yield self._make_finding()
                return
            doubled = doubled or name in members
            members[name] = value
            if len(members) > 4096:
                yield self._make_finding()
                return
        if not closed:
            yield self._make_finding()
        elif not contained:
            self._item += 1
            yield Element(self._file, line, self._item, Ambiguous(members) if doubled else members)

    def _value(self) -> object:
        """Return the next JSON value; None where there is none, or ``null`` (then ``_null``)."""
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
        """Return the first character inside the list that begins here; empty at the end."""
        while True:
            at = _BLANK.match(self._text, self._at + 1).end()  # type: ignore[union-attr]
            if at < len(self._text):
                return self._text[at]
            if not self._more():
                return ""

    def _entry(self, value: object) -> Element:
        self._item += 1
        return Element(self._file, self._line, self._item, value if isinstance(value, dict) else None)

    def _make_finding(self) -> Element:
        """Skip the rest of the line."""
        return replace(self._text_line(), content=None)

    def _text_line(self) -> Element:
        """Return the rest of the line as text; None where it is longer than a megabyte."""
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
        """Return the next character that is no space and no comma; empty at the end."""
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
        """Read more text; False at the end, and where one value is larger than a megabyte."""
        if self._ended or len(self._text) - self._at > MAX_LINE_BYTES:
            return False
        chunk = self._stream.read(max(_CHUNK_BYTES, len(self._text) - self._at))
        self._ended = not chunk
        self._text = self._text[self._at :] + self._decode.decode(chunk, final=self._ended)
        self._at = 0
        return bool(chunk)
