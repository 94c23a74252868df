"""Bugs of the native engine: each is logged, and Python serves the request. What it expects there is a refusal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from delegation_core.records.record import Record
from sidecar.observe.entry import request_record
from sidecar.observe.operations import OneLine
from sidecar.proxy.native.warm import WarmSide, prepare
from sidecar.wire.h1_server import Warm
from tests.native import module, needs_native
from tests.proxy.engines import EngineWorld, OutboundWorld
from tests.proxy.test_warm import WARM
from tests.proxy.test_warm_outbound import NAMED

pytestmark = needs_native

_SECRET: Final = "aB3" * 20


def breaks(monkeypatch: pytest.MonkeyPatch, **broken: Any) -> None:
    """Let gates that are made from now on read these attributes."""

    def make(gate: Callable[[WarmSide], Warm], side: WarmSide) -> Warm:
        vars(side).update(broken)
        return gate(side)

    for name in ("InboundGate", "OutboundGate"):
        monkeypatch.setattr(module(), name, partial(make, getattr(module(), name)))


def fails(*_: object, **__: object) -> Any:
    raise KeyError(_SECRET)


def panics(*_: object) -> Any:
    return module().panic_on_purpose(_SECRET)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (EngineWorld, "prepare"),
        (EngineWorld, "wall"),
        (EngineWorld, "keys_of"),
        (EngineWorld, "answer_passes"),
        (OutboundWorld, "prepare"),
        (OutboundWorld, "look_up"),
        (OutboundWorld, "answer_passes"),
    ],
)
@pytest.mark.parametrize("broken", [fails, panics])
async def test_a_bug_is_logged_once_and_python_serves_the_request(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    native_bugs: list[logging.LogRecord],
    kind: type[EngineWorld],
    part: str,
    broken: Any,
) -> None:
    data = WARM if kind is EngineWorld else NAMED
    python = kind("python", tmp_path)
    expected = [python.exchange(data) for _ in range(4)]
    breaks(monkeypatch, **{part: broken})
    world = kind("native", tmp_path)
    assert [world.exchange(data) for _ in range(4)] == expected
    assert await world.records() == await python.records()
    (bug,) = native_bugs
    native_bugs.clear()
    assert (bug.levelno, bug.name) == (logging.ERROR, "sidecar.native")
    told = OneLine().format(bug)
    assert "a bug in the native engine" in told
    assert _SECRET not in told


@pytest.mark.parametrize(("kind", "data"), [(EngineWorld, WARM), (OutboundWorld, NAMED)])
async def test_what_ends_the_process_is_no_bug_and_passes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[EngineWorld], data: bytes
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    breaks(monkeypatch, prepare=interrupt)
    world = kind("native", tmp_path)
    if kind is EngineWorld:
        world.exchange(data)  # Python remembers the permit
    with pytest.raises(KeyboardInterrupt):
        world.exchange(data)
    await world.log.close()


@pytest.mark.parametrize("value", ["\ud800", 2**64])
def test_a_record_that_json_cannot_hold_plainly_is_left_to_python(value: object) -> None:
    record: Record = {**request_record("inbound", "run"), "jti": value}
    assert prepare(module(), record, [], begins=0, ends=1) is None
    assert prepare(module(), {**record, "jti": "1"}, [], begins=0, ends=1) is not None
