"""Settings on the pages of identity providers: each block, laid over the shipped examples, has no fault."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.check import check
from sidecar.config.document import parse_document
from tests.config.documents import changed, example, written

PAGES = sorted((Path(__file__).parents[2] / "docs" / "idp").glob("*.md"))
STS = ("login_issuers", "entries")
BLOCKS = [
    (page.stem, number, block)
    for page in PAGES
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
]


def document_of(block: str) -> tuple[dict[str, Any], bool]:
    """Return a whole settings file with this block in it, and True for the token service's."""
    section = parse_document(block, name="block")
    assert isinstance(section, dict)
    if section.keys() <= set(STS):
        issuer = section["login_issuers"][0]["issuer"]
        rules = [
            {**rule, "subjects": [{"issuer": issuer, "subject": "*"}]}
            for rule in example("sts")["rules"]
            if "partner" not in str(rule)
        ]
        return changed(example("sts"), *section.items(), ("rules", rules), ("foreign_issuers", [])), True
    base = "entry" if "entry" in section else "agent"
    return changed(example(base), *section.items()), False


@pytest.mark.parametrize(("page", "number", "block"), BLOCKS, ids=[f"{page}-{number}" for page, number, _ in BLOCKS])
def test_a_block_of_settings_has_no_fault(page: str, number: int, block: str, tmp_path: Path) -> None:
    document, sts = document_of(block)
    assert check(written(tmp_path, document), {}, sts=sts).problems == [], f"{page}, block {number}"


@pytest.mark.parametrize("page", sorted({page for page, _, _ in BLOCKS}))
def test_a_page_has_the_login_at_both_ends_and_both_agree(page: str) -> None:
    ends = [document_of(block) for name, _, block in BLOCKS if name == page]
    (front,) = [one["entry"]["issuers"][0] for one, sts in ends if not sts and "entry" in one]
    (service,) = [one["login_issuers"][0] for one, sts in ends if sts]
    assert {name: value for name, value in front.items() if name != "client_id"} == service


def test_the_customizer_on_springs_page_is_the_one_that_runs() -> None:
    (shown,) = re.findall(r"```java\n(.*?)```", (PAGES[0].parent / "spring.md").read_text(), re.DOTALL)
    source = Path(__file__).parents[1] / "interop/sts_servers/spring/src/main/java/sts/Sts.java"
    assert shown in source.read_text().replace(
        '    @ConditionalOnProperty(name = "sts.customize", havingValue = "true")\n', ""
    )
