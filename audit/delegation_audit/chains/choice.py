"""Filters chains by what an investigator knows: subject, actor, time, trace. All records are judged before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from delegation_audit.chains.findings import Kind, breaks

if TYPE_CHECKING:
    from delegation_audit.chains.engine import Engine

# Condition on records for each filter; the filter's value is a parameter.
_CONDITIONS: Final = {
    "subject": "subject = $subject",
    "actor": "(actor = $actor OR peer = $actor OR workload = $actor OR contains(chain, $actor))",
    "since": "ts >= $since",
    "until": "ts <= $until",
    "trace": "trace_id = $trace",
    "txn": "txn = $txn",
    "jti": "(jti_in = $jti OR jti_out = $jti OR parent_jti = $jti)",
    "route": "route = $route",
    "host": "(audience = $host OR peer = $host"
    " OR split_part(split_part(trim(audience, '\"'), '://', 2), '/', 1) = trim($host, '\"'))",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Filters for chains: at least one record of a hop must satisfy all of them. ``host``: the target of a call."""

    subject: str | None = None
    actor: str | None = None
    since: str | None = None
    until: str | None = None
    trace: str | None = None
    txn: str | None = None
    jti: str | None = None
    route: str | None = None
    host: str | None = None

    def apply(self, database: Engine, ignored: Sequence[str]) -> None:
        """Create the tables ``chosen`` (chains; ``worst``: rank of the worst finding, 0 is the worst; ``breaking``:
        number of findings that break the chain) and ``chosen_findings``, without kinds in ``ignored``.
        """
        given = {name: value for name in _CONDITIONS if (value := getattr(self, name)) is not None}
        values: dict[str, object] = {name: json.dumps(value, ensure_ascii=False) for name, value in given.items()}
        where = " AND ".join(_CONDITIONS[name] for name in given)
        wanted = (
            f"""
            SELECT DISTINCT h.chain FROM hops AS h JOIN (SELECT place FROM records WHERE {where}) AS r
            ON r.place IN (h.c_place, h.e_place, h.issued, h.exchanged) WHERE h.chain IS NOT NULL
            """
            if given
            else "SELECT DISTINCT chain FROM hops WHERE chain IS NOT NULL"
        )
        breaking = ", ".join(f"'{kind}'" for kind in Kind if breaks(kind))
        order = " ".join(f"WHEN '{kind}' THEN {number}" for number, kind in enumerate(Kind))
        database.rows("DROP TABLE IF EXISTS chosen")
        database.rows("DROP TABLE IF EXISTS chosen_findings")
        database.rows(f"CREATE TABLE chosen_chains AS {wanted}", values)
        keep = "chain IN (SELECT chain FROM chosen_chains)" if given else "true"
        database.rows(
            "CREATE TABLE chosen_findings AS SELECT * FROM findings"
            f" WHERE {keep} AND kind NOT IN (SELECT unnest($ignored))",
            {"ignored": list(ignored)},
        )
        database.rows(f"""
            CREATE TABLE chosen AS
            SELECT c.chain, s.ts, coalesce(f.found, 0) AS found, coalesce(f.breaking, 0) AS breaking,
                coalesce(f.worst, 999) AS worst FROM chosen_chains AS c
            LEFT JOIN (SELECT chain, min(ts) AS ts FROM hops GROUP BY chain) AS s ON s.chain = c.chain
            LEFT JOIN (
                SELECT chain, count(*) AS found, count(*) FILTER (WHERE kind IN ({breaking})) AS breaking,
                    min(CASE kind {order} END) AS worst FROM chosen_findings GROUP BY chain
            ) AS f ON f.chain = c.chain
        """)
        database.rows("DROP TABLE chosen_chains")


EVERYTHING: Final = Choice()
