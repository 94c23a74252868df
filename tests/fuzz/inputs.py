"""Corpora as text: one file for each harness, one input a line, written as Python writes bytes.

libFuzzer wants a directory of nameless files. That is thousands of files nobody reads; so they are packed for the tree
and unpacked for a run. ``seeds/`` is written by hand, ``corpus/`` by the fuzzer (``--grow``). In ``regressions/`` a
line that starts with ``#`` says what the input after it once did.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from hashlib import sha1
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
SEEDS: Final = HERE / "seeds"
CORPUS: Final = HERE / "corpus"
REGRESSIONS: Final = HERE / "regressions"
DICTIONARIES: Final = HERE / "dictionaries"


def read_inputs(path: Path) -> list[bytes]:
    """The inputs of a packed file; none if it is not there."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def known_inputs(name: str) -> list[bytes]:
    """Everything that is kept for a harness: seeds, corpus, and what once broke it."""
    return [data for folder in (SEEDS, CORPUS, REGRESSIONS) for data in read_inputs(folder / f"{name}.txt")]


def write_corpus(name: str, inputs: Iterable[bytes]) -> None:
    """Replace the corpus of a harness; the shortest input comes first, and seeds are not repeated."""
    seeds = read_inputs(SEEDS / f"{name}.txt")
    lines = sorted({repr(one) for one in inputs if one not in seeds}, key=lambda line: (len(line), line))
    (CORPUS / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def add_regression(name: str, data: bytes, what: str) -> bool:
    """Keep an input that broke a harness; False if it is there already."""
    path = REGRESSIONS / f"{name}.txt"
    if data in read_inputs(path):
        return False
    path.parent.mkdir(exist_ok=True)  # in a tree without regressions it is not there
    with path.open("a", encoding="ascii") as file:
        file.write(f"# {ascii(what)[1:-1]}\n{data!r}\n")
    return True


def unpack(inputs: Iterable[bytes], directory: Path) -> None:
    """Write each input to a file of its own, as libFuzzer wants it."""
    directory.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (directory / sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


def read_dictionary(name: str) -> list[bytes]:
    """The words of a libFuzzer dictionary: ``"word"`` a line, with ``\\xNN`` escapes."""
    lines = (DICTIONARIES / f"{name}.dict").read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(f"b{line}") for line in lines if line.startswith('"')]
