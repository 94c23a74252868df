"""Metrics of a scrape, with names, help texts and labels, from the counts in ``metrics``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from delegation_core.errors import Reason
from sidecar import __version__
from sidecar.observe.exposition import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    highest,
    lowest,
    process_metrics,
    summed,
    text_of_metrics,
)
from sidecar.observe.metrics import Metrics

_SHA256: Final = 12  # characters that tell one list from another

Series: TypeAlias = Iterable[tuple[tuple[str, ...], float]]  # the values of the labels, and the value
F = TypeVar("F", CounterMetricFamily, GaugeMetricFamily)

# Labels of the counts of an identity source (``identity.source.UpdateCounts``).
_IDENTITY_UPDATES: Final = {
    "taken": "generations",
    "discarded": "discarded",
    "broken_bundle": "broken_bundles",
    "lost": "lost_connections",
}


def render(metrics: Metrics) -> bytes:
    """Return the text exposition of all metrics, of type ``CONTENT_TYPE``."""
    return text_of_metrics(scrape(metrics))


def scrape(metrics: Metrics) -> Iterator[Metric]:
    """Yield all metrics, not yet rendered."""
    yield from process_metrics("sidecar_process")
    yield InfoMetricFamily(
        "sidecar_build",
        "The running version, and the engine of warm requests.",
        value={"version": __version__, "engine": metrics.engine},
    )
    yield from _requests(metrics)
    yield from _exchanges(metrics)
    yield from _caches(metrics)
    yield from _refusals(metrics)
    yield from _records(metrics)
    yield worker_restarts(0)  # a single process never restarts itself
    yield from _connections(metrics)
    yield from _histograms(metrics)
    yield from _state(metrics)
    yield from _authority(metrics)
    yield from _load(metrics)
    yield from _ages(metrics)


def _requests(metrics: Metrics) -> Iterator[Metric]:
    finished = metrics.finished.counted()
    yield _counter(
        "sidecar_requests",
        "Finished requests by decision and reason.",
        ("direction", "route", "decision", "reason"),
        finished.requests.items(),
    )
    yield _counter(
        "sidecar_operations",
        "Finished requests on routes of MCP, A2A and gRPC by operation; on others those that are `own` or `login`.",
        ("direction", "route", "op", "decision"),
        finished.operations.items(),
    )
    yield _counter(
        "sidecar_engine_requests",
        "Finished requests by the engine that served them to their end.",
        ("direction", "engine"),
        finished.engines.items(),
    )
    observed: Counter[str] = Counter()
    for (_, _, decision, reason), count in finished.requests.items():
        if decision == "observed_deny":
            observed[reason] += count
    yield _counter(
        "sidecar_observed_denials",
        "Calls that the policy refuses, and that passed on a route that only observes.",
        ("reason",),
        _single(observed),
    )


def _exchanges(metrics: Metrics) -> Iterator[Metric]:
    yield _counter(
        "sidecar_token_exchange",
        "Calls of the token endpoint by result.",
        ("issuer", "result"),
        metrics.exchanges.items(),
    )
    yield _counter(
        "sidecar_token_endpoint_failures",
        "Attempts at an endpoint of a token service that found no replica able to serve.",
        ("issuer", "endpoint", "reason"),
        metrics.token_endpoint_failures.items(),
    )
    circuits = metrics.open_circuits().items()
    yield _filled(
        highest(
            "sidecar_token_endpoint_open",
            "1 while the circuit of a token service's endpoint is open: its last calls got no answer.",
            labels=("issuer", "endpoint"),
        ),
        (((metrics.issuer_label(issuer), endpoint), is_open) for (issuer, endpoint), is_open in circuits),
    )
    yield _counter(
        "sidecar_introspections",
        "Answers of the token service's introspection endpoint.",
        ("result",),
        _single(metrics.introspections),
    )


def _caches(metrics: Metrics) -> Iterator[Metric]:
    yield _counter("sidecar_token_cache", "Lookups of issued tokens.", ("result",), _single(metrics.token_cache))
    yield _counter(
        "sidecar_token_refresh",
        "Issued tokens refreshed before their end; dropped: keys, policy or identity changed meanwhile.",
        ("result",),
        _single(metrics.token_refresh),
    )
    yield _counter(
        "sidecar_cache_evictions",
        "Entries evicted for others or to free memory; of handles, lingering ones.",
        ("cache",),
        _single(metrics.cache_evictions()),
    )
    yield _counter(
        "sidecar_cache_lookups", "Lookups in the token caches.", ("cache", "result"), metrics.cache_lookups().items()
    )
    yield _counter("sidecar_verdict_cache", "Lookups of verdicts.", ("result",), _single(metrics.verdict_cache()))
    yield _counter(
        "sidecar_config_reloads", "Reloads of files while running.", ("result",), _single(metrics.config_reloads)
    )


def _refusals(metrics: Metrics) -> Iterator[Metric]:
    yield _counter(
        "sidecar_handshakes_refused",
        "Connections refused before their first request, by reason.",
        ("reason",),
        _single(metrics.handshakes_refused),
    )
    updates = metrics.identity_updates()
    yield _counter(
        "sidecar_identity_updates",
        "Updates of the identity source by result, and losses of the source.",
        ("result",),
        (((result,), updates.get(name, 0)) for result, name in _IDENTITY_UPDATES.items()),
    )
    yield CounterMetricFamily(
        "sidecar_impersonation_refused", "Tokens that named no actor.", metrics.refused_for(Reason.ACT_MISSING)
    )
    yield CounterMetricFamily(
        "sidecar_actor_mismatch",
        "Tokens presented by a peer that is not their actor, refused or observed.",
        metrics.refused_for(Reason.ACTOR_MISMATCH, observed=True),
    )
    yield CounterMetricFamily(
        "sidecar_attempts_to_leave", "Calls of the agent to hosts without a route: refused.", metrics.attempts_to_leave
    )
    yield CounterMetricFamily(
        "sidecar_own_authority_calls",
        "Permitted calls of the agent for itself, by the workload handle.",
        metrics.own_calls,
    )


def _records(metrics: Metrics) -> Iterator[Metric]:
    yield CounterMetricFamily("sidecar_audit_events_dropped", "Records that were lost.", metrics.events_dropped)
    yield CounterMetricFamily(
        "sidecar_records_suppressed",
        "Records of unauthenticated callers suppressed above their listener's rate.",
        metrics.records_suppressed,
    )
    yield _counter(
        "sidecar_telemetry",
        "Requests recorded for a trace, and records exported, for the collector: sent, failed with their batch, or"
        " dropped without room in the queue.",
        ("signal", "result"),
        metrics.telemetry().items(),
    )
    yield CounterMetricFamily(
        "sidecar_countersign_failures",
        "Checkpoints of the record stream that the token service did not give.",
        metrics.countersign_failures,
    )
    yield CounterMetricFamily(
        "sidecar_revocations_alone",
        "Whole users that one operator alone revoked at this token service.",
        metrics.revoked_alone,
    )
    if metrics.uncountersigned is not None:
        yield summed(
            "sidecar_records_uncountersigned",
            "Records since the last checkpoint; only where the token service countersigns.",
            metrics.uncountersigned(),
        )


def _connections(metrics: Metrics) -> Iterator[Metric]:
    counts = metrics.upstream.items()
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
        _single(metrics.name_lookups),
    )


def _histograms(metrics: Metrics) -> Iterator[Metric]:
    finished = metrics.finished.counted()
    for name, help_text, series in (
        ("sidecar_request_duration_seconds", "From request head to the end of the answer.", finished.request_seconds),
        ("sidecar_decision_duration_seconds", "From request head to the decision.", finished.decision_seconds),
    ):
        family = HistogramMetricFamily(name, help_text, labels=("direction",))
        for direction, histogram in series.items():
            family.add_metric((direction,), *histogram.told())
        yield family
    for name, help_text, histogram in (
        ("sidecar_token_exchange_duration_seconds", "One call of the token endpoint.", metrics.exchange_seconds),
        ("sidecar_chain_depth", "Actors in the chain of permitted requests.", finished.chain_depth),
    ):
        buckets, total = histogram.told()
        yield HistogramMetricFamily(name, help_text, buckets=buckets, sum_value=total)


def _state(metrics: Metrics) -> Iterator[Metric]:
    yield lowest("sidecar_ready", "1 while /readyz answers 200.", not metrics.lacking())
    yield highest("sidecar_wall_clock_seconds", "Time by this machine's clock, since the epoch.", metrics.wall())
    yield lowest(
        "sidecar_config_last_reload_successful",
        "1 if the last version of each file that was read while running is in force.",
        metrics.last_reload_ok,
    )
    yield _filled(
        highest(
            "sidecar_settings_bound_ratio",
            "Used share of each bound of the settings in force; settings above 1 are refused.",
            labels=("bound",),
        ),
        _single(metrics.settings_used),
    )
    yield highest(
        "sidecar_memory_short", "1 while memory is short and no more connections are accepted.", metrics.memory_short()
    )
    yield highest("sidecar_bypass_listeners", "Listening sockets that bypass the sidecar.", metrics.ways_round())
    agent_up = metrics.agent_up()
    if agent_up is not None:
        help_text = "1 while the agent's port accepts connections; absent until it first did."
        yield lowest("sidecar_agent_up", help_text, agent_up)
    yield _filled(
        summed("sidecar_cache_bytes", "Memory of the token caches.", labels=("cache",)), _single(metrics.cache_bytes())
    )
    yield from metrics.records()
    yield metrics.population.metric()


def _authority(metrics: Metrics) -> Iterator[Metric]:
    yield lowest(
        "sidecar_svid_lifetime_seconds", "Lifetime of our X.509-SVID, 0 while there is none.", metrics.svid_lifetime_s
    )
    yield lowest(
        "sidecar_svid_expiry_timestamp_seconds",
        "When our X.509-SVID expires, 0 while there is none.",
        metrics.svid_expires_at,
    )
    yield _filled(
        highest("sidecar_revocations", "Revocations in force.", labels=("kind",)), _single(metrics.revocations())
    )
    yield from _deny_file(metrics)
    if metrics.revocation_book is not None:
        yield highest(
            "sidecar_revocation_book_ratio",
            "Used share of the room for orders of revocations; at 1 events of logouts are refused.",
            metrics.revocation_book(),
        )
    if metrics.replicas is not None:
        yield _filled(
            summed(
                "sidecar_replicas",
                "Other replicas of this token service by state: heard in the last half minute, or silent.",
                labels=("state",),
            ),
            _single(metrics.replicas()),
        )
        yield CounterMetricFamily(
            "sidecar_replica_failures",
            "Exchanges of orders with another replica that failed: not fetched, read, kept or given.",
            metrics.replica_failures(),
        )
        yield summed(
            "sidecar_revocations_unacknowledged",
            "Orders of revocations that another replica of this token service is not known to hold.",
            metrics.unacknowledged(),
        )
    yield _filled(
        highest(
            "sidecar_revocations_age_seconds",
            "Time since the issuer's list of revocations was known to be complete: a majority of replicas had been"
            " heard.",
            labels=("issuer",),
        ),
        (((metrics.issuer_label(issuer),), age_s) for issuer, age_s in metrics.revocation_ages().items()),
    )
    yield _filled(
        highest(
            "sidecar_observe_until_timestamp_seconds",
            "When a route that only observes begins to enforce; no series for any other route.",
            labels=("direction", "route"),
        ),
        (((side, metrics.route_label(route)), until) for (side, route), until in metrics.observe_until().items()),
    )


def _deny_file(metrics: Metrics) -> Iterator[Metric]:
    row = metrics.deny_file()
    if row is None:
        return
    in_force = () if row["sha256"] is None else [((row["sha256"][:_SHA256],), row["rows"])]
    yield _filled(
        highest("sidecar_deny_file_rows", "Rows of the list in force, by the file's SHA-256.", labels=("sha256",)),
        in_force,
    )
    yield highest(
        "sidecar_deny_file_refused",
        "1 while the deny file cannot be used: an earlier list is in force, or no call is served.",
        row["error"] is not None,
    )
    yield highest(
        "sidecar_deny_file_age_seconds", "Time since the deny file was last read, or found unchanged.", row["age_s"]
    )


def _load(metrics: Metrics) -> Iterator[Metric]:
    yield summed("sidecar_workers", "Processes that serve requests.", 1)
    yield summed("sidecar_requests_in_flight", "Requests without an answer yet.", metrics.in_flight())
    yield _filled(
        summed("sidecar_streams", "Streams and tunnels in flight.", labels=("direction",)), _single(metrics.streams())
    )


def _ages(metrics: Metrics) -> Iterator[Metric]:
    bundles, jwks = metrics.ages()
    yield _filled(
        highest(
            "sidecar_bundle_age_seconds",
            "Time since the last update of the trust domain's bundle.",
            labels=("trust_domain",),
        ),
        _single(bundles),
    )
    yield _filled(
        highest("sidecar_jwks_age_seconds", "Time since the last fetch of the issuer's keys.", labels=("issuer",)),
        _single(jwks),
    )


def worker_restarts(count: int) -> Metric:
    """Return the metric of replaced workers."""
    return CounterMetricFamily("sidecar_worker_restarts", "Workers that died unexpectedly and were replaced.", count)


def _counter(name: str, help_text: str, labels: tuple[str, ...], values: Series) -> Metric:
    return _filled(CounterMetricFamily(name, help_text, labels=labels), values)


def _filled(family: F, values: Series) -> F:
    for key, value in list(values):
        family.add_metric(key, value)
    return family


def _single(counts: Mapping[Any, float]) -> list[tuple[tuple[str], float]]:
    return [((str(key),), count) for key, count in counts.items()]
