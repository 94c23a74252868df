"""The comparison of both engines finds a difference where there is one."""

from __future__ import annotations

import logging
import re
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sidecar.proxy.native import warm_operations
from tests.fuzz.mutate import names_in_values
from tests.native import needs_native
from tests.proxy import differ
from tests.proxy.engines import EngineWorld, Outcome

pytestmark = needs_native

KINDS = {kind.__name__: kind for kind in differ.KINDS}


@pytest.mark.parametrize("side", KINDS)
async def test_a_round_is_mostly_served_natively_and_finds_no_difference(tmp_path: Path, side: str) -> None:
    assert await differ.compare(KINDS[side](), 1, tmp_path) > differ.ROUND / 4


@pytest.mark.parametrize("side", KINDS)
async def test_one_byte_more_from_one_engine_is_a_difference(
    tmp_path: Path, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = EngineWorld.exchange

    def more(world: EngineWorld, *said: object) -> Outcome:
        outcome = exchange(world, *said)  # type: ignore[arg-type]
        return outcome._replace(answered=outcome.answered + b" ") if world.engine == "native" else outcome

    monkeypatch.setattr(EngineWorld, "exchange", more)
    with pytest.raises(AssertionError, match=r"HTTP/1\.1"):
        await differ.compare(KINDS[side](), 1, tmp_path)


def test_names_of_fields_come_from_the_values_of_others() -> None:
    assert names_in_values([b"Connection: close, X-Own", b"Cookie: a=b; c", b"X: a b", b"Odd", b"Empty: "]) == [
        *(b"close", b"X-Own"),
        *(b"a", b"b", b"c"),
    ]


@pytest.mark.parametrize("side", ["inbound", "outbound", "inbound_shapes", "outbound_shapes"])
def test_fields_that_connection_lists_are_among_the_inputs(side: str) -> None:
    steps = islice(KINDS[side]().steps(Random(1)), 30 * differ.ROUND)
    requests = [b"".join(data) if isinstance(data, tuple) else data for data, _, _ in steps]
    assert any(re.search(rb"(?i)\r\nconnection: close\r\n", one) and b"\r\nclose: 1\r\n" in one for one in requests)


async def test_a_bug_that_the_native_engine_leaves_to_python_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native_bugs: list[logging.LogRecord]
) -> None:
    def fails(*_given: Any, **_named: Any) -> None:
        raise ValueError("a bug on purpose")

    monkeypatch.setattr(warm_operations, "read_operation", fails)
    with pytest.raises(AssertionError, match="a bug on purpose"):
        await differ.compare(differ.inbound_messages(), 1, tmp_path)
    native_bugs.clear()  # it was on purpose
