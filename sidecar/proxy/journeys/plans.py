"""Cache of plans of outbound calls: a repeated call costs a lookup instead of a decision.

A plan is reused only for the same delegation and route objects, under the same policy number, until the token expires:
then the time is the only input of ``plan_outbound`` that differs. The authority of a login depends on the time, in
whole seconds, so a login's plan is reused only within the same second.
"""

from __future__ import annotations

from typing import Final

from delegation_core.bounded import BoundedCache
from delegation_core.plan import Delegation, Plan, plan_outbound, plan_own
from delegation_core.policy import Policy
from delegation_core.route import OutboundRoute

PLAN_BYTES: Final = 768  # of an entry; the delegation's token is extra
MAX_OF_SECOND: Final = 256  # plans of logins cached in one second


class Plans(BoundedCache[tuple[str, str], Plan]):
    """Plans by token and route; the epoch is the policy's number. The oldest is evicted first.

    ``warm_bytes`` is the memory that the native engine adds to each entry.
    """

    __slots__ = ("as_of", "of_second", "warm_bytes")

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.warm_bytes = 0
        self.as_of = (0, 0)  # second and policy number of the plans in ``of_second``
        self.of_second: dict[tuple[str, str], Plan] = {}

    def plan(self, delegation: Delegation | None, route: OutboundRoute, *, policy: Policy, now: int) -> Plan:
        """Return the plan of a call, cached where possible. ``delegation`` None: the agent calls for itself.

        Raises:
            SidecarError: as ``plan_outbound``, or ``plan_own``.
        """
        if delegation is None:
            return plan_own(route, policy=policy, now=now)
        if delegation.entry:
            return self._plan_of_login(delegation, route, policy, now)
        token = delegation.token
        key = token.raw, route.key
        plan = self.find(key, policy.number)
        if plan is not None and plan.delegation is delegation and plan.route is route and now < token.expires_at:
            return plan
        plan = plan_outbound(delegation, route, policy=policy, now=now)
        cost = delegation.held_bytes + PLAN_BYTES + self.warm_bytes
        self.keep(key, plan, cost=cost, expires_at=token.expires_at, epoch=policy.number)
        return plan

    def _plan_of_login(self, delegation: Delegation, route: OutboundRoute, policy: Policy, now: int) -> Plan:
        if self.as_of != (now, policy.number):
            self.as_of = now, policy.number
            self.of_second.clear()
        key = delegation.token.raw, route.key
        plan = self.of_second.get(key)
        if plan is None or plan.delegation is not delegation or plan.route is not route:
            plan = plan_outbound(delegation, route, policy=policy, now=now)
            if len(self.of_second) == MAX_OF_SECOND:
                self.of_second.clear()
            self.of_second[key] = plan
        return plan
