"""Finds static credentials in our own records: OAuth clients whose tokens name no actor, and so use a static
credential, and static keys on calls out of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from delegation_audit.credentials.fields import Exposure, Field
from delegation_audit.credentials.kinds import Kind
from delegation_core.records.log_lines import Line
from delegation_core.records.reading import Record, RecordError, is_login, parse_record

# Prefixes of ``credential`` for a static credential, by event.
_WAYS: Final[Mapping[str, tuple[str, ...]]] = {"request": ("inject", "passthrough"), "token.exchanged": ("client",)}


class _Seen(NamedTuple):
    line: int
    record: Record
    calls: int


def is_records(first: bytes) -> bool:
    """Return True if ``first``, the first line of a file, is a record."""
    try:
        parse_record(first)
    except RecordError:
        return False
    return True


def read_recorded(lines: Iterable[Line]) -> list[Field]:
    """Return a field for each OAuth client that called without an actor, and for each static key that was used, with
    the earliest use and the number of calls. Skips lines that are no records.
    """
    clients: dict[tuple[str, str], _Seen] = {}
    keys: dict[tuple[str, str], _Seen] = {}
    for line in lines:
        if line.content is None:
            continue
        try:
            record = parse_record(line.content)
        except RecordError:
            continue
        if (client := _client(record)) is not None:
            _note(clients, (record.subject_iss or "", client), line.number, record)
        for key in _static_keys(record):
            _note(keys, (record.workload or "", key), line.number, record)
    return [
        *(_field(issuer, client, one) for (issuer, client), one in clients.items()),
        *(_key_field(workload, key, one) for (workload, key), one in keys.items()),
    ]


def _note(seen: dict[tuple[str, str], _Seen], name: tuple[str, str], line: int, record: Record) -> None:
    first = seen.get(name)
    if first is not None:
        first = first._replace(calls=first.calls + 1)
        if record.ts < first.record.ts:
            first = first._replace(line=line, record=record)
    seen[name] = first or _Seen(line, record, 1)


def _static_keys(record: Record) -> list[str]:
    """Return the static keys of a call that passed, each as ``WAY:KIND:FINGERPRINT``; federated ones are no keys."""
    ways = _WAYS.get(record.event, ())
    if not ways or record.credential is None or not (record.allowed or record.decision == "observed_deny"):
        return []
    way, _, shown = record.credential.partition(":")
    if way not in ways or shown in ("", "none"):
        return []
    return [f"{way}:{key}" for key in shown.split(",")]


def _client(record: Record) -> str | None:
    """Return the client of an inbound call without an actor; None for other records, and logins, which are people's."""
    if record.client_id is None or record.actor is not None or record.chain:
        return None
    if record.event != "request" or record.direction != "inbound":
        return None
    if is_login(record.direction, record.op, record.path):
        return None
    return record.client_id


def _field(issuer: str, client: str, one: _Seen) -> Field:
    own = one.record.subject in (client, f"service-account-{client}")
    return Field(
        name="client_id",
        value="",
        line=one.line,
        object=f"client {client} at {one.record.workload or 'an unknown workload'}",
        owner=f"client {client}",
        exposure=Exposure.RECORD,
        kind=Kind.CLIENT_WITHOUT_DELEGATION,
        identity=("record", issuer, client),
        created=one.record.ts[:10],
        facts=(("calls", str(one.calls)), ("acts for", "itself" if own else "a user, without an actor")),
    )


def _key_field(workload: str, key: str, one: _Seen) -> Field:
    way, _, shown = key.partition(":")
    return Field(
        name="credential",
        value="",
        line=one.line,
        object=f"route {one.record.route or 'unknown'} of {workload or 'an unknown workload'}",
        owner=workload or None,
        exposure=Exposure.RECORD,
        kind=Kind.STATIC_KEY_IN_USE,
        identity=("record", workload, shown),
        created=one.record.ts[:10],
        facts=(("calls", str(one.calls)), ("held by", "the agent" if way == "passthrough" else "the sidecar")),
    )
