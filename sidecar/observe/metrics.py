"""Counts of one process, from which ``scrape`` makes its metrics.

The hot path counts in plain dicts and lists; they become text only at a scrape. Labels take their values from closed
sets: reasons from ``Reason``, routes, issuers and trust domains from the settings. A value that was not declared is
counted as ``other``, so that nothing a caller sends can create a series.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from delegation_core.errors import OF_HANDSHAKES, Reason
from delegation_core.records.record import OK, Direction
from sidecar.observe.exposition import Metric
from sidecar.observe.population import Population
from sidecar.observe.tally import OTHER, Tally, request_seconds

NO_ROUTE: Final = "none"
MAX_DECLARED: Final = 1024  # series of one kind, regardless of the settings

RefreshResult = Literal["ok", "failed", "dropped", "no_longer"]
PoolEvent = Literal["opened", "failed", "retried"]  # as the wire names them
LookupResult = Literal["ok", "failed", "timeout", "stale"]

_HANDSHAKE_REASONS: Final = (*OF_HANDSHAKES, Reason.NOT_READY, Reason.TIMEOUT, Reason.OVERLOADED)

NOTHING_EXPORTED: Final[Mapping[tuple[str, str], int]] = dict.fromkeys(
    ((signal, result) for signal in ("spans", "records") for result in ("sent", "failed", "dropped")), 0
)


class Metrics:
    """All counts of one process. Not thread-safe except ``event_lost``: the loop's thread counts."""

    def __init__(
        self, *, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._monotonic = monotonic
        self.wall = wall
        self.engine = "python"  # of warm requests; a sidecar sets it once
        self._routes: dict[str | None, str] = {None: NO_ROUTE}
        self._issuers: dict[str, str] = {}
        self._bundles: dict[str, float] = {}  # times of arrival, on the monotonic clock
        self._jwks: dict[str, float] = {}
        self._keyed: frozenset[str] | None = None  # issuers whose key sets are followed; None: all
        # counts
        self.finished = Tally(self._routes)
        self.exchange_seconds = request_seconds()
        self.exchanges: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.token_endpoint_failures: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.introspections = dict.fromkeys(("active", "inactive"), 0)
        self.token_cache = dict.fromkeys(("hit", "miss", "joined"), 0)
        self.token_refresh = dict.fromkeys(("ok", "failed", "dropped", "no_longer"), 0)
        self.config_reloads = dict.fromkeys(("ok", "refused"), 0)
        self.upstream: dict[str, dict[PoolEvent, int]] = {
            direction: {"opened": 0, "failed": 0, "retried": 0} for direction in ("inbound", "outbound")
        }
        self.name_lookups: dict[LookupResult, int] = {"ok": 0, "failed": 0, "timeout": 0, "stale": 0}
        self.handshakes_refused = dict.fromkeys(_HANDSHAKE_REASONS, 0)
        self.population = Population(monotonic=monotonic)
        self.events_dropped = 0
        self.attempts_to_leave = 0
        self.own_calls = 0
        self.records_suppressed = 0
        self.countersign_failures = 0
        self.revoked_alone = 0
        # states
        self._refused: set[str] = set()  # files whose last reload was refused
        self.settings_used: Mapping[str, float] = {}  # used share of each bound of the settings in force
        self.svid_expires_at = 0
        self.svid_lifetime_s = 0
        # functions of the parts that know, called at a scrape; the parts set them
        self.lacking: Callable[[], Sequence[str]] = lambda: ("starting",)  # conditions that are missing to be ready
        self.in_flight: Callable[[], int] = lambda: 0  # requests without an answer yet
        self.streams: Callable[[], Mapping[str, int]] = dict  # streams in flight, by direction
        self.ways_round: Callable[[], int] = lambda: 0  # listeners that bypass the sidecar
        self.memory_short: Callable[[], bool] = lambda: False
        self.agent_up: Callable[[], bool | None] = lambda: None  # None: unknown, and then not exported
        self.identity_updates: Callable[[], Mapping[str, int]] = dict  # by result
        self.open_circuits: Callable[[], Mapping[tuple[str, str], bool]] = dict  # by issuer and endpoint
        self.verdict_cache: Callable[[], Mapping[str, int]] = lambda: dict.fromkeys(("hit", "miss"), 0)
        self.cache_bytes: Callable[[], Mapping[str, int]] = dict
        self.cache_evictions: Callable[[], Mapping[str, int]] = dict
        self.cache_lookups: Callable[[], Mapping[tuple[str, str], int]] = dict  # by cache and result
        # the end of each route that only observes, by direction and route
        self.observe_until: Callable[[], Mapping[tuple[Direction, str], int]] = dict
        self.uncountersigned: Callable[[], int] | None = None  # records since the last checkpoint; None: never any
        self.revocations: Callable[[], Mapping[str, int]] = dict  # in force, by kind
        self.deny_file: Callable[[], Mapping[str, Any] | None] = lambda: None  # None: the settings name no file
        self.revocation_book: Callable[[], float] | None = None  # used share of its capacity; None: there is no book
        self.revocation_ages: Callable[[], Mapping[str, float]] = dict  # by issuer
        self.replicas: Callable[[], Mapping[str, int]] | None = None  # by state; None: there is no book
        self.replica_failures: Callable[[], int] = lambda: 0
        self.unacknowledged: Callable[[], int] = lambda: 0  # orders that another replica is not known to hold
        self.records: Callable[[], Iterable[Metric]] = tuple  # of the sink
        self.telemetry: Callable[[], Mapping[tuple[str, str], int]] = lambda: NOTHING_EXPORTED  # by signal and result

    def declare_routes(self, direction: Direction, names: Iterable[str]) -> None:
        """Name the routes that may appear as a label; their ``allow`` series start at 0."""
        for name in names:
            if len(self._routes) <= MAX_DECLARED:
                self._routes[name] = name
                self.finished.requests[direction, name, "allow", OK] += 0

    def declare_issuers(self, issuers: Iterable[str]) -> None:
        """Name the issuers that may appear as a label."""
        for issuer in issuers:
            if len(self._issuers) < MAX_DECLARED:
                self._issuers[issuer] = issuer

    def request(self, direction: Direction, route: str | None, decision: str, reason: str, seconds: float) -> None:
        """Count one finished request that leaves no record."""
        counted = {"direction": direction, "route": route, "decision": decision, "reason": reason}
        self.finished.add(counted | {"total_ms": seconds * 1000, "decide_ms": None, "chain_depth": None, "op": None})

    @property
    def requests(self) -> Mapping[tuple[str, str, str, str], int]:
        """Finished requests by direction, route, decision and reason: ``OK`` or the value of a ``Reason``."""
        return self.finished.counted().requests

    def refused_for(self, reason: Reason, *, observed: bool = False) -> int:
        """Return the number of requests that were refused for one reason; with ``observed`` also those that passed."""
        return sum(
            count
            for (_, _, decision, why), count in self.requests.items()
            if why == reason and (observed or decision != "observed_deny")
        )

    def exchange(self, issuer: str, reason: Reason | None, seconds: float) -> None:
        """Count one call of the token endpoint; None is success."""
        self.exchanges[self.issuer_label(issuer), reason or OK] += 1
        self.exchange_seconds.observe((seconds * 1000,))

    def token_endpoint_failed(self, issuer: str, endpoint: str, reason: Reason) -> None:
        """Count one attempt at an endpoint of a token service; ``endpoint`` is one of the settings' few labels."""
        self.token_endpoint_failures[self.issuer_label(issuer), endpoint, reason] += 1

    def handshake_refused(self, reason: Reason) -> None:
        """Count one TLS handshake that failed."""
        self.handshakes_refused[reason if reason in self.handshakes_refused else Reason.BAD_SVID] += 1

    def countersigning_failed(self) -> None:
        """Count a failed attempt to get a checkpoint."""
        self.countersign_failures += 1

    def svid_changed(self, lifetime: tuple[int, int] | None) -> None:
        """Set our X.509-SVID's first and last second since the epoch; None: there is none."""
        not_before, not_after = lifetime or (0, 0)
        self.svid_expires_at = not_after
        self.svid_lifetime_s = not_after - not_before

    @property
    def last_reload_ok(self) -> bool:
        """True if the last reload of each file was accepted."""
        return not self._refused

    def reloaded(self, what: str = "settings", *, ok: bool) -> None:
        """Count a reload of one file: accepted, or refused until the same file is accepted."""
        self.config_reloads["ok" if ok else "refused"] += 1
        (self._refused.discard if ok else self._refused.add)(what)

    def bundle_updated(self, trust_domain: str) -> None:
        """Note that a trust domain's bundle was received now."""
        if len(self._bundles) < MAX_DECLARED or trust_domain in self._bundles:
            self._bundles[trust_domain] = self._monotonic()

    def bundle_withdrawn(self, trust_domain: str) -> None:
        """Note that the bundle is no longer trusted: its age is no longer exported."""
        self._bundles.pop(trust_domain, None)

    def jwks_updated(self, issuer: str) -> None:
        """Note that an issuer's key set was received now."""
        if issuer in self._issuers and (self._keyed is None or issuer in self._keyed):
            self._jwks[issuer] = self._monotonic()

    def jwks_kept(self, issuers: Iterable[str]) -> None:
        """Limit the exported key-set ages to these issuers."""
        self._keyed = frozenset(issuers)
        self._jwks = {issuer: at for issuer, at in self._jwks.items() if issuer in self._keyed}

    def event_lost(self, count: int = 1) -> None:
        """Count dropped records; the gap in ``seq`` identifies them."""
        self.events_dropped += count

    def ages(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Return the ages of bundles by trust domain, and of key sets by issuer, in seconds."""
        now = self._monotonic()
        return _ages(self._bundles, now), _ages(self._jwks, now)

    def issuer_label(self, issuer: str) -> str:
        """Return an issuer's label: its name if it was declared."""
        return self._issuers.get(issuer, OTHER)

    def route_label(self, route: str) -> str:
        """Return a route's label: its name if it was declared."""
        return self._routes.get(route, OTHER)


def _ages(received: Mapping[str, float], now: float) -> dict[str, float]:
    return {name: now - at for name, at in received.items()}
