"""Users' logins at one token service, counted and recorded as exchanges. Their tokens are cached like any other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from delegation_core.errors import Reason, SidecarError
from delegation_core.login import LoginPlan
from delegation_core.policy import Policy
from sidecar.exchange.adapters.login import StillPending
from sidecar.exchange.cache import Issued
from sidecar.exchange.events import credential_of, issued_fields, refused_login_fields
from sidecar.exchange.failover import Unsent
from sidecar.exchange.login_conversation import Begun
from sidecar.exchange.sts import Sts
from sidecar.exchange.sts_settings import ExchangeSettings
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics


class Logins:
    """Begins and completes logins. ``keep`` caches a granted token; a poll without an answer writes no event.

    ``settings`` are those of the token service: a login that began under others cannot be completed here.

    At most a quarter of ``max_flights`` logins are in flight, besides the exchanges: an unknown visitor of a login page
    must not displace known users. New logins are refused while half of that number are in flight, so that users who
    have agreed can complete theirs.
    """

    def __init__(
        self,
        sts: Sts,
        settings: ExchangeSettings,
        log: AccessLog,
        metrics: Metrics,
        *,
        keep: Callable[[Issued, Policy], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sts = sts
        self.settings = settings
        self._log = log
        self._metrics = metrics
        self._keep = keep
        self._monotonic = monotonic
        self._most = max(1, settings.max_flights // 4)
        self._in_flight = 0

    async def begin(self, plan: LoginPlan, *, redirect_uri: str | None, reason: str) -> Begun:
        """Begin a login. Raises SidecarError as ``Sts.begin_login``; `Unsent`, OVERLOADED, with too many in flight."""
        shown: set[str] = set()
        with self._place(max(1, self._most // 2)), self._refusals_of(plan, self._monotonic(), shown):
            return await self._sts.begin_login(plan, redirect_uri=redirect_uri, reason=reason, credentials=shown)

    async def complete(
        self, begun: Begun, code: str | None, *, plan: LoginPlan, policy: Policy
    ) -> Issued | StillPending:
        """Return the token that the user granted, verified; `StillPending` if the user has not answered yet.

        Raises:
            SidecarError: as ``Sts.complete_login``; `Unsent`, OVERLOADED, with too many in flight.
        """
        began_at, shown = self._monotonic(), set[str]()
        with self._place(self._most), self._refusals_of(plan, began_at, shown):
            issued = await self._sts.complete_login(begun, code, plan=plan, policy=policy, credentials=shown)
        if isinstance(issued, Issued):
            self._keep(issued, policy)
            seconds, adapter = self._monotonic() - began_at, self.settings.adapter
            self._metrics.exchange(plan.sts_issuer, None, seconds)
            fields = issued_fields(
                issued.permit, adapter=adapter, exchange_ms=_ms(seconds), credential=credential_of(shown)
            )
            self._log.event("token.exchanged", **fields)
        return issued

    @contextmanager
    def _place(self, most: int) -> Iterator[None]:
        if self._in_flight >= most:
            raise Unsent(Reason.OVERLOADED, "too many logins are in flight")
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    @contextmanager
    def _refusals_of(self, plan: LoginPlan, began_at: float, shown: set[str]) -> Iterator[None]:
        try:
            yield
        except SidecarError as error:
            seconds, adapter = self._monotonic() - began_at, self.settings.adapter
            self._metrics.exchange(plan.sts_issuer, error.reason, seconds)
            credential = credential_of(shown)
            fields = refused_login_fields(plan, error, adapter=adapter, exchange_ms=_ms(seconds), credential=credential)
            self._log.event("token.exchange_refused", **fields)
            raise


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
