"""Agent cards of A2A: copies that the sidecar fetches itself, checks, and serves with addresses of the mesh.

Theory of operation. A card is public among the workloads that may call, so a request for it needs no token. Therefore
no part of such a request is forwarded, neither to an agent (invariant 2) nor to a next hop (invariant 3). The sidecar
serves a copy instead. It fetches the copy by a constant request, from the agent, or by mTLS from the next hop that the
route pins. A copy is fresh for ``FRESH_S``; a failed fetch is answered with its error for ``FAILED_S``. So callers
cause at most one fetch of a card in that time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final, NamedTuple

import orjson

from delegation_core.a2a_grpc import path_of
from delegation_core.a2a_rules import CARD, CARD_METHODS, CARD_PATHS
from delegation_core.agent_card import MAX_CARD_BYTES, AgentCard, read_card
from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.policy import Policy
from delegation_core.records.record import OK
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.spiffe_id import SpiffeId
from delegation_core.target import CanonicalTarget
from sidecar.identity.call import Call, fields_for
from sidecar.identity.endpoint import EndpointAnswer
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.journey import Async, Journey, Tasks
from sidecar.wire.dialer import Origin
from sidecar.wire.message import Field, Request
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.stream import Stream
from sidecar.wire.upstream_errors import StaleConnection

FRESH_S: Final = 30.0
FAILED_S: Final = 1.0
_TIMEOUT_S: Final = 5.0
_MAX_KEPT: Final = 64  # cards; settings bound the paths, so only cards of replaced SVIDs and agents are evicted
_NOT_THERE: Final = frozenset({404, 405, 410})
_FIELDS: Final[tuple[Field, ...]] = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"private, max-age=%d" % FRESH_S),
)
_log: Final = logging.getLogger("sidecar")


class _Kept(NamedTuple):
    """A card or the error of its fetch, valid ``until`` a monotonic time."""

    found: AgentCard | SidecarError
    until: float


class AgentCards:
    """Copies of the cards of one direction: the agent's, or those of next hops. ``monotonic`` is in seconds."""

    def __init__(self, pool: UpstreamPool, tasks: Tasks, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._tasks = tasks
        self._monotonic = monotonic
        self._kept: OrderedDict[tuple[Hashable, str], _Kept] = OrderedDict()
        self._flights: dict[tuple[Hashable, str], asyncio.Future[_Kept]] = {}

    def serve_peer(
        self, stream: Stream, head: Request, path: str, peer: SpiffeId, policy: Policy, agent: Origin, entry: Entry
    ) -> Journey[None]:
        """Answer a peer's request for the agent's card, with or without a token, if a route of the card lists the peer.

        Raises:
            Denied: METHOD_REFUSED, POLICY_DENIED or REVOKED, NO_ROUTE (the agent has no card there), CARD_REFUSED.
            Unavailable: the fetch from the agent failed.
        """
        entry.op = CARD
        routes = policy.inbound.cards[path]
        entry.route = routes[0].name
        _require_method(head)
        policy.deny.check(policy.own_use(peer))
        route = next((one for one in routes if peer in one.peers), None)
        if route is None:
            raise Denied(Reason.POLICY_DENIED, "no route of this card lists the peer")
        entry.route = route.name
        card = yield from self._card(agent, path)
        made = rewrite_for_peer(card, route, policy, head)
        _answer(stream, card, made, entry, peer=peer, route=route.name)

    def serve_agent(
        self, stream: Stream, head: Request, target: CanonicalTarget, route: OutboundRoute, origin: Origin, entry: Entry
    ) -> Journey[None]:
        """Answer the agent's request for a next hop's card. It needs no handle: a card gives no authority.

        Raises:
            Denied: METHOD_REFUSED, NO_ROUTE, CARD_REFUSED; or the next hop's identity is refused.
            Unavailable: the fetch from the next hop failed.
        """
        entry.op = CARD
        _require_method(head)
        card = yield from self._card(origin, target.path)
        made = rewrite_for_agent(card, route, head)
        _answer(stream, card, made, entry, peer=route.peer, route=route.name)

    def _card(self, origin: Origin, path: str) -> Journey[AgentCard]:
        card: AgentCard = yield Async(self._tasks, partial(self.get, origin, path))
        return card

    async def get(self, origin: Origin, path: str) -> AgentCard:
        """Return the copy of a card; fetch it if it is not fresh. Concurrent callers share one fetch.

        Raises:
            SidecarError: NO_ROUTE, CARD_REFUSED, or the connection failed.
        """
        key = origin.key, path
        kept = self._kept.get(key)
        if kept is None or self._monotonic() >= kept.until:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = asyncio.get_running_loop().create_future()
                self._tasks.start(self._fetch(origin, path, flight))  # it continues if its callers leave
            kept = await asyncio.shield(flight)
        if isinstance(kept.found, SidecarError):
            raise type(kept.found)(kept.found.reason, kept.found.detail)
        return kept.found

    async def _fetch(self, origin: Origin, path: str, flight: asyncio.Future[_Kept]) -> None:
        key, life_s = (origin.key, path), FAILED_S
        found: AgentCard | SidecarError = Unavailable(Reason.INTERNAL, "the fetch of a card failed")
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                found = _read(await self._ask(origin, path))
            life_s = FRESH_S
        except SidecarError as error:
            found = error if not isinstance(error, StaleConnection) else Unavailable(error.reason, error.detail)
        except TimeoutError:
            found = Unavailable(Reason.UPSTREAM_TIMEOUT, "the card did not arrive in time")
        except Exception:  # noqa: BLE001  as in a journey: log the bug, fail the waiting requests
            _log.exception("the fetch of a card failed")
        finally:
            del self._flights[key]
            kept = _Kept(found, self._monotonic() + life_s)
            self._kept.pop(key, None)
            self._kept[key] = kept
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
            if not flight.done():
                flight.set_result(kept)

    async def _ask(self, origin: Origin, path: str) -> EndpointAnswer:
        try:
            return await self._send(origin, path, fresh=False)
        except StaleConnection:
            return await self._send(origin, path, fresh=True)

    async def _send(self, origin: Origin, path: str, *, fresh: bool) -> EndpointAnswer:
        lines = fields_for(origin.authority)
        call = Call(path.encode("ascii"), lines, None, max_bytes=MAX_CARD_BYTES)
        try:
            kept = None if fresh else self._pool.take(origin)
            if kept is not None:
                call.begin(kept)
            else:
                call.waits = self._pool.connect(origin, call.begin, call.fail, fresh=fresh)
            return await call.answer
        except SidecarError as error:
            if error.reason in {Reason.STS_TOO_LARGE, Reason.STS_BAD_RESPONSE}:
                raise Denied(Reason.CARD_REFUSED, "the card is too large, or encoded") from error
            raise
        finally:
            call.end()


def is_card_of_next_hop(target: CanonicalTarget) -> bool:
    """Return True if a call asks for a card: its path is one of two constants, so the fetch repeats no agent input."""
    return target.path in CARD_PATHS


def rewrite_for_peer(card: AgentCard, route: InboundRoute, policy: Policy, head: Request) -> dict[str, object]:
    """Return the agent's card with addresses for a peer.

    Raises:
        Denied: CARD_REFUSED, the card is signed and the route does not rewrite signed cards, no address for it is
            known, or as ``AgentCard.rewritten``.
    """
    _require_unsigned(card, rewrites=route.a2a.rewrite_signed)
    origin = route.a2a.card_url or (f"https://{head.authority}" if head.authority else None)
    if origin is None:
        raise Denied(Reason.CARD_REFUSED, "the request names no host, and the route no card_url")
    inbound, authority = policy.inbound, origin.partition("//")[2]

    def by_grpc(version: str) -> str | None:
        return authority if route.a2a.grpc and inbound.serves_a2a(path_of(version)) else None

    return card.rewritten(lambda path: f"{origin}{path}" if inbound.serves_a2a(path) else None, mesh=True, grpc=by_grpc)


def rewrite_for_agent(card: AgentCard, route: OutboundRoute, head: Request) -> dict[str, object]:
    """Return the card of a next hop with addresses for the agent.

    Raises:
        Denied: CARD_REFUSED, the card is signed and the route does not rewrite signed cards, or as
            ``AgentCard.rewritten``.
    """
    _require_unsigned(card, rewrites=route.a2a.rewrite_signed)
    prefix = (route.prefix or "").rstrip("/")
    by_grpc = head.authority if route.a2a.grpc and not prefix else None  # clients of gRPC send no path prefix
    start = f"http://{head.authority}{prefix}"
    return card.rewritten(lambda path: f"{start}{path}", mesh=False, grpc=lambda _version: by_grpc)


def note_signature(card: AgentCard, entry: Entry) -> None:
    """Note in the record that a card has lost its signature."""
    if card.signed:
        entry.detail = "the signature of the card was dropped"


def _require_unsigned(card: AgentCard, *, rewrites: bool) -> None:
    if card.signed and not rewrites:
        raise Denied(Reason.CARD_REFUSED, "the card is signed, and rewrite_signed is not set")


def _require_method(head: Request) -> None:
    if head.method not in CARD_METHODS:
        raise Denied(Reason.METHOD_REFUSED, "a card is only read")


def _read(answer: EndpointAnswer) -> AgentCard:
    if answer.status in _NOT_THERE:
        raise Denied(Reason.NO_ROUTE, "there is no agent card at this path")
    if answer.status != 200:
        raise Denied(Reason.CARD_REFUSED, f"the card was answered with status {answer.status}")
    return read_card(answer.body)


def _answer(
    stream: Stream, card: AgentCard, made: dict[str, object], entry: Entry, *, peer: SpiffeId | None, route: str
) -> None:
    entry.permitted({"decision": "allow", "reason": OK, "peer": peer, "route": route})
    note_signature(card, entry)
    stream.answer(200, _FIELDS, orjson.dumps(made))
