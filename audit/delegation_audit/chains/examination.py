"""Reads the result from a judged database: the chosen chains with their hops, and the findings.

Returns all chains of a small set, the worst ones of a large set. ``verdicts.py`` has judged them before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from delegation_audit.chains.calls import details
from delegation_audit.chains.choice import EVERYTHING, Choice
from delegation_audit.chains.engine import Engine
from delegation_audit.chains.findings import PREVENTED, SENTENCES, Finding, Kind
from delegation_audit.chains.hops import Chain, Hop, chain_of
from delegation_audit.chains.lines import READ
from delegation_core.console.counts import part
from delegation_core.records.reading import Record

MOST_CHAINS: Final = 1000
MOST_OTHERS: Final = 20
MOST_FINDINGS: Final = 10_000
_LISTS: Final = frozenset({"chain", "scope", "scope_needed"})
_NUMBERS: Final = frozenset({"seq", "chain_depth", "status", "upstream_status"})


@dataclass(frozen=True, slots=True)
class Audit:
    """The chains returned, by start time, with findings, and the numbers of all chosen chains and findings.

    ``verdicts``: for each chain returned, worst first, the numbers of its findings and of those that break it.
    ``others``: the audit without filters, if the filters choose no chain. ``outside``: number of requests, exchanges
    and connections that belong to no chain, by reason (``login``: an accepted login), without filters only. ``counts``:
    findings of the chosen chains by kind.
    """

    chains: tuple[Chain, ...]
    findings: tuple[Finding, ...]
    records: int
    outside: dict[str, int]
    counts: dict[Kind, int]
    all_chains: int
    broken_chains: int
    verdicts: dict[str, tuple[int, int]]
    others: Audit | None = None

    @property
    def summary(self) -> tuple[int, str]:
        """Number of broken chains (see ``findings.breaks``), and a sentence."""
        prevented = sum(self.counts.get(kind, 0) for kind in PREVENTED)
        besides = f"; refused, which breaks no chain: {prevented}" if prevented else ""
        return self.broken_chains, f"{part(self.broken_chains, self.all_chains, 'chain')} broken{besides}"


def examine(
    database: Engine,
    choice: Choice = EVERYTHING,
    *,
    ignore: Iterable[str] = (),
    most_chains: int = MOST_CHAINS,
    most_findings: int = MOST_FINDINGS,
) -> Audit:
    """Return the audit of the chosen chains of a judged database, with at most ``most_chains`` chains."""
    ignored = list(ignore)
    choice.apply(database, ignored)
    counts = {
        Kind(kind): number for kind, number in database.rows("SELECT kind, count(*) FROM chosen_findings GROUP BY kind")
    }
    verdicts = {
        name: (found, breaking)
        for name, found, breaking in database.rows(
            "SELECT chain, found, breaking FROM chosen ORDER BY worst, found DESC, ts, chain LIMIT $n",
            {"n": most_chains},
        )
    }
    # One statement: the rows of a UNION have no fixed order.
    ((total, broken),) = database.rows("SELECT count(*), count(CASE WHEN breaking > 0 THEN 1 END) FROM chosen")
    outside = database.rows("SELECT name, number FROM outside ORDER BY name") if choice is EVERYTHING else []
    findings = _findings(database, most_findings)
    return Audit(
        chains=_chains(database, list(verdicts)), findings=findings, records=database.records,
        outside={json.loads(name): number for name, number in outside}, counts=counts, all_chains=total,
        broken_chains=broken, verdicts={json.loads(name): one for name, one in verdicts.items()},
        others=None if total or choice is EVERYTHING else examine(database, ignore=ignored, most_chains=MOST_OTHERS),
    )  # fmt: skip


def _chains(database: Engine, names: Sequence[str]) -> tuple[Chain, ...]:
    by_chain: dict[str, list[Hop]] = {}
    for hop in _hops(database, names):
        by_chain.setdefault(hop.chain or "", []).append(hop)
    chains = [chain_of(name, members) for name, members in by_chain.items()]
    return tuple(
        sorted(chains, key=lambda chain: (min((hop.ts for _, hop in chain.hops if hop.ts), default=""), chain.name))
    )


def _hops(database: Engine, names: Sequence[str]) -> list[Hop]:
    values = {"names": list(names)}
    database.rows("DROP TABLE IF EXISTS shown")
    database.rows("CREATE TABLE shown AS SELECT * FROM hops WHERE chain IN (SELECT unnest($names))", values)
    found = database.rows(
        "SELECT hop, call, c_place, issued, exchanged, e_place, actor, audience, chain, ts, t_depth, t_iss, t_jti"
        f" FROM ({details('shown')}) ORDER BY ts, hop"
    )  # fmt: skip
    records = _records(database, {place for row in found for place in row[2:6] if place is not None})
    hops: dict[int, Hop] = {}
    for key, call, caller, issued, exchanged, callee, actor, audience, chain, ts, depth, iss, jti in found:
        hops[key] = Hop(
            call=_read(call), token=None if jti is None else (_read(iss), _read(jti)), caller=records.get(caller),
            issued=records.get(issued), exchanged=records.get(exchanged), callee=records.get(callee),
            actor=_read(actor), audience=_read(audience), chain=_read(chain), ts=_read(ts) or "", token_depth=depth,
        )  # fmt: skip
    for key, iss, jti, actor, audience, chain in database.rows(
        "SELECT hop, iss, jti, actor, audience, chain FROM made WHERE chain IN (SELECT unnest($names))"
        " OR hop IN (SELECT f.parent FROM family AS f JOIN hops AS h ON h.hop = f.hop"
        " WHERE h.chain IN (SELECT unnest($names)))",
        values,
    ):
        token = None if iss is None or jti is None else (_read(iss), _read(jti))
        hops[key] = Hop(token=token, actor=_read(actor), audience=_read(audience), chain=_read(chain))
    _relate(database, hops, values)
    return [hop for hop in hops.values() if hop.chain is not None]


def _relate(database: Engine, hops: Mapping[int, Hop], values: Mapping[str, object]) -> None:
    """Set the parents and children of hops, and their missing witnesses, from the judged tables."""
    for child, parent in database.rows(
        "SELECT f.hop, f.parent FROM family AS f JOIN hops AS h ON h.hop = f.hop"
        " WHERE h.chain IN (SELECT unnest($names)) ORDER BY h.ts, h.hop", values,
    ):  # fmt: skip
        if child in hops and parent in hops:
            hops[child].parent = hops[parent]
            hops[parent].children.append(hops[child])
    for hop, witness in database.rows(
        "SELECT hop, a FROM findings WHERE rule = 'missing_witness' AND chain IN (SELECT unnest($names))"
        " ORDER BY a = '\"callee\"', a", values,
    ):  # fmt: skip
        hops[hop].missing.append(json.loads(witness))


def _records(database: Engine, places: Iterable[int]) -> dict[int, Record]:
    rows = database.rows(
        f"SELECT place, digest, {', '.join(READ)} FROM records WHERE place IN (SELECT unnest($places))",
        {"places": list(places)},
    )
    return {place: _record(digest, dict(zip(READ, row, strict=True))) for place, digest, *row in rows}


def _record(digest: int, values: dict[str, Any]) -> Record:
    read = {name: value if name in _NUMBERS or name == "verified" else _read(value) for name, value in values.items()}
    for name in _LISTS:
        if read[name] is not None:
            read[name] = tuple(read[name]) if name == "chain" else frozenset(read[name])
    return Record(digest=f"{digest:x}", **read)


def _read(text: str | None) -> Any:
    if text is not None and text.startswith('"') and "\\" not in text:
        return text[1:-1]  # without a backslash, nothing is escaped
    return None if text is None else json.loads(text)


def _findings(database: Engine, most: int) -> tuple[Finding, ...]:
    order = " ".join(f"WHEN '{kind}' THEN {number}" for number, kind in enumerate(Kind))
    database.rows("DROP TABLE IF EXISTS told_of")
    database.rows("DROP TABLE IF EXISTS shown_findings")
    database.rows(
        f"CREATE TABLE shown_findings AS SELECT *, CASE kind {order} END AS number FROM chosen_findings"
        " ORDER BY number, chain, rule, hop, evidence LIMIT $n", {"n": most},
    )  # fmt: skip
    database.rows("CREATE TABLE told_of AS SELECT * FROM hops WHERE hop IN (SELECT hop FROM shown_findings)")
    rows = database.rows(
        "SELECT f.kind, f.rule, f.chain, f.a, f.b, f.c, f.evidence, coalesce(h.actor, m.actor),"
        " coalesce(h.audience, m.audience), h.call, w.workload"
        f" FROM shown_findings AS f LEFT JOIN ({details('told_of')}) AS h ON h.hop = f.hop"
        " LEFT JOIN made AS m ON m.hop = f.hop"
        " LEFT JOIN (SELECT run, min(workload) AS workload FROM records WHERE workload IS NOT NULL GROUP BY run) AS w"
        " ON w.run = f.a"
    )
    named = _places(database, {int(place) for row in rows for place in (row[6] or "").split(",") if place})
    findings = [_finding(row, named) for row in rows]
    kinds = {kind: number for number, kind in enumerate(Kind)}
    return tuple(
        sorted(findings, key=lambda finding: (finding.chain or "", kinds[finding.kind], finding.text, finding.records))
    )


def _places(database: Engine, places: Iterable[int]) -> dict[int, str]:
    rows = database.rows(
        "SELECT place, run, seq FROM records WHERE place IN (SELECT unnest($places))"
        " UNION ALL SELECT place, run, seq FROM repeats WHERE place IN (SELECT unnest($places))",
        {"places": list(places)},
    )
    return {place: f"{json.loads(run)}/{seq}" for place, run, seq in rows}


def _finding(row: tuple[Any, ...], places: Mapping[int, str]) -> Finding:
    kind, rule, chain, a, b, c, evidence, actor, audience, call, workload = row
    records = [places[int(place)] for place in (evidence or "").split(",") if place and int(place) in places]
    if rule == "records_lost":
        records = [f"{_read(a)}/{b}", f"{_read(a)}/{c}"]
    words = _words(rule, _read(a), _read(b), _read(c))
    words |= {
        "hop": f"{_read(actor) or 'somebody'} → {_read(audience) or 'somebody'}", "call": _read(call),
        "who": f"run {_read(a)}" if workload is None else f"{_read(workload)} (run {_read(a)})",
    }  # fmt: skip
    return Finding(Kind(kind), SENTENCES[rule].format(**words), _read(chain), tuple(dict.fromkeys(records)))


def _words(rule: str, a: Any, b: Any, c: Any) -> dict[str, object]:
    """Return the values for the placeholders in the sentence of a rule."""
    words: dict[str, object] = {"a": a, "b": b, "c": c}
    if rule == "records_lost":
        words["lost"] = f"record {b} is" if b == c else f"records {b} to {c} are"
    elif rule == "chain_differs":
        words |= {"b_actors": _arrows(b), "c_actors": _arrows(c)}
    elif rule in {"wider_than_parent", "wider_than_asked"}:
        words["more"] = ", ".join(sorted(set(b or ()) - set(c or ())))
    elif rule == "repeated_call":
        words["both"] = " and ".join(sorted({str(b), str(c)}))
    elif rule == "other_token":
        words["of_chain"] = "" if c is None else f", of chain {c}"
    return words


def _arrows(chain: Iterable[str] | None) -> str:
    return " ← ".join(chain or ()) or "nobody"
