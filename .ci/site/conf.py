"""Settings of Sphinx for `make site`: the pages as they lie in the repository, in the order of docs/README.md.

Pages stay plain Markdown that GitHub shows. This file adds what only the site needs: a table of contents made from the
lists of docs/README.md, and a plain name in place of a link to a folder.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from posixpath import dirname, normpath, relpath

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".ci" / "site"))
MAP = "docs/README"
DECISIONS = "docs/adr/README"
ENTRY = re.compile(r"^(?P<inner> *)- \[(?P<title>[^\]]+)\]\((?P<path>[^)#]+)\.md\)$")
LOADED = re.compile(
    r"""<(?:script|link|img|iframe|source|object|form)\b[^>]*?(?:src|href|data|action)=["']?((?:https?:)?//[^"' >]+)"""
)
STYLED = re.compile(r"""(?:url\(|@import )["']?((?:https?:)?//[^"')]+)""")
SCROLLED = re.compile(r"""(<pre|<div class="table-wrapper[^"]*")>""")
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s:#]+)\)")


def contents() -> dict[str, str]:
    """Return the hidden tables of contents, by the page at whose end each stands."""
    added: dict[str, list[str]] = {MAP: []}
    entry = ""
    for line in (ROOT / f"{MAP}.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            added[MAP] += ["```", *toctree(caption=line[3:])]
        elif told := ENTRY.match(line):
            page = normpath(f"docs/{told['path']}")
            if not told["inner"]:
                entry = page
                added[MAP].append(f"{told['title']} </{page}>")
            else:
                added.setdefault(entry, toctree()).append(f"{told['title']} </{page}>")
    added[MAP] = added[MAP][1:]
    decisions = sorted(path.stem for path in (ROOT / "docs" / "adr").glob("0*.md"))
    added[DECISIONS] = [*toctree(), *(f"/docs/adr/{name}" for name in decisions)]
    return {page: "\n\n" + "\n".join([*lines, "```"]) + "\n" for page, lines in added.items()}


def toctree(caption: str = "") -> list[str]:
    """Return the first lines of a table of contents that is only in the sidebar."""
    return ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), ""]


CONTENTS = contents()

project = "Delegation sidecar"
(version,) = re.findall(r'^__version__ = "(.+)"', (ROOT / "sidecar" / "__init__.py").read_text(encoding="utf-8"), re.M)
release = version
root_doc = MAP
extensions = ["myst_parser"]
include_patterns = [
    *(
        "*.md",
        "docs/**.md",
        "examples/README.md",
        "core/README.md",
        "audit/README.md",
        "agent/README.md",
        "agent-node/README.md",
    ),
    *("helm/*/README.md", "benchmarks/README.md", "tests/corpus/README.md"),
]
exclude_patterns = ["AGENTS.md"]
highlight_language = "none"
myst_heading_anchors = 6

html_theme = "furo"
html_title = f"{project} {version}"
html_extra_path = ["start"]
html_search_scorer = str(ROOT / ".ci" / "site" / "scorer.js")
html_show_sphinx = html_show_copyright = html_copy_source = False


def adapt(app: Sphinx, page: str, source: list[str]) -> None:
    """Give a page its table of contents; a link to a folder becomes its text, or leads to the folder's page."""
    del app

    def lead(link: re.Match[str]) -> str:
        target = normpath(f"{dirname(page)}/{link['target']}").lstrip("/")
        if not (ROOT / target).is_dir():
            return link[0]
        if (ROOT / target / "README.md").is_file():
            return f"[{link['text']}]({relpath(f'{target}/README.md', dirname(page) or '.')})"
        return str(link["text"])

    source[0] = LINK.sub(lead, source[0]) + CONTENTS.get(page, "")


def finish(app: Sphinx, error: Exception | None) -> None:
    """Write the redirects, repair what axe finds in the pages, and fail if one would load anything from another host.

    Links that a reader follows are fine.
    """
    if error is not None:
        return
    import redirects

    redirects.write(Path(app.outdir))
    for path in sorted(Path(app.outdir).rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        repaired = text.replace(' role="heading">', ' role="heading" aria-level="2">')
        repaired = SCROLLED.sub(r'\1 tabindex="0">', repaired)  # a keyboard can scroll it
        if repaired != text:
            path.write_text(repaired, encoding="utf-8")
        refuse(path, LOADED.search(repaired))
    for path in sorted(Path(app.outdir).rglob("*.css")):
        refuse(path, STYLED.search(path.read_text(encoding="utf-8")))


def refuse(path: Path, loads: re.Match[str] | None) -> None:
    """Fail the build if a file would load something from another host."""
    if loads:
        raise SphinxError(f"{path} would load {loads[1]}")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_lexer("conf", TextLexer)  # syslog-ng's
    app.connect("source-read", adapt)
    app.connect("build-finished", finish)
