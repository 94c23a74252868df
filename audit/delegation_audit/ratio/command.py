"""``sidecar audit ratio``: counts machine identities per person, and lists the machine identities.

Exit codes: 0 the ratio is below the trigger, 1 it reaches the trigger, 2 a file cannot be used or nothing was counted.
"""

from __future__ import annotations

import argparse
import hmac
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final

from delegation_audit.credentials.detector import DetectorError
from delegation_audit.credentials.examine import examine as examine_credentials
from delegation_audit.ratio.census import Census, Machine
from delegation_audit.ratio.sketches import Sketches, load, save
from delegation_audit.ratio.sources import keys_in, keys_of, people_in
from delegation_audit.selectors.examination import examine as examine_entries
from delegation_core.console.counts import pluralise
from delegation_core.console.examples import add_examples
from delegation_core.console.output import complain, print_json, print_line, print_table
from delegation_core.records.distinct import Distinct, estimate
from delegation_core.records.folders import record_files
from delegation_core.records.log_lines import read_lines
from delegation_core.records.reading import RecordError, parse_record

_COMMAND: Final = "sidecar audit ratio"
TRIGGER: Final = 50.0
_SHOWN: Final = 20
_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([hd])")
_HOUR_S: Final = 3600
_MIN_KEY_BYTES: Final = 16
_EXAMPLE: Final = "a number and h or d, such as 24h or 30d"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="records of sidecars and token services: files, .gz and .zst too,"
        " folders, patterns, or -",
    )  # fmt: skip
    parser.add_argument(
        "--entries", action="append", default=[], metavar="PATH", help="registration entries: registered workloads"
    )
    keys = parser.add_mutually_exclusive_group()  # fingerprints differ between runs: both would count a key twice
    keys.add_argument(
        "--credentials", action="append", default=[], metavar="FILE", help="static keys: audit credentials --json"
    )
    keys.add_argument(
        "--search", action="append", default=[], metavar="PATH", help="static keys: files and folders to search"
    )
    parser.add_argument(
        "--directory", action="append", default=[], metavar="FILE", help="an export of the people: CSV, SCIM, Graph"
    )
    parser.add_argument("--directory-field", metavar="NAME", help="the field with the sub of tokens (default: a guess)")
    parser.add_argument("--window", type=_window, metavar="TIME", help=f"only records not older than: {_EXAMPLE}")
    parser.add_argument(
        "--trigger", type=float, default=TRIGGER, metavar="N", help="machines per person to warn at (default 50)"
    )
    parser.add_argument(
        "--hash-key", type=Path, metavar="FILE", help="count people by keyed hashes: sketches of one key can be merged"
    )
    parser.add_argument("--save", metavar="FILE", help="write a sketch, to be merged elsewhere; it holds no name")
    parser.add_argument(
        "--merge", action="append", default=[], metavar="FILE", help="a sketch of another site to count as well"
    )
    parser.add_argument("--json", action="store_true", help="for machines: the numbers and every machine identity")
    add_examples(
        parser,
        "sidecar audit ratio records/",
        "sidecar audit ratio --window 30d --entries entries.json --search . --directory users.csv records/",
        "sidecar audit ratio --save site-a.sketch --hash-key salt records/",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The counts. ``machines`` and ``people`` include merged sketches; ``exact``: False if they are estimates."""

    machines: int
    people: int
    exact: bool
    trigger: float
    census: Census
    not_records: int = 0
    in_directory: int = 0
    unsearched: int = 0  # files that were not searched for keys

    @property
    def strangers(self) -> bool:
        """True if both the directory and the records hold people, but no person in common."""
        seen, whole = self.census.seen.count, self.census.people.count
        return bool(self.in_directory and seen) and self.census.people.exact and whole == seen + self.in_directory

    @property
    def ratio(self) -> float | None:
        """Machines per person; None without people."""
        return self.machines / self.people if self.people else None

    @property
    def reached(self) -> bool:
        """True if the ratio reaches the trigger, or if there are machines and no people."""
        return self.machines > 0 if self.ratio is None else self.ratio >= self.trigger

    @property
    def summary(self) -> tuple[int, str]:
        """Machines per person, rounded, and a sentence; without people, the number of machines."""
        about = "" if self.exact else "about "
        both = (
            f"{about}{pluralise(self.machines, 'machine identity', 'machine identities')}"
            f" and {about}{pluralise(self.people, 'person', 'people')}"
        )
        if self.ratio is None:
            return self.machines, f"{both}: no person was seen, so there is no ratio"
        against = "reaches" if self.reached else "is below"
        return round(self.ratio), f"{both}: {self.ratio:.1f} to 1, which {against} {self.trigger:g} to 1"


def examine(
    files: Sequence[str],
    *,
    entries: Sequence[str] = (),
    credentials: Sequence[str] = (),
    keys: Iterable[tuple[str, str | None]] = (),
    directory: Sequence[str] = (),
    directory_field: str | None = None,
    since: str | None = None,
    key: bytes | None = None,
    trigger: float = TRIGGER,
    merged: Sequence[str] = (),
) -> Result:
    """Count the identities of all sources. ``keys``: fingerprints and owners of static keys. ``since``: RFC 3339 time.

    Raises:
        OSError: a file cannot be read; the text names it.
        ValueError: a file has the wrong format; the text names it and the fix.
    """
    # A directory has no issuers: with one, the sub alone identifies a person.
    census = Census(_name_of(key, with_issuer=not directory), since=since)
    not_records = 0
    for line in read_lines(files) if files else ():
        try:
            census.add_record(parse_record(line.content or b""))
        except RecordError:
            not_records += 1
    if entries:
        for entry in examine_entries(entries).entries:
            if not entry.is_node:
                census.add_entry(entry.spiffe_id)
    for fingerprint, owner in chain(keys, *map(keys_in, credentials)):
        census.add_key(fingerprint, owner)
    members = {subject for file in directory for subject in people_in(file, directory_field)}
    for subject in members:
        census.add_person("", subject)
    machines, people, exact = len(census.machines), census.people.count, census.people.exact
    if merged:
        whole = sketches_of(census)
        for file in merged:
            whole = whole.merge(load(file))
        machines, people, exact = estimate(whole.machines), estimate(whole.people), False
    return Result(
        machines=machines, people=people, exact=exact, trigger=trigger, census=census, not_records=not_records,
        in_directory=len(members),
    )  # fmt: skip


def sketches_of(census: Census) -> Sketches:
    """Return sketches of the machines and people of a census."""
    machines = Distinct()
    for name in census.machines:
        machines.add(name)
    return Sketches(machines, census.people.sketch)


def run(arguments: argparse.Namespace) -> int:
    """Count the identities and print the result. Returns the exit code."""
    try:
        searched = examine_credentials(arguments.search) if arguments.search else None
        files = record_files(arguments.files)
        result = examine(
            files,
            entries=arguments.entries,
            credentials=arguments.credentials,
            keys=() if searched is None else keys_of(searched),
            directory=arguments.directory,
            directory_field=arguments.directory_field,
            since=None if arguments.window is None else _compute_since(arguments.window),
            key=None if arguments.hash_key is None else _key(arguments.hash_key),
            trigger=arguments.trigger,
            merged=arguments.merge,
        )
        if arguments.save:
            save(sketches_of(result.census), arguments.save)
    except (OSError, ValueError, DetectorError) as error:
        return complain(_COMMAND, str(error))
    if searched is not None and searched.unread:
        result = replace(result, unsearched=searched.unread)
    if result.not_records and not result.census.records and not result.census.outside:
        return complain(_COMMAND, f"no line of {', '.join(arguments.files)} is a record; give a sidecar's records")
    if not result.machines and not result.people:
        return complain(_COMMAND, "nothing to count: give records, --entries, --search, --credentials or --directory")
    if arguments.json:
        print_json(_document(result))
    else:
        _show(result)
    return 1 if result.reached else 0


def _name_of(key: bytes | None, *, with_issuer: bool) -> Callable[[str, str], str]:
    def name(issuer: str, subject: str) -> str:
        text = f"{issuer}\0{subject}" if with_issuer else subject
        if key is None:
            return text
        return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]

    return name


def _key(file: Path) -> bytes:
    key = file.read_bytes().strip()
    if len(key) < _MIN_KEY_BYTES:
        raise ValueError(f"{file}: a key has at least {_MIN_KEY_BYTES} bytes; make one: openssl rand -hex 32 > {file}")
    return key


def _window(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"it is {_EXAMPLE}")
    return int(match[1]) * (_HOUR_S if match[2] == "h" else 24 * _HOUR_S)


def _compute_since(window_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - window_s))


def _sort(census: Census) -> list[Machine]:
    """Sort machines by the number of people they act for, fewest first: those are the candidates for removal."""
    return sorted(census.machines.values(), key=lambda one: (one.people_served, one.records, one.name))


def _document(result: Result) -> dict[str, object]:
    census = result.census
    return {
        "machines": result.machines,
        "people": result.people,
        "people_seen": census.seen.count,
        "exact": result.exact,
        "ratio": result.ratio,
        "trigger": result.trigger,
        "reached": result.reached,
        "records": census.records,
        "outside_window": census.outside,
        "not_records": result.not_records,
        "unsearched": result.unsearched,
        "first": census.first,
        "last": census.last,
        "identities": [
            {
                "name": one.name,
                "kind": one.kind,
                "sources": sorted(one.sources),
                "owner": one.owner,
                "records": one.records,
                "people": one.people_served,
                "own_calls": one.own_calls,
                "last_seen": one.last_seen,
            }
            for one in _sort(census)
        ],
    }


def _show(result: Result) -> None:
    census = result.census
    machines = _sort(census)
    if machines:
        print_table(
            ("machine identity", "kind", "found in", "acts for", "records", "last seen"),
            (
                (
                    one.name if one.owner is None else f"{one.name} ({one.owner})",
                    one.kind,
                    ", ".join(sorted(one.sources)),
                    one.people_served or ("itself" if one.own_calls else "nobody"),
                    one.records,
                    one.last_seen,
                )
                for one in machines[:_SHOWN]
            ),
        )
        if len(machines) > _SHOWN:
            print_line(f"and {len(machines) - _SHOWN} more; --json lists all", style="dim")
        print_line()
    workloads = sum(one.kind == "workload" for one in machines)
    print_line(f"workloads: {workloads}, static keys: {len(machines) - workloads}, people seen: {census.seen.count}")
    if census.outside:
        print_line(f"records outside the window, not counted: {census.outside}")
    if result.not_records:
        print_line(f"lines that are not records, not counted: {result.not_records}")
    if result.unsearched:
        print_line(f"files not searched for keys: {result.unsearched}; sidecar audit credentials gives the reason")
    print_line(result.summary[1], style="bold")
    if result.strangers:
        print_line(
            "The records name nobody from the directory. If both are the same people, each now counts twice: name the"
            " directory's field with the sub of tokens by --directory-field.",
            style="yellow",
        )
    if result.reached:
        print_line("Start with identities that act for nobody: delete the entry, or retire the key.")
