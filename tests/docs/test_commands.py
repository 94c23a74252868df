"""Every block of commands in the README and the pages is run by a test, or says why it is not.

A block is named by its page and the start of its first line. Blocks that a test runs are listed here with that test.
In a page, `<!-- not run: the reason -->` above a block, or `<!-- commands not run: the reason -->` once for the page,
says why no test runs it. A block that is no command has a language, such as `text`.
"""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.docs.blocks import PAGES, ROOT, Block, blocks, blocks_in, commands_of
from tests.integration.test_page_commands import BLOCKS

_OWN: Final = "tests/integration/test_page_commands.py"
_CLUSTER: Final = "tests/interop/test_cluster.py"
_THREE_AGENTS: Final = "tests/integration/test_three_agents.py"
_THREE_HOPS: Final = "tests/interop/test_three_hops.py"
RUN_BY: Final = {
    **dict.fromkeys(BLOCKS, _OWN),
    ("README.md", "python3 -m venv"): "tests/interop/test_readme_walk.py",
    ("README.md", "make demo"): "tests/integration/test_demo.py",
    ("README.md", "sidecar check sidecar.yaml"): "tests/integration/test_readme.py",
    ("README.md", "sidecar dev run"): "tests/integration/test_readme.py",
    ("README.md", "make image && docker compose up"): "tests/interop/test_compose.py",
    **{("docs/three-agents.md", start): _THREE_AGENTS for start in ("SIDECAR_OUTBOUND_URL=", "sidecar dev run")},
    ("docs/compose.md", "make image"): "tests/interop/test_compose.py",
    ("docs/compose.md", "docker compose exec writer-sidecar"): "tests/interop/test_compose.py",
    (
        "docs/compose.md",
        "docker compose -f compose.yaml -f compose/acting.yaml",
    ): "tests/interop/test_compose_acting.py",
    ("docs/compose.md", "docker compose -f compose.yaml -f compose.spire.yaml"): "tests/interop/test_compose_spire.py",
    ("docs/kubernetes.md", "make image-distroless"): _CLUSTER,
    ("docs/kubernetes.md", "kubectl -n login port-forward"): _CLUSTER,
    ("docs/kubernetes.md", "kubectl -n agents exec"): _CLUSTER,
    ("docs/kubernetes.md", "kubectl -n agents run"): _CLUSTER,
    ("docs/kubernetes.md", "sidecar check --kubernetes"): "tests/test_check_kubernetes.py",
    ("docs/kubernetes.md", "mkdir -m 700 rotated"): "tests/interop/test_cluster_life.py",
    ("docs/systemd.md", "python3 -m venv"): "tests/interop/test_systemd.py",
    **{
        ("docs/three-hops.md", start): _THREE_HOPS
        for start in (
            *(
                "python3 -m venv",
                "mkdir -p spire",
                "register() {",
                "export PATH=",
                "kcadm.sh config",
                "kcadm.sh create",
            ),
            *(
                "n=20100",
                "ask_as() {",
                "$sidecar audit chains",
                "ask_as bob",
                "front=$(",
                "grep -o",
                "kill $(cat pids)",
            ),
        )
    },
}
# Of pages that hold no mark: the README is written for people who read its source, too.
NOT_RUN: Final = {
    ("README.md", "alice ──login"): "a picture",
    ("docs/three-hops.md", "alice ──▶"): "a picture",
}


def known(block: Block) -> list[str]:
    """Return what is known of a block: the test that runs it, or the reason why none does."""
    listed = [told for (page, start), told in {**RUN_BY, **NOT_RUN}.items() if fits(block, page, start)]
    return listed + ([block.reason] if block.reason else [])


def fits(block: Block, page: str, start: str) -> bool:
    return block.page == page and block.start.startswith(start)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    for block in blocks(page):
        assert len(known(block)) == 1, (
            f"{page}: {block.start!r} is run by no test: list it in tests/docs/test_commands.py with the test that "
            f"runs it, or write <!-- not run: the reason --> above it; known: {known(block)}"
        )


@pytest.mark.parametrize(("page", "start"), [*RUN_BY, *NOT_RUN], ids=lambda told: str(told))
def test_a_listed_block_is_there_once(page: str, start: str) -> None:
    assert len([block for block in blocks(page) if fits(block, page, start)]) == 1


def test_the_tests_that_are_named_are_there() -> None:
    reasons = [block.reason for page in PAGES for block in blocks(page) if block.reason]
    named = {*RUN_BY.values(), *re.findall(r"tests/\S+?\.py", "\n".join(reasons))}
    assert [test for test in sorted(named) if not (ROOT / test).is_file()] == []


def test_the_test_of_the_readme_runs_the_lines_of_its_blocks() -> None:
    """Check that the test of the README finds the first line of each block that is listed as its own."""
    text = (ROOT / "tests" / "integration" / "test_readme.py").read_text(encoding="utf-8")
    for (page, start), test in RUN_BY.items():
        if (page, test) == ("README.md", "tests/integration/test_readme.py"):
            assert re.search(rf'line_of\("{" ".join(start.split()[:2])}', text), start


def test_a_new_block_without_a_mark_is_noticed() -> None:
    (found,) = blocks_in("docs/new.md", "# New\n\n```\nsidecar new\n```\n")
    assert known(found) == []
    (found,) = blocks_in("docs/new.md", "# New\n\n<!-- not run: needs your cluster -->\n```\nsidecar new\n```\n")
    assert known(found) == ["needs your cluster"]
    marked = (
        "# New\n\n<!-- commands not run: needs your cluster -->\n\n1. Do\n\n   ```sh\n   a\n   ```\n\n```\n$ b\n```\n"
    )
    assert [known(one) for one in blocks_in("docs/new.md", marked)] == [["needs your cluster"]] * 2
    assert list(blocks_in("docs/new.md", "```text\nNOTE\n```\n```yaml\na: 1\n```\n")) == []


def test_the_commands_of_a_block_are_its_prompted_lines_or_all() -> None:
    assert commands_of(Block("p", "$ a | b\nout\n$ c\n", None)) == ["a | b", "c"]
    assert commands_of(Block("p", "a \\\n  --b\n\nc\n", None)) == ["a   --b", "c"]
