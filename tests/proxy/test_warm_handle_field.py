"""The agent's calls that name their request in Delegation-Handle: both engines serve the same, and refuse the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from delegation_core.errors import Denied, Reason
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from tests.core.world import NOW, delegation
from tests.native import needs_native
from tests.proxy.engines import HANDLE, EngineWorld, OutboundWorld
from tests.proxy.test_warm import Event, nothing
from tests.proxy.test_warm_outbound import NAMED, both
from tests.proxy.warm import ANSWER

pytestmark = needs_native

_UNKNOWN: Final = "u" * 43
_JWT: Final = "eyJh.eyJz.c2ln"
_BEARER: Final = f"Authorization: Bearer {HANDLE}"
_PASSWORD: Final = "Authorization: Basic eA=="


def of_fields(*fields: str) -> bytes:
    """Return a call with these field lines, and no other credential."""
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"POST http://crm.mesh/tool HTTP/1.1\r\nHost: crm.mesh\r\n{lines}\r\n".encode("latin-1")


def _of_another_workload() -> str:
    """Return a handle that is alive at another sidecar."""
    handles = Handles(clock=lambda: float(NOW), monotonic=lambda: 0.0)
    return handles.open(ServedRequest(delegation(), max_calls=None, linger_s=0.0, call_in=None))


def _world(world: EngineWorld) -> OutboundWorld:
    assert isinstance(world, OutboundWorld)
    return world


def _is_no_entry(world: EngineWorld) -> None:
    snapshot = world.snapshots.current
    world.snapshots.current = replace(snapshot, policy=replace(snapshot.policy, entry=None))


def _ends(world: EngineWorld) -> None:
    world.handles.end(HANDLE)


def _ends_and_lingers(world: EngineWorld) -> None:
    _world(world).served.linger_s = 60.0
    world.handles.end(HANDLE)


def _ends_and_has_lingered(world: EngineWorld) -> None:
    _ends_and_lingers(world)
    world.clock.now += 61


def _expires(world: EngineWorld) -> None:
    world.now += 1_000_000


def _is_withdrawn(world: EngineWorld) -> None:
    def refuse(_served: object) -> None:
        raise Denied(Reason.POLICY_DENIED, "the subject is on the deny list")

    world.handles._judge = refuse
    world.handles.suspect()


def _has_no_calls_left(world: EngineWorld) -> None:
    _world(world).served.calls_left = 0


class _Case(NamedTuple):
    """The field lines of a call, what happens before it, the reason in its record, and the engine that serves it."""

    says: str
    fields: tuple[str, ...]
    reason: str = "ok"
    is_native: bool = False
    before: Event = nothing


OWN: Final = f"Delegation-Handle: {HANDLE}"
REFUSED: Final = "no_request_context"
CASES: Final = [
    _Case("alone", (OWN,), is_native=True),
    _Case("in lower case", (OWN.replace("Delegation-Handle", "delegation-handle"),), is_native=True),
    _Case("in upper case", (OWN.replace("Delegation-Handle", "DELEGATION-HANDLE"),), is_native=True),
    _Case("between spaces", (f"Delegation-Handle: \t {HANDLE}  ",), is_native=True),
    _Case("and the same in Authorization", (OWN, _BEARER), is_native=True),
    _Case("and the same by another scheme", (OWN, f"Authorization: token {HANDLE}"), is_native=True),
    _Case("beside a key, where nobody logs in", (OWN, "Authorization: Bearer sk-key"), "ok", True, _is_no_entry),
    _Case("beside a password, where nobody logs in", (OWN, _PASSWORD), "ok", True, _is_no_entry),
    _Case("beside a password", (OWN, _PASSWORD)),
    _Case("beside an empty Authorization, where nobody logs in", (OWN, "Authorization:"), "ok", True, _is_no_entry),
    _Case("of a request that lingers", (OWN,), "ok", True, _ends_and_lingers),
    _Case("of a request that has ended", (OWN,), REFUSED, before=_ends),
    _Case("of a request that has lingered", (OWN,), REFUSED, before=_ends_and_has_lingered),
    _Case("expired", (OWN,), REFUSED, before=_expires),
    _Case("withdrawn", (OWN,), "policy_denied", before=_is_withdrawn),
    _Case("that has no calls left", (OWN,), "calls_exhausted", before=_has_no_calls_left),
    _Case("unknown", (f"Delegation-Handle: {_UNKNOWN}",), REFUSED),
    _Case("of another workload", (f"Delegation-Handle: {_of_another_workload()}",), REFUSED),
    _Case("empty", ("Delegation-Handle:",), REFUSED),
    _Case("too short", (OWN[:-1],), REFUSED),
    _Case("too long", (OWN + "h",), REFUSED),
    _Case("in capitals", (f"Delegation-Handle: {HANDLE.upper()}",), REFUSED),
    _Case("with a scheme", (f"Delegation-Handle: Bearer {HANDLE}",), REFUSED),
    _Case("in quotes", (f'Delegation-Handle: "{HANDLE}"',), REFUSED),
    _Case("percent-encoded", (f"Delegation-Handle: %68{HANDLE[1:]}",), REFUSED),
    _Case("in a list", (f"Delegation-Handle: {HANDLE},{HANDLE}",), REFUSED),
    _Case("with an octet beyond ASCII", (f"Delegation-Handle: {HANDLE}\xe9",), REFUSED),
    _Case("under a name with an underscore", (OWN.replace("Delegation-", "Delegation_"),), REFUSED),
    _Case("under a name with a space", (OWN.replace(":", " :"),), "bad_request"),
    _Case("twice", (OWN, OWN), REFUSED),
    _Case("twice, once in lower case", (OWN, OWN.replace("Delegation-H", "delegation-h")), REFUSED),
    _Case("twice, once unknown", (OWN, f"Delegation-Handle: {_UNKNOWN}"), REFUSED),
    _Case("twice, once empty", (OWN, "Delegation-Handle:"), REFUSED),
    _Case("twice, where Authorization has it too", (OWN, OWN, _BEARER), REFUSED),
    _Case("and another one in Authorization", (OWN, f"Authorization: Bearer {_UNKNOWN}"), REFUSED),
    _Case("and another one in a bearer", (OWN, f"Authorization: bEARER   {_UNKNOWN}"), REFUSED, before=_is_no_entry),
    _Case("unknown, and a live one in Authorization", (f"Delegation-Handle: {_UNKNOWN}", _BEARER), REFUSED),
    _Case("empty, and a live one in Authorization", ("Delegation-Handle:", _BEARER), REFUSED),
    _Case("beside a login token", (OWN, f"Authorization: Bearer {_JWT}"), REFUSED),
    _Case("beside a token, where nobody logs in", (OWN, f"Authorization: Bearer {_JWT}"), "ok", True, _is_no_entry),
    _Case("beside a key", (OWN, "Authorization: Bearer sk-key"), REFUSED),
    _Case("beside two of Authorization", (OWN, _PASSWORD, _PASSWORD), "header_malformed"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
async def test_a_handle_is_read_alike(tmp_path: Path, case: _Case) -> None:
    """``NAMED`` before it proves that nothing else keeps the call from the native engine."""
    steps = [(NAMED, ANSWER, case.before), (of_fields(*case.fields), ANSWER, nothing)]
    taken = 1 + case.is_native
    outcomes, records = await both(tmp_path, steps, least_taken=taken, most_taken=taken)
    allowed = case.reason == "ok"
    assert (records[1]["reason"], bool(outcomes[1].sent)) == (case.reason, allowed)
    assert HANDLE.encode() not in outcomes[1].sent
    assert outcomes[1].sent.count(b"authorization: Bearer ey") == allowed, "the issued token, and no other credential"
    assert b"sk-key" not in outcomes[1].sent


async def test_a_handle_that_was_refused_is_refused_again(tmp_path: Path) -> None:
    steps: list[Any] = [(NAMED, ANSWER, _is_withdrawn), (NAMED, ANSWER, nothing), (NAMED, ANSWER, nothing)]
    _, records = await both(tmp_path, steps, least_taken=1, most_taken=1)
    assert [record["reason"] for record in records] == ["ok", "policy_denied", REFUSED]


async def test_calls_by_both_fields_are_counted_together(tmp_path: Path) -> None:
    def has_two_left(world: EngineWorld) -> None:
        _world(world).served.calls_left = 2

    other = of_fields(_BEARER)
    steps: list[Any] = [(NAMED, ANSWER, has_two_left), (other, ANSWER, nothing), (NAMED, ANSWER, nothing)]
    _, records = await both(tmp_path, [*steps, (NAMED, ANSWER, nothing)], least_taken=3, most_taken=3)
    assert [record["reason"] for record in records] == ["ok", "ok", "ok", "calls_exhausted"]
