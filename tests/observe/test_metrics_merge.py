from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from delegation_core.errors import Reason
from sidecar import __version__
from sidecar.observe.metrics import Metrics
from sidecar.observe.metrics_merge import Families, counts_only, families_of, merged, of_silent, text_of
from sidecar.observe.scrape import render, scrape


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def told(
    *, requests: int = 0, seconds: float = 0.2, in_flight: int = 0, expires_at: int = 0, age: float = 0
) -> Families:
    clock = Clock()
    metrics = Metrics(monotonic=clock)
    metrics.declare_routes("inbound", ["draft"])
    for _ in range(requests):
        metrics.request("inbound", "draft", "allow", "ok", seconds)
    metrics.handshake_refused(Reason.BAD_SVID)
    metrics.in_flight = lambda: in_flight
    metrics.svid_expires_at = expires_at
    metrics.bundle_updated("acme.example")
    clock.now += age
    return families_of(scrape(metrics))


def values(families: Families) -> dict[str, float]:
    """Return values as a scraper reads them: ``name{labels}`` → value."""
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text_of(families).decode())
        for sample in family.samples
    }


def test_counts_are_added_up() -> None:
    found = values(merged([told(requests=2, in_flight=1), told(requests=3, seconds=20.0, in_flight=4)]))
    assert found["sidecar_requests_total allow inbound ok draft"] == 5
    assert found["sidecar_request_duration_seconds_count inbound"] == 5
    assert found["sidecar_request_duration_seconds_sum inbound"] == 2 * 0.2 + 3 * 20.0
    assert found["sidecar_request_duration_seconds_bucket inbound 10"] == 2
    assert found["sidecar_request_duration_seconds_bucket inbound +Inf"] == 5
    assert found["sidecar_handshakes_refused_total bad_svid"] == 2
    assert found["sidecar_requests_in_flight"] == 5
    assert found["sidecar_workers"] == 2


def test_of_what_all_follow_the_worst_is_told() -> None:
    found = values(merged([told(expires_at=900, age=5), told(expires_at=800, age=7)]))
    assert found["sidecar_svid_expiry_timestamp_seconds"] == 800
    assert found["sidecar_bundle_age_seconds acme.example"] == 7
    assert found[f"sidecar_build_info python {__version__}"] == 1


def test_one_without_an_identity_shows_as_none() -> None:
    assert values(merged([told(expires_at=900), told()]))["sidecar_svid_expiry_timestamp_seconds"] == 0


def test_one_that_is_gone_leaves_its_counts_and_nothing_else() -> None:
    gone = counts_only(told(requests=2, in_flight=3, expires_at=1, age=9))
    found = values(merged([told(requests=1, expires_at=900), gone]))
    assert found["sidecar_requests_total allow inbound ok draft"] == 3
    assert found["sidecar_request_duration_seconds_count inbound"] == 3
    assert found["sidecar_requests_in_flight"] == 0
    assert found["sidecar_svid_expiry_timestamp_seconds"] == 900
    assert found["sidecar_workers"] == 1


def test_one_that_is_silent_leaves_its_counts_and_is_not_ready() -> None:
    """Its ages would stand still: a young list, an agent that is up."""
    ready, silent = Metrics(), told(requests=2, in_flight=3, expires_at=1, age=9)
    ready.lacking = list
    found = values(merged([families_of(scrape(ready)), of_silent(silent)]))
    assert found["sidecar_ready"] == 0
    assert found["sidecar_requests_total allow inbound ok draft"] == 2
    assert found["sidecar_requests_in_flight"] == 0
    assert [name for name in values(of_silent(silent)) if "_age_" in name or "_expiry_" in name] == []
    assert of_silent({}) == {}


def test_one_alone_reads_as_it_would_by_itself() -> None:
    metrics = Metrics(monotonic=Clock(), wall=Clock())
    metrics.request("inbound", None, "deny", "no_token", 0.1)
    together = text_of(families_of(scrape(metrics))).decode()
    assert _without_process(together) == _without_process(render(metrics).decode())


def _without_process(text: str) -> set[str]:
    return {line for line in text.splitlines() if "sidecar_process" not in line}


def test_one_process_that_is_not_ready_or_refused_its_settings_shows() -> None:
    ready, not_ready = Metrics(), Metrics()
    ready.lacking = list
    not_ready.reloaded(ok=False)
    found = values(merged([families_of(scrape(ready)), families_of(scrape(not_ready))]))
    assert (found["sidecar_ready"], found["sidecar_config_last_reload_successful"]) == (0, 0)
    found = values(merged([families_of(scrape(ready)), families_of(scrape(ready))]))
    assert (found["sidecar_ready"], found["sidecar_config_last_reload_successful"]) == (1, 1)


def test_the_people_whom_each_process_saw_are_not_added_up() -> None:
    one, other = Metrics(), Metrics()
    for metrics, users in ((one, ["alice", "bob"]), (other, ["alice"])):
        for user in users:
            metrics.population.saw("https://sts", user, ["spiffe://acme.example/agent"])
    families = merged([families_of(scrape(one)), families_of(scrape(other))])
    seen = families["sidecar_identities_seen"].values
    assert {dict(labels)["kind"]: count for (_, labels), count in seen.items()} == {"human": 2, "machine": 1}
