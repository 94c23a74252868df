"""Functions are named by verbs or nouns: no participle or preposition stands for one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.sources import PACKAGES, python_files

KNOWN: Final = Path(__file__).with_name("function_names.txt")  # older names: the list may only shrink
PREPOSITION: Final = (
    "above|across|after|against|along|among|around|at|before|behind|below|beneath|besides?|between|beyond|by|down|during"
    "|for|in|inside|into|near|of|off|onto|out|outside|over|per|since|through|till|towards|under|until|up|upon|via|within"
    "|without"
)
PARTICIPLE: Final = (
    r"(?!(?:emb|exce|fe|he|ne|proce|se|sh|spe)ed(?:_|$))[a-z0-9]+ed|begun|borne?|bought|bound|broken|brought|built|caught"
    "|chosen|done|drawn|driven|fallen|felt|forgiven|forgotten|found|frozen|given|gone|grown|heard|held|hidden|kept|known"
    "|laid|led|left|lent|lost|made|meant|met|paid|proven|risen|said|seen|sent|shown|sold|sought|spent|spoken|stolen|sworn"
    "|taken|taught|thought|thrown|told|torn|understood|undone|withdrawn|withheld|woken|won|worn|wound|(?:re)?written"
)
AFTER: Final = rf"(?:_(?:{PREPOSITION}|again|back|on|to|twice)(?:_.*)?)?"
NO_ACTION: Final = re.compile(rf"_*(?:(?:{PREPOSITION})(?:_.*)?|(?:{PARTICIPLE}){AFTER})")


def names_no_action(name: str) -> bool:
    """Tell if a name is a preposition with its words, or a participle without a noun: ``known_names`` has one."""
    return NO_ACTION.fullmatch(name) is not None


def questionable() -> Iterator[str]:
    """Yield functions that return no truth and are no property, as ``FILE NAME``."""
    for distribution, folder in PACKAGES.items():
        for file in python_files(distribution):
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not names_no_action(node.name):
                    continue
                says = [ast.unparse(each) for each in (*node.decorator_list, *filter(None, [node.returns]))]
                if not any(each == "bool" or each.endswith(("property", ".setter")) for each in says):
                    yield f"{distribution}/{file.relative_to(folder)} {node.name}"


def test_functions_are_verbs_or_nouns() -> None:
    assert set(KNOWN.read_text().splitlines()) == set(questionable())


@pytest.mark.parametrize("name", ["shown", "_told", "held_back", "_of_form", "narrowed_to", "at"])
def test_a_participle_or_preposition_is_refused(name: str) -> None:
    assert names_no_action(name)
    assert not any(map(names_no_action, ["known_names", "on_end", "from_json", "with_key", "run", "_to_pem", "feed"]))
