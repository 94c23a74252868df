"""A detector of a few forms, for tests that need no library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from delegation_audit.credentials.detector import Hit

_OF_A_PAIR: Final = "betterleaks.aws-access-token"
_FORMS: Final = {
    "betterleaks.github-pat": r"ghp_[0-9a-zA-Z]{36}",
    "betterleaks.aws-access-token": r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b",
    "betterleaks.huggingface-access-token": r"\bhf_[a-zA-Z]{34}",
    "betterleaks.private-key": r"-----BEGIN[ A-Z]{0,20}PRIVATE KEY-----[\s\S]{64,}?KEY-----",
}


class FakeDetector:
    """Finds four kinds; ``texts`` holds what it was asked."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def find(self, text: str) -> Iterator[Hit]:
        """See ``Detector``."""
        self.texts.append(text)
        for rule, form in _FORMS.items():
            if rule == _OF_A_PAIR and not re.search(r"\b[A-Za-z0-9/+]{40}\b", text):
                continue  # the id alone is not a secret
            for found in re.finditer(form, text):
                line = text.count("\n", 0, found.start()) + 1
                yield Hit(rule, found[0], line, found.start() - text.rfind("\n", 0, found.start()))
