"""Latencies as the load generator counts them (``native/histogram.c``): buckets 1/64 of their value wide. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

Histogram: TypeAlias = Sequence[tuple[int, int]]  # (bucket, count), in nanoseconds, ascending

_BITS: Final = 6


def bucket_of(value: int) -> int:
    """Return the bucket of a value in nanoseconds: one each below 64; above, by the highest seven bits."""
    if value < 1 << _BITS:
        return value
    exponent = value.bit_length() - 1 - _BITS
    return ((exponent + 1) << _BITS) + ((value >> exponent) & ((1 << _BITS) - 1))


def value_of(bucket: int) -> float:
    """Return the middle of a bucket, in nanoseconds."""
    if bucket < 1 << _BITS:
        return float(bucket)
    exponent = (bucket >> _BITS) - 1
    lowest = ((1 << _BITS) | (bucket & ((1 << _BITS) - 1))) << exponent
    return lowest + ((1 << exponent) - 1) / 2


def percentile(histogram: Histogram, share: float) -> float:
    """Return the value that ``share`` (0 to 1) of all values do not exceed, in microseconds; NaN if there are none."""
    total = sum(count for _, count in histogram)
    seen = 0
    for bucket, count in histogram:
        seen += count
        if seen >= share * total and seen > 0:
            return value_of(bucket) / 1000
    return float("nan")


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Merge histograms into one."""
    counts: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram:
            counts[bucket] = counts.get(bucket, 0) + count
    return sorted(counts.items())
