"""The judge: runs the statements of ``joins``, ``calls`` and ``verdicts`` in the engine that holds the records.

Python parses each distinct list (actors, scopes) once; SQL joins its text to the table ``lists``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from delegation_audit.chains import calls, joins, lines, verdicts
from delegation_core.records.record_text import CUT

List = tuple[str, str | None, str, int, bool, int, bool]  # a row of ``lists``
_FEW_RECORDS: Final = 10_000
_DECODER: Final = json.JSONDecoder()


class Engine(ABC):
    """An engine that holds ``records`` and ``lists``. Statements are written in DuckDB's dialect."""

    def __init__(self) -> None:
        self.records = 0
        self._lists: dict[str, bool] = {}
        self._sets: dict[frozenset[str], int] = {frozenset(): 0}

    @abstractmethod
    def rows(self, statement: str, values: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """Run a query and return its rows."""

    @abstractmethod
    def run(self, statements: Iterable[str]) -> None:
        """Run statements in order."""

    @abstractmethod
    def insert(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert rows in one statement."""

    def judge(self) -> None:
        """Join all records and judge them. Creates the tables ``hops``, ``made`` and ``family``; fills ``findings``."""
        self.run(joins.STEPS)
        for _ in range(64):
            if not self.rows(joins.NAMELESS)[0][0]:
                break
            self.run(joins.FURTHER)
        self.run((joins.CIRCLES, *calls.CALLS))
        self.run((calls.OUTSIDE,))
        self._compare_scopes()
        # few records: one statement, because planning costs most; many: one after the other, each with all memory
        small = self.records < _FEW_RECORDS
        together = [" UNION ALL ".join(verdicts.VERDICTS)] if small else verdicts.VERDICTS
        self.run("INSERT INTO findings " + verdict for verdict in together)

    def bad_lists(self, found: Iterable[tuple[str]], news: list[List]) -> list[str]:
        """Return the texts that are no lists of strings; append rows of ``lists`` for new valid ones to ``news``."""
        return [text for (text,) in found if not self._is_known(text, news)]

    def _is_known(self, text: str, news: list[List]) -> bool:
        """Return False unless the text is a list of strings; append new rows for the list and its tails to ``news``."""
        if text in self._lists:
            return self._lists[text]
        self._lists[text] = lines.is_list_of_texts(text)
        items = json.loads(text) if self._lists[text] else []
        while self._lists[text]:
            head, tail = _cut(text)
            named = self._sets.setdefault(frozenset(items), len(self._sets))
            attestable = bool(items) and items[0].startswith("spiffe://")
            news.append((text, head, tail, len(items), attestable, named, any(one.startswith(CUT) for one in items)))
            if tail in self._lists:
                return True
            self._lists[tail] = True
            text, items = tail, items[1:]
        return False

    def forget_lists(self, news: Iterable[List]) -> None:
        """Forget the lists of lines that were not kept."""
        for text, *_ in news:
            del self._lists[text]

    def _compare_scopes(self) -> None:
        sets = {number: scopes for scopes, number in self._sets.items()}
        wider = [(one, than) for one, than in self.rows(joins.SCOPES) if not sets[one] <= sets[than]]
        self.run(("CREATE TABLE wider (named BIGINT, than BIGINT)",))
        self.insert("wider", wider)


def _cut(text: str) -> tuple[str | None, str]:
    """Return the first item of a JSON list, and the list without that item, both as texts; (None, "[]") if empty."""
    if text == "[]":
        return None, text
    _, end = _DECODER.raw_decode(text, 1)
    return text[1:end], "[" + text[end:].lstrip(",")
