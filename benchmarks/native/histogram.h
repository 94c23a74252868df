/* Latencies in nanoseconds, counted in buckets that are at most 1/64 of their value wide. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_BITS 6
#define HISTOGRAM_BUCKETS (64 << HISTOGRAM_BITS)

struct histogram {
    uint64_t count[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value);

/* As JSON: [[bucket, count], …]. benchmarks/histogram.py knows what a bucket is. */
void histogram_print(const struct histogram *histogram, FILE *out);

#endif
