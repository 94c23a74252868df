"""Reader of our own records: OAuth clients whose tokens name no actor: a static credential is behind them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sidecar.audit.credentials.fields import Exposure, Field
from sidecar.audit.credentials.kinds import Kind
from sidecar.audit.log_lines import Line
from sidecar.audit.records import Record, RecordError, is_login, parse_record


class _Seen(NamedTuple):
    line: int
    record: Record
    calls: int


def is_records(first: bytes) -> bool:
    """Tell by its first line if a file is a stream of records."""
    try:
        parse_record(first)
    except RecordError:
        return False
    return True


def read_recorded(lines: Iterable[Line]) -> list[Field]:
    """Return a field for each OAuth client that called without an actor, with its first use and the count."""
    seen: dict[tuple[str, str], _Seen] = {}
    for line in lines:
        if line.content is None:
            continue
        try:
            record = parse_record(line.content)
        except RecordError:
            continue
        client = _client(record)
        if client is None:
            continue
        key = (record.subject_iss or "", client)
        first = seen.get(key)
        if first is not None:
            first = first._replace(calls=first.calls + 1)
            if record.ts < first.record.ts:
                first = first._replace(line=line.number, record=record)
        seen[key] = first or _Seen(line.number, record, 1)
    return [_field(issuer, client, one) for (issuer, client), one in seen.items()]


def _client(record: Record) -> str | None:
    """Return the client of a call that named no actor. A login names none either, and is a person's."""
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
