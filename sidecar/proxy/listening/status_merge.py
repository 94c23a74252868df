"""Merges the status documents of several workers into one of the same form, with a row for each worker. Pure.

Counts are added up. Of states that differ by worker the worst is shown, so that one worker's trouble is visible: the
identity that is missing or expires first, the oldest settings, the oldest key set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_CHAINS: Final = 1000  # of one document, from one process or of all workers


Json = dict[str, Any]

_SUMMED: Final = {
    "records": ("waiting", "lost", "suppressed"),
    "requests": ("being_served", "handles"),
    "streams": ("inbound", "outbound"),
}


def merge_status(rows: Mapping[int, Json | None], *, since: int, now: int, restarts: int, stopping: bool) -> Json:
    """Merge ``rows``, the document of each worker by its number; None: that worker did not answer, but one did.

    ``run`` and ``pid`` of each worker are in ``workers``; the merged document's own ``run`` is None.
    """
    there = [row for row in rows.values() if row is not None]
    first = there[0]
    return {
        "version": first["version"],
        "engine": first.get("engine", "python"),
        "run": None,
        "tasks": sum(row["tasks"] for row in there),
        "since": since,
        "now": now,
        "ready": not stopping and len(there) == len(rows) and all(row["ready"] for row in there),
        "missing": missing_of({number: None if row is None else row["missing"] for number, row in rows.items()}),
        "stopping": stopping or any(row["stopping"] for row in there),
        "network_namespace": first.get("network_namespace"),
        "identity": _identity([row["identity"] for row in there]),
        "issuers": _issuers([row["issuers"] for row in there]),
        "revocations": _revocations([row["revocations"] for row in there]),
        "deny_file": _deny_file([row.get("deny_file") for row in there]),
        "deny_unmatched": _deny_unmatched([row.get("deny_unmatched", ()) for row in there]),
        "settings": min(
            (row["settings"] for row in there), key=lambda one: (one["refused_at"] is None, one["loaded_at"])
        ),
        "requests": _sum([row["requests"] for row in there], "requests"),
        "logins": None,  # settings with logins allow one process only
        "streams": _sum([row["streams"] for row in there], "streams"),
        "listeners": _listeners([row["listeners"] for row in there]),
        "door": _door([row.get("door") for row in there]),
        "bypass": _bypass([row["bypass"] for row in there]),
        "agent": min((row["agent"] for row in there), key=_agent_badness),
        "memory": _memory([row["memory"] for row in there]),
        "upstream_connections": sum(row["upstream_connections"] for row in there),
        "upstreams": [one for row in there for one in row["upstreams"]],
        "exchanges": _exchanges([row["exchanges"] for row in there]),
        "records": _records([row["records"] for row in there]),
        "refused": _merge_refusals([row["refused"] for row in there]),
        "refused_lately": _merge_refusals([row["refused_lately"] for row in there]),
        "workers": [_row(number, row) for number, row in rows.items()],
        "restarts": restarts,
    }


def merge_chains(documents: Sequence[Json]) -> Json:
    """Merge the requests in progress, the longest first."""
    chains = sorted((row for document in documents for row in document["chains"]), key=lambda row: row["since"])
    return {"being_served": sum(document["being_served"] for document in documents), "chains": chains[:MAX_CHAINS]}


def missing_of(rows: Mapping[int, Sequence[str] | None]) -> list[str]:
    """Return the reasons why workers are not ready; a reason of all workers is listed once, without numbers.

    A value of ``rows`` is None if that worker did not answer.
    """
    lacking: list[str] = []
    told = {number: ["does not answer"] if words is None else words for number, words in rows.items()}
    for number, words in told.items():
        for word in words:
            everywhere = all(word in others for others in told.values())
            line = word if everywhere else f"worker {number}: {word}"
            if line not in lacking:
                lacking.append(line)
    return lacking


def _row(number: int, row: Json | None) -> Json:
    if row is None:
        return {
            "worker": number,
            "run": None,
            "pid": None,
            "ready": False,
            "being_served": None,
            "settings_loaded_at": None,
            "deny_sha256": None,
        }
    return {
        "worker": number,
        "run": row["run"],
        "pid": row["pid"],
        "ready": row["ready"],
        "being_served": row["requests"]["being_served"],
        "settings_loaded_at": row["settings"]["loaded_at"],
        "deny_sha256": None if row.get("deny_file") is None else row["deny_file"]["sha256"],
    }


def _identity(several: Sequence[Json]) -> Json:
    worst = min(several, key=lambda one: (one["not_after"] or 0, one["last_error"] is None))
    missing = sorted({name for one in several for name in one["missing_trust_domains"]})
    updates = Counter[str]()
    for one in several:
        updates.update(one["updates"])
    return {**worst, "missing_trust_domains": missing, "updates": dict(updates)}


def _issuers(several: Sequence[Sequence[Json]]) -> list[Json]:
    worst: dict[str, Json] = {}
    for rows in several:
        for row in rows:
            known = worst.get(row["issuer"])
            if known is None or _badness(row) > _badness(known):
                worst[row["issuer"]] = row
    return list(worst.values())


def _revocations(several: Sequence[Sequence[Json]]) -> list[Json]:
    """Return the worst row of each issuer's list."""
    worst: dict[str, Json] = {}
    for row in sorted((row for rows in several for row in rows), key=_list_badness):
        worst[row["issuer"]] = row
    return list(worst.values())


def _deny_file(several: Sequence[Json | None]) -> Json | None:
    """Return the worst row: one with an error, else that of the oldest list."""
    return max(
        (one for one in several if one is not None),
        key=lambda one: (one["error"] is not None, -(one["in_force_at"] or 0), one["age_s"]),
        default=None,
    )


def _deny_unmatched(several: Sequence[Sequence[Json]]) -> list[Json]:
    return list({one["row"]: one for rows in several for one in rows}.values())


def _list_badness(row: Json) -> tuple[bool, bool, int, int]:
    return row["stale"], row["last_error"] is not None, row["age_s"] or 0, -row["seq"]


def _badness(issuer: Json) -> tuple[bool, bool, int]:
    age = issuer["key_age_s"]
    return age is None, issuer["last_error"] is not None, age or 0


def _agent_badness(agent: Json | None) -> int:
    """Return the rank of the agent's state, the worst first: down, not seen yet, up."""
    return 2 if agent is None or agent["up"] else 1 if agent["up"] is None else 0


def _listeners(several: Sequence[Sequence[Json]]) -> list[Json]:
    sums: dict[tuple[str, str], Json] = {}
    for rows in several:
        for row in rows:
            known = sums.setdefault((row["direction"], row["address"]), {**row, "connections": 0, "max_connections": 0})
            known["connections"] += row["connections"]
            known["max_connections"] += row["max_connections"]
    return list(sums.values())


def _door(several: Sequence[Json | None]) -> Json | None:
    """Return the door of a worker with an error, else of any worker: all follow the same files."""
    doors = [one for one in several if one is not None]
    return max(doors, key=lambda one: one["error"] is not None, default=None)


def _bypass(several: Sequence[Json]) -> Json:
    """Return the worst finding: all workers list the same listeners, though not at the same time."""
    return max(several, key=lambda one: (one["refused"], len(one["listeners"]), one["error"] is not None))


def _memory(several: Sequence[Json | None]) -> Json | None:
    """Return the row of the worker with the least memory left."""
    there = [one for one in several if one is not None]
    return max(there, key=lambda one: (one["short"], one["used_bytes"] / one["limit_bytes"]), default=None)


def _exchanges(several: Sequence[Sequence[Json]]) -> list[Json]:
    merged: dict[str, Json] = {}
    for rows in several:
        for row in rows:
            known = merged.get(row["issuer"])
            merged[row["issuer"]] = row if known is None else _exchange(known, row)
    return list(merged.values())


def _exchange(one: Json, other: Json) -> Json:
    refusals = [row["last_refusal"] for row in (one, other) if row["last_refusal"] is not None]
    return {
        "issuer": one["issuer"],
        "tokens": one["tokens"] + other["tokens"],
        "under_way": one["under_way"] + other["under_way"],
        "last_refusal": max(refusals, key=lambda row: int(row["at"]), default=None),
        "endpoints": _endpoints([*one["endpoints"], *other["endpoints"]]),
    }


def _endpoints(rows: Sequence[Json]) -> list[Json]:
    """Return the worst row of each endpoint."""
    worst: dict[str, Json] = {}
    for row in rows:
        known = worst.get(row["url"])
        worst[row["url"]] = row if known is None else max(known, row, key=_endpoint_badness)
    return list(worst.values())


def _endpoint_badness(endpoint: Json) -> tuple[bool, int]:
    failing_s = endpoint["failing_s"]
    return endpoint["open"], -1 if failing_s is None else failing_s


def _records(several: Sequence[Json]) -> Json:
    """Merge the states of one sink: any worker's trouble, the largest backlog, the least free space."""
    trouble = next((one["trouble"] for one in several if one["trouble"] is not None), None)
    behind = max(several, key=lambda one: int(one["waiting_bytes"]))
    fullest = min(several, key=lambda one: (one["free_bytes"] is None, one["free_bytes"]))
    return {
        **fullest,
        "trouble": trouble,
        "waiting_bytes": behind["waiting_bytes"],
        "refused_at_bytes": behind["refused_at_bytes"],
        **_sum(several, "records"),
    }


def _sum(several: Sequence[Json], what: str) -> Json:
    return {name: sum(one[name] for one in several) for name in _SUMMED[what]}


def _merge_refusals(several: Sequence[Mapping[str, int]]) -> Json:
    counts = Counter[str]()
    for one in several:
        counts.update(one)
    return dict(counts.most_common())
