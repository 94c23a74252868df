"""Warm calls of the agent: prepares issued tokens for the native engine, and makes its calls real."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping
from functools import partial
from typing import Final

from sidecar.bounded import BoundedCache
from sidecar.delegation.outbound_routes import CallRoute
from sidecar.delegation.permit import IssuedPermit
from sidecar.delegation.plan import Delegation, Plan
from sidecar.delegation.policy import Policy
from sidecar.delegation.route import OutboundRoute
from sidecar.delegation.target import CanonicalTarget
from sidecar.engine import PLANNED_BYTES, require_native
from sidecar.errors import SidecarError
from sidecar.exchange.cache import Issued
from sidecar.exchange.client import TokenExchange, key_of
from sidecar.features.a2a.agent_cards import is_card_of_next_hop
from sidecar.features.a2a.answers import EXTENDED_CARD
from sidecar.features.a2a.operation import A2aOperation
from sidecar.features.mcp.operation import McpOperation
from sidecar.features.operations.operation import Operation
from sidecar.observe.entry import request_record
from sidecar.observe.record import RecordFields
from sidecar.proxy.journeys.answers import close, refuse
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.headers import passes_to_mesh
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.outbound import SUBJECT_METHODS, Outbound
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.native.ghosts import new_forwarding
from sidecar.proxy.native.warm import InFlight, Parts, Sent, prepare
from sidecar.proxy.native.warm_operations import HandedOver, WarmMessage, WholeMessage, head_of, read_operation
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_head import RequestGrammar
from sidecar.wire.h1_server import Warm
from sidecar.wire.limits import ClientLimits, ServerLimits

_OPERATIONS: Final[Mapping[str, type[Operation]]] = {"mcp": McpOperation, "a2a": A2aOperation}


class WarmOutbound:
    """Warm calls of the outbound side. ``begin`` is called with a waiting connection and the bytes that arrived.

    ``outbound`` serves all other calls, and the rest of those that the native engine hands over.

    Raises:
        LookupError: the native engine is not installed.
    """

    def __init__(self, outbound: Outbound, *, limits: ServerLimits, upstream_limits: ClientLimits) -> None:
        self._native = require_native()
        self._outbound = outbound
        self._log = outbound.log
        self._plans = plans = outbound.plans
        plans.warm_bytes = PLANNED_BYTES
        handles, logins = outbound.handles, outbound.features["logins"]
        # Counters of look-ups before the latest one, for ``_uncount``.
        self._of_plans: tuple[tuple[str, str], int, int] = ("", ""), 0, 0
        self._of_tokens: tuple[BoundedCache[Hashable, Issued], int, int, int, int] | None = None
        self._grammar = RequestGrammar(
            max_target_bytes=limits.max_target_bytes, max_fields=limits.max_fields, proxy_form=True
        )
        self._handed_over = HandedOver()
        self._kinds = {
            "mcp": self._kind(told=b""),
            "a2a": self._kind(told=b"delegation-reason"),  # the next hop's reason for a refusal, for the record
        }
        parts = Parts(
            self._native,
            "outbound",
            outbound,
            limits=limits,
            upstream_limits=upstream_limits,
            take_over=self._take_over,
            passes=passes_to_mesh,
            handles=handles,
            alive=handles.alive,
            find=partial(_find, outbound.own_authorities),
            login_holds=logins.holds,
            plans=plans,
            planned=plans.entries,
            counts=outbound.log.metrics.token_cache,
            judged=logins.judged,
            of_second=plans.of_second,
            look_up=self._look_up,
            uncount=self._uncount,
            prepare=self._prepare,
            is_plain=is_plain,
            read=self._read,
        )
        self.begin: Warm = self._native.OutboundGate(parts)

    def _kind(self, *, told: bytes) -> object:
        kind: object = self._native.Kind(
            passes=None, answer_passes=None, new_forwarding=new_forwarding, told=told, reads_answers=False
        )
        return kind

    def _read(
        self, message: WholeMessage, route: OutboundRoute, path: str
    ) -> tuple[OutboundRoute, str, bytes, object, object] | bool:
        """Read the operation of a call.

        Returns its route, name, added fields (none), kind and state; True: wait for the rest of its body; False: the
        engine in Python serves it (``warm_operations.py``).

        Raises:
            Denied: the engine in Python reads the same bytes, and refuses them.
        """
        if route.protocol == "a2a" and is_card_of_next_hop(CanonicalTarget(path, b"")):
            return False
        if self._handed_over.takes(route.name):
            return False
        found = read_operation(_OPERATIONS[route.protocol](), head_of(message), message[-1], route, path, below=None)
        if isinstance(found, bool):
            return found
        if found.asked.key == EXTENDED_CARD or not is_plain(found.route):
            return False
        return (
            found.route,
            found.op,
            b"",
            self._kinds[route.protocol],
            WarmMessage(found.asked, partial(self._handed_over.note, route.name)),
        )

    def _look_up(
        self, snapshot: Snapshot, delegation: Delegation, route: OutboundRoute, now: int
    ) -> tuple[TokenExchange, Issued, Origin] | None:
        """Return the token service's client, its cached token for a call, and the origin of the call.

        None: no usable token is cached. Stores a ``PlannedCall`` at the plan, which spares the next call of the same
        request and route this look-up.
        """
        plans, policy, counts = self._plans, snapshot.policy, self._log.metrics.token_cache
        self._of_plans = (delegation.token.raw, route.key), plans.hits, plans.misses
        self._of_tokens = None
        plan = plans.plan(delegation, route, policy=policy, now=now)
        tokens = snapshot.exchange(plan.sts_issuer)
        kept = tokens.tokens.kept
        there = kept.get(key_of(plan))
        if there is not None and (now >= there.usable_until or not tokens.usable(there)):
            return None  # keep the entry: the engine in Python drops and counts it
        self._of_tokens = kept, kept.hits, kept.misses, counts["hit"], counts["miss"]
        issued = tokens.cached(plan, policy=policy, now=now)
        if issued is None:
            return None
        origin = self._outbound.origins.of(route, policy.workload, issued.bound_to)
        plan.warm[:] = self._planned(plan, delegation, policy, tokens, issued, origin, now)
        return tokens, issued, origin

    def _planned(
        self,
        plan: Plan,
        delegation: Delegation,
        policy: Policy,
        tokens: TokenExchange,
        issued: Issued,
        origin: Origin,
        now: int,
    ) -> list[object]:
        """Return the entry to store at a plan: the place of its token, and the facts on which both depend.

        The list is empty if no token is valid now.
        """
        plans, kept, facts = self._plans, tokens.tokens.kept, tokens.holds_by()
        if facts is None:
            return []
        if delegation.entry:  # its plan is renewed each second
            facts.append((plans, "as_of", plans.as_of))
            begins, ends = now, now + 1
        else:
            facts.append((plans, "epoch", plans.epoch))
            begins, ends = 0, delegation.token.expires_at
        key = next(reversed(kept.entries))  # the most recently used; a look-up by the identical object is cheaper
        return [
            self._native.PlannedCall(plan, policy.number, begins, ends, facts, tokens, key, issued.bound_to, origin)
        ]

    def _uncount(self) -> None:
        """Restore the counters of the latest look-up: the engine in Python repeats it, and counts it."""
        plans, (key, hits, misses) = self._plans, self._of_plans
        if plans.misses > misses:
            plans.drop(key)  # else the repeated look-up would count a hit
        plans.hits, plans.misses = hits, misses
        if self._of_tokens is not None:
            kept, counts = self._of_tokens[0], self._log.metrics.token_cache
            _, kept.hits, kept.misses, counts["hit"], counts["miss"] = self._of_tokens

    def _prepare(self, issued: Issued, of_request: RecordFields) -> object | None:
        """Prepare the constant part of an issued token's calls; None: the engine in Python serves all of them."""
        record = request_record("outbound", self._log.run) | of_request | issued.facts
        record["workload"] = self._log.workload
        bearer = b"Bearer " + issued.permit.token.raw.encode("ascii")
        ends = min(issued.usable_until, issued.refresh_at)  # from then on Python looks the token up, and refreshes it
        return prepare(self._native, record, [(b"authorization", bearer)], begins=0, ends=ends)

    def _take_over(self, flight: InFlight) -> None:
        """Make the ghosts of a call real that was sent and is not answered yet."""
        issued, served, tokens = flight.given
        record = request_record("outbound", self._log.run) | served.facts | issued.facts
        sent, message = flight.begin(self._log, self._grammar, record), flight.message
        stream, head, entry, origin, _, trace = sent
        permit, outbound = issued.permit, self._outbound
        call, host = entry.call_out or "", origin.authority
        edits = outbound.edits(issued, permit.plan, entry, call=call, trace=trace, host=host)
        assert message.target is not None  # noqa: S101 - for the type only: every call has one
        way = Way(outbound.forwarder, permit, stream, head, entry, origin, message.target, edits, served)
        rest = self._rest(sent, permit, tokens, None if message.read is None else message.read.message)
        flight.wait_for_answer(rest, Forwarding, *way)

    def _rest(self, sent: Sent, permit: IssuedPermit, tokens: TokenExchange, asked: Operation | None) -> Journey[None]:
        """Serve the rest of ``Outbound.journey``, from the wait for the next hop on."""
        try:
            status = yield sent.forwarding
            if asked is not None:
                self._outbound.features[asked.protocol].note_answer(sent.forwarding.response, sent.entry)
            if status == 401:
                tokens.reject(permit)
        except SidecarError as error:
            refuse(sent.stream, error, sent.entry, allow=SUBJECT_METHODS, asked=asked)
        finally:
            close(sent.stream, sent.entry)


def _find(own_authorities: Container[str], policy: Policy, host: str, path: str) -> tuple[CallRoute, int, bool]:
    """Find the route of a call.

    Returns the route, the length of the path's prefix that the next hop does not get, and if the host is an authority
    of this sidecar. Raises as ``OutboundRoutes.find``.
    """
    route, target = policy.outbound.find(host, CanonicalTarget(path, b""), own_authorities=own_authorities)
    stays = len(path) - len(target.path) if path.endswith(target.path) else len(path)
    return route, stays, host.lower() in own_authorities


def is_plain(route: CallRoute) -> bool:
    """Tell if an issued token and the fields that every next hop gets are enough to serve calls of a route."""
    return (
        isinstance(route, OutboundRoute)
        and route.protocol in {"http", "mcp", "a2a"}
        and route.token == "exchange"  # noqa: S105 - a kind, no secret
        and route.peer is not None
        and route.http_version != "2"
        and not (route.txn_token or route.record_first)
    )
