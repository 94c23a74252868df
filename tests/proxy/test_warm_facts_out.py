"""Each fact by which the native engine knows a call again is changed in turn: then Python looks the call up.

Both engines must send the same, write the same records and count the same look-ups.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from weakref import ref

import pytest

from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.permit import IssuedPermit
from delegation_core.verify import thumbprint_of
from sidecar.engine import Engine
from sidecar.exchange.cache import Issued
from sidecar.exchange.client import key_of
from sidecar.exchange.exchanges import Exchanges
from tests.core.world import NOW, PLANNER, STS, TO_CRM, WRITER
from tests.native import needs_native
from tests.proxy.engines import EngineWorld, LoginWorld, OutboundWorld, Outcome, warm_call

pytestmark = needs_native

Change = Callable[[OutboundWorld], object]
OWN: Final = "127.0.0.1:7080"  # our listener, where the path selects the route
BOTH: Final = pytest.mark.parametrize("kind", [OutboundWorld, LoginWorld])


def issued_of(world: OutboundWorld) -> Issued:
    """Return the token that is kept for calls to crm.mesh."""
    return next(one for one in world.tokens.tokens.kept.values() if one.permit.plan.route.name == "crm")


def keep(world: OutboundWorld, issued: Issued) -> None:
    """Let another token be kept in its place."""
    world.tokens.tokens.kept.replace(key_of(issued.permit.plan), issued)


def copied(permit: IssuedPermit, **changes: object) -> IssuedPermit:
    """Return the same permit with some changes, which no other world has."""
    copy = object.__new__(IssuedPermit)
    for name in IssuedPermit.__slots__:
        object.__setattr__(copy, name, changes.get(name, getattr(permit, name)))
    return copy


def to(world: OutboundWorld, host: str, path: str) -> bytes:
    return warm_call(world, target=f"http://{host}{path}").replace(b"Host: crm.mesh", b"Host: " + host.encode())


def identity(spiffe_id: object = WRITER, leaf: str = "0" * 64) -> Any:
    return SimpleNamespace(spiffe_id=spiffe_id, svid=SimpleNamespace(spiffe_id=spiffe_id, leaf_sha256=leaf))


def _other_keys(world: OutboundWorld) -> None:
    world.keys.generation = 2


def _is_withdrawn(world: OutboundWorld) -> None:
    world.tokens.withdrawals += 1


def _credential_changes(world: OutboundWorld) -> None:
    world.tokens.invalidate()


def _svid_is_renewed(world: OutboundWorld) -> None:
    world.own_source.current = identity(leaf="1" * 64)


def _has_no_identity(world: OutboundWorld) -> None:
    world.own_source.current = None


def _is_another_workload(world: OutboundWorld) -> None:
    world.own_source.current = identity(PLANNER)


def _issued_tokens_begin_again(world: OutboundWorld) -> None:
    kept = world.tokens.tokens.kept
    assert kept.epoch is not None
    kept.epoch = (0, *tuple(kept.epoch)[1:])  # type: ignore[arg-type]


def _token_is_evicted(world: OutboundWorld) -> None:
    world.tokens.tokens.shed(0)


def _token_is_refused(world: OutboundWorld) -> None:
    assert world.tokens.reject(issued_of(world).permit)


def _token_expires(world: OutboundWorld) -> None:
    keep(world, replace(issued_of(world), usable_until=NOW))


def _token_is_to_be_refreshed(world: OutboundWorld) -> None:
    keep(world, replace(issued_of(world), refresh_at=NOW))


def _token_is_bound(world: OutboundWorld, leaf: str = "0" * 64) -> None:
    bound = replace(issued_of(world))
    object.__setattr__(bound, "bound_to", thumbprint_of(leaf))
    keep(world, bound)


def _token_is_bound_to_another(world: OutboundWorld) -> None:
    _token_is_bound(world, "2" * 64)


def _policy_has_another_number(world: OutboundWorld) -> None:
    now = world.snapshots.current
    world.snapshots.current = replace(now, policy=replace(now.policy, number=2))


def _policy_has_other_routes(world: OutboundWorld) -> None:
    now = world.snapshots.current
    routes = OutboundRoutes([replace(TO_CRM)])
    world.snapshots.current = replace(now, policy=replace(now.policy, outbound=routes))


def _delegation_is_another(world: OutboundWorld) -> None:
    world.served.delegation = replace(world.served.delegation)


def _plans_begin_again(world: OutboundWorld) -> None:
    world.plans.epoch = 7


def _plan_is_evicted(world: OutboundWorld) -> None:
    world.plans.clear()


def _second_passes(world: OutboundWorld) -> None:
    world.now += 1


def _logins_begin_again(world: OutboundWorld) -> None:
    world.plans.as_of = world.plans.as_of[0], 7


def _clock_is_set_back(world: OutboundWorld) -> None:
    world.now -= 1


def _login_is_forgotten(world: OutboundWorld) -> None:
    world.judged.clear()


def _inbound_token_ends(world: OutboundWorld) -> None:
    """Let time pass to the end of the request's token, which its handle and its issued token outlive."""
    delegation = world.served.delegation
    object.__setattr__(delegation, "ends_at", 10**12)
    keep(world, replace(issued_of(world), usable_until=10**12, refresh_at=10**12))
    world.now = float(delegation.token.expires_at)


# After these calls are served still.
HARMLESS: Final = [_svid_is_renewed, _plans_begin_again, _plan_is_evicted]

OF_ALL: Final = [
    _other_keys,
    _is_withdrawn,
    _credential_changes,
    _svid_is_renewed,
    _has_no_identity,
    _is_another_workload,
    _issued_tokens_begin_again,
    _token_is_evicted,
    _token_is_refused,
    _token_expires,
    _token_is_to_be_refreshed,
    _token_is_bound,
    _token_is_bound_to_another,
    _policy_has_another_number,
    _policy_has_other_routes,
    _delegation_is_another,
]
OF_REQUESTS: Final = [_plans_begin_again, _plan_is_evicted, _inbound_token_ends]
OF_LOGINS: Final = [_second_passes, _clock_is_set_back, _logins_begin_again, _login_is_forgotten]
CASES: Final = [
    *((OutboundWorld, one) for one in (*OF_ALL, *OF_REQUESTS)),
    *((LoginWorld, one) for one in (*OF_ALL, *OF_LOGINS)),
]


def known_again(kind: type[OutboundWorld], engine: Engine, folder: Path) -> OutboundWorld:
    """Return a world in which one call was made, so that the next one is known again."""
    world = kind(engine, folder)
    world.served.delegation = replace(world.served.delegation)  # not shared with another world: some cases change it
    if isinstance(world, LoginWorld):
        world.keep_login()
    world.exchange(warm_call(world))
    return world


async def one_of(
    kind: type[OutboundWorld], engine: Engine, folder: Path, change: Change
) -> tuple[list[Outcome], list[dict[str, Any]], object, OutboundWorld]:
    world = known_again(kind, engine, folder)
    change(world)
    outcomes = [world.exchange(warm_call(world)) for _ in range(2)]
    counted = world.counted, world.tokens.under_way
    return outcomes, await world.records(), counted, world


@BOTH
async def test_a_call_that_is_known_again_is_not_looked_up(tmp_path: Path, kind: type[OutboundWorld]) -> None:
    world = known_again(kind, "native", tmp_path)
    assert (world.taken, world.gate.looked) == (1, 1)
    for number in range(3):
        world.exchange(warm_call(world, target=f"http://crm.mesh/tool/{number}", fields=f"X-Trip: {number}\r\n"))
    assert (world.taken, world.gate.looked) == (4, 1)
    await world.log.close()


@pytest.mark.parametrize(("kind", "change"), CASES, ids=lambda value: value.__name__)
async def test_every_fact_ends_what_is_known_of_a_call(
    tmp_path: Path, kind: type[OutboundWorld], change: Change
) -> None:
    python = await one_of(kind, "python", tmp_path, change)
    native = await one_of(kind, "native", tmp_path, change)
    assert native[:3] == python[:3]
    world = native[3]
    began = world.taken - 1  # of the two after the change
    assert world.gate.looked > 1 or began == 0, "a call was served without a look at what has changed"


@BOTH
async def test_a_token_in_the_place_of_another_is_sent_at_once(tmp_path: Path, kind: type[OutboundWorld]) -> None:
    sent = []
    engines: tuple[Engine, ...] = ("python", "native")
    for engine in engines:
        world = known_again(kind, engine, tmp_path)
        before = world.exchange(warm_call(world))
        other = replace(issued_of(world))
        token = replace(other.permit.token, raw=other.permit.token.raw + "x")
        object.__setattr__(other, "permit", copied(other.permit, token=token))
        keep(world, other)
        after = world.exchange(warm_call(world))
        assert token.raw.encode() in after.sent
        assert token.raw.encode() not in before.sent
        sent.append((before, after, world.counted))
        await world.log.close()
    assert sent[0] == sent[1]


async def test_calls_in_turn_are_counted_and_kept_alike(tmp_path: Path) -> None:
    counted = []
    engines: tuple[Engine, ...] = ("python", "native")
    for engine in engines:
        world = OutboundWorld(engine, tmp_path)
        world.served.calls_left = 6
        below = OWN, "/below/it/a"
        for one in (("crm.mesh", "/a"), below, ("crm.mesh", "/b")):
            assert world.exchange(to(world, *one)).sent
        counted.append((world.counted, world.served.calls_left))
        for one in (below, ("CRM.mesh", "/"), ("crm.mesh:80", "/c")):
            assert world.exchange(to(world, *one)).sent
        assert world.exchange(warm_call(world)).sent == b""
        counted.append((world.counted, world.served.calls_left))
        await world.log.close()
        if engine == "native":
            assert world.taken >= 5
            assert world.gate.looked == 2
    assert counted[:2] == counted[2:]


async def test_a_lingering_handle_opens_calls_until_its_end(tmp_path: Path) -> None:
    told = []
    engines: tuple[Engine, ...] = ("python", "native")
    for engine in engines:
        world = known_again(OutboundWorld, engine, tmp_path)
        world.served.linger_s = 5.0
        world.handles.end(world.handle)
        outcomes = [world.exchange(warm_call(world))]
        world.clock.now += 4.9
        outcomes.append(world.exchange(warm_call(world)))
        taken = world.taken
        world.clock.now += 0.1
        outcomes.append(world.exchange(warm_call(world)))
        if engine == "native":
            assert (taken, world.taken) == (3, 3)
        records = [(one["decision"], one["reason"], one["after_request"]) for one in await world.records()]
        told.append((outcomes, records))
    assert told[0] == told[1]
    assert [bool(outcome.sent) for outcome in told[1][0]] == [True, True, False]
    assert told[1][1][1:3] == [("allow", "ok", True)] * 2


async def test_a_handle_ends_with_its_authority_in_the_middle_of_a_second(tmp_path: Path) -> None:
    told = []
    engines: tuple[Engine, ...] = ("python", "native")
    for engine in engines:
        world = known_again(OutboundWorld, engine, tmp_path)
        object.__setattr__(world.served.delegation, "ends_at", NOW + 10.5)
        outcomes = []
        for world.now in (NOW + 10.4, NOW + 10.5):
            outcomes.append(world.exchange(warm_call(world)))
        told.append((outcomes, world.taken))
        await world.log.close()
    assert told[0][0] == told[1][0]
    assert [bool(outcome.sent) for outcome in told[1][0]] == [True, False]
    assert told[1][1] == 2


def _stays_paused(world: EngineWorld) -> None:
    world.agent.pause_writing()


@BOTH
async def test_what_python_serves_after_all_is_counted_once(tmp_path: Path, kind: type[OutboundWorld]) -> None:
    counted = []
    engines: tuple[Engine, ...] = ("python", "native")
    for engine in engines:
        world = known_again(kind, engine, tmp_path)
        data = warm_call(world)
        world.exchange(data, between=_stays_paused)
        taken = world.taken
        for _ in range(2):  # the connection takes no bytes now
            world.exchange(data)
        world.agent_connects()
        world.exchange(data)
        counted.append(world.counted)
        if engine == "native":
            assert (world.taken, world.gate.looked) == (taken + 1, 1)
        await world.log.close()
    assert counted[0] == counted[1]


async def test_the_path_has_a_part_only_where_our_own_listener_is_called(tmp_path: Path) -> None:
    outcomes = []
    engines: tuple[Engine, ...] = ("python", "native")
    for engine in engines:
        world = OutboundWorld(engine, tmp_path)
        below = OWN, "/below/it/a"
        calls = below, (OWN, "/other"), ("crm.mesh", "/below/it/a"), ("crm.mesh", "/other"), below
        outcomes += [world.exchange(to(world, *one)) for one in calls]
        await world.log.close()
    assert outcomes[:5] == outcomes[5:]
    assert [bool(outcome.sent) for outcome in outcomes[:5]] == [True, False, True, True, True]


async def test_a_token_service_that_was_replaced_is_freed(tmp_path: Path) -> None:
    world, other = known_again(OutboundWorld, "native", tmp_path), OutboundWorld("python", tmp_path)
    (plan,) = world.plans.values()
    issued = replace(issued_of(world))
    object.__setattr__(issued, "permit", copied(issued.permit, plan=plan))  # as after an exchange by this plan
    keep(world, issued)
    before = ref(world.tokens)
    world.tokens = other.tokens
    world.snapshots.current = replace(world.snapshots.current, exchanges=Exchanges({STS: other.tokens}))
    world.plans.clear()
    del plan, issued
    world.exchange(warm_call(world))
    assert world.taken == 2
    list(world.watch.steps(0))
    await world.log.close()
    gc.collect()
    assert before() is None
    await other.log.close()
