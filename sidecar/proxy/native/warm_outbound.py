"""Warm calls of the agent: prepares issued tokens for the native engine, and makes its calls real."""

from __future__ import annotations

from collections.abc import Container, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

from delegation_core.bounded import BoundedCache
from delegation_core.outbound_routes import CallRoute
from delegation_core.plan import Delegation, Plan
from delegation_core.policy import Policy
from delegation_core.records.record import RecordFields
from delegation_core.route import OutboundRoute
from delegation_core.target import CanonicalTarget
from sidecar.engine import PLANNED_BYTES
from sidecar.exchange.cache import Issued
from sidecar.exchange.client import TokenExchange, key_of
from sidecar.observe.entry import request_record
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.journey import OnDemand
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.native.warm import InFlight, WarmSide, prepare
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_server import Warm
from sidecar.wire.limits import ClientLimits, ServerLimits

if TYPE_CHECKING:
    from sidecar.proxy.native.warm_operations import OutboundMessages, WholeMessage


class WarmOutbound(WarmSide):
    """Warm calls of the outbound side. ``begin`` is called with a waiting connection and the bytes that arrived."""

    def __init__(self, outbound: Outbound, *, limits: ServerLimits, upstream_limits: ClientLimits) -> None:
        super().__init__("outbound", outbound, limits=limits, upstream_limits=upstream_limits)
        self._outbound = outbound
        self.plans = outbound.plans
        self.plans.warm_bytes = PLANNED_BYTES
        self.planned = self.plans.entries
        self.of_second = self.plans.of_second
        self.counts = self.log.metrics.token_cache
        self.login_holds = partial(_login_holds, outbound.features)
        self.judged = _JudgedLogins(outbound.features)
        self.find = partial(_find, outbound.own_authorities)
        self.is_plain = is_plain
        # Counters of look-ups before the latest one, for ``_uncount``.
        self._of_plans: tuple[tuple[str, str], int, int] = ("", ""), 0, 0
        self._of_tokens: tuple[BoundedCache[Hashable, Issued], int, int, int, int] | None = None
        self._messages: OnDemand[OutboundMessages] = OnDemand(lambda name: outbound.features[name].warm(self))
        self.begin: Warm = self._native.OutboundGate(self)

    def read(
        self, message: WholeMessage, route: OutboundRoute, path: str
    ) -> tuple[OutboundRoute, str, bytes, object, object] | bool:
        """Read the operation of a call.

        Returns its route, name, added fields (none), kind and state; True: wait for the rest of its body; False: the
        engine in Python serves it (``warm_operations.py``).

        Raises:
            Denied: the engine in Python reads the same bytes, and refuses them.
        """
        from sidecar.proxy.native.warm_operations import WarmMessage, head_of, read_operation  # as ``warm_inbound``

        messages = self._messages[route.protocol]
        if messages.is_answered(path) or self._handed_over.takes(route.name):
            return False
        found = read_operation(messages.new_operation(), head_of(message), message[-1], route, path, below=None)
        if isinstance(found, bool):
            return found
        if messages.is_rewritten(found) or not is_plain(found.route):
            return False
        return (
            found.route,
            found.op,
            b"",
            messages.kind,
            WarmMessage(found.asked, partial(self._handed_over.note, route.name)),
        )

    def look_up(
        self, snapshot: Snapshot, delegation: Delegation, route: OutboundRoute, now: int
    ) -> tuple[TokenExchange, Issued, Origin] | None:
        """Return the token service's client, its cached token for a call, and the origin of the call.

        None: no usable token is cached. Stores a ``PlannedCall`` at the plan, which spares the next call of the same
        request and route this look-up.
        """
        plans, policy, counts = self.plans, snapshot.policy, self.counts
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
        plans, kept, facts = self.plans, tokens.tokens.kept, tokens.holds_by()
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

    def uncount(self) -> None:
        """Restore the counters of the latest look-up: the engine in Python repeats it, and counts it."""
        plans, (key, hits, misses) = self.plans, self._of_plans
        if plans.misses > misses:
            plans.drop(key)  # else the repeated look-up would count a hit
        plans.hits, plans.misses = hits, misses
        if self._of_tokens is not None:
            kept, counts = self._of_tokens[0], self.counts
            _, kept.hits, kept.misses, counts["hit"], counts["miss"] = self._of_tokens

    def prepare(self, issued: Issued, of_request: RecordFields) -> object | None:
        """Prepare the constant part of an issued token's calls; None: the engine in Python serves all of them."""
        record = request_record("outbound", self.log.run) | of_request | issued.facts
        record["workload"] = self.log.workload
        bearer = b"Bearer " + issued.permit.token.raw.encode("ascii")
        ends = min(issued.usable_until, issued.refresh_at)  # from then on Python looks the token up, and refreshes it
        return prepare(self._native, record, [(b"authorization", bearer)], begins=0, ends=ends)

    def _take_over(self, flight: InFlight) -> None:
        """Make the ghosts of a call real that was sent and is not answered yet."""
        issued, served, tokens = flight.given
        record = request_record("outbound", self.log.run) | served.facts | issued.facts
        sent, message = flight.begin(self.log, self._grammar, record), flight.message
        stream, head, entry, origin, _, trace = sent
        permit, outbound = issued.permit, self._outbound
        call, host = entry.call_out or "", origin.authority
        edits = outbound.edits(issued, permit.plan, entry, call=call, trace=trace, host=host)
        assert message.target is not None  # noqa: S101 - for the type only: every call has one
        way = Way(outbound.forwarder, permit, stream, head, entry, origin, message.target, edits, served)
        asked = None if message.read is None else message.read.message
        rest = self._rest(
            sent,
            refuse=partial(outbound.refuse, asked=asked),
            note_answer=partial(outbound.note_answer, asked=asked, permit=permit, tokens=tokens),
        )
        flight.wait_for_answer(rest, Forwarding, *way)


class _JudgedLogins:
    """Counts the gate's look-ups in the cache of judged logins, whose feature is loaded with the first login."""

    def __init__(self, features: OnDemand[Any]) -> None:
        self._features = features

    @property
    def hits(self) -> int:
        """The hits of the cache."""
        hits: int = self._features["logins"].judged.hits
        return hits

    @hits.setter
    def hits(self, hits: int) -> None:
        self._features["logins"].judged.hits = hits


def _login_holds(features: OnDemand[Any], delegation: Delegation, snapshot: Snapshot) -> bool:
    holds: bool = features["logins"].holds(delegation, snapshot)
    return holds


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
