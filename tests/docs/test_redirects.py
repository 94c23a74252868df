"""Old addresses of `make site` lead to the pages that have the content now: `.ci/site/redirects.py`."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from posixpath import dirname, normpath
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parents[2]
REDIRECTS: Final = runpy.run_path(str(ROOT / ".ci" / "site" / "redirects.py"))
MOVED: Final[dict[str, str]] = REDIRECTS["MOVED"]
render: Final[Callable[[str, str], str]] = REDIRECTS["render"]
write: Final[Callable[[Path], None]] = REDIRECTS["write"]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Sphinx and GitHub make them of plain words."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("old", MOVED)
def test_an_old_page_is_gone_and_its_successor_and_section_exist(old: str) -> None:
    assert not (ROOT / f"{old}.md").exists()
    page, mark, section = MOVED[old].partition("#")
    assert page not in MOVED
    assert (ROOT / f"{page}.md").is_file()
    assert not mark or section in anchors(ROOT / f"{page}.md")


def test_a_page_is_written_at_each_old_address_and_leads_to_its_successor_without_a_script(tmp_path: Path) -> None:
    write(tmp_path)
    written = {str(path.relative_to(tmp_path)): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert set(written) == {f"{old}.html" for old in MOVED}
    for old, new in MOVED.items():
        html = written[f"{old}.html"]
        (target,) = set(re.findall(r'(?:url=|href=)"?([^"]+)"', html))
        page, mark, section = target.partition("#")
        assert normpath(f"{dirname(old)}/{page}").removesuffix(".html") + mark + section == new
        assert 'http-equiv="refresh" content="0; url=' in html
        assert '<link rel="canonical" href="' in html
        assert "<script" not in html


def test_an_address_is_escaped() -> None:
    assert '"' not in render("docs/old", 'docs/a"b').partition("url=")[2].partition('">')[0]


def test_the_site_writes_them() -> None:
    assert "redirects.write(Path(app.outdir))" in (ROOT / ".ci" / "site" / "conf.py").read_text(encoding="utf-8")
