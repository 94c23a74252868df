"""Recognises the format of each entry of a log, and reads the parties that the entry names. Pure.

Recognises each entry by itself, by the first mapping that fits, so one file may mix formats; only the rows of a CSV
export depend on a line before, its header. Removes the prefix (syslog, CRI, compose, a server-sent event) or the
envelope (Docker's ``log``, a JSON logger's ``message``) that a collector added to a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from delegation_audit.attribution.elements import CONTAINERS
from delegation_audit.attribution.readings import Party, Reader, Reading, format_request
from delegation_audit.attribution.splitting import (
    Flat,
    SplitError,
    flatten,
    names_somebody,
    parse_json,
    split_cef,
    split_logfmt,
    split_row,
)
from delegation_core.records.reading import is_card, is_login

OURS: Final = "sidecar"
_OURS_KEYS: Final = ("event", "run", "seq")
_GENERIC: Final = "json"
_INNER: Final = ("log", "message", "msg", "textpayload")
# Fields that collectors add to an envelope. Without one of them a caller may have written the message: it is not read.
_COLLECTORS: Final = frozenset(
    {
        "stream",
        "logname",
        "source_type",
        "loggername",
        "log.logger",
        "syslog_identifier",
        "_systemd_unit",
        "container_name",
    }
)
_MAX_INNER: Final = 8

_ENVELOPES: Final = (
    # syslog without a tag, in front of CEF or JSON
    re.compile(
        r"(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S{1,40}) \S{1,255} ((?:CEF:|\{).*)"
    ),
    re.compile(r"(?:<\d{1,3}>)?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S{1,255} [^\s:\[]{1,128}(?:\[\d{1,10}\])?: ?(.*)"),
    re.compile(r"(?:<\d{1,3}>)?\d{4}-\d\d-\d\dT\S{1,40} \S{1,255} [^\s:\[]{1,128}(?:\[\d{1,10}\])?: ?(.*)"),
    re.compile(r"<\d{1,3}>\d{1,2} \S{1,64} \S{1,255} \S{1,64} \S{1,128} \S{1,64} (?:-|\[[^\]]{0,1024}\]) ?(.*)"),
    re.compile(r"\d{4}-\d\d-\d\dT\S{1,40} (?:stdout|stderr) [FP] (.*)"),
    re.compile(r"[\w.-]{1,128} +\| (.*)"),
    re.compile(r"\[pod/[^\]]{1,512}\] (.*)"),
    re.compile(r"data: ?(.*)"),
)


@dataclass(frozen=True, slots=True)
class Recognised:
    """Outcome for one entry: its format, None if unknown; and the request, None if the entry is no request."""

    format: str | None
    reading: Reading | None


UNKNOWN: Final = Recognised(None, None)


@dataclass(slots=True)
class Recogniser:
    """Recognises the entries of one file; keeps the columns of a CSV export between its lines."""

    readers: Sequence[Reader]
    _columns: list[str] = field(default_factory=list)
    _csv: Reader | None = None

    def recognise(self, content: bytes | Mapping[str, object] | None) -> Iterator[Recognised]:
        """Yield the outcome for an entry; several if the entry holds a list of records."""
        try:
            if content is None:
                yield UNKNOWN
            elif isinstance(content, bytes):
                yield from self._text(content.decode("utf-8-sig", "backslashreplace").strip(), depth=0)
            else:
                yield from self._json(content, depth=0)
        except SplitError:
            yield UNKNOWN

    def _text(self, line: str, depth: int) -> Iterator[Recognised]:
        if line.startswith("{"):
            yield from self._json(parse_json(line), depth)
            return
        if depth < _MAX_INNER:
            for envelope in _ENVELOPES:
                if inner := envelope.fullmatch(line):
                    inside = list(self._text(inner[1].strip(), depth + 1))
                    if any(one.format for one in inside):
                        yield from inside
                        return
        yield self._line(line) or UNKNOWN

    def _line(self, line: str) -> Recognised | None:
        """Recognise a line of text by the mappings for text; None if no mapping fits. Raises SplitError."""
        if self._csv is not None and (row := self._row(line)) is not None:
            return row
        logfmt: tuple[str, Flat] | None = None
        for reader in self.readers:
            mapping = reader.mapping
            if mapping.kind == "template":
                for template in mapping.compiled:
                    flat = template.match(line)
                    if flat is not None and mapping.fits(flat):
                        return self._read(reader, flat)
            elif mapping.kind == "logfmt" and "=" in line:
                logfmt = split_logfmt(line) if logfmt is None else logfmt
                lead, flat = logfmt
                if mapping.leads(lead) and mapping.fits(flat):
                    return self._read(reader, flat)
            elif mapping.kind == "cef" and line.startswith("CEF:"):
                flat = split_cef(line)
                if mapping.fits(flat):
                    return self._read(reader, flat)
            elif mapping.kind == "csv" and "," in line and self._begins_csv(reader, line):
                return Recognised(mapping.name, None)
        return None

    def _begins_csv(self, reader: Reader, line: str) -> bool:
        try:
            columns = [name.strip().lower() for name in split_row(line)]
        except SplitError:
            return False
        if not reader.mapping.fits(dict.fromkeys(columns, "present")):
            return False
        self._columns, self._csv = columns, reader
        return True

    def _row(self, line: str) -> Recognised | None:
        try:
            values = split_row(line)
        except SplitError:
            return None
        if self._csv is None or len(values) != len(self._columns):
            return None
        flat: Flat = {}
        for name, value in zip(self._columns, values, strict=True):
            flat.setdefault(name, value)  # exports repeat some column names; the first column is the documented one
        return self._read(self._csv, flat)

    def _json(self, members: Mapping[str, object], depth: int) -> Iterator[Recognised]:
        for name, value in members.items():
            if (
                name.lower() in CONTAINERS
                and isinstance(value, list)
                and value
                and isinstance(value[0], dict)
                and not depth
            ):
                for one in value:
                    if isinstance(one, dict):
                        yield from self._guard(one)
                return
        flat = flatten(members)
        if all(name in flat for name in _OURS_KEYS):
            yield Recognised(OURS, _ours(flat))
            return
        fits = next((one for one in self.readers if one.mapping.kind == "json" and one.mapping.fits(flat)), None)
        if fits is not None and fits.mapping.name != _GENERIC:
            yield self._read(fits, flat)
            return
        outer = self._read(fits, flat) if fits else UNKNOWN
        for name in _INNER if outer.reading is None and not _COLLECTORS.isdisjoint(flat) else ():
            if depth < _MAX_INNER and flat.get(name):
                inside = list(self._text(flat[name].strip(), depth + 1))
                if any(one.format not in {None, _GENERIC} for one in inside):
                    yield from inside
                    return
        yield outer

    def _guard(self, members: dict[str, object]) -> Iterator[Recognised]:
        try:
            yield from list(self._json(members, depth=1))
        except SplitError:
            yield UNKNOWN

    @staticmethod
    def _read(reader: Reader, flat: Flat) -> Recognised:
        return Recognised(reader.mapping.name, reader.read(flat))


def _ours(flat: Flat) -> Reading | None:
    """Read one of our records; None if it is no request of an agent. Unverified subjects and actors are ignored."""
    if flat["event"] != "request" or is_card(flat.get("op")):
        return None
    if is_login(*map(flat.get, ("direction", "op", "path"))):
        return None
    outbound = flat.get("direction") == "outbound"
    known = flat.get("verified") == "true"
    users, actors = (_one(flat, name) if known else () for name in ("subject", "actor"))
    return Reading(
        format=OURS,
        users=users,
        actors=actors if actors != users else (),
        peers=_one(flat, "workload" if outbound else "peer"),
        request=format_request(flat.get("method"), flat.get("path")),
        time=flat.get("ts"),
        refused=flat.get("decision") in ("deny", "observed_deny"),  # observed_deny: it passed, but without authority
    )


def _one(flat: Flat, name: str) -> tuple[Party, ...]:
    return (Party((name,), (flat[name],)),) if flat.get(name) and names_somebody(flat[name]) else ()
