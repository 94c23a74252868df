"""The token caches together: sweeping, shedding, counters, and the accuracy of their account."""

from __future__ import annotations

import gc
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, Final

import pytest

from delegation_core.bearer import Bearer
from delegation_core.bounded import BoundedCache
from delegation_core.decide import accept_issued, decide_inbound, delegate
from delegation_core.permit import IssuedPermit, Permit
from delegation_core.plan import Plan
from delegation_core.verify import verify_token
from sidecar.engine import PLANNED_BYTES, PREPARED_BYTES, PREPARED_CALL_BYTES
from sidecar.exchange.cache import Epoch, Issued, IssuedTokens
from sidecar.exchange.client import key_of
from sidecar.observe.attribution import facts_of_token
from sidecar.observe.entry import request_record
from sidecar.proxy.journeys.caches import HANDLES, LEFT_PART, Caches
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from sidecar.proxy.journeys.headers import IDENTITY
from sidecar.proxy.journeys.plans import Plans
from sidecar.proxy.journeys.snapshot import Renewal
from sidecar.proxy.journeys.verdicts import Call, Permits, Verdicts
from sidecar.proxy.listening.trim import AFTER_BYTES, Trim
from sidecar.proxy.native.warm import prepare
from sidecar.wire.dialer import Origin
from tests.core.world import (
    INBOUND_CLAIMS,
    ISSUED_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    TO_CRM,
    WRITER,
    plan,
    signed,
    verification_key,
)
from tests.native import module, needs_native

MIB: Final = 1024 * 1024
ORIGIN: Final = Origin("crm", 7443, "crm")
PUT: Final = 4
EPOCH: Final = Epoch(keys=1, policy=1, withdrawals=0, workload=WRITER)


# --- all together


def filled(expires_at: float = 100) -> BoundedCache[str, int]:
    made: BoundedCache[str, int] = BoundedCache(MIB)
    for key in "abcd":
        made.keep(key, 0, cost=100_000, expires_at=expires_at)
    return made


def test_all_are_swept_and_counted_and_one_that_is_not_there_is_left_out() -> None:
    one, other = filled(expires_at=10), filled(expires_at=20)
    caches = Caches({"one": lambda: one, "other": lambda: other, "none": lambda: None}, clock=lambda: 10.0)
    assert caches.bytes() == {"one": one.bytes, "other": other.bytes}
    assert caches.total == one.bytes + other.bytes
    caches.sweep()
    assert (len(one), len(other)) == (0, 4)


def test_look_ups_are_counted_by_cache_and_handles_are_none() -> None:
    cache = filled()
    for key in "aabx":
        cache.find(key)
    caches = Caches({"one": lambda: cache, HANDLES: filled}, clock=lambda: 0.0)
    assert caches.lookups() == {("one", "hit"): 3, ("one", "miss"): 1}


def test_memory_goes_back_after_what_has_expired_was_freed() -> None:
    cache = filled(expires_at=10)
    gifts: list[int] = []
    allocated = iter((2 * AFTER_BYTES, 0))
    trim = Trim(allocated=lambda: next(allocated), give=lambda: gifts.append(len(cache)))
    now = iter((0.0, 10.0))
    caches = Caches({"one": lambda: cache}, clock=lambda: next(now), trim=trim)
    caches.sweep()
    assert gifts == []
    caches.sweep()
    assert gifts == [0]


@pytest.mark.parametrize(("handles", "left"), [(False, (1, 4)), (True, (4, 1))])
def test_either_caches_or_handles_are_shed_down_to_a_part_of_the_limit(handles: bool, left: tuple[int, int]) -> None:
    cache, of_handles = filled(), filled()
    caches = Caches({"cache": lambda: cache, HANDLES: lambda: of_handles}, clock=lambda: 0.0)
    assert caches.shed(LEFT_PART * 150_000, handles=handles)
    assert (len(cache), len(of_handles)) == left
    assert caches.evicted() == {"cache": 4 - left[0], HANDLES: 4 - left[1]}
    assert not caches.shed(LEFT_PART * 150_000, handles=handles)


# --- the account equals the memory, for any kind of token

# Claims of a token of up to 16 KiB.
SHAPES: Final[Mapping[str, Mapping[str, object]]] = {
    "as usual": {},
    "a large claim": {"groups": "x" * 9_000},
    "many claims": {f"claim{number}": number for number in range(600)},
    "empty lists": {"lists": [[] for _ in range(3_000)]},
    "many scopes": {"scope": "docs.read " + " ".join(f"s{number}" for number in range(1_000))},
    "a large history": {"act": {"sub": PLANNER, "act": {"sub": "x" * 2_000, "extra": ["y" * 100] * 50}}},
}


def token(number: int, shape: str, claims: Mapping[str, object] = INBOUND_CLAIMS) -> Bearer:
    # Parsed again, so that nothing is shared with the shape.
    return signed(json.loads(json.dumps({**claims, **SHAPES[shape], "jti": f"j{number}"})))


def permit_of(bearer: Bearer) -> Permit:
    return decide_inbound(bearer, peer=PLANNER, route=SEARCH, key=verification_key(), policy=POLICY, now=NOW)


def issued_of(bearer: Bearer, came_by: Permit) -> IssuedPermit:
    planned = plan(delegate(came_by))
    return accept_issued(bearer, plan=planned, key=verification_key(), policy=POLICY, now=NOW)


class Filled:
    """A cache, a function that puts a token into it, and its accounted size."""

    def __init__(self, kind: str) -> None:
        warm_bytes = PREPARED_CALL_BYTES if kind == "warm_issued" else 0
        self.verdicts, self.issued = Verdicts(64 * MIB), IssuedTokens(64 * MIB, warm_bytes=warm_bytes)
        self.permits = Permits(64 * MIB, self.verdicts)
        self.plans = Plans(64 * MIB)
        self.exchange = SimpleNamespace(tokens=self.issued)
        self.handles = Handles(clock=lambda: float(NOW), monotonic=time.monotonic)
        for cache in (self.verdicts, self.permits):
            cache.turn_to((1, 1))
        self.put: Callable[[int, str], object] = getattr(self, f"_put_{kind}")
        held = {"both": (self.verdicts, self.permits)}.get(kind) or (getattr(self, kind.removeprefix("warm_")),)
        self.bytes: Callable[[], int] = lambda: sum(cache.bytes for cache in held)

    def _put_verdicts(self, number: int, shape: str) -> None:
        issuer, key = POLICY.issuers[STS], verification_key()
        bearer = token(number, shape)
        verified = verify_token(bearer, issuer=issuer, key=key, audiences=POLICY.audiences, now=NOW, slim=True)
        self.verdicts.add(verified, PLANNER, (1, 1))

    def _put_permits(self, number: int, shape: str) -> None:
        bearer = token(number, shape)
        permit = permit_of(bearer)
        self.permits.give(Call(b"Bearer " + bearer.raw.encode(), "ab" * 32, f"r{number}"), permit, (1, 1))

    def _put_both(self, number: int, shape: str) -> None:
        bearer = token(number, shape)
        permit = permit_of(bearer)
        self.verdicts.add(permit.token, PLANNER, (1, 1))
        self.permits.give(Call(b"Bearer " + bearer.raw.encode(), "ab" * 32, f"r{number}"), permit, (1, 1))

    def _put_warm_permits(self, number: int, shape: str) -> None:
        """The native engine adds what it prepares to a permit."""
        self.permits.warm_bytes = PREPARED_BYTES
        bearer = token(number, shape)
        call = Call(b"Bearer " + bearer.raw.encode(), "ab" * 32, f"r{number}")
        given = self.permits.give(call, permit_of(bearer), (1, 1))
        record = request_record("inbound", "run") | given.of_token | given.facts | {"workload": WRITER}
        fields = [*zip(IDENTITY, given.identity, strict=True)]
        given.warm.append(prepare(module(), record, fields, begins=0, ends=1))

    def _put_warm_issued(self, number: int, shape: str) -> None:
        """It keeps the facts of the request beside what it prepares for calls by an issued token."""
        issued = self._put_issued(number, shape)
        subject = issued.permit.plan.subject_token
        assert subject is not None
        facts = facts_of_token(subject)
        record = request_record("outbound", "run") | facts | issued.facts | {"workload": WRITER}
        bearer = b"Bearer " + issued.permit.token.raw.encode()
        prepared = prepare(module(), record, [(b"authorization", bearer)], begins=0, ends=1)
        issued.warm.extend((facts, prepared))

    def _put_plans(self, number: int, shape: str) -> Plan:
        return self.plans.plan(delegate(permit_of(token(number, shape))), TO_CRM, policy=POLICY, now=NOW)

    def _put_warm_plans(self, number: int, shape: str) -> None:
        """It keeps beside a plan what the next call by it holds by."""
        self.plans.warm_bytes = PLANNED_BYTES
        planned = self._put_plans(number, shape)
        facts = [(self.plans, "epoch", self.plans.epoch)] * 5
        key = key_of(planned)  # which the cache of issued tokens may have forgotten
        planned.warm[:] = [module().PlannedCall(planned, 1, 0, 1, facts, self.exchange, key, None, ORIGIN)]

    def _put_issued(self, number: int, shape: str) -> Issued:
        came_by = permit_of(token(number, shape))
        act = {"sub": WRITER, "act": json.loads(json.dumps(came_by.token.chain.raw if came_by.token.chain else {}))}
        claims = {**ISSUED_CLAIMS, "act": act, "parent_jti": f"j{number}"}
        bearer = signed({**claims, **{name: SHAPES[shape][name] for name in SHAPES[shape] if name == "groups"}})
        issued = Issued(issued_of(bearer, came_by), NOW + 100, NOW + 80)
        self.issued.keep(f"{number}", issued, epoch=EPOCH)
        return issued

    def _put_handles(self, number: int, shape: str) -> None:
        delegation = delegate(permit_of(token(number, shape)))
        handle = self.handles.open(ServedRequest(delegation, 64, 60.0, call_in=f"{number:032x}"))
        self.handles.end(handle)


def reachable_bytes(root: object) -> int:
    """Sum the sizes of all objects that ``root`` refers to, directly or not: the same number in every run.

    Code is not followed: it leads to the whole program.
    """
    seen: dict[int, object] = {}
    todo = [root]
    while todo:
        one = todo.pop()
        if id(one) not in seen and not isinstance(one, type | ModuleType | FunctionType | BuiltinFunctionType):
            seen[id(one)] = one
            todo += gc.get_referents(one)
    return sum(map(sys.getsizeof, seen.values()))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("verdicts", "many scopes"),  # above the issuer's ceiling: a verdict, and no permit
        *itertools.product(
            ("verdicts", "permits", "both", "plans", "issued", "handles"), sorted(SHAPES.keys() - {"many scopes"})
        ),
        *(
            pytest.param(kind, shape, marks=needs_native)
            for kind in ("warm_permits", "warm_issued", "warm_plans")
            for shape in sorted(SHAPES.keys() - {"many scopes"})
        ),
    ],
)
def test_what_is_held_takes_no_more_than_it_is_accounted_at_and_hardly_less(kind: str, shape: str) -> None:
    filled = Filled(kind)
    filled.put(0, shape)
    accounted, taken = filled.bytes(), reachable_bytes(filled)
    for number in range(100, 100 + PUT):
        filled.put(number, shape)
    accounted, taken = filled.bytes() - accounted, reachable_bytes(filled) - taken
    print(f"{kind:10} {shape:16} taken {taken / PUT:8.0f} accounted {accounted / PUT:8.0f}")  # noqa: T201
    assert 0.65 * accounted < taken < accounted


# --- carried over a change of revocations


def test_a_revocation_drops_what_it_stops_and_what_was_decided_by_an_older_policy() -> None:
    served = plan().delegation
    assert served is not None
    token = served.token
    other = replace(token, jti="other")
    verdicts: BoundedCache[str, Any] = BoundedCache(MIB)
    plans: BoundedCache[str, Any] = BoundedCache(MIB)
    old: BoundedCache[str, Any] = BoundedCache(MIB)
    epochs: list[tuple[BoundedCache[str, Any], object]] = [(verdicts, (3, 1)), (plans, 1), (old, (3, 0))]
    for cache, epoch in epochs:
        cache.turn_to(epoch)
        for name, one in (("stopped", token), ("other", other)):
            planned = replace(plan(), delegation=replace(served, token=one))
            value = planned if cache is plans else one
            assert cache.keep(name, value, cost=1, expires_at=100, epoch=epoch)
    named = {"verdicts": lambda: verdicts, "plans": lambda: plans, "permits": lambda: old}
    Caches(named, clock=lambda: 0.0).carry(Renewal(1, 2, lambda one: one.jti != "other"))
    assert (verdicts.epoch, plans.epoch, old.epoch) == ((3, 2), 1, (3, 0))
    assert ("stopped" in verdicts, "other" in verdicts) == (False, True)
    assert plans.find("other", 2) is None  # a plan is judged by the name beyond a crossing too: it begins again
