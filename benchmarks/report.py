"""Writes results as a report: Markdown with charts, and one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from benchmarks.charts import bars, lines
from benchmarks.growth import AXES, GROWTH
from benchmarks.held import PAIRS, kib_for_each
from benchmarks.peers.peer import INBOUND
from benchmarks.peers.sidecar_settings import ENGINES
from benchmarks.ratios import Spread
from benchmarks.results import Results
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.tables import BASE, Table, relative, table_of, tells_latency

_HEADINGS: Final = (
    *("peer", "figure", f"x {BASE}", "p50 / p99 us", f"p99 x {BASE}", "p99 over no proxy, us"),
    *("per second", "kernel", "remarks"),
)
_TAILS: Final = ("load", "engine", f"p99 x {BASE}", "p99 over no proxy, us", "calls")
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
    sections = [_section(results, scenario) for scenario in SCENARIOS if _was_measured(results, scenario)]
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
    table = table_of(results.samples, scenario, [peer.name for peer in results.peers])
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
    if scenario.rate and times:  # latency is meaningful only where the load does not depend on it
        charts[f"{scenario.name}-latency"] = bars("Latency: p50, and a line to p99", times, unit="us", mark=ours)
    return scenario.title, [table], charts


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
            rows.append((peer.title, *("" if one is None else _ratio(one) for one in found)))
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
    """Tabulate figures without ratios: the question is how one peer's own cost grows."""
    tables = [table_of(results.samples, one, [peer.name for peer in results.peers]) for one in _along(axis)]
    series: dict[str, list[tuple[float, float]]] = {}
    for table in tables:
        for row in table.rows:
            if row.figure is not None:
                series.setdefault(_title(results, row.peer), []).append((table.scenario.amount, row.figure.middle))
    chart = lines(AXES[axis], series, x=axis, y="us of CPU per request")
    return f"As there are more: {AXES[axis]}", tables, {axis: chart} if chart else {}


def _title(results: Results, peer: str) -> str:
    return next((one.title for one in results.peers if one.name == peer), peer)


def _along(axis: str) -> list[Scenario]:
    return [one for one in GROWTH if one.axis == axis]


def _was_measured(results: Results, scenario: Scenario) -> bool:
    return any(sample.scenario == scenario.name for sample in results.samples)


def _cells(table: Table, peer_titles: dict[str, str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the headings and the rows of a table, without the columns that are empty in all rows."""
    rows = []
    for row in table.rows:
        times = "" if math.isnan(row.p50_us) else f"{row.p50_us:,.0f} / {row.p99_us:,.0f}"
        rate = f"{row.per_second:,.0f}" if row.per_second >= 1 else ""
        rows.append(
            (
                peer_titles[row.peer],
                _figure(row.figure),
                "" if row.ratio is None else _ratio(row.ratio),
                times,
                "" if row.p99_ratio is None else _ratio(row.p99_ratio),
                "" if row.added_p99_us is None else _microseconds(row.added_p99_us),
                rate,
                "" if row.kernel_share is None else f"{row.kernel_share:.0%}",
                "; ".join(row.remarks),
            )
        )
    used = [at for at, heading in enumerate(_HEADINGS) if heading == "remarks" or any(row[at] for row in rows)]
    return [_HEADINGS[at] for at in used], [tuple(row[at] for at in used) for row in rows]


def _tails(results: Results) -> list[tuple[str, ...]]:
    """Tabulate the sidecar's p99 beside HAProxy's and beside no proxy, and the calls that were answered."""
    rows: list[tuple[str, ...]] = []
    for scenario in SCENARIOS:
        if not tells_latency(scenario) or not _was_measured(results, scenario):
            continue
        for row in table_of(results.samples, scenario, [peer.name for peer in results.peers]).rows:
            if row.peer in ENGINES:
                ratio = "" if row.p99_ratio is None else _ratio(row.p99_ratio)
                added = "" if row.added_p99_us is None else _microseconds(row.added_p99_us)
                calls = next((remark for remark in row.remarks if "answered" in remark), "")
                rows.append((scenario.title, _title(results, row.peer), ratio, added, calls))
    return rows


def _figure(value: Spread | None) -> str:
    return "-" if value is None else f"{value.middle:,.1f}"


def _ratio(value: Spread) -> str:
    return f"{value.middle:.2f} ({value.lowest:.2f} to {value.highest:.2f})"


def _microseconds(value: Spread) -> str:
    return f"{value.middle:,.0f} ({value.lowest:,.0f} to {value.highest:,.0f})"


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
    titles = {peer.name: peer.title for peer in results.peers}
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
    if tails := _tails(results):
        lines_ += ["", f"| {' | '.join(_TAILS)} |", "| --- " * len(_TAILS) + "|"]
        lines_ += [f"| {' | '.join(row)} |" for row in tails]
    headings, rows = _held(results)
    if rows:
        lines_ += ["", f"| {' | '.join(headings)} |", "| --- " * len(headings) + "|"]
        lines_ += [f"| {' | '.join(row)} |" for row in rows]
    for title, tables, charts in sections:
        lines_ += ["", f"## {title}", ""]
        lines_ += [f"![{title}]({name}.svg)" for name in charts] + [""]
        for table in tables:
            lines_ += [f"### {table.scenario.title}", ""] if len(tables) > 1 else []
            lines_ += [f"**{_say_refusal(table)}**", ""] if table.refusal else []
            headings, cells = _cells(table, titles)
            lines_ += [f"Figure: {table.unit}.", "", f"| {' | '.join(headings)} |", "| --- " * len(headings) + "|"]
            lines_ += [f"| {' | '.join(row)} |" for row in cells] + [""]
    return "\n".join(lines_) + "\n"


def _page(results: Results, sections: Sequence[Section]) -> str:
    titles = {peer.name: peer.title for peer in results.peers}
    parts = ["<h1>Benchmark report</h1>", _html_table(("what", "value"), _facts(results))]
    parts += [f'<p class="refusal">{escape(caveat)}</p>' for caveat in results.caveats]
    parts.append("<h2>Who took part</h2>")
    taking = [(one.title, one.version, "; ".join(one.does_not) or "-") for one in results.peers]
    parts.append(_html_table(("peer", "version", "does not"), taking))
    parts += [f"<p>Without {escape(name)}: {escape(why)}</p>" for name, why in results.missing.items()]
    headings, rows = _beside_each(results)
    if rows:
        parts += ["<h2>In short</h2>", _html_table(headings, rows)]
    if tails := _tails(results):
        parts.append(_html_table(_TAILS, tails))
    headings, rows = _held(results)
    if rows:
        parts.append(_html_table(headings, rows))
    for title, tables, charts in sections:
        parts += [f"<h2>{escape(title)}</h2>", *charts.values()]
        for table in tables:
            if len(tables) > 1:
                parts.append(f"<h3>{escape(table.scenario.title)}</h3>")
            if table.refusal:
                parts.append(f'<p class="refusal">{escape(_say_refusal(table))}</p>')
            parts += [f"<p>Figure: {escape(table.unit)}.</p>", _html_table(*_cells(table, titles))]
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
