from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from delegation_core.errors import Reason
from sidecar import __version__
from sidecar.observe.exposition import CONTENT_TYPE
from sidecar.observe.metrics import MAX_DECLARED, Metrics
from sidecar.observe.scrape import render


def samples(metrics: Metrics) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the values of a scrape, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render(metrics).decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(monotonic=lambda: 100.0)
    metrics.declare_routes("inbound", ["search"])
    metrics.declare_issuers(["https://sts.acme.example"])
    return metrics


def test_every_metric_has_our_prefix_and_is_text_that_prometheus_reads(metrics: Metrics) -> None:
    families = list(text_string_to_metric_families(render(metrics).decode()))
    assert all(family.name.startswith("sidecar_") for family in families)
    assert all(family.documentation for family in families)
    assert CONTENT_TYPE.startswith("text/plain")


def test_the_promised_names_are_there_from_the_start(metrics: Metrics) -> None:
    names = {name for name, _ in samples(metrics)}
    assert names >= {
        "sidecar_requests_total",
        "sidecar_request_duration_seconds_bucket",
        "sidecar_decision_duration_seconds_bucket",
        "sidecar_token_exchange_duration_seconds_bucket",
        "sidecar_token_cache_total",
        "sidecar_token_refresh_total",
        "sidecar_upstream_connections_total",
        "sidecar_upstream_retries_total",
        "sidecar_name_lookups_total",
        "sidecar_impersonation_refused_total",
        "sidecar_actor_mismatch_total",
        "sidecar_chain_depth_bucket",
        "sidecar_config_reloads_total",
        "sidecar_handshakes_refused_total",
        "sidecar_svid_expiry_timestamp_seconds",
        "sidecar_audit_events_dropped_total",
        "sidecar_build_info",
        "sidecar_ready",
        "sidecar_config_last_reload_successful",
        "sidecar_identities_seen",
        "sidecar_svid_lifetime_seconds",
        "sidecar_process_resident_memory_bytes",
    }


def test_the_version_and_the_engine_are_told_together(metrics: Metrics) -> None:
    assert value(metrics, "sidecar_build_info", version=__version__, engine="python") == 1
    metrics.engine = "native"
    assert value(metrics, "sidecar_build_info", version=__version__, engine="native") == 1


def test_requests_are_told_by_engine(metrics: Metrics) -> None:
    metrics.request("inbound", "search", "deny", Reason.NO_TOKEN, 0.1)
    assert value(metrics, "sidecar_engine_requests_total", direction="inbound", engine="python") == 1
    assert value(metrics, "sidecar_engine_requests_total", direction="inbound", engine="native") == 0


def test_a_declared_route_starts_at_zero(metrics: Metrics) -> None:
    labels = {"direction": "inbound", "route": "search", "decision": "allow", "reason": "ok"}
    assert value(metrics, "sidecar_requests_total", **labels) == 0


@pytest.mark.parametrize(
    ("route", "label"), [("search", "search"), (None, "none"), ("made-up", "other"), ("x" * 9999, "other")]
)
def test_a_request_is_counted_under_a_route_of_the_settings_only(
    metrics: Metrics, route: str | None, label: str
) -> None:
    metrics.request("inbound", route, "deny", Reason.NO_ROUTE, 0.002)
    labels = {"direction": "inbound", "route": label, "decision": "deny", "reason": "no_route"}
    assert value(metrics, "sidecar_requests_total", **labels) == 1
    assert value(metrics, "sidecar_request_duration_seconds_count", direction="inbound") == 1


def test_ten_thousand_strangers_leave_the_number_of_series_as_it_was(metrics: Metrics) -> None:
    metrics.request("inbound", "other", "deny", Reason.NO_ROUTE, 0.1)
    metrics.exchange("stranger", None, 0.1)
    before = len(samples(metrics))
    for number in range(10_000):
        metrics.request("inbound", f"route-{number}", "deny", Reason.NO_ROUTE, 0.1)
        metrics.exchange(f"https://issuer-{number}", None, 0.1)
        metrics.jwks_updated(f"https://issuer-{number}")
    assert len(samples(metrics)) == before


def test_even_the_settings_cannot_make_series_without_limit(metrics: Metrics) -> None:
    metrics.declare_routes("outbound", map(str, range(3 * MAX_DECLARED)))
    assert len(metrics.requests) == MAX_DECLARED


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (Reason.ACT_MISSING, "sidecar_impersonation_refused_total"),
        (Reason.ACTOR_MISMATCH, "sidecar_actor_mismatch_total"),
    ],
)
def test_attempts_at_impersonation_have_metrics_of_their_own(metrics: Metrics, reason: Reason, name: str) -> None:
    metrics.request("inbound", "search", "deny", Reason.TOKEN_EXPIRED, 0.1)
    assert value(metrics, name) == 0
    metrics.request("inbound", "search", "deny", reason, 0.1)
    assert value(metrics, name) == 1


def test_exchanges_are_counted_by_result(metrics: Metrics) -> None:
    metrics.exchange("https://sts.acme.example", None, 0.02)
    metrics.exchange("https://sts.acme.example", Reason.STS_TIMEOUT, 2.0)
    issuer = "https://sts.acme.example"
    assert value(metrics, "sidecar_token_exchange_total", issuer=issuer, result="ok") == 1
    assert value(metrics, "sidecar_token_exchange_total", issuer=issuer, result="sts_timeout") == 1
    assert value(metrics, "sidecar_token_exchange_duration_seconds_sum") == pytest.approx(2.02)


def test_connections_retries_and_lookups_are_counted_by_what_became_of_them(metrics: Metrics) -> None:
    metrics.upstream["outbound"] = {"opened": 3, "failed": 2, "retried": 1}
    metrics.name_lookups["stale"] = 4
    metrics.token_refresh["failed"] = 5
    opened = {"direction": "outbound", "result": "opened"}
    assert value(metrics, "sidecar_upstream_connections_total", **opened) == 3
    assert value(metrics, "sidecar_upstream_connections_total", **{**opened, "result": "failed"}) == 2
    assert value(metrics, "sidecar_upstream_connections_total", **{**opened, "direction": "inbound"}) == 0
    assert value(metrics, "sidecar_upstream_retries_total", direction="outbound") == 1
    assert value(metrics, "sidecar_name_lookups_total", result="stale") == 4
    assert value(metrics, "sidecar_token_refresh_total", result="failed") == 5


def test_refused_handshakes_are_counted_by_reason(metrics: Metrics) -> None:
    metrics.handshake_refused(Reason.WRONG_BUNDLE)
    assert value(metrics, "sidecar_handshakes_refused_total", reason="wrong_bundle") == 1


def test_a_handshake_refused_for_want_of_our_own_identity_accuses_no_peer(metrics: Metrics) -> None:
    metrics.handshake_refused(Reason.NOT_READY)
    assert value(metrics, "sidecar_handshakes_refused_total", reason="not_ready") == 1
    assert value(metrics, "sidecar_handshakes_refused_total", reason="bad_svid") == 0


def test_ages_grow_until_the_next_update() -> None:
    now = [100.0]
    metrics = Metrics(monotonic=lambda: now[0])
    metrics.declare_issuers(["https://sts.acme.example"])
    metrics.bundle_updated("acme.example")
    metrics.jwks_updated("https://sts.acme.example")
    now[0] = 160.0
    assert value(metrics, "sidecar_bundle_age_seconds", trust_domain="acme.example") == 60
    assert value(metrics, "sidecar_jwks_age_seconds", issuer="https://sts.acme.example") == 60
    metrics.bundle_withdrawn("acme.example")
    assert value(metrics, "sidecar_bundle_age_seconds", trust_domain="acme.example") is None


def test_ready_is_what_the_probe_says(metrics: Metrics) -> None:
    assert value(metrics, "sidecar_ready") == 0
    lacking = ["identity: starting"]
    metrics.lacking = lambda: lacking
    assert value(metrics, "sidecar_ready") == 0
    lacking.clear()
    assert value(metrics, "sidecar_ready") == 1


def test_memory_is_short_when_its_guard_says_so(metrics: Metrics) -> None:
    assert value(metrics, "sidecar_memory_short") == 0
    metrics.memory_short = lambda: True
    assert value(metrics, "sidecar_memory_short") == 1


def test_a_refused_file_shows_until_the_next_good_one(metrics: Metrics) -> None:
    assert value(metrics, "sidecar_config_last_reload_successful") == 1
    metrics.reloaded(ok=False)
    assert value(metrics, "sidecar_config_last_reload_successful") == 0
    assert value(metrics, "sidecar_config_reloads_total", result="refused") == 1
    metrics.reloaded(ok=True)
    assert value(metrics, "sidecar_config_last_reload_successful") == 1
    assert value(metrics, "sidecar_config_reloads_total", result="ok") == 1


def test_a_refused_file_shows_also_after_another_file_was_good(metrics: Metrics) -> None:
    metrics.reloaded("policy", ok=False)
    metrics.reloaded("keys", ok=True)
    assert value(metrics, "sidecar_config_last_reload_successful") == 0
    metrics.reloaded("policy", ok=True)
    assert value(metrics, "sidecar_config_last_reload_successful") == 1


def test_the_age_of_keys_that_nobody_follows_any_more_is_gone_and_stays_so(metrics: Metrics) -> None:
    issuer = "https://sts.acme.example"
    metrics.declare_issuers([issuer, "https://gone.example"])
    for one in (issuer, "https://gone.example"):
        metrics.jwks_updated(one)
    metrics.jwks_kept([issuer])
    metrics.jwks_updated("https://gone.example")  # of a fetch that was in flight
    assert metrics.ages()[1].keys() == {issuer}
    metrics.jwks_kept([issuer, "https://gone.example"])
    metrics.jwks_updated("https://gone.example")
    assert metrics.ages()[1].keys() == {issuer, "https://gone.example"}


def test_an_svid_tells_its_end_and_how_long_it_lives_in_all(metrics: Metrics) -> None:
    metrics.svid_changed((1_790_000_000, 1_790_003_600))
    assert value(metrics, "sidecar_svid_expiry_timestamp_seconds") == 1_790_003_600
    assert value(metrics, "sidecar_svid_lifetime_seconds") == 3600
    metrics.svid_changed(None)
    assert value(metrics, "sidecar_svid_expiry_timestamp_seconds") == 0
    assert value(metrics, "sidecar_svid_lifetime_seconds") == 0


def test_people_and_machines_are_told_apart(metrics: Metrics) -> None:
    metrics.population.saw("https://sts", "alice", ["spiffe://acme.example/a", "spiffe://acme.example/b"])
    assert value(metrics, "sidecar_identities_seen", kind="human") == 1
    assert value(metrics, "sidecar_identities_seen", kind="machine") == 2
