"""Pages for people: every link leads somewhere, and every decision states its status."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from sidecar.cli import build_parser

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") and part != ".github" for part in path.relative_to(ROOT).parts)
    and "build" not in path.relative_to(ROOT).parts
)
DECISIONS = sorted((ROOT / "docs" / "adr").glob("0*.md"))
INDEX = ROOT / "docs" / "adr" / "README.md"
# Numbers of decisions that were folded into others, and the links to those.
GONE = dict(re.findall(r"^\| (\d{4}) \| .* \| (.*) \|$", INDEX.read_text(), re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#{1,6} (.*)$", page.read_text(), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        found.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return found | set(re.findall(r"""<a (?:id|name)=["']([^"']+)""", page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_it(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or file.suffix != ".md" or anchor in anchors(file), target


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name[:4])
def test_a_decision_states_its_status_in_its_first_line(page: Path) -> None:
    title, empty, status, *_ = page.read_text().split("\n")
    number = page.name[:4]
    assert re.fullmatch(rf"# {number}: [A-Z`a-z].*[^.]", title)
    assert empty == ""
    assert re.match(r"Status: (Accepted\.|Deferred\. )", status), "fold a superseded decision into its successor"
    for by in re.findall(r"[Ss]uperseded in part by \[(\d{4})\]", status):
        assert by in {other.name[:4] for other in DECISIONS} - {number}
    assert f"| [{number}]({page.name}) | {title.partition(': ')[2]} | " in INDEX.read_text()


def test_the_index_lists_every_decision_once() -> None:
    listed = re.findall(r"^\| \[\d{4}\]\((0[^)]*)\)", INDEX.read_text(), re.MULTILINE)
    assert listed == [page.name for page in DECISIONS]


def test_a_number_that_is_gone_is_never_used_again_and_its_successor_tells_its_history() -> None:
    there = [page.name[:4] for page in DECISIONS]
    assert sorted([*there, *GONE]) == [f"{number:04}" for number in range(1, int(max(there)) + 1)]
    for number, places in GONE.items():
        for successor in re.findall(r"\]\(([^)]*)\)", places):
            assert re.search(rf"\b{number}\b", (INDEX.parent / successor).read_text()), (number, successor)


def test_no_file_names_a_decision_that_is_gone_except_its_successor() -> None:
    named = re.compile(rf"(?:ADR|[Dd]ecision|adr/) ?(?:{'|'.join(GONE)})\b")
    redirects = ROOT / ".ci/site/redirects.py"  # names old addresses on purpose
    for path in {*ROOT.glob("*/**/*.py"), *ROOT.glob("*/**/*.rs"), *PAGES} - {*DECISIONS, redirects}:
        if not {".venv", "build", "target"} & set(path.relative_to(ROOT).parts):
            assert not named.search(path.read_text(encoding="utf-8")), path.relative_to(ROOT)


def test_the_changelog_begins_with_the_first_release_and_what_it_does() -> None:
    sections = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert sections[-1] == "0.1.0"


def commands(page: Path) -> Iterator[str]:
    """Return each line of a page's blocks of commands, without what a comment says."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        if language in {"", "sh", "bash", "console"}:
            yield from (re.split(r"\s+# ", line)[0] for line in block.splitlines())


def sidecar_words(line: str) -> list[list[str]]:
    """Return the words of each ``sidecar`` command in a line, as far as no shell reads them."""
    found = []
    for part in re.split(r"&&|\||;", line):
        told = re.match(r"\s*(?:[/.\w]*/)?sidecar ((?:[^<>&]|<\w+>)*)", part)
        if told and not re.search(r"…|\.\.\.|[A-Z]+\.\.\.", told[1]):
            found.append(shlex.split(told[1]))
    return found


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_sidecar_command_of_a_page_is_one(page: Path) -> None:
    parser = build_parser(None)
    for line in commands(page):
        for words in sidecar_words(line):
            with contextlib.suppress(SystemExit) if "--help" in words else contextlib.nullcontext():
                parser.parse_args(words)


def test_commands_are_found_in_what_pages_show() -> None:
    assert sidecar_words("/opt/sidecar/bin/sidecar check /etc/x.yaml") == [["check", "/etc/x.yaml"]]
    assert sidecar_words("cat a | sidecar audit chains - --json >b && sidecar demo") == [
        ["audit", "chains", "-", "--json"],
        ["demo"],
    ]
    assert sidecar_words("sidecar: Python is needed") == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_make_target_of_a_page_is_one(page: Path) -> None:
    known = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for line in commands(page)
        for told in re.findall(r"\bmake ((?:[a-z-]+ ?)+)", line)
        for word in told.split()
    }
    assert named
    assert named <= known


def test_pages_name_no_module_that_is_gone() -> None:
    """Check that Python files in backquotes of pages exist."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("no git checkout")
    known = set(tracked)
    ends = {"/".join(path.split("/")[at:]) for path in known for at in range(len(path.split("/")))}
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        for name in re.findall(r"`([\w./-]+/[\w-]+\.py)`", page.read_text()):
            assert name in ends, f"{page.relative_to(ROOT)} names {name}"
