"""Windows as the load generator reports them."""

from typing import Any

from benchmarks.histogram import bucket_of
from benchmarks.results import Results, Taking
from benchmarks.sample import Sample


def sample(
    cpu_us: float,
    *,
    scenario: str = "inbound",
    peer: str = "sidecar",
    number: int = 0,
    expected: int = 200,
    **seen: Any,
) -> Sample:
    """Return a window of 1,000 requests in a second, each at this cost."""
    usual = {
        "requests": 1000,
        "seconds": 1.0,
        "cpu_s": cpu_us / 1000,
        "statuses": {"200": 1000},
        "lost": {"connect": 0, "tls": 0, "answer": 0},
        "late": 0,
        "calls": 1000,
        "calls_answered": 1000,
        "tokens": 16,
        "tokens_used": 16,
        "bytes_in": 90_000_000,
        "bytes_out": 10_000_000,
        "cipher": "AES",
        "group": "x25519",
        "latency": [[bucket_of(50_000), 1000]],
        "event_delay": [],
    }
    return Sample(scenario, peer, number, expected, {**usual, **seen}, rss_mib=60.0, peak_mib=70.0)


def results(*samples: Sample, missing: dict[str, str] | None = None) -> Results:
    """Return a run of HAProxy and the sidecar."""
    peers = (("haproxy", "HAProxy", ("any look at the token",)), ("sidecar", "delegation sidecar", ()))
    return Results(
        made_at="2026-11-26T00:00:00+00:00",
        seconds=1.0,
        rounds=2,
        machine={"cpu": "any"},
        caveats=(),
        peers=tuple(Taking(name=name, title=title, version="1", does_not=lacks) for name, title, lacks in peers),
        missing=missing or {},
        samples=samples,
    )
