import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.audit.record_keys import EVENT_MEANINGS, KEYS
from sidecar.observe.record import EVENTS, FIELDS

RECORDED = Path(__file__).parent / "recorded"


def test_every_key_of_the_schema_has_a_meaning_in_the_schemas_order() -> None:
    assert list(KEYS) == list(FIELDS)


def test_every_event_has_a_meaning() -> None:
    assert tuple(EVENT_MEANINGS) == EVENTS


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_set_by_events_that_there_are(name: str) -> None:
    assert set(KEYS[name].events) <= {*EVENTS, "every event"}


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for file in RECORDED.glob("*.records") for line in file.read_text().splitlines()]


def test_no_event_of_a_recorded_run_sets_a_key_that_the_page_denies_it() -> None:
    for one in recorded():
        for name, value in one.items():
            if value is not None and KEYS[name].events != ("every event",):
                assert one["event"] in KEYS[name].events, (one["event"], name)
