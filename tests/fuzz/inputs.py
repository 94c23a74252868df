"""Corpora as text: one file for each harness, one input a line, written as a Python bytes literal.

libFuzzer needs a directory of nameless files. That is thousands of files that nobody reads, so they are packed in the
repository and unpacked for a run. ``seeds/`` is written by hand, ``corpus/`` by the fuzzer (``--grow``). In
``regressions/`` a line that starts with ``#`` describes the failure of the input after it.
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
    """Return the inputs of a packed file; none if it does not exist."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def known_inputs(name: str) -> list[bytes]:
    """Return everything stored for a harness: seeds, corpus, and regressions."""
    return [data for folder in (SEEDS, CORPUS, REGRESSIONS) for data in read_inputs(folder / f"{name}.txt")]


def write_corpus(name: str, inputs: Iterable[bytes]) -> None:
    """Replace the corpus of a harness; the shortest input comes first, and seeds are not repeated."""
    seeds = read_inputs(SEEDS / f"{name}.txt")
    lines = sorted({repr(one) for one in inputs if one not in seeds}, key=lambda line: (len(line), line))
    (CORPUS / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def add_regression(name: str, data: bytes, what: str) -> bool:
    """Store an input that broke a harness. Returns False if it is stored already."""
    path = REGRESSIONS / f"{name}.txt"
    if data in read_inputs(path):
        return False
    path.parent.mkdir(exist_ok=True)  # missing in a repository without regressions
    with path.open("a", encoding="ascii") as file:
        file.write(f"# {ascii(what)[1:-1]}\n{data!r}\n")
    return True


def unpack(inputs: Iterable[bytes], directory: Path) -> None:
    """Write each input to its own file, as libFuzzer needs it."""
    directory.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (directory / sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


def read_dictionary(name: str) -> list[bytes]:
    """The words of a libFuzzer dictionary: ``"word"`` a line, with ``\\xNN`` escapes."""
    lines = (DICTIONARIES / f"{name}.dict").read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(f"b{line}") for line in lines if line.startswith('"')]
