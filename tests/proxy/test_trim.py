from __future__ import annotations

import pytest

from sidecar.proxy.memory import MIB
from sidecar.proxy.trim import AFTER_BYTES, CONNECTION_BYTES, Trim

MANY = AFTER_BYTES // CONNECTION_BYTES


@pytest.mark.parametrize(
    ("seen", "given"),
    [
        pytest.param([0, MANY, 2 * MANY], 0, id="more and more"),
        pytest.param([MANY, 0], 1, id="all gone"),
        pytest.param([MANY, 1], 0, id="too few gone"),
        pytest.param([2 * MANY, MANY + 1, MANY], 1, id="gone one after another"),
        pytest.param([2 * MANY, MANY, 0], 2, id="gone in two bursts"),
        pytest.param([MANY, 0, 0, 0], 1, id="nothing since"),
        pytest.param([MANY, 0, MANY, 0], 2, id="and again"),
    ],
)
def test_memory_goes_back_once_much_less_is_held_than_before(seen: list[int], given: int) -> None:
    for connections in (True, False):
        gifts: list[bool] = []
        trim = Trim(lambda gifts=gifts: gifts.append(True))  # type: ignore[misc]
        for many in seen:
            if connections:
                trim.look(connections=many, cached_bytes=5 * MIB)
            else:
                trim.look(connections=7, cached_bytes=many * CONNECTION_BYTES)
        assert len(gifts) == given
