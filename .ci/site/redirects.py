"""Pages for old addresses of the site: each leads to the page that now has the content."""

from __future__ import annotations

from html import escape
from pathlib import Path
from posixpath import dirname, relpath
from typing import Final

# Old page to new page, with the section where the content is a part of it; both without a suffix, from the root.
MOVED: Final = {
    "docs/chains": "docs/post-mortem",
    "docs/contain": "docs/runbook#contain-an-incident",
    "docs/outages": "docs/runbook#what-still-works-and-for-how-long",
    "docs/report": "docs/post-mortem#how-to-read-the-report",
    "docs/benchmark/report": "docs/benchmark",
    "docs/benchmark/crowds/report": "docs/benchmark",
    "docs/benchmark/growth/report": "docs/benchmark",
    "docs/benchmark/handshakes/handshakes": "docs/benchmark",
    "docs/benchmark/http2/report": "docs/benchmark",
    "docs/benchmark/http2-again/report": "docs/benchmark",
    "docs/benchmark/http2-memory/report": "docs/benchmark",
    "docs/benchmark/http2-short/report": "docs/benchmark",
    "docs/benchmark/optimised/report": "docs/benchmark",
    "docs/benchmark/pods/pods": "docs/benchmark",
    "docs/adr/0010-duckdb-for-audit": "docs/adr/0047-chains-are-judged-in-sql",
    "docs/adr/0014-long-lived-streams": "docs/adr/0034-nothing-outlives-its-authority",
    "docs/adr/0017-each-header-line-is-judged-once": "docs/adr/0039-messages-and-edits",
    "docs/adr/0019-connection-eviction": "docs/adr/0033-a-handshake-begins-with-a-whole-client-hello",
}


def render(old: str, new: str) -> str:
    """Return the HTML page at `old` that leads to `new`, by a relative address and without a script."""
    page, mark, section = new.partition("#")
    address = escape(f"{relpath(f'{page}.html', dirname(old))}{mark}{section}")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url={address}">
<link rel="canonical" href="{address}">
<title>Moved</title>
<p>This page has moved: <a href="{address}">{address}</a></p>
</html>
"""


def write(site: Path) -> None:
    """Write a page for each old address into the folder `site`; an earlier build may have left the same pages."""
    for old, new in MOVED.items():
        path = site / f"{old}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(old, new), encoding="utf-8")
