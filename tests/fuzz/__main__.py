"""``python -m tests.fuzz``: runs every harness for its share of some minutes, several at a time, for ``make fuzz``.

An input that breaks a harness is added to ``regressions/``, where the ordinary tests find it, and the exit code is 1.
Interrupted (SIGINT, SIGTERM) it reports the work so far; the exit code is 130, or 1 if a harness broke before. With
``--grow`` the findings are reduced to the inputs that cover something new: the new corpus.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz.harnesses import HARNESSES, Harness
from tests.fuzz.inputs import (
    DICTIONARIES,
    SEEDS,
    add_regression,
    known_inputs,
    read_inputs,
    unpack,
    write_corpus,
)
from tests.fuzz.processes import Processes
from tests.fuzz.reduce import reduced

_START_S: Final = 0.3  # cost of one start, taken from the harness's share
_MAX_KEPT: Final = 40  # inputs of a corpus in the tree
_MAX_KEPT_BYTES: Final = 8192
_RUNS: Final = re.compile(r"stat::number_of_executed_units: +(\d+)")
_WHAT: Final = re.compile(r"^(\w[\w.]*(?:Error|Exception|Exit|Warning)\b.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one harness's run. ``broken_by`` is the input that broke it."""

    harness: Harness
    runs: int
    output: str
    broken_by: bytes | None

    @property
    def what(self) -> str:
        """The exception, in a line."""
        found = _WHAT.findall(self.output)
        return found[-1][:200] if found else "the process died"


def fuzz(
    harness: Harness, seconds: int, seed: int, *, coverage: bool, grow: bool, processes: Processes | None = None
) -> Outcome:
    """Run one harness in its own process."""
    processes = processes or Processes()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        corpus, found = Path(scratch) / "corpus", Path(scratch) / "found"
        unpack(known_inputs(harness.name), corpus)
        found.mkdir()
        if coverage:
            module, arguments = "one", [harness.name, *_libfuzzer(harness, seconds, seed, found), str(corpus)]
        else:
            module, arguments = "plain", [harness.name, str(seconds), str(seed), str(found)]
        # libFuzzer kills a harness that hangs (-timeout); this is for a fuzzer that hangs itself.
        exit_code, output = processes.run(
            f"tests.fuzz.{module}", arguments, Path(scratch) / "output", timeout_s=seconds + 300
        )
        broken = next((path.read_bytes() for path in sorted(found.iterdir())), None)
        if exit_code and broken is None and not processes.stopped:
            broken = b""
        runs = _RUNS.search(output)
        if grow and coverage and broken is None:
            _grow(harness, corpus)
        return Outcome(harness, int(runs[1]) if runs else 0, output, broken)


def _libfuzzer(harness: Harness, seconds: int, seed: int, found: Path) -> list[str]:
    return [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={harness.max_len}",
        f"-dict={DICTIONARIES / harness.dictionary}.dict",
        f"-artifact_prefix={found}/",
        "-timeout=30",  # the first error reads the whole source: seconds on a busy machine
        "-handle_int=0",
        "-rss_limit_mb=1024",  # memory is bounded, whatever the input
        "-print_final_stats=1",
        "-verbosity=1",
    ]


def _grow(harness: Harness, corpus: Path) -> None:
    """Return the inputs that cover something new, the shortest first, as many as a repository should hold."""
    seeds = read_inputs(SEEDS / f"{harness.name}.txt")
    found = (path.read_bytes() for path in corpus.iterdir())
    kept: list[bytes] = []
    for data in reduced(harness.check, found, known=seeds):
        if len(kept) < _MAX_KEPT and sum(map(len, kept)) + len(data) <= _MAX_KEPT_BYTES:
            kept.append(data)
    write_corpus(harness.name, kept)


def main(argv: list[str] | None = None) -> int:
    """Run the harnesses. Exit codes: 0 all held, 1 one broke, 2 it cannot run, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for all harnesses together (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="0 is another one each time (default %(default)s)")
    parser.add_argument("--grow", action="store_true", help="write what was found into the corpus")
    parser.add_argument("harness", nargs="*", help="only these; default: all")
    options = parser.parse_args(argv)
    if not set(options.harness) <= set(HARNESSES):
        parser.error(f"there are: {', '.join(HARNESSES)}")
    coverage = importlib.util.find_spec("atheris") is not None
    if not coverage:
        _say("fuzz: atheris is not here, so inputs are mutated blindly, without coverage to guide them")
        if os.environ.get("CI"):
            return 2
    chosen = [HARNESSES[name] for name in options.harness or HARNESSES]
    total_s = options.minutes * 60 * min(options.jobs, len(chosen)) - _START_S * len(chosen)
    unit_s = total_s / sum(harness.share for harness in chosen)

    processes = Processes()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: processes.stop())

    def run(harness: Harness) -> Outcome:
        if processes.stopped:
            return Outcome(harness, 0, "", None)
        seconds = max(1, round(unit_s * harness.share))
        return fuzz(harness, seconds, options.seed, coverage=coverage, grow=options.grow, processes=processes)

    broken = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(run, sorted(chosen, key=lambda harness: -harness.share)):
            _say(f"{outcome.harness.name:20} {outcome.runs:>10,} inputs", end="")
            if outcome.broken_by is None:
                _say("")
                continue
            broken += 1
            _say(f"  BROKEN: {outcome.what}\n{outcome.output[-2500:]}")
            add_regression(outcome.harness.name, outcome.broken_by, outcome.what)
    if processes.stopped:
        _say("fuzz: interrupted")
    return 1 if broken else 130 if processes.stopped else 0


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
