"""Every metric: names, labels, buckets.

The hot path counts in plain dicts and lists; they become text only at a scrape. Labels take
their values from closed sets: reasons from ``Reason``, routes, issuers and trust domains from the settings. A value
that was not declared is counted as ``other``, so that nothing a caller sends can create a series.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from sidecar import __version__
from sidecar.errors import Reason
from sidecar.observe.exposition import CONTENT_TYPE as CONTENT_TYPE
from sidecar.observe.exposition import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    process_metrics,
    text_of_metrics,
)
from sidecar.observe.population import Population
from sidecar.observe.record import OK, Direction
from sidecar.observe.tally import OTHER, Tally, request_seconds

NO_ROUTE: Final = "none"
MAX_DECLARED: Final = 1024  # series of one kind, regardless of the settings

RefreshResult = Literal["ok", "failed", "dropped", "no_longer"]
PoolEvent = Literal["opened", "failed", "retried"]  # as the wire names them
LookupResult = Literal["ok", "failed", "timeout", "stale"]
CacheResult = Literal["hit", "miss", "joined"]

NOTHING_EXPORTED: Final[Mapping[tuple[str, str], int]] = dict.fromkeys(
    ((signal, result) for signal in ("spans", "records") for result in ("sent", "failed", "dropped")), 0
)


class Metrics:
    """All metrics of one process. Not thread-safe except ``event_lost``: the loop's thread counts."""

    def __init__(
        self, *, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self.engine = "python"  # of warm requests; a sidecar sets it once
        self._routes: dict[str | None, str] = {None: NO_ROUTE}
        self._issuers: dict[str, str] = {}
        self.finished = Tally(self._routes)
        self.exchange_seconds = request_seconds()
        self.exchanges: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.token_endpoint_failures: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.open_circuits: Callable[[], Mapping[tuple[str, str], bool]] = dict  # by issuer and endpoint
        self.introspections = dict.fromkeys(("active", "inactive"), 0)
        self.token_cache = dict.fromkeys(("hit", "miss", "joined"), 0)
        self.token_refresh = dict.fromkeys(("ok", "failed", "dropped", "no_longer"), 0)
        self.config_reloads = dict.fromkeys(("ok", "refused"), 0)
        self.verdict_cache: Callable[[], Mapping[str, int]] = lambda: dict.fromkeys(("hit", "miss"), 0)
        self.upstream: dict[str, dict[PoolEvent, int]] = {
            direction: {"opened": 0, "failed": 0, "retried": 0} for direction in ("inbound", "outbound")
        }
        self.name_lookups: dict[LookupResult, int] = {"ok": 0, "failed": 0, "timeout": 0, "stale": 0}
        self.handshakes_refused = dict.fromkeys(_HANDSHAKE_REASONS, 0)
        self.svid_expires_at = 0
        self.svid_lifetime_s = 0
        # conditions that are missing to be ready
        self.lacking: Callable[[], Sequence[str]] = lambda: ("starting",)
        self.streams: Callable[[], Mapping[str, int]] = dict  # streams in flight, by direction
        self.ways_round: Callable[[], int] = lambda: 0  # listeners that bypass the sidecar
        self.memory_short: Callable[[], bool] = lambda: False
        self.agent_up: Callable[[], bool | None] = lambda: None  # None: unknown, and then not exported
        self.identity_updates: Callable[[], Mapping[str, int]] = dict  # by result
        self.cache_bytes: Callable[[], Mapping[str, int]] = dict
        self.cache_evictions: Callable[[], Mapping[str, int]] = dict
        self.cache_lookups: Callable[[], Mapping[tuple[str, str], int]] = dict  # by cache and result
        # the end of each route that only observes, by direction and route
        self.observe_until: Callable[[], Mapping[tuple[Direction, str], int]] = dict
        self.population = Population(monotonic=monotonic)
        self._last_reload_ok = True
        self.events_dropped = 0
        self.attempts_to_leave = 0
        self.own_calls = 0
        self.records_suppressed = 0
        self.uncountersigned: Callable[[], int] | None = None  # records since the last checkpoint; None: never any
        self.countersign_failures = 0
        self.revoked_alone = 0
        self.revocations: Callable[[], Mapping[str, int]] = dict  # in force, by kind
        self.revocation_book: Callable[[], float] | None = None  # used share of its room; None: there is no book
        self.revocation_ages: Callable[[], Mapping[str, float]] = dict  # by issuer
        self.records: Callable[[], Iterable[Metric]] = tuple  # of the sink; the record stream sets it
        self.telemetry: Callable[[], Mapping[tuple[str, str], int]] = lambda: NOTHING_EXPORTED  # by signal and result
        self.in_flight: Callable[[], int] = lambda: 0  # requests without an answer yet
        self._bundles: dict[str, float] = {}
        self._jwks: dict[str, float] = {}

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
        self.exchanges[self._issuers.get(issuer, OTHER), reason or OK] += 1
        self.exchange_seconds.observe((seconds * 1000,))

    def token_endpoint_failed(self, issuer: str, endpoint: str, reason: Reason) -> None:
        """Count one attempt at an endpoint of a token service; ``endpoint`` is one of the settings' few labels."""
        self.token_endpoint_failures[self._issuers.get(issuer, OTHER), endpoint, reason] += 1

    def handshake_refused(self, reason: Reason) -> None:
        """Count one TLS handshake that failed."""
        self.handshakes_refused[reason if reason in self.handshakes_refused else Reason.BAD_SVID] += 1

    def countersigning_failed(self) -> None:
        """Count a checkpoint that could not be had."""
        self.countersign_failures += 1

    def svid_changed(self, lifetime: tuple[int, int] | None) -> None:
        """Set our X.509-SVID's first and last second since the epoch; None: there is none."""
        not_before, not_after = lifetime or (0, 0)
        self.svid_expires_at = not_after
        self.svid_lifetime_s = not_after - not_before

    def reloaded(self, *, ok: bool) -> None:
        """Count a reload of a file: accepted, or refused."""
        self.config_reloads["ok" if ok else "refused"] += 1
        self._last_reload_ok = ok

    def bundle_updated(self, trust_domain: str) -> None:
        """Note that a trust domain's bundle was received now."""
        if len(self._bundles) < MAX_DECLARED or trust_domain in self._bundles:
            self._bundles[trust_domain] = self._monotonic()

    def bundle_withdrawn(self, trust_domain: str) -> None:
        """Note that the bundle is no longer trusted: its age is no longer exported."""
        self._bundles.pop(trust_domain, None)

    def jwks_updated(self, issuer: str) -> None:
        """Note that an issuer's key set was received now."""
        if issuer in self._issuers:
            self._jwks[issuer] = self._monotonic()

    def event_lost(self, count: int = 1) -> None:
        """Count dropped records; the gap in ``seq`` identifies them."""
        self.events_dropped += count

    def render(self) -> bytes:
        """Return the text exposition of all metrics, of type ``CONTENT_TYPE``."""
        return text_of_metrics(self.everything())

    def everything(self) -> Iterable[Metric]:
        """Return the metrics of a scrape before they are rendered."""
        yield from process_metrics("sidecar_process")
        yield from self.collect()

    def collect(self) -> Iterator[Metric]:
        """Return our own metrics of now."""
        running = {"version": __version__, "engine": self.engine}
        yield InfoMetricFamily("sidecar_build", "The running version, and the engine of warm requests.", value=running)
        yield _counter(
            "sidecar_requests",
            "Finished requests by decision and reason.",
            ("direction", "route", "decision", "reason"),
            self.requests.items(),
        )
        yield _counter(
            "sidecar_operations",
            "Finished requests on routes of MCP, A2A and gRPC by operation; on others those that are `own` or `login`.",
            ("direction", "route", "op", "decision"),
            self.finished.counted().operations.items(),
        )
        yield _counter(
            "sidecar_engine_requests",
            "Finished requests by the engine that served them to their end.",
            ("direction", "engine"),
            self.finished.counted().engines.items(),
        )
        yield _counter(
            "sidecar_observed_denials",
            "Calls that the policy refuses, and that passed on a route that only observes.",
            ("reason",),
            self._observed_denials(),
        )
        yield _counter(
            "sidecar_token_exchange",
            "Calls of the token endpoint by result.",
            ("issuer", "result"),
            self.exchanges.items(),
        )
        yield _counter(
            "sidecar_token_endpoint_failures",
            "Attempts at an endpoint of a token service that found no replica able to serve.",
            ("issuer", "endpoint", "reason"),
            self.token_endpoint_failures.items(),
        )
        circuits = GaugeMetricFamily(
            "sidecar_token_endpoint_open",
            "1 while the circuit of a token service's endpoint is open: its last calls got no answer.",
            labels=("issuer", "endpoint"),
        )
        for (issuer, endpoint), is_open in self.open_circuits().items():
            circuits.add_metric((self._issuers.get(issuer, OTHER), endpoint), is_open)
        yield circuits
        yield _counter(
            "sidecar_introspections",
            "Answers of the token service's introspection endpoint.",
            ("result",),
            _single(self.introspections),
        )
        yield from self._caches()
        yield from self._refusals_and_losses()
        yield from self._connections()
        yield from self._histograms()
        yield from self._state()
        yield from self._authority()
        yield from self._load()
        yield from self._ages()

    def _observed_denials(self) -> Iterable[tuple[tuple[str], int]]:
        observed: Counter[str] = Counter()
        for (_, _, decision, reason), count in self.requests.items():
            if decision == "observed_deny":
                observed[reason] += count
        return [((reason,), count) for reason, count in observed.items()]

    def _caches(self) -> Iterator[Metric]:
        yield _counter("sidecar_token_cache", "Lookups of issued tokens.", ("result",), _single(self.token_cache))
        yield _counter(
            "sidecar_token_refresh",
            "Issued tokens refreshed before their end; dropped: keys, policy or identity changed meanwhile.",
            ("result",),
            _single(self.token_refresh),
        )
        yield _counter(
            "sidecar_cache_evictions",
            "Entries evicted for others or to free memory; of handles, lingering ones.",
            ("cache",),
            _single(self.cache_evictions()),
        )
        yield _counter(
            "sidecar_cache_lookups",
            "Lookups in the token caches.",
            ("cache", "result"),
            self.cache_lookups().items(),
        )
        yield _counter("sidecar_verdict_cache", "Lookups of verdicts.", ("result",), _single(self.verdict_cache()))
        yield _counter(
            "sidecar_config_reloads", "Reloads of files while running.", ("result",), _single(self.config_reloads)
        )

    def _refusals_and_losses(self) -> Iterator[Metric]:
        yield _counter(
            "sidecar_handshakes_refused",
            "Connections refused before their first request, by reason.",
            ("reason",),
            _single(self.handshakes_refused),
        )
        updates = self.identity_updates()
        yield _counter(
            "sidecar_identity_updates",
            "Updates of the identity source by result, and losses of the source.",
            ("result",),
            (((result,), updates.get(name, 0)) for result, name in _IDENTITY_UPDATES.items()),
        )
        yield CounterMetricFamily(
            "sidecar_impersonation_refused", "Tokens that named no actor.", value=self.refused_for(Reason.ACT_MISSING)
        )
        yield CounterMetricFamily(
            "sidecar_actor_mismatch",
            "Tokens presented by a peer that is not their actor, refused or observed.",
            value=self.refused_for(Reason.ACTOR_MISMATCH, observed=True),
        )
        yield CounterMetricFamily(
            "sidecar_attempts_to_leave",
            "Calls of the agent to hosts without a route: refused.",
            value=self.attempts_to_leave,
        )
        yield CounterMetricFamily(
            "sidecar_own_authority_calls",
            "Permitted calls of the agent for itself, by the workload handle.",
            value=self.own_calls,
        )
        yield CounterMetricFamily("sidecar_audit_events_dropped", "Records that were lost.", value=self.events_dropped)
        yield CounterMetricFamily(
            "sidecar_records_suppressed",
            "Records of unproven callers suppressed above their listener's rate.",
            value=self.records_suppressed,
        )
        yield _counter(
            "sidecar_telemetry",
            "Requests recorded for a trace, and records exported, for the collector: sent, failed with their batch, or"
            " dropped without room in the queue.",
            ("signal", "result"),
            self.telemetry().items(),
        )
        yield CounterMetricFamily(
            "sidecar_countersign_failures",
            "Checkpoints of the record stream that the token service did not give.",
            value=self.countersign_failures,
        )
        yield CounterMetricFamily(
            "sidecar_revocations_alone",
            "Whole users that one operator alone revoked at this token service.",
            value=self.revoked_alone,
        )
        if self.uncountersigned is not None:
            yield GaugeMetricFamily(
                "sidecar_records_uncountersigned",
                "Records since the last checkpoint; only where the token service countersigns.",
                value=self.uncountersigned(),
            )
        yield worker_restarts(0)  # a single process never restarts itself

    def _connections(self) -> Iterator[Metric]:
        counts = self.upstream.items()
        yield _counter(
            "sidecar_upstream_connections",
            "Connections to upstreams opened, or failed to open; all other requests reused one.",
            ("direction", "result"),
            (((direction, result), of[result]) for direction, of in counts for result in ("opened", "failed")),
        )
        yield _counter(
            "sidecar_upstream_retries",
            "Requests retried because the upstream had closed an idle connection.",
            ("direction",),
            (((direction,), of["retried"]) for direction, of in counts),
        )
        yield _counter(
            "sidecar_name_lookups",
            "Name lookups of upstreams and token services; stale: the last good addresses are used.",
            ("result",),
            _single(self.name_lookups),
        )

    def _histograms(self) -> Iterator[Metric]:
        finished = self.finished.counted()
        for name, help_text, series in (
            (
                "sidecar_request_duration_seconds",
                "From request head to the end of the answer.",
                finished.request_seconds,
            ),
            ("sidecar_decision_duration_seconds", "From request head to the decision.", finished.decision_seconds),
        ):
            family = HistogramMetricFamily(name, help_text, labels=("direction",))
            for direction, histogram in series.items():
                family.add_metric((direction,), *histogram.told())
            yield family
        for name, help_text, histogram in (
            ("sidecar_token_exchange_duration_seconds", "One call of the token endpoint.", self.exchange_seconds),
            ("sidecar_chain_depth", "Actors in the chain of permitted requests.", finished.chain_depth),
        ):
            buckets, total = histogram.told()
            yield HistogramMetricFamily(name, help_text, buckets=buckets, sum_value=total)

    def _state(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("sidecar_ready", "1 while /readyz answers 200.", value=not self.lacking())
        yield GaugeMetricFamily(
            "sidecar_wall_clock_seconds", "Time by this machine's clock, since the epoch.", value=self._wall()
        )
        yield GaugeMetricFamily(
            "sidecar_config_last_reload_successful",
            "1 if the last settings file read while running is in force.",
            value=self._last_reload_ok,
        )
        yield GaugeMetricFamily(
            "sidecar_memory_short",
            "1 while memory is short and no more connections are accepted.",
            value=self.memory_short(),
        )
        yield GaugeMetricFamily(
            "sidecar_bypass_listeners",
            "Listening sockets that bypass the sidecar.",
            value=self.ways_round(),
        )
        agent_up = self.agent_up()
        if agent_up is not None:
            help_text = "1 while the agent's port accepts connections; absent until it first did."
            yield GaugeMetricFamily("sidecar_agent_up", help_text, value=agent_up)
        held = GaugeMetricFamily("sidecar_cache_bytes", "Memory of the token caches.", labels=("cache",))
        for cache, size in self.cache_bytes().items():
            held.add_metric((cache,), size)
        yield held
        yield from self.records()
        yield self.population.metric()

    def _authority(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "sidecar_svid_lifetime_seconds",
            "Lifetime of our X.509-SVID, 0 while there is none.",
            value=self.svid_lifetime_s,
        )
        yield GaugeMetricFamily(
            "sidecar_svid_expiry_timestamp_seconds",
            "When our X.509-SVID expires, 0 while there is none.",
            value=self.svid_expires_at,
        )
        in_force = GaugeMetricFamily("sidecar_revocations", "Revocations in force.", labels=("kind",))
        for kind, count in self.revocations().items():
            in_force.add_metric((kind,), count)
        yield in_force
        if self.revocation_book is not None:
            yield GaugeMetricFamily(
                "sidecar_revocation_book_ratio",
                "Used share of the room for orders of revocations; at 1 events of logouts are refused.",
                value=self.revocation_book(),
            )
        stale = GaugeMetricFamily(
            "sidecar_revocations_age_seconds",
            "Time since the issuer last confirmed its list of revocations.",
            labels=("issuer",),
        )
        for issuer, age_s in self.revocation_ages().items():
            stale.add_metric((self._issuers.get(issuer, OTHER),), age_s)
        yield stale
        observing = GaugeMetricFamily(
            "sidecar_observe_until_timestamp_seconds",
            "When a route that only observes begins to enforce; no series for any other route.",
            labels=("direction", "route"),
        )
        for (side, route), until in self.observe_until().items():
            observing.add_metric((side, self._routes.get(route, OTHER)), until)
        yield observing

    def _load(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("sidecar_workers", "Processes that serve requests.", value=1)
        yield GaugeMetricFamily("sidecar_requests_in_flight", "Requests without an answer yet.", value=self.in_flight())
        streams = GaugeMetricFamily("sidecar_streams", "Streams and tunnels in flight.", labels=("direction",))
        for direction, count in self.streams().items():
            streams.add_metric((direction,), count)
        yield streams

    def _ages(self) -> Iterator[Metric]:
        now = self._monotonic()
        for name, help_text, label, received in (
            (
                "sidecar_bundle_age_seconds",
                "Time since the last update of the trust domain's bundle.",
                "trust_domain",
                self._bundles,
            ),
            ("sidecar_jwks_age_seconds", "Time since the last fetch of the issuer's keys.", "issuer", self._jwks),
        ):
            family = GaugeMetricFamily(name, help_text, labels=(label,))
            for value, at in received.items():
                family.add_metric((value,), now - at)
            yield family


_HANDSHAKE_REASONS: Final = (
    Reason.NO_CLIENT_CERT,
    Reason.BAD_SVID,
    Reason.UNTRUSTED_CHAIN,
    Reason.UNKNOWN_TRUST_DOMAIN,
    Reason.WRONG_BUNDLE,
    Reason.SVID_EXPIRED,
    Reason.TLS_VERSION,
    Reason.NOT_READY,
    Reason.TIMEOUT,
    Reason.OVERLOADED,
)


# Labels of the counts of an identity source (``identity.source.UpdateCounts``).
_IDENTITY_UPDATES: Final = {
    "taken": "generations",
    "discarded": "discarded",
    "broken_bundle": "broken_bundles",
    "lost": "lost_connections",
}


def worker_restarts(count: int) -> Metric:
    """Return the metric of workers that had to be replaced."""
    return CounterMetricFamily(
        "sidecar_worker_restarts", "Workers that died unexpectedly and were replaced.", value=count
    )


def _counter(
    name: str, help_text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for key, count in list(values):
        family.add_metric(key, count)
    return family


def _single(counts: Mapping[Any, int]) -> list[tuple[tuple[str], int]]:
    return [((str(key),), count) for key, count in counts.items()]
