"""Mutation testing of decisions: lists the mutations of ``tests/mutations.py`` that no test notices.

    make mutants ARGS="--only core/delegation_core/act.py"

One process collects the tests and forks. The first child runs every test and notes which mutations would show in it.
Then one child for each mutant runs those tests, and the rest of their files, until one fails. Outcomes are kept in
build/mutants.jsonl, so a run that is interrupted continues; mutants of changed files and survivors run again. A
survivor that opens nothing stands with its reason in tests/mutants_accepted.txt; an entry that names no survivor is an
error. ``--write`` lists the other survivors in tests/mutants_survivors.txt.
"""

from __future__ import annotations

import argparse
import builtins
import json
import os
import pickle
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.mutations import DROPPED, ROOT, Mutant, Switch, instrument

ROOMS: Final = ("core", "exchange", "identity", "proxy", "features", "sts", "fuzz")
TESTS: Final = [*(f"tests/{room}" for room in ROOMS), "tests/test_containment.py"]
ACCEPTED: Final = ROOT / "tests" / "mutants_accepted.txt"
UNREAD: Final = ROOT / "tests" / "mutants_survivors.txt"
UNREAD_HEAD: Final = """\
# Survivors that nobody has read: mutants that no unit test of their last run notices. Other tests may notice them.
# `make mutants ARGS=--write` writes this file: a mutant, and the number of tests that pass. A mutant that stands
# neither here nor in mutants_accepted.txt is killed, or has not been run.
"""
OUTCOMES: Final = ROOT / "build" / "mutants.jsonl"
TEST_S: Final = 30  # a test that takes longer fails; a child that is silent for twice as long is killed


class Outcome(NamedTuple):
    """``by`` is the test that failed, or the reason why none did."""

    killed: bool
    by: str
    digest: str


class Runner:
    """The pytest plugin that runs mutants in place of the collected tests, and keeps their outcomes."""

    def __init__(self, mutants: Sequence[Mutant], outcomes: dict[str, Outcome]) -> None:
        self._mutants, self._outcomes, self._failed = mutants, outcomes, False
        self._switch = Switch()
        builtins.__dict__["__mutant__"] = self._switch

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed or not session.items:
            raise session.Failed("the tests cannot be collected")
        say(f"{len(self._mutants)} mutants; running {len(session.items)} tests without any")
        survey = self._survey(session.items)
        OUTCOMES.parent.mkdir(exist_ok=True)
        with OUTCOMES.open("a") as kept:
            for count, mutant in enumerate(self._mutants, 1):
                outcome = self._judge(mutant, _chosen(mutant, survey))
                self._outcomes[mutant.key] = outcome
                kept.write(json.dumps([mutant.key, *outcome]) + "\n")
                kept.flush()
                if not outcome.killed or count % 50 == 0:
                    say(f"{count}/{len(self._mutants)} {'' if outcome.killed else render(mutant, outcome)}")
        return True

    def _run(self, items: Sequence[pytest.Item], after: Callable[[pytest.Item], None]) -> None:
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            after(item)

    def _survey(self, items: Sequence[pytest.Item]) -> list[tuple[float, pytest.Item, set[int]]]:
        """Run every test unmutated; return the seconds of those that pass, and the mutants that would show in each."""
        found: list[tuple[float, int, set[int]]] = []
        at, began = {item: number for number, item in enumerate(items)}, time.monotonic()

        def note(item: pytest.Item) -> None:
            nonlocal began
            if self._failed:
                say(f"fails without a mutation and is left out: {item.nodeid}")
            else:
                found.append((time.monotonic() - began, at[item], self._switch.shows))
            self._failed, self._switch.shows, began = False, set(), time.monotonic()

        def survey(_write: int) -> None:
            self._switch.shows = set()  # those of imports
            self._run(items, note)
            Path(file.name).write_bytes(pickle.dumps(found))

        with tempfile.NamedTemporaryFile() as file:
            read, child = fork(survey)
            os.read(read, 1)  # returns when the child ends
            os.close(read)
            os.waitpid(child, 0)
            return [(seconds, items[number], shows) for seconds, number, shows in pickle.loads(file.read())]

    def _judge(self, mutant: Mutant, items: Sequence[pytest.Item]) -> Outcome:
        """Run the tests of a mutant in a child until one fails, ends its process or hangs."""

        def attempt(write: int) -> None:
            def report(item: pytest.Item) -> None:
                if self._failed:
                    os.write(write, item.nodeid.encode())
                    os._exit(0)
                os.write(write, b"\n")

            self._switch.active = mutant.number
            self._run(items, report)
            os.write(write, b"passed")

        if not items:
            return Outcome(killed=False, by="shows in no test", digest=mutant.digest)
        read, child = fork(attempt)
        said, by = b"", "a test that hung"
        while select.select([read], [], [], 2 * TEST_S)[0]:
            chunk = os.read(read, 65536)
            said += chunk
            if not chunk:
                by = said.rpartition(b"\n")[2].decode() or "a test that ended its process"
                break
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed = by != "passed"
        return Outcome(killed, by if killed else f"{len(items)} tests pass", mutant.digest)


def _chosen(mutant: Mutant, survey: Sequence[tuple[float, pytest.Item, set[int]]]) -> list[pytest.Item]:
    """Return the tests in which a mutant shows, the fastest first, then the others of their files."""
    first = [item for _, item, shows in sorted(survey, key=lambda one: one[0]) if mutant.number in shows]
    files = {item.path for item in first}
    return list(dict.fromkeys([*first, *(item for _, item, _ in survey if item.path in files)]))


def fork(body: Callable[[int], None]) -> tuple[int, int]:
    """Run ``body`` in a child that writes to a pipe; return the end to read, and the child."""
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        return read, child
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        body(write)
    finally:
        os._exit(0)


def accepted() -> dict[str, str]:
    """Read the accepted survivors: lines of keys, then one line with their reason, indented."""
    found: dict[str, str] = {}
    keys: list[str] = []
    for line in ACCEPTED.read_text().splitlines():
        if line.startswith(" "):
            found |= dict.fromkeys(keys, line.strip())
            keys = []
        elif line and not line.startswith("#"):
            keys.append(line)
    return found | dict.fromkeys(keys, "no reason is given")


def write_unread(gaps: Sequence[Mutant], outcomes: dict[str, Outcome], every: Sequence[Mutant]) -> None:
    """Write the survivors that have no reason; keep the lines of existing mutants that this run does not judge."""
    before = UNREAD.read_text().splitlines() if UNREAD.exists() else []
    lines = {line.rpartition(" (")[0]: line for line in before if not line.startswith("#")}
    elsewhere = {one.key for one in every} - outcomes.keys()
    lines = {key: line for key, line in lines.items() if key in elsewhere}
    lines |= {one.key: f"{one.key} ({outcomes[one.key].by})" for one in gaps}
    UNREAD.write_text(UNREAD_HEAD + "".join(f"{lines[key]}\n" for key in sorted(lines)))


def render(mutant: Mutant, outcome: Outcome) -> str:
    """Return the line of a survivor."""
    return f"{mutant.place}: {mutant.key.partition(' ')[2]} ({outcome.by})"


def say(text: str) -> None:
    """Print progress on the error stream of the first process."""
    os.write(ERRORS, f"{text}\n".encode())


def choose(args: argparse.Namespace, every: Sequence[Mutant]) -> tuple[list[Mutant], dict[str, Outcome]]:
    """Return the mutants of the options, and the outcomes of earlier runs on the same files."""
    mutants = [one for one in every if not args.only or one.place.startswith(tuple(args.only))]
    mutants = [one for one in mutants if not args.raises or DROPPED in one.key]
    if args.sample:
        mutants = random.Random(args.seed).sample(mutants, min(args.sample, len(mutants)))
    kept = OUTCOMES.read_text().splitlines() if OUTCOMES.exists() and not args.again else []
    known = {key: Outcome(*rest) for key, *rest in map(json.loads, kept)}
    same = [one for one in mutants if one.key in known and known[one.key].digest == one.digest]
    return mutants, {one.key: known[one.key] for one in same}


def main(args: argparse.Namespace) -> int:
    """Run the chosen mutants that are not known as killed; return 1 if one survives that is not accepted."""
    every = instrument()
    mutants, outcomes = choose(args, every)
    pending = [one for one in mutants if one.key not in outcomes or not outcomes[one.key].killed]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        options = ["-q", "-s", "-p", "no:randomly", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        options += [f"--timeout={TEST_S}", f"--basetemp={folder}/tests"]
        if pending:
            pytest.main([*options, *(args.tests or TESTS)], plugins=[Runner(pending, outcomes)])
    reasons, there = accepted(), {one.key for one in every}
    killed = {key for key, outcome in outcomes.items() if outcome.killed}
    survived = [one for one in mutants if one.key in outcomes.keys() - killed]
    gaps = [one for one in survived if one.key not in reasons]
    if args.write:
        write_unread(gaps, outcomes, every)
    stale = [key for key in reasons if key not in there or key in killed]
    totals = (len(mutants), len(killed), len(gaps), len(survived) - len(gaps), len(mutants) - len(outcomes))
    counts = dict(zip(("mutants", "killed", "survived", "accepted", "not run"), totals, strict=True))
    lines = [f"{render(one, outcomes[one.key])}: {reasons.get(one.key, 'survived')}" for one in survived]
    lines += [f"{ACCEPTED.name}: remove the entry, which names no survivor: {key}" for key in stale]
    lines.append(", ".join(f"{count} {name}" for name, count in counts.items()))
    found = {**counts, "gaps": [one._asdict() for one in gaps], "stale": stale}
    sys.stdout.write((json.dumps(found, indent=1) if args.json else "\n".join(lines)) + "\n")
    return 1 if gaps or stale else 0


if __name__ == "__main__":
    ERRORS = os.dup(2)
    parser = argparse.ArgumentParser(prog="make mutants", description="Drop each decision and see that a test fails.")
    parser.add_argument(
        "--only", action="append", metavar="PATH", help="only mutants of this file or folder; repeatable"
    )
    parser.add_argument("--raises", action="store_true", help="only dropped raise statements, no forced conditions")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, chosen by chance")
    parser.add_argument("--seed", type=int, default=0, help="another number is another sample")
    parser.add_argument("--again", action="store_true", help="forget the outcomes of earlier runs")
    parser.add_argument("--tests", nargs="+", metavar="PATH", help=f"tests to run; without it {' '.join(TESTS)}")
    parser.add_argument("--write", action="store_true", help=f"write survivors without a reason to {UNREAD.name}")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    sys.exit(main(parser.parse_args()))
