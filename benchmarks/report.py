"""Writes results as a report: Markdown with charts, and one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Final

from benchmarks.axes import ALL
from benchmarks.charts import bars, lines
from benchmarks.growth import AXES, GROWTH
from benchmarks.held import PAIRS, kib_for_each
from benchmarks.peers.all import all_peers
from benchmarks.peers.peer import INBOUND
from benchmarks.peers.sidecar_settings import ENGINES
from benchmarks.ratios import Spread
from benchmarks.results import Results
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.tables import BASE, ENVOY, Row, Table, relative, table_of, tells_latency

_HEADINGS: Final = (
    *("peer", "figure", f"x {BASE}", f"x {ENVOY}", "x before", "p50 / p99 us", f"p99 x {BASE}"),
    *("p50 over no proxy, us", "p99 over no proxy, us", "per second", "kernel", "native", "core free"),
    *("us of each process", "remarks"),
)
_TAILS: Final = (
    *("load", "engine", f"CPU x {BASE}", f"CPU x {ENVOY}", "CPU x before", "native", f"p99 x {BASE}"),
    *("p50 over no proxy, us", "p99 over no proxy, us", "core free", "calls"),
)
_ASKED: Final = (
    *("inbound", "inbound-500", "post", "fresh-token", "new-connection", "outbound"),
    *("http2", "http2-single", "http2-varied", "http2-new-connection", "grpc-unary"),
)
_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .6rem 0 1.4rem }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
p.refusal { background: #fde8e4; padding: .5rem .8rem } svg { max-width: 100%; height: auto }
"""


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write ``report.md``, its charts, and ``report.html`` into the folder."""
    sections = [_section(results, scenario) for scenario in ALL if _was_measured(results, scenario)]
    sections += _memory(results)
    growth = [_growth(results, axis) for axis in AXES if any(_was_measured(results, one) for one in _along(axis))]
    written = []
    for _, _, charts in [*sections, *growth]:
        for name, chart in charts.items():
            path = folder / f"{name}.svg"
            path.write_text(chart)
            written.append(path)
    markdown, page = folder / "report.md", folder / "report.html"
    markdown.write_text(_markdown(results, [*sections, *growth]))
    page.write_text(_page(results, [*sections, *growth]))
    return [markdown, page, *written]


Section = tuple[str, list[Table], dict[str, str]]  # title, tables, charts by the name of their file


def _section(results: Results, scenario: Scenario) -> Section:
    table = _table(results, scenario)
    ours = _title(results, "sidecar")
    shown = [(_title(results, row.peer), row.ratio) for row in table.rows if row.ratio is not None]
    charts = {}
    if shown:
        charts[scenario.name] = bars(f"{scenario.title}: x {BASE}", shown, unit="x", mark=ours)
    times = [
        (_title(results, row.peer), Spread(row.p50_us, row.p50_us, row.p99_us, 1))
        for row in table.rows
        if row.p50_us > 0
    ]
    if scenario.rate and times:  # latency is meaningful only if the load does not depend on it
        charts[f"{scenario.name}-latency"] = bars("Latency: p50, and a line to p99", times, unit="us", mark=ours)
    return scenario.title, [table], charts


def _table(results: Results, scenario: Scenario) -> Table:
    """Return the table of a scenario; with a mix, also a row for each peer that is missing, with the reason."""
    table = table_of(results.samples, scenario, [peer.name for peer in results.peers])
    if not scenario.mix:
        return table
    known = {peer.name: "the load could not be made" for peer in results.peers} | results.missing
    reasons = {peer.name: known.get(peer.title, known.get(peer.name)) for peer in all_peers() if scenario.suits(peer)}
    measured = {row.peer for row in table.rows}
    absent = [
        Row(peer=name, remarks=(f"not run: {why}",)) for name, why in reasons.items() if why and name not in measured
    ]
    return replace(table, rows=(*table.rows, *absent))


def _memory(results: Results) -> list[Section]:
    """Draw resident memory over connections, a line for each peer."""
    series: dict[str, list[tuple[float, float]]] = {}
    for scenario in SCENARIOS:
        if scenario.measure == "memory" and scenario.role == INBOUND:
            for row in table_of(results.samples, scenario, [peer.name for peer in results.peers]).rows:
                if row.figure is not None:
                    series.setdefault(_title(results, row.peer), []).append((scenario.connections, row.figure.middle))
    title = "Resident memory as connections grow"
    chart = lines(title, series, x="idle connections", y="MiB")
    return [(title, [], {"memory": chart})] if any(len(points) > 1 for points in series.values()) else []


def _beside_each(results: Results) -> tuple[list[str], list[tuple[str, ...]]]:
    """Tabulate the sidecar's CPU per request relative to each peer's: the most frequent question, in one table."""
    asked = [one for one in SCENARIOS if one.name in _ASKED and _was_measured(results, one)]
    rows: list[tuple[str, ...]] = []
    for peer in results.peers:
        found = [relative(results.samples, one, "sidecar", peer.name) for one in asked]
        if peer.name not in {"sidecar", "direct"} and any(found):
            rows.append((peer.title, *map(_ratio, found)))
    return ["the sidecar's CPU per request, relative to", *(one.name for one in asked)], rows


def _held(results: Results) -> tuple[list[str], list[tuple[str, ...]]]:
    """Tabulate the memory for each connection and request in progress."""
    rows: list[tuple[str, ...]] = []
    for peer in results.peers:
        found = [kib_for_each(results.samples, peer.name, fewer, more) for _, fewer, more in PAIRS]
        if any(value is not None for value in found):
            rows.append((peer.title, *("-" if value is None else f"{value:.1f}" for value in found)))
    return ["resident memory, KiB, for each", *(what for what, _, _ in PAIRS)], rows


def _growth(results: Results, axis: str) -> Section:
    """Tabulate figures without ratios, to show the growth of each peer's own cost."""
    tables = [table_of(results.samples, one, [peer.name for peer in results.peers]) for one in _along(axis)]
    series: dict[str, list[tuple[float, float]]] = {}
    for table in tables:
        for row in table.rows:
            if row.figure is not None:
                series.setdefault(_title(results, row.peer), []).append((table.scenario.amount, row.figure.middle))
    chart = lines(AXES[axis], series, x=axis, y="us of CPU per request")
    return f"As there are more: {AXES[axis]}", tables, {axis: chart} if chart else {}


def _title(results: Results, peer: str) -> str:
    taking = {one.name: one.title for one in results.peers}
    return taking.get(peer) or next((one.title for one in all_peers() if one.name == peer), peer)


def _along(axis: str) -> list[Scenario]:
    return [one for one in GROWTH if one.axis == axis]


def _was_measured(results: Results, scenario: Scenario) -> bool:
    return any(sample.scenario == scenario.name for sample in results.samples)


def _cells(results: Results, table: Table) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the headings and the rows of a table, without the columns that are empty in all rows."""
    rows = []
    for row in table.rows:
        times = "" if math.isnan(row.p50_us) else f"{row.p50_us:,.0f} / {row.p99_us:,.0f}"
        rate = f"{row.per_second:,.0f}" if row.per_second >= 1 else ""
        rows.append(
            (
                _title(results, row.peer),
                _figure(row.figure),
                *map(_ratio, (row.ratio, row.ratio_to_envoy, row.ratio_to_before)),
                times,
                _ratio(row.p99_ratio),
                *map(_microseconds, (row.added_p50_us, row.added_p99_us)),
                rate,
                *map(_percent, (row.kernel_share, row.native_share, row.core_free)),
                ", ".join(f"{name} {value:,.0f}" for name, value in row.process_us.items()),
                "; ".join(row.remarks),
            )
        )
    return _without_empty(_HEADINGS, rows)


def _without_empty(headings: Sequence[str], rows: Sequence[tuple[str, ...]]) -> tuple[list[str], list[tuple[str, ...]]]:
    used = [at for at, heading in enumerate(headings) if heading == "remarks" or any(row[at] for row in rows)]
    return [headings[at] for at in used], [tuple(row[at] for at in used) for row in rows]


def _tails(results: Results) -> tuple[list[str], list[tuple[str, ...]]]:
    """Tabulate the sidecar under each load that has latencies: its ratios, its tails and its answered calls."""
    rows: list[tuple[str, ...]] = []
    for scenario in ALL:
        if not tells_latency(scenario) or not _was_measured(results, scenario):
            continue
        for row in table_of(results.samples, scenario, [peer.name for peer in results.peers]).rows:
            if row.peer in ENGINES:
                ratios = map(_ratio, (row.ratio, row.ratio_to_envoy, row.ratio_to_before))
                added = map(_microseconds, (row.added_p50_us, row.added_p99_us))
                calls = next((remark for remark in row.remarks if "answered" in remark), "")
                tail = (_percent(row.native_share), _ratio(row.p99_ratio), *added, _percent(row.core_free), calls)
                rows.append((scenario.name, _title(results, row.peer), *ratios, *tail))
    return _without_empty(_TAILS, rows)


def _figure(value: Spread | None) -> str:
    return "-" if value is None else f"{value.middle:,.1f}"


def _ratio(value: Spread | None) -> str:
    return "" if value is None else f"{value.middle:.2f} ({value.lowest:.2f} to {value.highest:.2f})"


def _microseconds(value: Spread | None) -> str:
    return "" if value is None else f"{value.middle:,.0f} ({value.lowest:,.0f} to {value.highest:,.0f})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _facts(results: Results) -> list[tuple[str, str]]:
    return [
        ("made at", results.made_at),
        ("rounds", f"{results.rounds}, of {results.seconds:g} s each"),
        ("TLS 1.3", results.tls),
        *results.machine.items(),
    ]


def _say_refusal(table: Table) -> str:
    return f"No ratio is told here: {table.refusal}."


def _markdown(results: Results, sections: Sequence[Section]) -> str:
    lines_ = ["# Benchmark report", ""]
    lines_ += [f"- {name}: {value}" for name, value in _facts(results)]
    lines_ += ["", *(f"**{caveat}**" for caveat in results.caveats), "", "## Who took part", ""]
    lines_ += ["| peer | version | does not |", "| --- | --- | --- |"]
    lines_ += [f"| {one.title} | {one.version} | {'; '.join(one.does_not) or '-'} |" for one in results.peers]
    lines_ += ["", *(f"- Without {name}: {why}" for name, why in results.missing.items())]
    headings, rows = _beside_each(results)
    if rows:
        lines_ += ["", "## In short", "", f"| {' | '.join(headings)} |", "| --- " * len(headings) + "|"]
        lines_ += [f"| {' | '.join(row)} |" for row in rows]
    for headings, rows in (_tails(results), _held(results)):
        if rows:
            lines_ += ["", f"| {' | '.join(headings)} |", "| --- " * len(headings) + "|"]
            lines_ += [f"| {' | '.join(row)} |" for row in rows]
    for title, tables, charts in sections:
        lines_ += ["", f"## {title}", ""]
        lines_ += [f"![{title}]({name}.svg)" for name in charts] + [""]
        for table in tables:
            lines_ += [f"### {table.scenario.title}", ""] if len(tables) > 1 else []
            lines_ += [f"**{_say_refusal(table)}**", ""] if table.refusal else []
            headings, cells = _cells(results, table)
            lines_ += [f"Figure: {table.unit}.", "", f"| {' | '.join(headings)} |", "| --- " * len(headings) + "|"]
            lines_ += [f"| {' | '.join(row)} |" for row in cells] + [""]
    return "\n".join(lines_) + "\n"


def _page(results: Results, sections: Sequence[Section]) -> str:
    parts = ["<h1>Benchmark report</h1>", _html_table(("what", "value"), _facts(results))]
    parts += [f'<p class="refusal">{escape(caveat)}</p>' for caveat in results.caveats]
    parts.append("<h2>Who took part</h2>")
    taking = [(one.title, one.version, "; ".join(one.does_not) or "-") for one in results.peers]
    parts.append(_html_table(("peer", "version", "does not"), taking))
    parts += [f"<p>Without {escape(name)}: {escape(why)}</p>" for name, why in results.missing.items()]
    headings, rows = _beside_each(results)
    if rows:
        parts += ["<h2>In short</h2>", _html_table(headings, rows)]
    parts += [_html_table(headings, rows) for headings, rows in (_tails(results), _held(results)) if rows]
    for title, tables, charts in sections:
        parts += [f"<h2>{escape(title)}</h2>", *charts.values()]
        for table in tables:
            if len(tables) > 1:
                parts.append(f"<h3>{escape(table.scenario.title)}</h3>")
            if table.refusal:
                parts.append(f'<p class="refusal">{escape(_say_refusal(table))}</p>')
            parts += [f"<p>Figure: {escape(table.unit)}.</p>", _html_table(*_cells(results, table))]
    head = f'<meta charset="utf-8"><title>Benchmark report</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in headings)
    body = "".join(
        "<tr>" + "".join(f'<td class="{_kind(cell)}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _kind(cell: str) -> str:
    return "n" if cell[:1].isdigit() and len(cell) < 30 else "t"
