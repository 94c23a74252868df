"""The page: the answer first, valid references, nothing loaded, nothing executed, whatever the records say."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from delegation_audit.report.page import page
from delegation_audit.report.story import Evidence
from tests.audit.report.evidence import AGENT, document, finding, hop, report

VOID = {"meta", "path", "rect", "br", "link", "img", "input"}


class Read(HTMLParser):
    """Collects tags, ids and references, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def ids(self) -> list[str]:
        return [attrs["id"] or "" for _, attrs in self.tags if "id" in attrs]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


EVIDENCE = Evidence(name="r1/1", place="records.jsonl:1", hash="ab" * 32, line='{"run":"r1","seq":1}')


def test_the_answer_is_the_first_section_and_complete() -> None:
    words = Read(page(report(document(), EVIDENCE))).words
    answer = words[words.index("The answer") : words.index("Hop map")]
    for part in (
        "alice",
        "https://login.acme.example",
        AGENT + "writer",
        "POST /planner",
        "POST /crm",
        "insufficient_scope",
    ):
        assert part in answer


def test_a_call_that_failed_is_told_apart_from_what_was_done_and_from_what_was_refused() -> None:
    told = document(hops=[hop(0, "front", "planner"), hop(1, "planner", "crm", status=None)])
    words = Read(page(report(told))).words
    assert "What was done POST /planner" in words
    assert "What was permitted and failed POST /crm at agent/crm" in words
    assert "let through and failed" not in Read(page(report(document()))).words


def test_a_deep_chain_is_told_by_its_depth_and_a_flat_one_by_arrows() -> None:
    page_of_deep = page(report(document(hops=[hop(50, "front", "planner")])))
    assert "→ (50 deep)" in page_of_deep
    assert "→ →" not in page_of_deep
    assert "→ → <span" in page(report(document()))


def test_problems_with_the_evidence_stand_before_the_chains() -> None:
    told = document(finding("missing_hop", "planner → writer: the hop has no record", "t1", "r1/1"))
    words = Read(page(report(told, EVIDENCE))).words
    assert "1 grave finding" in words
    assert words.index("missing hop : planner → writer") < words.index("Chain t1")
    assert "grave finding" not in Read(page(report(document(), EVIDENCE))).words


def test_equal_calls_are_counted_and_many_kinds_are_cut() -> None:
    hops = [hop(0, "front", f"tool-{number}") for number in range(15)]
    words = Read(page(report(document(hops=[*hops, hops[0]])))).words
    answer = words[words.index("What was done") : words.index("What was refused")]
    assert "POST /tool-0 at agent/tool-0 : allowed 200 (2x); POST /tool-1" in answer
    assert answer.count("POST /tool") == 12
    assert "and 3 more kinds of calls in the timeline" in answer


def test_ids_are_unique_and_each_reference_has_its_target() -> None:
    told = document(finding("splice", "x", "t1", "r1/1"))
    told["chains"].append({**told["chains"][0], "chain": "t2"})
    names = [f"{run}/{seq}" for run in ("r1", "s1", "r2") for seq in (1, 2, 3)]
    evidence = [Evidence(name=name, place="f:1", hash="ab" * 32, line="{}") for name in names]
    read = Read(page(report(told, *evidence)))
    assert len(set(read.ids)) == len(read.ids)
    for _, attrs in read.tags:
        for name in ("href", "aria-labelledby"):
            value = attrs.get(name)
            if value:
                assert value.removeprefix("#") in read.ids


def test_a_reference_to_a_record_that_is_not_shown_is_no_link() -> None:
    read = Read(page(report(document(), EVIDENCE)))
    assert "#r1/1" in [attrs.get("href") for _, attrs in read.tags]
    assert "#r1/2" not in [attrs.get("href") for _, attrs in read.tags]
    assert "r1/2" in read.words


def test_lines_that_claim_one_name_are_all_shown_and_the_first_is_linked() -> None:
    other = replace(EVIDENCE, place="records.jsonl:2", line="the other line")
    read = Read(page(report(document(), EVIDENCE, other)))
    assert read.ids.count("r1/1") == 1
    assert "the other line" in read.words


def test_nothing_is_loaded_and_there_is_no_script() -> None:
    text = page(report(document(), EVIDENCE))
    read = Read(text)
    assert not {tag for tag, _ in read.tags} & {"script", "link", "img", "iframe", "object", "form", "base"}
    assert "default-src &#39;none&#39;; style-src &#39;sha256-" in text
    assert not re.search(r"url\((?!#)|@import|https?://(?!login\.acme\.example)", text)
    assert not [name for _, attrs in read.tags for name in attrs if name.startswith("on") or name == "style"]


HOSTILE = [
    "</style><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' autofocus onfocus='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "\u202eevil\u0000",
    "javascript:alert(1)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_record_becomes_anything_but_text(text: str) -> None:
    hops = [
        {**hop(0, "a", "b"), "actor": text, "audience": text, "path": text, "reason": text, "scope": [text], "ts": text}
    ]
    told = document(finding("splice", text, text, text), hops=hops, chain=text, subjects=[{"iss": text, "sub": text}])
    evidence = Evidence(name=text, place=text, hash="ab" * 32, line=text)
    hostile = Read(page(report(told, evidence, title=text, files=[text], choice=text, integrity=[text])))
    lawful = Read(
        page(report(document(finding("splice", "x", "x", "x"), hops=[hop(0, "a", "b")]), EVIDENCE, choice="x"))
    )
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in lawful.tags} | {"ins"}
    assert {name for _, attrs in hostile.tags for name in attrs} <= {name for _, attrs in lawful.tags for name in attrs}
    assert "\u202e" not in hostile.words
    assert "49" not in hostile.words or "{{" not in text


def test_a_token_in_a_line_is_masked() -> None:
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
    text = page(report(document(), Evidence(name="r1/1", place="f:1", hash="ab" * 32, line=f'{{"path":"/{token}"}}')))
    assert "eyJhbGciOiJFUzI1NiJ9" not in text


def test_without_a_chain_it_says_so() -> None:
    told = {**document(), "chains": []}
    assert "No chain was found" in Read(page(report(told))).words
