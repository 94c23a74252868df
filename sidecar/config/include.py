"""Files that a settings file includes: long lists, in files of their own, below the folder of the settings.

``include: [rules, targets.yaml]`` names files, or folders of ``*.yaml`` files, relative to the settings file; those of
a folder come in the order of their names. An included file has only lists, or groups, of the settings, and
includes no other file. Rows are joined in the order of the files. Ambiguity is an error: a path that leads out of the
folder, a file of another name in an included folder, and a row that two files have.

Kubernetes mounts a ConfigMap as links into a folder ``..data``, which is itself a link: links are followed as long as
they stay below the folder of the settings, and names that begin with a dot are skipped in a folder.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final

from delegation_core.errors import Problem
from sidecar.config.bounds import find_exceeded
from sidecar.config.document import MAX_BYTES, MAX_NODES, NO_UTF_8, DocumentError, Parsed, parse, printable
from sidecar.file_watch import tree_fingerprint

SUFFIX: Final = ".yaml"
_NAMED: Final = {
    "targets": "workload",
    "entries": "workload",
}  # the key that names a row; other rows are compared whole
_NOT_COMPARED: Final = ("note",)  # keys of a row


@dataclass(slots=True)
class Included:
    """Result of the includes of a settings file.

    ``places`` has the file and line of each row of a joined list, None for rows of the settings file itself. ``groups``
    has the place of each included group by name. ``used`` has the counts by the name of their bound.
    """

    followed: list[tuple[Path, Hashable]] = field(default_factory=list)
    places: dict[str, list[str | None]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)

    def placed(self, problem: Problem) -> Problem:
        """Return the problem with the file and line of its row, if the row was included."""
        section, bracket, rest = problem.field.partition("[")
        number = rest.partition("]")[0]
        if bracket and section.startswith("groups."):
            group = self.groups.get(section.removeprefix("groups."))
            return problem if group is None else replace(problem, field=f"{problem.field} ({group})")
        rows = self.places.get(section, [])
        place = rows[int(number)] if bracket and number.isdecimal() and int(number) < len(rows) else None
        return problem if place is None else replace(problem, field=f"{problem.field} ({place})")


def join_included(
    path: Path, main: Parsed, document: dict[str, object], sections: frozenset[str]
) -> tuple[Included, list[Problem]]:
    """Join what ``include`` names into ``document``, the settings of ``path``, and return every problem.

    ``sections`` are the lists and mappings that an included file may have.
    """
    included = Included(used={"nodes": main.nodes, "depth": main.depth, "bytes": path.stat().st_size, "files": 0})
    joining = _Joining(included, document, sections, main)
    listed = document.get("include") if sections else None
    if isinstance(listed, list):
        for number, text in enumerate(listed):
            if isinstance(text, str):  # anything else is a problem of the schema
                joining.include(path.parent, text, f"include[{number}]")
    for name in sections:
        rows = document.get(name)
        if isinstance(rows, (list, dict)):
            included.used[name] = len(rows)
            if name != "rules":  # counted in pairs: groups.py
                joining.problems += find_exceeded(name, name, len(rows))
    return included, joining.problems


class _Joining:
    def __init__(self, included: Included, document: dict[str, object], sections: frozenset[str], main: Parsed) -> None:
        self.problems: list[Problem] = []
        self._included, self._document, self._sections = included, document, sections
        self._main_lines = main.lines
        self._read: dict[Path, str] = {}  # the entry of ``include`` that read each file, by real path
        self._seen: dict[str, dict[Hashable, str]] = {}  # the place of each row, by section

    def include(self, base: Path, text: str, where: str) -> None:
        """Join one file, or the files of one folder."""
        pure = PurePosixPath(text)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            self._wrong(where, "is not a path below the folder of the settings", "write it relative, without `..`")
            return
        path = base / pure
        self._included.followed.append((path, tree_fingerprint(path)))
        try:
            if path.is_dir():
                for file in self._files_of(path, text, where):
                    self._file(base, file, f"{text.rstrip('/')}/{file.name}", where)
            else:
                self._file(base, path, text, where)
        except OSError as error:
            self._wrong(where, f"{printable(text)} cannot be read ({error.strerror})", "name a readable file or folder")

    def _files_of(self, folder: Path, text: str, where: str) -> Iterator[Path]:
        found = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
        if not found:
            self._wrong(
                where, f"{printable(text)} is an empty folder", f"put a {SUFFIX} file there, or name another one"
            )
        for one in found:
            if one.suffix == SUFFIX and not one.is_dir():
                yield one
            else:
                fix = f"keep only {SUFFIX} files in an included folder, and name folders one by one"
                self._wrong(where, f"{printable(f'{text}/{one.name}')} is not a {SUFFIX} file", fix)

    def _file(self, base: Path, path: Path, name: str, where: str) -> None:
        real = path.resolve(strict=True)
        if not real.is_relative_to(base.resolve(strict=True)):
            wrong = f"{printable(name)} leads out of the folder of the settings"
            self._wrong(where, wrong, "put the file itself below that folder; a link may not leave it")
        elif real in self._read:
            self._wrong(
                where, f"{printable(name)} is included already, by {self._read[real]}", "include each file once"
            )
        else:
            self._read[real] = where
            parsed = self._parsed(real, name, where)
            if parsed is not None:
                self._join(parsed, name)

    def _parsed(self, real: Path, name: str, where: str) -> Parsed | None:
        used = self._included.used
        if not stat.S_ISREG(real.stat().st_mode):
            self._wrong(where, f"{printable(name)} is not a regular file", "name a file or a folder")
            return None
        with real.open("rb") as file:
            raw = file.read(MAX_BYTES - min(used["bytes"], MAX_BYTES) + 1)
        used["bytes"] += len(raw)
        used["files"] += 1
        over = [*find_exceeded(where, "bytes", used["bytes"]), *find_exceeded(where, "files", used["files"])]
        if over:
            self.problems += over
            return None
        try:
            parsed = parse(raw.decode("utf-8"), name=name)
        except UnicodeDecodeError:
            self._wrong(name, *NO_UTF_8)
            return None
        except DocumentError as error:
            self.problems.append(error.problem)
            return None
        used["nodes"] += parsed.nodes
        used["depth"] = max(used["depth"], parsed.depth)
        if used["nodes"] > MAX_NODES:
            self.problems += find_exceeded(where, "nodes", used["nodes"])
            return None
        return parsed

    def _join(self, parsed: Parsed, name: str) -> None:
        root = parsed.root
        if not isinstance(root, dict):
            self._wrong(name, "is not a mapping", f"write one of {', '.join(sorted(self._sections))}")
            return
        for section, rows in root.items():
            lines = parsed.lines.get(section, [])
            places = [f"{name} line {line}" for line in lines]
            if section not in self._sections:
                fix = f"move it to the settings file; an included file may have {', '.join(sorted(self._sections))}"
                self._wrong(name, f"has {printable(section)}, which is not for an included file", fix)
            elif section == "groups" and isinstance(rows, dict):
                self._join_groups(rows, places)
            elif section != "groups" and isinstance(rows, list):
                self._join_rows(section, rows, places)
            else:
                kind = "a mapping" if section == "groups" else "a list"
                self._wrong(name, f"{section} is not {kind}", f"write it as {kind}, or leave it out")

    def _join_rows(self, section: str, rows: list[object], places: list[str]) -> None:
        into = self._document.setdefault(section, [])
        if not isinstance(into, list):
            return  # a problem of the schema
        known = self._included.places.setdefault(section, [None] * len(into))
        if section not in self._seen:
            lines = self._main_lines.get(section, [])
            own = [f"line {line} of the settings" for line in lines] if len(lines) == len(into) else []
            own = own or ["the settings"] * len(into)  # a variable replaced the list
            self._seen[section] = {_name_of(section, row): place for row, place in zip(into, own, strict=True)}
        seen, earlier = self._seen[section], dict(self._seen[section])
        for row, place in zip(rows, places, strict=True):
            key = _name_of(section, row)
            if key in earlier:
                self._wrong(section, f"the same row is in {earlier[key]} and in {place}", "keep one of them")
                continue
            seen.setdefault(key, place)
            into.append(row)
            known.append(place)

    def _join_groups(self, groups: dict[str, object], places: list[str]) -> None:
        into = self._document.setdefault("groups", {})
        if not isinstance(into, dict):
            return
        seen = self._seen.setdefault("groups", dict.fromkeys(into, "the settings"))
        for (name, members), place in zip(groups.items(), places, strict=True):
            if name in seen:
                self._wrong(f"groups.{printable(name)}", f"is in {seen[name]} and in {place}", "keep one of them")
            else:
                seen[name] = self._included.groups[printable(name)] = place
                into[name] = members

    def _wrong(self, where: str, wrong: str, fix: str) -> None:
        self.problems.append(Problem(where, wrong, fix))


def _name_of(section: str, row: object) -> Hashable:
    """Return the key that must be unique among the rows of a section."""
    if isinstance(row, dict):
        name = row.get(_NAMED[section]) if section in _NAMED else None
        if isinstance(name, str):
            return name
        row = {key: value for key, value in row.items() if key not in _NOT_COMPARED}
    return json.dumps(row, sort_keys=True)
