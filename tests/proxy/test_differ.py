"""The comparison of both engines finds a difference where there is one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sidecar.proxy import warm_inbound
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


async def test_a_bug_that_the_native_engine_leaves_to_python_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native_bugs: list[logging.LogRecord]
) -> None:
    def fails(*_given: Any, **_named: Any) -> None:
        raise ValueError("a bug on purpose")

    monkeypatch.setattr(warm_inbound, "read_operation", fails)
    with pytest.raises(AssertionError, match="a bug on purpose"):
        await differ.compare(differ.inbound_messages(), 1, tmp_path)
    native_bugs.clear()  # it was on purpose
