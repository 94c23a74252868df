"""The injector's own metrics. Labels are from closed sets: nothing in a pod can create a series."""

from __future__ import annotations

from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from delegation_core.errors import Reason
from sidecar.injector.rules import RULES
from sidecar.observe.metrics import Metrics

INJECTED: Final = "injected"
UNCHANGED: Final = "unchanged"  # already in its target state: the API server asks about every pod again
NO_REVIEW: Final = "no_review"
INTERNAL: Final = "internal"
UNRECORDED: Final = str(Reason.AUDIT_UNAVAILABLE)  # the answer could not have been recorded
_CUT: Final = (Reason.TIMEOUT, Reason.OVERLOADED)


class InjectorMetrics:
    """All metrics of one injector."""

    def __init__(self, counts: Metrics) -> None:
        """Create the metrics. ``counts`` are those of the record stream and of reloaded files."""
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(namespace="sidecar_injector", registry=self._registry)
        self._reviews = Counter(
            "sidecar_injector_reviews",
            "Reviewed pods by result, or by the first rule that the pod breaks.",
            ("decision", "rule"),
            registry=self._registry,
        )
        for rule in (INJECTED, UNCHANGED):
            self._reviews.labels("allow", rule)
        for rule in (*RULES, NO_REVIEW, INTERNAL, UNRECORDED):
            self._reviews.labels("deny", rule)
        self._expires = Gauge(
            "sidecar_injector_certificate_not_after_seconds",
            "When the serving certificate expires, in seconds since the epoch.",
            registry=self._registry,
        )
        reloads = Gauge(
            "sidecar_injector_reloads",
            "Reloads of the certificate or definition by result.",
            ("result",),
            registry=self._registry,
        )
        for result in ("ok", "refused"):
            reloads.labels(result).set_function(partial(counts.config_reloads.__getitem__, result))
        cut = Gauge(
            "sidecar_injector_connections_refused",
            "Connections that were too slow in handshake or request, or were evicted.",
            ("reason",),
            registry=self._registry,
        )
        for reason in _CUT:
            cut.labels(reason).set_function(partial(counts.handshakes_refused.__getitem__, reason))
        suppressed = Gauge(
            "sidecar_injector_records_suppressed",
            "Records suppressed above the listener's rate.",
            registry=self._registry,
        )
        suppressed.set_function(lambda: counts.records_suppressed)
        lost = Gauge("sidecar_injector_records_lost", "Records that were lost.", registry=self._registry)
        lost.set_function(lambda: counts.events_dropped)

    def count_allowed(self, rule: str) -> None:
        """Count an allowed pod: ``INJECTED`` or ``UNCHANGED``."""
        self._reviews.labels("allow", rule).inc()

    def count_refused(self, rule: str) -> None:
        """Count a refused pod, or an invalid review (``NO_REVIEW``)."""
        self._reviews.labels("deny", rule).inc()

    def certificate(self, not_after: int) -> None:
        """Set the serving certificate's last second since the epoch."""
        self._expires.set(not_after)

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self._registry)
