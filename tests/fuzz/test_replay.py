"""Every harness with all its stored inputs, and some thousand near them; without atheris."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.fuzz.harnesses import HARNESSES, Harness
from tests.fuzz.inputs import CORPUS, DICTIONARIES, REGRESSIONS, SEEDS, known_inputs, read_dictionary, read_inputs
from tests.fuzz.plain import mutator_of

NEAR = 60  # inputs near the stored ones, for each unit of a harness's share


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=HARNESSES.keys())
def test_what_is_kept_and_what_is_near_it_breaks_nothing(harness: Harness) -> None:
    for data in [*known_inputs(harness.name), *islice(mutator_of(harness, seed=1), NEAR * harness.share)]:
        try:
            harness.check(data)
        except Exception as error:
            error.add_note(f"broken by: {data!r}")
            raise


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=HARNESSES.keys())
def test_every_harness_has_seeds_and_words(harness: Harness) -> None:
    assert read_inputs(SEEDS / f"{harness.name}.txt")
    assert read_dictionary(harness.dictionary)
    assert all(len(data) <= harness.max_len for data in known_inputs(harness.name))


def test_nothing_is_kept_for_a_harness_that_is_gone() -> None:
    for folder in (SEEDS, CORPUS, REGRESSIONS):
        assert {path.stem for path in folder.glob("*.txt")} <= set(HARNESSES)
    assert {path.stem for path in DICTIONARIES.glob("*.dict")} == {one.dictionary for one in HARNESSES.values()}
