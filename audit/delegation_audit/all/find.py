"""Finds the files that can be audited: records, foreign logs, directories of people, keys, a list of agents.

Records are recognised by their first lines alone, lists of agents by name alone, all other kinds by content and name.
Manifests, registration entries and credentials need no search here: their commands read whole folders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from delegation_audit.attribution import mapping_files
from delegation_audit.attribution.elements import read_elements
from delegation_audit.attribution.readings import Fields, Reader
from delegation_audit.attribution.recognition import Recogniser
from delegation_audit.ratio.sources import SourceError, people_in
from delegation_core.console.counts import pluralise
from delegation_core.keyset import MAX_JWKS_BYTES, KeySetError, parse_jwks
from delegation_core.records.folders import ARCHIVES, find_files
from delegation_core.records.log_lines import read_lines
from delegation_core.records.reading import RecordError, parse_record
from delegation_core.records.unpacking import ArchiveError

_SNIFFED: Final = 20  # lines
_NO_LOGS: Final = (".yaml", ".yml", ".py", ".md", ".html", ".toml", ".xml", ".lock", ".env")
_PEOPLE: Final = ("user", "people", "directory", "employee", "member")
_ANY_JSON: Final = "json"  # the format of every JSON document
_AGENTS: Final = ("agents.txt", "agents.list")


@dataclass(slots=True)
class Found:
    """The files that were found, by kind. ``files``: number of all files. ``skipped``: counts by reason."""

    records: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    agents: str | None = None
    files: int = 0
    skipped: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def sentence(self) -> str:
        """Sentence with the number of files of each kind."""
        parts = (
            (len(self.records), "file of records", "files of records"),
            (len(self.logs), "log", "logs"),
            (len(self.directories), "directory of people", "directories of people"),
            (len(self.keys), "key set", "key sets"),
        )
        named = [pluralise(count, one, several) for count, one, several in parts if count]
        return pluralise(self.files, "file") + (f": {', '.join(named)}" if named else "")


def find(paths: Sequence[str]) -> Found:
    """Classify every file that the paths name or that lies below them.

    Raises:
        OSError: a path does not exist, or holds too many files; the text names it.
    """
    found = Found()
    readers = [Reader(one, Fields()) for one in mapping_files.load(())]
    for file, named in find_files(paths, found.skipped):
        if named:
            Path(file).stat()  # raises an error that names a missing path
        found.files += 1
        name = Path(file).name.lower()
        if name in _AGENTS:
            found.agents = file
            continue
        try:
            holds_records = _holds_records(file)
        except ArchiveError:
            found.skipped[ARCHIVES] += 1
            continue
        if holds_records:
            found.records.append(file)
        elif name.endswith((".json", ".csv")) and any(word in name for word in _PEOPLE) and _holds_people(file):
            found.directories.append(file)
        elif name.endswith(".json") and _holds_keys(file):
            found.keys.append(file)
        elif not name.endswith(_NO_LOGS) and _is_log(file, readers):
            found.logs.append(file)
    return found


def _holds_records(file: str) -> bool:
    """Return True if most of the first lines are records; False if the file is unreadable. Raises ArchiveError."""
    try:
        lines = list(islice(read_lines([file]), _SNIFFED))
    except ArchiveError:
        raise
    except OSError:
        return False
    records = 0
    for line in lines:
        try:
            parse_record(line.content or b"")
            records += 1
        except RecordError:
            continue
    return records > len(lines) // 2


def _is_log(file: str, readers: Sequence[Reader]) -> bool:
    recogniser = Recogniser(readers)
    known = entries = 0
    try:
        for element in islice(read_elements([file]), _SNIFFED):
            for one in recogniser.recognise(element.content):
                entries += 1
                known += one.reading is not None or one.format not in (None, _ANY_JSON)
    except OSError:
        return False
    return known > entries // 2


def _holds_people(file: str) -> bool:
    try:
        return next(people_in(file), None) is not None
    except (SourceError, OSError):
        return False


def _holds_keys(file: str) -> bool:
    try:
        if Path(file).stat().st_size > MAX_JWKS_BYTES:
            return False
        return len(parse_jwks(Path(file).read_bytes())) > 0
    except (KeySetError, OSError):
        return False
