"""Census of identities: machines (workloads and static keys) and people, from every source, each counted once.

Machines are workloads by SPIFFE ID, from records or registration entries, and static keys by fingerprint. People are
subjects of verified records that are no workloads, by issuer and ``sub``, and the members of a directory export. A
person in both counts once if the directory has the same ``sub``.

The number of machines is exact. That of people is exact up to ``EXACT``, and an estimate beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from delegation_core.records.distinct import Distinct, estimate
from delegation_core.records.reading import Record, is_own

EXACT: Final = 1_000_000
_SPIFFE: Final = "spiffe://"


@dataclass(slots=True)
class Machine:
    """One workload or static key: its sources, records, the people it acted for, and the time of its last record.

    ``own_calls``: number of permitted calls that it made for itself, by the workload handle.
    """

    name: str
    kind: str  # workload, static key
    sources: set[str] = field(default_factory=set)
    records: int = 0
    own_calls: int = 0
    last_seen: str | None = None
    people: Distinct = field(default_factory=Distinct, repr=False)
    owner: str | None = None

    @property
    def people_served(self) -> int:
        """Number of distinct people that it acted for, an estimate beyond some hundreds."""
        return estimate(self.people) if self.records else 0


class People:
    """Distinct people: exact up to ``EXACT`` of them, an estimate beyond."""

    def __init__(self) -> None:
        self.sketch = Distinct()
        self._names: set[str] | None = set()

    def add(self, name: str) -> None:
        """Count a person, unless already counted."""
        self.sketch.add(name)
        if self._names is not None:
            self._names.add(name)
            if len(self._names) > EXACT:
                self._names = None

    @property
    def count(self) -> int:
        """Number of distinct people."""
        return estimate(self.sketch) if self._names is None else len(self._names)

    @property
    def exact(self) -> bool:
        """True if the count is exact, False if it is an estimate."""
        return self._names is not None


class Census:
    """Counters of a census. ``name_of`` maps (issuer, subject) to the name that identifies a person."""

    def __init__(
        self, name_of: Callable[[str, str], str], *, since: str | None = None, until: str | None = None
    ) -> None:
        self.machines: dict[str, Machine] = {}
        self.people = People()
        self.seen = People()
        self.records = 0
        self.outside = 0  # records before or after the window
        self.first: str | None = None
        self.last: str | None = None
        self._name_of = name_of
        self._since = since
        self._until = until

    def add_record(self, record: Record) -> None:
        """Count the identities of a record; people and actors only if its claims are verified."""
        if (self._since is not None and record.ts < self._since) or (
            self._until is not None and record.ts >= self._until
        ):
            self.outside += 1
            return
        self.records += 1
        self.first = min(self.first or record.ts, record.ts)
        self.last = max(self.last or record.ts, record.ts)
        person = self._person(record)
        if person is not None:
            self.people.add(person)
            self.seen.add(person)
        acting = set(self._workloads(record))
        for name in acting:
            machine = self._machine(name, "workload", "records")
            machine.records += 1
            if name == record.workload and record.allowed and is_own(record):
                machine.own_calls += 1
            machine.last_seen = max(machine.last_seen or record.ts, record.ts)
            if person is not None:
                machine.people.add(person)

    def add_entry(self, spiffe_id: str) -> None:
        """Count a registered workload."""
        self._machine(spiffe_id, "workload", "entries")

    def add_key(self, fingerprint: str, owner: str | None) -> None:
        """Count a static key, which its fingerprint identifies."""
        self._machine(fingerprint, "static key", "credentials").owner = owner

    def add_person(self, issuer: str, subject: str) -> None:
        """Count a member of a directory."""
        self.people.add(self._name_of(issuer, subject))

    def _person(self, record: Record) -> str | None:
        subject, issuer = record.subject, record.subject_iss
        if not record.verified or subject is None or issuer is None or subject.startswith(_SPIFFE):
            return None
        return self._name_of(issuer, subject)

    def _workloads(self, record: Record) -> Iterator[str]:
        proven: Iterable[str | None] = (record.workload, record.peer)
        claimed: Iterable[str | None] = (record.actor, *(record.chain or ()), record.subject) if record.verified else ()
        for name in (*proven, *claimed):
            if name is not None and name.startswith(_SPIFFE):
                yield name

    def _machine(self, name: str, kind: str, source: str) -> Machine:
        machine = self.machines.get(name)
        if machine is None:
            machine = self.machines[name] = Machine(name, kind)
        machine.sources.add(source)
        return machine
