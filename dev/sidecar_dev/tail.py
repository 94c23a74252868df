"""Follows record files and prints each record as one readable line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_OTHERS: Final = frozenset(
    {
        "config.refused",
        "config.reloaded",
        "connection.refused",
        "identity.lost",
        "request",
        "request.opened",
        "token.exchange_refused",
    }
)
_SHOWN: Final = {"sts": _OTHERS | {"token.exchanged"}}  # the token service's record of a success is enough
_REFUSED_BY_GRPC: Final = 200  # the status of HTTP; that of gRPC follows from the reason
_MARKS: Final = {"allow": "+", "deny": "-", "observed_deny": "!"}

Record = Mapping[str, Any]


class Tail:
    """Reads new records of some files, which may not exist yet. A file's stem names the workload."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._read = dict.fromkeys(files, 0)

    def new(self) -> Iterator[str]:
        """Yield a line for each record since the last call, in order of time."""
        fresh = [(name, record) for name, record in self._records() if record["event"] in _SHOWN.get(name, _OTHERS)]
        for name, record in sorted(fresh, key=lambda one: str(one[1]["ts"])):
            yield line_of(name, record)

    def _records(self) -> Iterator[tuple[str, Record]]:
        for file, at in self._read.items():
            if not file.exists():
                continue
            with file.open("rb") as opened:
                opened.seek(at)
                whole, newline, _ = opened.read().rpartition(b"\n")
            self._read[file] = at + len(whole) + len(newline)
            for line in whole.splitlines():
                yield file.stem, json.loads(line)


def line_of(name: str, record: Record) -> str:
    """Format one record: time, decision, workload, request, reason, subject and actors, duration."""
    decision, reason = record["decision"], record["reason"]
    told = {key: record[key] for key in ("direction", "method", "path", "op", "status")}
    if str(told["op"]).startswith("/"):  # a method of gRPC, which the path names too
        told["op"] = None
    if decision == "deny" and told["status"] == _REFUSED_BY_GRPC:
        told["status"] = None
    what = " ".join(str(value) for value in told.values() if value is not None)
    if record["event"].startswith("token."):
        what = f"token for {record['audience']}"
    parts = [
        str(record["ts"])[11:19],
        _MARKS.get(str(decision), " "),
        f"{name:<8}",
        f"{record['event']:<14}" if record["event"] != "request" else "",
        what,
        str(reason) if reason not in (None, "ok") else "",
        _on_whose_behalf(record),
        f"{record['total_ms']:.1f} ms" if record["total_ms"] is not None else "",
        f"({record['detail']})" if record["detail"] else "",
    ]
    return "  ".join(part for part in parts if part)


def _on_whose_behalf(record: Record) -> str:
    words = []
    if record["subject"] is not None:
        words.append(f"for {record['subject']}")
    chain = record["chain"] or ([record["actor"]] if record["actor"] else [])
    if chain:
        words.append("by " + " via ".join(_short(one) for one in chain))
    if words and not record["verified"]:
        words.append("(unverified)")
    return " ".join(words)


def _short(spiffe_id: str) -> str:
    return spiffe_id.rpartition("/")[2] or spiffe_id
