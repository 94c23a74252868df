"""Each alert in a mesh of 500, as promtool tests: one member fails, 499 work, and foreign pods report successes. Pure.

A foreign pod is scraped under the same job: one in a namespace of its own, under the name of the failing workload, and,
for rules that keep the pod, one in the failing workload's namespace. Neither may silence the alert.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

SIZE: Final = 500
FAILING: Final = 137  # the number of the member that fails
KEPT: Final = {
    "instance": ("job", "namespace", "workload", "pod", "instance"),
    "workload": ("job", "namespace", "workload"),
    "namespace": ("job", "namespace"),
}

Values = Mapping[str, str]  # by metric and its own labels, in promtool's notation
Target = dict[str, str]


class Row(NamedTuple):
    """One alert: what the failing member and the others report, and when it has to fire.

    ``level``: the labels that the alert keeps. ``extra``: labels of the metric that it keeps. ``foreign``: what foreign
    pods report, if not what working members do. ``unnamed``: the failing member has no label ``workload``.
    """

    failing: Values
    working: Values
    at: str
    extra: Mapping[str, str] = {}
    level: Literal["instance", "workload", "namespace"] = "instance"
    job: str = "mesh/sidecar"
    interval: str = "1m"
    foreign: Values | None = None
    unnamed: bool = False


def gauge(metric: str, failing: float, working: float, at: str, extra: Mapping[str, str] = {}, **more: Any) -> Row:
    """Return the row of a rule that compares one gauge."""
    series = metric + _braces(extra)
    return Row({series: f"{failing:g}x60"}, {series: f"{working:g}x60"}, at, extra, **more)


def event(metric: str, at: str = "6m", by: int = 1, **more: Any) -> Row:
    """Return the row of a rule for which a counter's growth within minutes is enough."""
    return Row({metric: f"0x4 {by}x60"}, {metric: "0x60"}, at, **more)


def requests(reason: str, at: str, a_minute: int = 60, **more: Any) -> Row:
    """Return the row of a rule about requests: every call of the failing member ends with ``reason``."""
    failing = _request(decision="deny", reason=reason)
    return Row({failing: f"0+{a_minute}x90"}, {SERVED: "0+10x90"}, at, foreign={SERVED: "0+1000000x90"}, **more)


def document(name: str, severity: str, row: Row) -> dict[str, Any]:
    """Return the promtool test: exactly one alert, with the labels of the failing member."""
    expected = {label: target(row, FAILING)[label] for label in KEPT[row.level] if label in target(row, FAILING)}
    labels = {"alertname": name, "alertstate": "firing", "severity": severity, **expected, **row.extra}
    check = {
        "expr": f'ALERTS{{alertname="{name}", alertstate="firing"}}',
        "eval_time": row.at,
        "exp_samples": [{"labels": f"ALERTS{_braces(labels)}", "value": 1}],
    }
    test = {"interval": row.interval, "input_series": list(series(row)), "promql_expr_test": [check]}
    return {"evaluation_interval": row.interval, "tests": [{"name": f"{name}: one of {SIZE}", **test}]}


def series(row: Row) -> Iterator[dict[str, str]]:
    """Return everything that is scraped."""
    for number in range(SIZE):
        yield from _reported(target(row, number), row.failing if number == FAILING else row.working)
    for pod in foreign(row):
        yield from _reported(pod, row.working if row.foreign is None else row.foreign)


def target(row: Row, number: int) -> Target:
    """Return the labels of a member's target: an agent's, or that of a namespace's only member."""
    apart = row.level == "namespace"
    namespace = f"team-{number if apart else number % 10}"
    found = {"job": row.job, "namespace": namespace, "workload": f"agent-{number}", "pod": f"agent-{number}-7d9f-x2x"}
    if row.unnamed and number == FAILING:
        del found["workload"]
    return {**found, "instance": f"10.0.{number // 250}.{number % 250}:7090"}


def foreign(row: Row) -> list[Target]:
    """Return the targets of foreign pods that claim to be the failing workload."""
    claimed = {**target(row, FAILING), "workload": f"agent-{FAILING}"}
    pods = [{**claimed, "namespace": "foreign", "pod": "foreign-0", "instance": "10.9.9.9:7090"}]
    if row.level == "instance":
        pods.append({**claimed, "pod": "foreign-1", "instance": "10.9.9.8:7090"})
    return pods


def _reported(labels: Target, values: Values) -> Iterator[dict[str, str]]:
    for metric, numbers in values.items():
        name, _, own = metric.partition("{")
        inside = ", ".join(part for part in (own.rstrip("}"), _braces(labels)[1:-1]) if part)
        yield {"series": f"{name}{{{inside}}}", "values": numbers}


def _braces(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""


def _request(direction: str = "inbound", decision: str = "allow", reason: str = "ok", route: str = "r") -> str:
    labels = {"direction": direction, "route": route, "decision": decision, "reason": reason}
    return "sidecar_requests_total" + _braces(labels)


def _buckets(fast: int, slow: int) -> Values:
    metric = "sidecar_token_exchange_duration_seconds_bucket"
    return {
        f'{metric}{{le="0.5"}}': f"0+{fast}x60",
        f'{metric}{{le="5"}}': f"0+{fast + slow}x60",
        f'{metric}{{le="+Inf"}}': f"0+{fast + slow}x60",
    }


SERVED: Final = _request()
_OUT: Final = _request("outbound")
_ISSUER: Final = {"issuer": "https://sts.acme.example"}
_ROUTE: Final = {"direction": "inbound", "route": "r"}
_UNTIL: Final = f"sidecar_observe_until_timestamp_seconds{_braces(_ROUTE)}"
_UP_TO: Final[Values] = {"up": "1x4 0x60"}
_UP: Final[Values] = {"up": "1x60"}
_BUILD: Final = 'sidecar_build_info{version="%d"}'
_EXCHANGE: Final = f"sidecar_token_exchange_total{_braces(_ISSUER)[:-1]}"
_FREE, _ROOM = "sidecar_records_sink_free_bytes", "sidecar_records_sink_size_bytes"
_SEEN: Final = 'sidecar_identities_seen{kind="%s"}'
_REVIEWS: Final = 'sidecar_injector_reviews_total{decision="%s", rule="r"}'
_EXPIRES, _LIFE = "sidecar_svid_expiry_timestamp_seconds", "sidecar_svid_lifetime_seconds"
_AGE: Final = "sidecar_bundle_age_seconds"

ROWS: Final[Mapping[str, Row]] = {
    "SidecarDown": Row(_UP_TO, _UP, "8m"),
    "SidecarAbsent": Row({_BUILD % 1: "1x4 stale"}, {_BUILD % 1: "1x60"}, "12m", level="namespace"),
    "SidecarWorkloadUnnamed": Row(_UP, _UP, "16m", level="namespace", unnamed=True),
    "SidecarNotReady": gauge("sidecar_ready", 0, 1, "4m"),
    "SidecarTokenServiceGone": Row(_UP_TO, _UP, "8m", level="namespace", job="mesh/sts"),
    "SidecarTokenEndpointDown": gauge("sidecar_token_endpoint_open", 1, 0, "4m", {**_ISSUER, "endpoint": "2"}),
    "SidecarAgentDown": gauge("sidecar_agent_up", 0, 1, "2m"),
    "SidecarOverloaded": requests("overloaded", "12m"),
    "SidecarUpstreamFails": requests("upstream_timeout", "16m", 1),
    "SidecarNamesNotFound": Row(
        {'sidecar_name_lookups_total{result="failed"}': "0+6x60"},
        {'sidecar_name_lookups_total{result="ok"}': "0+1000000x60"},
        "12m",
    ),
    "SidecarErrorBudgetBurnsFast": requests("sts_timeout", "20m", 1),
    "SidecarErrorBudgetBurnsSlowly": requests("sts_timeout", "40m", 1),
    "SidecarDescriptorsRunOut": Row(
        {"sidecar_process_open_fds": "900x60", "sidecar_process_max_fds": "1000x60", "sidecar_workers": "1x60"},
        {"sidecar_process_open_fds": "9x60", "sidecar_process_max_fds": "1000x60", "sidecar_workers": "1x60"},
        "8m",
    ),
    "SidecarWorkersDie": event("sidecar_worker_restarts_total"),
    "SidecarClockWrong": Row(
        {"sidecar_wall_clock_seconds": "60+60x60"}, {"sidecar_wall_clock_seconds": "0+60x60"}, "4m"
    ),
    "SidecarVersionsDiffer": Row(
        {_BUILD % 2: "1x400"}, {_BUILD % 1: "1x400"}, "25h", {"version": "2"}, "workload", interval="4m"
    ),
    "SidecarIdentitySourceLost": Row(
        {'sidecar_identity_updates_total{result="lost"}': "0+30x60"},
        {'sidecar_identity_updates_total{result="taken"}': "0+1000000x60"},
        "12m",
    ),
    "SidecarIdentityUpdateDiscarded": event('sidecar_identity_updates_total{result="discarded"}'),
    "SidecarSvidEndsSoon": Row({_EXPIRES: "900x60", _LIFE: "3600x60"}, {_EXPIRES: "90000x60", _LIFE: "3600x60"}, "5m"),
    "SidecarTrustBundleOld": Row(
        {f'{_AGE}{{trust_domain="a"}}': "5000x60", _LIFE: "3600x60"},
        {f'{_AGE}{{trust_domain="a"}}': "5x60", _LIFE: "3600x60"},
        "12m",
        {"trust_domain": "a"},
    ),
    "SidecarHandshakesRefused": Row(
        {'sidecar_handshakes_refused_total{reason="untrusted_chain"}': "0+60x60"},
        {'sidecar_handshakes_refused_total{reason="untrusted_chain"}': "0x60", SERVED: "0+1000000x60"},
        "16m",
        {"reason": "untrusted_chain"},
    ),
    "SidecarTokenExchangeFails": Row(
        {_EXCHANGE + ', result="sts_timeout"}': "0+1x60"}, {_EXCHANGE + ', result="ok"}': "0+1000000x60"}, "16m"
    ),
    "SidecarTokenExchangeSlow": Row(_buckets(0, 1), _buckets(1000000, 0), "16m"),
    "SidecarIssuerKeysOld": gauge("sidecar_jwks_age_seconds", 3000, 3, "8m", _ISSUER),
    "SidecarRevocationsOld": gauge("sidecar_revocations_age_seconds", 60, 1, "4m", _ISSUER),
    "SidecarReplicaSilent": gauge("sidecar_replicas", 1, 0, "4m", {"state": "silent"}, job="mesh/sts"),
    "SidecarRevocationUnacknowledged": gauge("sidecar_revocations_unacknowledged", 1, 0, "4m", job="mesh/sts"),
    "SidecarRevocationBookFull": gauge("sidecar_revocation_book_ratio", 0.9, 0, "4m", job="mesh/sts"),
    "SidecarUserRevokedAlone": event("sidecar_revocations_alone_total", job="mesh/sts"),
    "SidecarActorMismatch": event("sidecar_actor_mismatch_total"),
    "SidecarImpersonation": event("sidecar_impersonation_refused_total", by=9),
    "SidecarAttemptToLeave": event("sidecar_attempts_to_leave_total"),
    "SidecarEnforcesSoon": Row(
        {_UNTIL: "360000x60", _request(decision="observed_deny", reason="no_token"): "0+1x60"},
        {_UNTIL: "360000x60", SERVED: "0+1000000x60"},
        "30h",
        _ROUTE,
        "workload",
        interval="1h",
    ),
    "SidecarStillObserves": Row(
        {_UNTIL: "5000000x350"}, {_UNTIL: "_x300 5000000x50"}, "340h", _ROUTE, "workload", interval="1h"
    ),
    "SidecarOwnAuthorityRises": Row(
        {"sidecar_own_authority_calls_total": "0+1x90", _OUT: "0+1x90"},
        {"sidecar_own_authority_calls_total": "0x90", _OUT: "0+1000000x90"},
        "50m",
        level="workload",
    ),
    "SidecarDenialsRise": requests("policy_denied", "25m", extra={"reason": "policy_denied"}, level="workload"),
    "SidecarUnknownIssuers": requests("wrong_issuer", "16m"),
    "SidecarChainsTooDeep": requests("act_too_deep", "21m"),
    "SidecarOtherEndIsNotWhoItShouldBe": requests("sts_no_act", "12m", extra={"reason": "sts_no_act"}),
    "SidecarRecordsLost": event("sidecar_audit_events_dropped_total"),
    "SidecarCountersigningFails": Row(
        {"sidecar_countersign_failures_total": "0+1x60"}, {"sidecar_countersign_failures_total": "0x60"}, "20m"
    ),
    "SidecarCheckpointsMissing": Row(
        {"sidecar_records_uncountersigned": "5+1x120"}, {"sidecar_records_uncountersigned": "0x120"}, "100m"
    ),
    "SidecarBypassed": gauge("sidecar_bypass_listeners", 1, 0, "3m"),
    "SidecarRecordsSinkFills": Row({_FREE: "5x60", _ROOM: "100x60"}, {_FREE: "90x60", _ROOM: "100x60"}, "12m"),
    "SidecarRecordsSinkAlmostFull": Row({_FREE: "2x60", _ROOM: "100x60"}, {_FREE: "90x60", _ROOM: "100x60"}, "4m"),
    "SidecarSettingsNearBound": gauge("sidecar_settings_bound_ratio", 0.9, 0.1, "8m", {"bound": "rules"}),
    "SidecarSettingsRefused": gauge("sidecar_config_last_reload_successful", 0, 1, "8m"),
    "SidecarDenyFileRefused": gauge("sidecar_deny_file_refused", 1, 0, "3m"),
    "SidecarMachinesOutnumberHumans": Row(
        {_SEEN % "machine": "500x90", _SEEN % "human": "1x90"},
        {_SEEN % "machine": "9x90", _SEEN % "human": "9x90"},
        "65m",
        level="namespace",
        foreign={_SEEN % "machine": "1x90", _SEEN % "human": "1000000x90"},
    ),
    "SidecarInjectorDown": Row(_UP_TO, _UP, "8m", level="namespace", job="mesh/injector"),
    "SidecarInjectorRefusesAll": Row(
        {_REVIEWS % "deny": "0+2x60", _REVIEWS % "allow": "0x60"},
        {_REVIEWS % "deny": "0x60", _REVIEWS % "allow": "0+1000000x60"},
        "20m",
        level="namespace",
        job="mesh/injector",
    ),
    "SidecarInjectorCertificateEndsSoon": gauge(
        "sidecar_injector_certificate_not_after_seconds", 500000, 50000000, "20m", job="mesh/injector"
    ),
}
