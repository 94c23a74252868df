"""List of recorded requests, for a user without a request id: refusals first, then the latest first."""

from __future__ import annotations

from typing import Final

from delegation_core.console.output import print_json, print_line, print_table
from delegation_core.records.reading import Record

MOST_REQUESTS: Final = 20
_HELD: Final = 4096  # requests held while reading: files may have millions


class Requests:
    """A bounded list of the requests in some records."""

    def __init__(self, most: int = MOST_REQUESTS) -> None:
        self._most = most
        self._found: dict[str, Record] = {}
        self._dropped = False

    def take(self, record: Record) -> None:
        """Add one record; a closing record replaces the one that opened the request."""
        name = record.request_id
        if name is None or (record.event == "request.opened" and name in self._found):
            return
        self._found[name] = record
        if len(self._found) > _HELD:
            self._dropped = True
            self._found = {str(one.request_id): one for one in self.first()}

    @property
    def more(self) -> bool:
        """True if ``first`` leaves some requests out."""
        return self._dropped or len(self._found) > self._most

    def first(self) -> list[Record]:
        """Return the first requests of the list."""
        latest = sorted(self._found.values(), key=lambda record: (record.ts, record.name), reverse=True)
        return sorted(latest, key=lambda record: record.decision in {"allow", None})[: self._most]


def show_requests(requests: Requests) -> None:
    """Print the requests as a table."""
    print_table(
        ("time", "request", "outcome", "user", "caller", "call", "recorded by"),
        (
            (one.ts[:19], one.request_id, _outcome(one), one.subject, _caller(one), _call(one), one.workload)
            for one in requests.first()
        ),
    )
    if requests.more:
        print_line("and more; these are refusals first, the latest first", style="dim")
    print_line("explain one of them by --request ID")


def print_requests(requests: Requests) -> None:
    """Print the requests for machines."""
    keys = (
        "ts", "request_id", "event", "workload", "direction", "decision", "reason", "status", "subject", "subject_iss",
        "actor", "peer", "route", "op", "method", "path",
    )  # fmt: skip
    rows = [{key: getattr(record, key) for key in keys} for record in requests.first()]
    print_json({"requests": rows, "more": requests.more})


def _outcome(record: Record) -> str:
    if record.decision is None:
        return "open"
    return record.decision if record.reason in {None, "ok"} else f"{record.decision} {record.reason}"


def _caller(record: Record) -> str | None:
    return record.workload if record.direction == "outbound" else record.peer or record.actor


def _call(record: Record) -> str:
    """Describe the call: its direction, and the operation or method and path; for an exchange its event."""
    if record.direction is None:
        return record.event
    what = record.op or " ".join(word for word in (record.method, record.path) if word)
    return f"{record.direction} {what}".rstrip()
