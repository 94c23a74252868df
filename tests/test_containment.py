"""Orders of every kind at every place: a table in which each cell is a test, or says why it cannot exist.

Each order that stops stands beside the same order for another name, which stops nothing. The page docs/runbook.md
claims what is here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import orjson
import pytest

from delegation_core.decide import (
    accept_issued,
    decide_connect,
    decide_entry,
    decide_inbound,
    decide_observed,
    decide_observed_call,
    decide_own,
    decide_plain,
    delegate,
)
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.keyset import parse_jwks
from delegation_core.login import plan_login
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.permit import IssuedPermit
from delegation_core.plan import Delegation, plan_outbound, plan_own
from delegation_core.policy import Deny, Policy
from delegation_core.profile import DEFAULT_ALGORITHMS
from delegation_core.reevaluate import inbound_again, outbound_again
from delegation_core.reevaluate_exceptions import observed_again, observed_call_again, own_again, tunnel_again
from delegation_core.revocation import NO_NAMES, OF_WORKLOADS, InForce, Kind, Use
from delegation_core.revocation_list import parse_list, verify_list
from delegation_core.revocations_kept import NONE, Revocation, Revocations
from delegation_core.rfc8693 import CLIENT_CREDENTIALS
from delegation_core.steps import at_once
from delegation_core.verify import ANCESTORS, ANY_AUDIENCE, VerifiedToken, verify_token
from sidecar.exchange.client import key_of
from sidecar.features.a2a.agent_cards import AgentCards
from sidecar.proxy.journeys.caches import Caches
from sidecar.proxy.journeys.snapshot import Setup, Snapshots
from sidecar.proxy.journeys.verdicts import Call
from sidecar.sts.introspection import IntrospectionEndpoint
from sidecar.sts.rate import ExchangeRate, RateSettings
from sidecar.sts.records import ExchangeRecord
from tests.core import test_connect as connect
from tests.core import test_door as door
from tests.core import test_login as granting
from tests.core import test_outside as outside
from tests.core.world import (
    ENTRY,
    FRONT,
    INBOUND_CLAIMS,
    ISSUED_CLAIMS,
    LOGIN_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    STS_TRUST,
    TO_CRM,
    WRITER,
    Claims,
    signed,
    verification_key,
)
from tests.core.world import IDP as LOGIN
from tests.fakes.sts import FORM, Mesh, encoded
from tests.fakes.tokens import CRM
from tests.native import needs_native
from tests.proxy.engines import EngineWorld, OutboundWorld, warm_call, warm_request
from tests.sts.test_crossing import PARTNERS, Border
from tests.sts.test_revocations import order, register

Name = str | tuple[str, str]  # of a subject or login: issuer and name
Names = Mapping[Kind, tuple[Name, ...] | str]  # or the reason why no order of this kind can stop anything here

CLAIMS: Final[Claims] = {**INBOUND_CLAIMS, "sid": "session-1", ANCESTORS: ["token-0"]}
ISSUED: Final[Claims] = {**ISSUED_CLAIMS, "sid": "session-1", ANCESTORS: ["token-0", "token-1"]}
UNLINKED: Final[Claims] = {name: value for name, value in ISSUED.items() if name not in ("parent_jti", ANCESTORS)}
LOGGED_IN: Final[Claims] = {**LOGIN_CLAIMS, "sid": "session-1"}
SHOWN: Final = signed(CLAIMS)
KEY: Final = verification_key()
KEYS: Final[Any] = SimpleNamespace(
    find=lambda issuer, _: verification_key("idp" if issuer == LOGIN else "sts"), known=lambda _: True
)

OF_TOKEN: Final[dict[Kind, Any]] = {
    Kind.SUBJECT: ((STS, "alice"), (LOGIN, "alice")),
    Kind.ACTOR: (PLANNER,),
    Kind.THROUGH: (PLANNER, FRONT),
    Kind.TXN: ("txn-1",),
    Kind.JTI: ("token-2", "token-1", "token-0"),
    Kind.LOGIN: ((LOGIN, "session-1"),),
}
USED_BY_US: Final[Names] = OF_TOKEN | {Kind.ACTOR: (PLANNER, WRITER), Kind.THROUGH: (PLANNER, FRONT, WRITER)}
OF_ISSUED: Final[Names] = OF_TOKEN | {
    Kind.ACTOR: (WRITER,),
    Kind.THROUGH: (WRITER, PLANNER, FRONT),
    Kind.JTI: ("token-3", "token-2", "token-1", "token-0"),
}
NO_TXN: Final = "a login begins a chain: its txn is made by the exchange"
NO_TOKEN: Final = "no token is shown"
WITHOUT_TOKEN: Final[dict[Kind, Any]] = {Kind.TXN: NO_TOKEN, Kind.JTI: NO_TOKEN, Kind.LOGIN: NO_TOKEN}
OF_US: Final[Names] = WITHOUT_TOKEN | {Kind.SUBJECT: ((STS, WRITER),), Kind.ACTOR: (WRITER,), Kind.THROUGH: (WRITER,)}
OF_PEER: Final[Names] = WITHOUT_TOKEN | {
    Kind.SUBJECT: ((STS, PLANNER),),
    Kind.ACTOR: (PLANNER,),
    Kind.THROUGH: (PLANNER,),
}
OF_LOGIN: Final[dict[Kind, Any]] = {
    Kind.SUBJECT: ((LOGIN, "alice"), (STS, "idp|alice")),
    Kind.ACTOR: (WRITER,),
    Kind.THROUGH: (WRITER,),
    Kind.TXN: NO_TXN,
    Kind.JTI: ("login-1",),
    Kind.LOGIN: ((LOGIN, "session-1"),),
}


class Place(StrEnum):
    """Every place where authority is used. One that is added here needs a row, and so does a new kind of order."""

    EXCHANGE = "the token service exchanges a token"
    EXCHANGE_OF_LOGIN = "the token service exchanges a login"
    EXCHANGE_ACROSS = "the token service exchanges a foreign token"
    RUN = "the token service gives a workload its own token"
    INTROSPECTION = "another asks the token service about a token"
    LIST = "a sidecar reads the signed list"
    INBOUND = "a peer calls, engine in Python"
    INBOUND_NATIVE = "a peer calls, native engine"
    INBOUND_IN_FLIGHT = "a peer's request is in flight, engine in Python"
    INBOUND_IN_FLIGHT_NATIVE = "a peer's request is in flight, native engine"
    OUTBOUND = "the agent calls, engine in Python"
    OUTBOUND_NATIVE = "the agent calls, native engine"
    OUTBOUND_IN_FLIGHT = "the agent's call is in flight, engine in Python"
    OUTBOUND_IN_FLIGHT_NATIVE = "the agent's call is in flight, native engine"
    LOGIN = "a login at an entry"
    DOOR = "a login at an entry's door"
    GRANT = "a user grants a login route"
    GRANT_BEGUN = "a login for a login route begins"
    PLAN_OF_LOGIN = "a call for a login is planned"
    ISSUED = "an issued token arrives"
    ISSUED_IN_FLIGHT = "a call with an issued token is in flight"
    ISSUED_IN_CACHE = "an issued token is cached"
    ISSUED_ELSEWHERE_IN_CACHE = "a token of a token service that names no earlier ones is cached"
    VERDICT_IN_CACHE = "a verified token and its permit are cached"
    OWN = "the agent calls for itself"
    OUTSIDE = "the agent calls a host outside the mesh"
    OUTSIDE_IN_FLIGHT = "such a call is in flight"
    OUTSIDE_OF_LOGIN = "the agent calls a host outside the mesh for a login"
    OUTSIDE_OF_LOGIN_IN_FLIGHT = "such a call for a login is in flight"
    OUTSIDE_FOR_ITSELF = "the agent calls a host outside the mesh for itself"
    TUNNEL = "the agent opens a tunnel"
    TUNNEL_IN_FLIGHT = "a tunnel is in flight"
    TUNNEL_FOR_ITSELF = "the agent opens a tunnel for itself"
    REQUEST_BEHIND_CALL = "a request is judged again for its calls"
    OBSERVED = "an observed request with a token"
    OBSERVED_IN_FLIGHT = "an observed request is in flight"
    OBSERVED_WITHOUT_TOKEN = "an observed request without a token"
    OBSERVED_PLAIN = "an observed request without TLS"
    OBSERVED_PLAIN_WITHOUT_TOKEN = "an observed request without TLS and without a token"
    OBSERVED_CALL = "an observed call of the agent"
    OBSERVED_CALL_IN_FLIGHT = "an observed call of the agent is in flight"
    CARD = "a peer asks for the agent's card"


def revoking(*orders: tuple[Kind, Name], of: str = STS) -> InForce:
    """Return the list of our token service with these orders."""
    rows = {str(n): _revocation(str(n), *one) for n, one in enumerate(orders)}
    return InForce(
        lists={of: Revocations(seq=1 + len(rows), issued_at=NOW, ttl_s=300, in_force=rows)}, own=frozenset({of})
    )


def _revocation(name: str, kind: Kind, value: Name) -> Revocation:
    issuer, text = value if isinstance(value, tuple) else (None, value)
    return Revocation(id=name, kind=kind, value=str(text), issuer=issuer, expires_at=NOW + 3000)


def policy_of(revoked: InForce, policy: Policy = POLICY) -> Policy:
    return replace(policy, deny=Deny(revoked=revoked))


@cache
def delegation_of() -> Delegation:
    permit = decide_inbound(SHOWN, peer=PLANNER, route=SEARCH, key=KEY, policy=POLICY, now=NOW)
    return replace(delegate(permit), may_call=outside.OPEN | {"api"}, came_by=None)


def verified_of(claims: Claims = CLAIMS) -> VerifiedToken:
    return verify_token(signed(claims), issuer=STS_TRUST, key=KEY, audiences=ANY_AUDIENCE, now=NOW)


def judge(again: Callable[..., object], *args: Any, **named: Any) -> object:
    """Judge something in flight."""
    return again(*args, **named)


# --- places of the core: each does one thing under a policy, and raises if that is refused

ALL: Final = replace(
    POLICY,
    entry=replace(ENTRY, may_call=outside.OPEN),
    outbound=OutboundRoutes([TO_CRM, outside.MODEL, outside.HOOK, connect.API]),
    own_may_call=outside.OPEN,
)
ITSELF: Final = replace(TO_CRM, token="self")
SOME_TIME: Final = replace(SEARCH, observe_until=NOW + 1000, peers=frozenset())
WATCHED: Final = replace(TO_CRM, observe_until=NOW + 1000)
REFUSED: Final = Denied(Reason.POLICY_DENIED)


def issued_permit(policy: Policy = POLICY, claims: Claims = ISSUED) -> IssuedPermit:
    plan = plan_outbound(delegation_of(), TO_CRM, policy=POLICY, now=NOW)
    return accept_issued(signed(claims), plan=plan, key=KEY, policy=policy, now=NOW)


def login_of(policy: Policy = POLICY) -> Delegation:
    return decide_entry(signed(LOGGED_IN, typ=None, key="idp"), key=verification_key("idp"), policy=policy, now=NOW)


def at_door(policy: Policy) -> object:
    policy = replace(door.WITH_DOOR, deny=policy.deny)
    return door.judged(door.shown(sid="session-1", jti="login-1"), policy)


def granted(policy: Policy) -> object:
    return granting.accepted({**granting.GRANTED, "txn": "txn-1"}, policy=replace(granting.LOGINS, deny=policy.deny))


def observed(policy: Policy, *, again: bool = False) -> object:
    ask: dict[str, Any] = {"route": SOME_TIME, "now": NOW, "peer_certificate_sha256": "0" * 64}
    free = POLICY if again else policy
    permit = decide_observed(REFUSED, token=verified_of(), peer=PLANNER, policy=free, **ask)
    return permit if not again else judge(observed_again, permit, keys=KEYS, policy=policy, plain_until=0, **ask)


def observed_call(policy: Policy, *, again: bool = False) -> object:
    denied, free = Denied(Reason.NO_REQUEST_CONTEXT), POLICY if again else policy
    permit = decide_observed_call(denied, issuers=(), route=WATCHED, policy=free, now=NOW)
    if not again:
        return permit
    return judge(observed_call_again, permit, policy=replace(policy, outbound=OutboundRoutes([WATCHED])), now=NOW)


def outside_call(
    policy: Policy, *, again: bool = False, itself: bool = False, of: Callable[[], Delegation] = delegation_of
) -> object:
    free = ALL if again else replace(ALL, deny=policy.deny)
    delegation = None if itself else replace(of(), may_call=outside.OPEN)
    permit = decide_own(delegation, outside.MODEL, method="POST", path="/v1/messages", policy=free, now=NOW)
    return permit if not again else judge(own_again, permit, keys=KEYS, policy=replace(ALL, deny=policy.deny), now=NOW)


def tunnel(policy: Policy, *, again: bool = False, itself: bool = False) -> object:
    allowed = replace(ALL, own_may_call=frozenset({connect.API.name}))
    free = allowed if again else replace(allowed, deny=policy.deny)
    delegation = None if itself else replace(delegation_of(), may_call=frozenset({connect.API.name}))
    permit = decide_connect(delegation, connect.API, own=itself, policy=free, now=NOW)
    stopped = replace(allowed, deny=policy.deny)
    return permit if not again else judge(tunnel_again, permit, keys=KEYS, policy=stopped, now=NOW)


def again(policy: Policy) -> object:
    return judge(
        inbound_again,
        verified_of(),
        peer=PLANNER,
        route=SEARCH,
        keys=KEYS,
        policy=policy,
        now=NOW,
        peer_certificate_sha256="0" * 64,
    )


def card(policy: Policy) -> object:
    nobody: Any = SimpleNamespace(cards={"/card": [SEARCH]})
    head: Any = SimpleNamespace(method="GET", authority="writer")
    cards: Any = AgentCards(nobody, nobody)
    fake: Any = SimpleNamespace(deny=policy.deny, own_use=policy.own_use, inbound=nobody)
    return next(cards.serve_peer(None, head, "/card", PLANNER, fake, nobody, SimpleNamespace()))


Core = Callable[[Policy], object]


async def of_core(act: Core, revoked: InForce, _: Path) -> Reason | None:
    try:
        act(policy_of(revoked))
    except SidecarError as error:
        return error.reason
    return None


# --- places of the token service


async def at_sts(
    mesh: Mesh, form: Mapping[str, object], client: Any, orders: tuple[tuple[Kind, Name], ...]
) -> Reason | None:
    known = register(mesh)
    for kind, value in orders:
        issuer, text = value if isinstance(value, tuple) else (None, value)
        await known.add(order(kind, str(text), issuer))
    try:
        await mesh.service.token(encoded(form), FORM, client=client, record=ExchangeRecord(mesh.log, STS))
    except SidecarError as error:
        return error.reason
    return None


async def exchange(orders: tuple[tuple[Kind, Name], ...]) -> Reason | None:
    mesh = Mesh()
    shown = mesh.own(jti="token-2", parent_jti="token-1", **{ANCESTORS: ["token-0"]}, sid="session-1")
    return await at_sts(mesh, mesh.exchange_form(subject_token=shown), WRITER, orders)


async def exchange_of_login(orders: tuple[tuple[Kind, Name], ...]) -> Reason | None:
    mesh = Mesh()
    return await at_sts(mesh, mesh.login_form(subject_token=mesh.login(sid="session-1", jti="login-1")), FRONT, orders)


async def exchange_across(orders: tuple[tuple[Kind, Name], ...]) -> Reason | None:
    border = Border()
    more: dict[str, object] = {"jti": "token-2", "parent_jti": "token-1", ANCESTORS: ["token-0"], "txn": "txn-1"}
    shown = border.foreign_token(**more, sid="session-1")
    return await at_sts(border, border.exchange_form(subject_token=shown), WRITER, orders)


async def run(orders: tuple[tuple[Kind, Name], ...]) -> Reason | None:
    form = {"grant_type": CLIENT_CREDENTIALS, "audience": CRM, "scope": "crm.read"}
    return await at_sts(Mesh(), form, PLANNER, orders)


async def introspected(orders: tuple[tuple[Kind, Name], ...]) -> Reason | None:
    mesh = Mesh()
    known = register(mesh)
    for kind, value in orders:
        issuer, text = value if isinstance(value, tuple) else (None, value)
        await known.add(order(kind, str(text), issuer))
    shown = mesh.own(jti="token-2", parent_jti="token-1", **{ANCESTORS: ["token-0"]}, sid="session-1")

    async def body_of(_: object) -> bytes:
        return encoded({"token": shown})

    clients: Any = SimpleNamespace(body_of=body_of, client_of=lambda _: WRITER)
    endpoint = IntrospectionEndpoint(mesh.service, clients, ExchangeRate(RateSettings(), monotonic=lambda: 0))
    request: Any = SimpleNamespace(headers={"Content-Type": FORM})
    answer = await endpoint._answer(request, WRITER, ExchangeRecord(mesh.log, STS))
    assert isinstance(answer.body, bytes)
    return None if orjson.loads(answer.body)["active"] else Reason.REVOKED


async def read_list(orders: tuple[tuple[Kind, Name], ...]) -> Reason | None:
    """Return the reason by the list as the token service signs it, a sidecar reads it, and a check uses it."""
    mesh = Mesh()
    known = register(mesh)
    for kind, value in orders:
        issuer, text = value if isinstance(value, tuple) else (None, value)
        await known.add(order(kind, str(text), issuer))
    raw = (await known.signed_list(mesh.policy, mesh.ring)).jws
    key = parse_jwks(mesh.ring.jwks()).find(mesh.ring.active.kid)
    assert key is not None
    listed = at_once(
        verify_list(at_once(parse_list(raw)), issuer=STS, key=key, algorithms=DEFAULT_ALGORITHMS, now=int(mesh.now))
    )
    found = at_once(NONE.merged(listed, now=int(mesh.now)))
    try:
        InForce(lists={STS: found}, own=frozenset({STS})).check(Use(verified_of(), WRITER, NO_NAMES))
    except SidecarError as error:
        return error.reason
    return None


async def of_sts(act: Callable[..., Awaitable[Reason | None]], revoked: InForce, _: Path) -> Reason | None:
    listed = revoked.lists[STS]
    assert isinstance(listed, Revocations)
    rows = listed.in_force.values()
    orders = tuple((one.kind, one.value if one.issuer is None else (one.issuer, one.value)) for one in rows)
    return await act(orders)


# --- places of both engines: warm, then stopped as the server does it


class Engaged(OutboundWorld):
    """The outbound side for the token with every name that an order can give it."""

    authority = staticmethod(cache(lambda: (delegation_of(), [issued_permit()])))


class EngagedElsewhere(OutboundWorld):
    """The same at a token service that does not name the tokens which its own rests on."""

    authority = staticmethod(cache(lambda: (delegation_of(), [issued_permit(claims=UNLINKED)])))


class Stopping:
    """Puts revocations in force in a world as ``Server._on_revocations`` does."""

    def __init__(self, world: EngineWorld) -> None:
        current = world.snapshots.current
        self.world, self.revoked = world, revoking()
        setup: Any = Setup(
            make_policy=lambda _, number: replace(current.policy, number=number),
            keys=current.keys,
            exchanges=current.exchanges,
            agent=current.agent,
            needed_issuers=frozenset(),
        )
        self.snapshots = Snapshots(setup, lambda _: self.revoked)
        self.snapshots.follow(WRITER)
        world.snapshots.current = self.snapshots.current
        handler: Any = world.handler
        outbound = isinstance(world, OutboundWorld)
        self.caches = Caches(
            {
                "verdicts": lambda: None if outbound else handler.verdicts,
                "permits": lambda: None if outbound else handler.permits,
                "issued": lambda: current.exchanges,
            },
            clock=lambda: world.now,
        )

    def stop(self, revoked: InForce) -> None:
        self.revoked = revoked
        renewal = self.snapshots.renew()
        if renewal is not None:
            self.caches.carry(renewal)
        self.world.snapshots.current = self.snapshots.current


def reason_in(answered: bytes) -> Reason | None:
    return (
        Reason.REVOKED if b"revoked" in answered else None if answered.startswith(b"HTTP/1.1 200") else Reason.INTERNAL
    )


async def by_engine(
    made: type[EngineWorld], engine: Any, revoked: InForce, folder: Path, *, in_flight: bool = False
) -> Reason | None:
    world = made(engine, folder)
    stopping = Stopping(world)
    data = warm_call(world) if isinstance(world, OutboundWorld) else warm_request(shown=SHOWN.raw.encode())
    for _ in range(2):
        assert world.exchange(data).answered.startswith(b"HTTP/1.1 200")
    taken = world.taken
    assert (taken > 0) is (engine == "native")

    def between(_: EngineWorld) -> None:
        stopping.stop(revoked)
        list(world.watch.steps(1))

    if in_flight:
        found = reason_in(world.exchange(data, between=between).answered)
        assert (world.taken > taken) is (engine == "native")
        return found
    between(world)
    return reason_in(world.exchange(data).answered)


async def cached(made: type[EngineWorld], revoked: InForce, folder: Path) -> Reason | None:
    """Return REVOKED if the caches forget what is stopped."""
    world = made("python", folder)
    stopping, handler = Stopping(world), world.handler
    data = warm_call(world) if isinstance(world, OutboundWorld) else warm_request(shown=SHOWN.raw.encode())
    world.exchange(data)

    def held() -> list[bool]:
        current: Any = world.snapshots.current
        if isinstance(world, OutboundWorld):
            epoch = world.tokens._epoch(current.policy)
            assert epoch is not None
            key = key_of(issued_permit().plan)
            return [world.tokens.tokens.find(key, epoch=epoch, now=NOW) is not None]
        inbound: Any = handler
        at = current.keys.generation, current.policy.number
        call = Call(b"Bearer " + SHOWN.raw.encode(), world.guard.peer.fingerprint, SEARCH.name)
        found = inbound.verdicts.find((SHOWN.raw, PLANNER), at), inbound.permits.find(call, at)
        return [one is not None for one in found]

    assert all(held())
    stopping.stop(revoked)
    assert len({*held()}) == 1
    return None if all(held()) else Reason.REVOKED


@dataclass(frozen=True)
class Row:
    """One place: the names by which it is stopped, and its act under the orders given."""

    names: Names
    act: Callable[[InForce, Path], Awaitable[Reason | None]]
    emptied: bool = False  # an order for any workload empties its cache, and here nobody fills it again


def core(names: Names, act: Core) -> Row:
    return Row(names, partial(of_core, act))


def engine(names: Names, *args: Any, emptied: bool = False, **more: Any) -> Row:
    return Row(names, partial(by_engine, *args, **more), emptied=emptied)


AT_STS: Final[Names] = USED_BY_US
ACROSS: Final[Names] = AT_STS | {  # type: ignore[operator]
    Kind.SUBJECT: ((PARTNERS, "bob"), (STS, "partner:bob")),
    Kind.ACTOR: (WRITER, "spiffe://partner.example/agent/helper"),
    Kind.THROUGH: (WRITER, "spiffe://partner.example/agent/helper"),
    Kind.LOGIN: ((PARTNERS, "session-1"),),
}
OF_GRANT: Final[Names] = {
    Kind.SUBJECT: ((STS, "alice"),),
    Kind.ACTOR: (WRITER,),
    Kind.THROUGH: (WRITER,),
    Kind.TXN: ("txn-1",),
    Kind.JTI: ("granted-1",),
    Kind.LOGIN: ((STS, "session-1"),),
}
NO_PEER: Final = "the caller proves no name, and a token that names an actor is refused"
PLAIN: Final[Claims] = {name: value for name, value in CLAIMS.items() if name != "act"}
OF_PLAIN: Final[Names] = OF_TOKEN | {Kind.ACTOR: (PLANNER,), Kind.THROUGH: (PLANNER,)}

TABLE: Final[Mapping[Place, Row]] = {
    Place.EXCHANGE: Row(AT_STS, partial(of_sts, exchange)),
    Place.EXCHANGE_OF_LOGIN: Row(
        OF_LOGIN | {Kind.SUBJECT: ((LOGIN, "alice"), (STS, "alice")), Kind.ACTOR: (FRONT,), Kind.THROUGH: (FRONT,)},
        partial(of_sts, exchange_of_login),
    ),
    Place.EXCHANGE_ACROSS: Row(ACROSS, partial(of_sts, exchange_across)),
    Place.RUN: Row(OF_PEER, partial(of_sts, run)),
    Place.INTROSPECTION: Row(AT_STS, partial(of_sts, introspected)),
    Place.LIST: Row(USED_BY_US, partial(of_sts, read_list)),
    Place.INBOUND: engine(OF_TOKEN, EngineWorld, "python"),
    Place.INBOUND_NATIVE: engine(OF_TOKEN, EngineWorld, "native"),
    Place.INBOUND_IN_FLIGHT: engine(OF_TOKEN, EngineWorld, "python", in_flight=True),
    Place.INBOUND_IN_FLIGHT_NATIVE: engine(OF_TOKEN, EngineWorld, "native", in_flight=True),
    Place.OUTBOUND: engine(USED_BY_US, Engaged, "python", emptied=True),
    Place.OUTBOUND_NATIVE: engine(USED_BY_US, Engaged, "native", emptied=True),
    Place.OUTBOUND_IN_FLIGHT: engine(USED_BY_US, Engaged, "python", in_flight=True),
    Place.OUTBOUND_IN_FLIGHT_NATIVE: engine(USED_BY_US, Engaged, "native", in_flight=True),
    Place.LOGIN: core(OF_LOGIN, login_of),
    Place.DOOR: core(OF_LOGIN, at_door),
    Place.GRANT: core(OF_GRANT, granted),
    Place.GRANT_BEGUN: core(OF_US, lambda policy: plan_login("crm", policy=replace(granting.LOGINS, deny=policy.deny))),
    Place.PLAN_OF_LOGIN: core(OF_LOGIN, lambda policy: plan_outbound(login_of(), TO_CRM, policy=policy, now=NOW)),
    Place.ISSUED: core(OF_ISSUED, issued_permit),
    Place.ISSUED_IN_FLIGHT: core(
        OF_ISSUED, lambda policy: judge(outbound_again, issued_permit(), keys=KEYS, policy=policy, now=NOW)
    ),
    Place.ISSUED_IN_CACHE: Row(OF_ISSUED, partial(cached, Engaged), emptied=True),
    Place.ISSUED_ELSEWHERE_IN_CACHE: Row(OF_ISSUED, partial(cached, EngagedElsewhere), emptied=True),
    Place.VERDICT_IN_CACHE: Row(OF_TOKEN, partial(cached, EngineWorld), emptied=True),
    Place.OWN: core(
        OF_US,
        lambda policy: plan_own(ITSELF, policy=replace(policy, own_may_call=frozenset({"crm"})), now=NOW),
    ),
    Place.OUTSIDE: core(USED_BY_US, outside_call),
    Place.OUTSIDE_IN_FLIGHT: core(USED_BY_US, partial(outside_call, again=True)),
    Place.OUTSIDE_OF_LOGIN: core(OF_LOGIN, partial(outside_call, of=login_of)),
    Place.OUTSIDE_OF_LOGIN_IN_FLIGHT: core(OF_LOGIN, partial(outside_call, of=login_of, again=True)),
    Place.OUTSIDE_FOR_ITSELF: core(OF_US, partial(outside_call, itself=True)),
    Place.TUNNEL: core(USED_BY_US, tunnel),
    Place.TUNNEL_IN_FLIGHT: core(USED_BY_US, partial(tunnel, again=True)),
    Place.TUNNEL_FOR_ITSELF: core(OF_US, partial(tunnel, itself=True)),
    Place.REQUEST_BEHIND_CALL: core(OF_TOKEN, again),
    Place.OBSERVED: core(OF_TOKEN, observed),
    Place.OBSERVED_IN_FLIGHT: core(OF_TOKEN, partial(observed, again=True)),
    Place.OBSERVED_WITHOUT_TOKEN: core(
        OF_PEER,
        lambda policy: decide_observed(
            Denied(Reason.NO_TOKEN), token=None, peer=PLANNER, route=SOME_TIME, policy=policy, now=NOW
        ),
    ),
    Place.OBSERVED_PLAIN: core(
        OF_PLAIN,
        lambda policy: decide_plain(verified_of(PLAIN), route=SOME_TIME, policy=policy, now=NOW, until=NOW + 1000),
    ),
    Place.OBSERVED_PLAIN_WITHOUT_TOKEN: core(
        dict.fromkeys(Kind, "the caller proves no name and shows no token"),
        lambda policy: decide_plain(None, route=SOME_TIME, policy=policy, now=NOW, until=NOW + 1000),
    ),
    Place.OBSERVED_CALL: core(OF_US, observed_call),
    Place.OBSERVED_CALL_IN_FLIGHT: core(OF_US, partial(observed_call, again=True)),
    Place.CARD: core(OF_PEER, card),
}

OF_CORE: Final = [place for place, row in TABLE.items() if getattr(row.act, "func", None) is of_core]
NATIVE: Final = {place for place in Place if place.value.endswith("native engine")}
CELLS: Final = [
    pytest.param(
        place, kind, value, id=f"{place.name.lower()}-{kind}-{number}", marks=[needs_native] if place in NATIVE else []
    )
    for place, row in TABLE.items()
    for kind in Kind
    if not isinstance(names := row.names[kind], str)
    for number, value in enumerate(names)
]


def test_every_kind_of_order_has_a_cell_at_every_place_or_a_reason_why_not() -> None:
    assert TABLE.keys() == set(Place)
    for place, row in TABLE.items():
        assert row.names.keys() == set(Kind), place
        assert all(row.names.values()), place


@pytest.mark.parametrize(("place", "kind", "value"), CELLS)
async def test_an_order_stops_what_it_names_there_and_nothing_else(
    place: Place, kind: Kind, value: Name, tmp_path: Path
) -> None:
    other: Name = (value[0], f"{value[1]}-other") if isinstance(value, tuple) else f"{value}-other"
    (free := tmp_path / "free").mkdir()
    (stopped := tmp_path / "stopped").mkdir()
    if not (TABLE[place].emptied and kind in OF_WORKLOADS):
        assert await TABLE[place].act(revoking((kind, other)), free) is None
    assert await TABLE[place].act(revoking((kind, value)), stopped) is Reason.REVOKED


@pytest.mark.parametrize("place", OF_CORE)
async def test_a_list_that_is_too_old_decides_nothing_there(place: Place, tmp_path: Path) -> None:
    stale = replace(revoking(), stale=frozenset({STS}))
    assert await TABLE[place].act(revoking(), tmp_path) is None
    assert await TABLE[place].act(stale, tmp_path) is Reason.REVOCATIONS_STALE
