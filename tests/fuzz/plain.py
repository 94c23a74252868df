"""One harness under the plain mutator, without atheris."""

from __future__ import annotations

import signal
import sys
import time
from hashlib import sha1
from pathlib import Path

from tests.fuzz.harnesses import HARNESSES, Harness
from tests.fuzz.inputs import known_inputs, read_dictionary
from tests.fuzz.mutate import Mutator


def mutator_of(harness: Harness, *, seed: int) -> Mutator:
    """Return a mutator around a harness's stored inputs."""
    words = read_dictionary(harness.dictionary)
    return Mutator(known_inputs(harness.name), words, seed=seed, max_len=harness.max_len)


def main(name: str, seconds: str, seed: str, directory: str) -> int:
    """Run until the time is over, the harness breaks, or SIGTERM arrives; the last lines are like libFuzzer's.

    An input that breaks the harness is written to the directory as ``crash-…``, as by libFuzzer.
    """
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    harness = HARNESSES[name]
    end, runs = time.monotonic() + float(seconds), 0
    for data in mutator_of(harness, seed=int(seed)):
        try:
            harness.check(data)
        except BaseException:
            found = Path(directory) / f"crash-{sha1(data, usedforsecurity=False).hexdigest()}"
            found.write_bytes(data)
            raise
        runs += 1
        if told or time.monotonic() >= end:
            break
    print(f"stat::number_of_executed_units: {runs}", file=sys.stderr)  # noqa: T201
    return 0
