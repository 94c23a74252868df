"""The page of questions answers in three sentences and leads on; every answer is two clicks from the map."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = (DOCS / "questions.md").read_text(encoding="utf-8")
ANSWERS: Final = dict(re.findall(r"^### ([^\n]+)\n\n([^\n]+)\n", PAGE, re.MULTILINE))
ASKED: Final = ("Okta", "token service is down", "`actor_mismatch`", "retire this API key")


def sentences(answer: str) -> int:
    """Count sentences; a dot inside a link's address, a name or code ends none."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "x", answer)
    return len(re.findall(r"[.!?](?= |$)", text))


def test_the_questions_that_people_ask_are_there() -> None:
    assert len(ANSWERS) >= 10
    assert len(ANSWERS) == PAGE.count("\n### ")
    assert [asked for asked in ASKED if not any(asked in question for question in ANSWERS)] == []


@pytest.mark.parametrize("question", ANSWERS)
def test_an_answer_has_three_sentences_and_the_page_to_read_on(question: str) -> None:
    assert question.endswith("?") or "?" in question
    assert sentences(ANSWERS[question]) == 3
    assert re.search(r"\]\([\w/.-]+\.md", ANSWERS[question])


def test_the_map_leads_to_the_questions() -> None:
    assert "(questions.md)" in (DOCS / "README.md").read_text(encoding="utf-8")
