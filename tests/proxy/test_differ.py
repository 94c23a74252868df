"""The comparison of both engines finds a difference where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

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
