"""Results of one window. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.histogram import Histogram, percentile


@dataclass(frozen=True, slots=True)
class Sample:
    """``seen`` is the load generator's whole output; ``rss_mib`` and ``peak_mib`` are of the counted processes."""

    scenario: str
    peer: str
    round: int
    expected: int
    seen: dict[str, Any]
    rss_mib: float
    peak_mib: float

    @property
    def cpu_us(self) -> float | None:
        """CPU time of the proxy per request, in microseconds; None without a correct answer."""
        requests = self.seen.get("requests", 0)
        return self.seen["cpu_s"] / requests * 1e6 if requests and not self.is_wrong else None

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return float(self.seen["requests"] / self.seen["seconds"]) if self.seen.get("seconds") else 0.0

    @property
    def megabytes_per_second(self) -> float | None:
        """Bytes of both directions, over the window."""
        seconds = self.seen.get("seconds")
        if not seconds or not self.seen["requests"] or self.is_wrong:
            return None
        return float((self.seen["bytes_in"] + self.seen["bytes_out"]) / seconds / 1e6)

    @property
    def latency(self) -> Histogram:
        """Times from the scheduled start of a request to the end of its answer."""
        return [(bucket, count) for bucket, count in self.seen.get("latency", ())]

    @property
    def event_delay(self) -> Histogram:
        """Times from writing an event to reading it."""
        return [(bucket, count) for bucket, count in self.seen.get("event_delay", ())]

    @property
    def errors(self) -> dict[str, int]:
        """Count the unexpected answers, by status or by the way the connection was lost."""
        seen = self.seen
        statuses = {text: count for text, count in seen.get("statuses", {}).items() if int(text) != self.expected}
        return statuses | {f"lost {how}": count for how, count in seen.get("lost", {}).items() if count}

    @property
    def calls(self) -> int:
        """Count the calls that were due in the window; 0 if the load generator did not count them."""
        return int(self.seen.get("calls", 0))

    @property
    def unanswered(self) -> int:
        """Count the calls due in the window that had no answer within five seconds of its end."""
        return self.calls - int(self.seen.get("calls_answered", 0))

    @property
    def delays(self) -> Histogram:
        """Latencies; if the load has only streams, the delays of their events."""
        return self.latency or self.event_delay

    @property
    def is_wrong(self) -> bool:
        """True if more than one answer in a hundred was missing or unexpected, which invalidates the sample."""
        return bool(max(sum(self.errors.values()), self.unanswered) * 100 > self.seen.get("requests", 0))

    @property
    def reused(self) -> bool:
        """True if there were too few tokens, so that tokens for single use were used twice."""
        return bool(self.seen.get("tokens_used", 0) > self.seen.get("tokens", 0))

    @property
    def told(self) -> str:
        """One line for people."""
        cpu = self.cpu_us
        text = f"{cpu:9.1f} us" if cpu is not None else "        - us"
        text += f" {self.per_second:8.0f}/s"
        histogram = self.delays
        if histogram:
            text += f"  p50 {percentile(histogram, 0.5):6.0f}  p99 {percentile(histogram, 0.99):7.0f} us"
        text += f"  {self.rss_mib:5.0f} MiB"
        if self.errors:
            text += f"  errors {self.errors}"
        if self.unanswered:
            text += f"  unanswered {self.unanswered} of {self.calls}"
        if self.seen.get("late"):
            text += f"  late {self.seen['late']}"
        return text
