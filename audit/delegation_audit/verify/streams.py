"""Record streams as evidence: reads every line once, and keeps its number, its hashes and its place.

Memory: about 50 bytes per record, so half a gigabyte for ten million; at most ``MAX_RUNS`` runs. Lines may come in any
order, from any number of files.

The hash of a line covers its canonical text: the keys of a record in their order, as the sidecar wrote them. A log
shipper that parses and rewrites a line (other spacing, another order, extra keys) does not break the chain.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson

from delegation_core.errors import Reason
from delegation_core.records.hash_chain import line_hash
from delegation_core.records.log_lines import Line
from delegation_core.records.record import EVENTS, FIELDS
from delegation_core.strict_json import StrictJsonError, parse_object

MAX_LINE_BYTES: Final = 1 << 20
_HASH_BYTES: Final = 16  # 128 bits of a SHA-256: a second preimage is infeasible
_NONE: Final = bytes.fromhex(line_hash(b""))[:_HASH_BYTES]  # stands for null: no record follows an empty line
_MAX_PLACES: Final = 5
MAX_RUNS: Final = 100_000  # each takes a kilobyte of memory, much more than a record


class Stored(NamedTuple):
    """One record of a run: the hashes of its line and of the line before (None for null). ``order``: reading order."""

    seq: int
    own: bytes
    prev: bytes | None
    order: int


class Claim(NamedTuple):
    """A checkpoint that a record holds: its text, the workload and run that it covers, and the record's place."""

    text: str
    workload: str
    run: str
    seq: int  # of the record that holds it, in that record's run
    place: str
    by_service: bool  # from the token service's own record


@dataclass(slots=True)
class Run:
    """All records of one run of one process."""

    name: str
    workload: str | None = None  # named by the last record read that names one
    workloads: set[str] = field(default_factory=set)
    stopped: bool = False
    _seqs: array[int] = field(default_factory=lambda: array("Q"))
    _own: bytearray = field(default_factory=bytearray)
    _prev: bytearray = field(default_factory=bytearray)
    _files: array[int] = field(default_factory=lambda: array("I"))
    _lines: array[int] = field(default_factory=lambda: array("Q"))

    def __len__(self) -> int:
        return len(self._seqs)

    def add(self, seq: int, own: str, prev: str | None, file: int, line: int) -> None:
        """Add a record. ``own`` and ``prev``: hashes in hex; ``file``: index of the file; ``line``: from 1."""
        self._seqs.append(seq)
        self._own += bytes.fromhex(own)[:_HASH_BYTES]
        self._prev += _NONE if prev is None else bytes.fromhex(prev)[:_HASH_BYTES]
        self._files.append(file)
        self._lines.append(line)

    def sort_by_number(self) -> Iterator[Stored]:
        """Yield the records in the order of their numbers; equal numbers in the order of reading."""
        seqs = self._seqs
        for index in sorted(range(len(seqs)), key=seqs.__getitem__):
            at = slice(index * _HASH_BYTES, (index + 1) * _HASH_BYTES)
            prev = bytes(self._prev[at])
            yield Stored(seqs[index], bytes(self._own[at]), None if prev == _NONE else prev, index)

    def place(self, index: int) -> tuple[int, int]:
        """Return the index of the file and the line number of a record."""
        return self._files[index], self._lines[index]

    def find_out_of_order(self) -> Iterator[int]:
        """Yield the index of each record that follows a higher number in the same file."""
        highest: dict[int, int] = {}
        for index, (file, seq) in enumerate(zip(self._files, self._seqs, strict=True)):
            if seq < highest.get(file, 0):
                yield index
            else:
                highest[file] = seq


class Streams:
    """All records that were read, by run, and the checkpoints among them."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.claims: list[Claim] = []
        self.records = 0
        self.unchained = 0  # records without the key prev, as those of versions before 0.2
        self.unchained_places: list[str] = []
        self.unreadable = 0
        self.unreadable_places: list[str] = []
        self._files: list[str] = []

    def read(self, lines: Iterable[Line]) -> None:
        """Read lines; count those that are no records in ``unreadable``.

        Raises:
            OSError: the iterator ``lines`` raises it.
            ValueError: the records are of more than ``MAX_RUNS`` runs.
        """
        for line in lines:
            if not self._files or self._files[-1] != line.file:
                self._files.append(line.file)
            if line.content is None or not self._take(line.content, line):
                self.unreadable += 1
                if len(self.unreadable_places) < _MAX_PLACES:
                    self.unreadable_places.append(line.place)

    def place(self, run: Run, index: int) -> str:
        """Return the place of a run's record as FILE:LINE."""
        file, line = run.place(index)
        return f"{self._files[file]}:{line}"

    def _take(self, content: bytes, line: Line) -> bool:
        members = _members(content)
        if members is None:
            return False
        run, seq, event, prev = (members.get(name) for name in ("run", "seq", "event", "prev"))
        if not isinstance(run, str) or not isinstance(event, str) or event not in EVENTS:
            return False
        if isinstance(seq, bool) or not isinstance(seq, int) or not 0 < seq < 2**63:
            return False
        if not (prev is None or (isinstance(prev, str) and _is_hash(prev))):
            return False
        self.records += 1
        if "prev" not in members:
            self.unchained += 1
            if len(self.unchained_places) < _MAX_PLACES:
                self.unchained_places.append(line.place)
            return True
        stored = self.runs.get(run)
        if stored is None:
            if len(self.runs) >= MAX_RUNS:
                raise ValueError(f"{line.place}: there are more than {MAX_RUNS:,} runs; verify fewer files at a time")
            stored = self.runs[run] = Run(run)
        workload = members.get("workload")
        if isinstance(workload, str):
            stored.workload = workload
            stored.workloads.add(workload)
        stored.stopped |= event == "stopped"
        stored.add(seq, line_hash(canonical(members)), prev, len(self._files) - 1, line.number)
        if event == "records.countersigned":
            self._add_claim(members, run, seq, line.place)
        return True

    def _add_claim(self, members: dict[str, object], run: str, seq: int, place: str) -> None:
        text, workload, peer = (members.get(name) for name in ("checkpoint", "workload", "peer"))
        if not isinstance(text, str):
            text = ""
        if isinstance(peer, str):  # a token service's record: names the run of its client in the text
            word, _, rest = text.partition(" ")
            self.claims.append(Claim(rest, peer, word.removeprefix("run="), seq, place, by_service=True))
        else:
            self.claims.append(Claim(text, str(workload), run, seq, place, by_service=False))


def canonical(members: dict[str, object]) -> bytes:
    """Return the text of a record as its sidecar wrote it, without the newline.

    Log shippers often add a ``host``: removes it from a record without ``candidates``, whose version had no ``host``,
    and restores null unless the reason is ``target_denied``, the only one for which a sidecar sets ``host``.
    """
    written = {name: members[name] for name in FIELDS if name in members}
    if "host" in written and "candidates" not in written:
        del written["host"]
    elif written.get("reason") != Reason.TARGET_DENIED and "host" in written:
        written["host"] = None
    return orjson.dumps(written)


def _members(content: bytes) -> dict[str, object] | None:
    """Return the members of a line; None if it is no JSON object, or an ambiguous one."""
    try:
        members = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(members, dict):
        return None
    try:
        if orjson.dumps(members) == content:
            return members
        # another program wrote it: a name that appears twice would be ambiguous
        return parse_object(content, max_bytes=MAX_LINE_BYTES)
    except (StrictJsonError, orjson.JSONEncodeError):  # the latter: nested deeper than any record
        return None


def _is_hash(text: str) -> bool:
    return len(text) == 64 and not text.strip("0123456789abcdef")
