#include "histogram.h"

/* Values below 64 have a bucket each; above, the highest seven bits tell the bucket. */
static unsigned bucket_of(uint64_t value)
{
    if (value < (1u << HISTOGRAM_BITS))
        return (unsigned)value;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_BITS;
    return ((exponent + 1) << HISTOGRAM_BITS) + (unsigned)((value >> exponent) & ((1u << HISTOGRAM_BITS) - 1));
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->count[bucket_of(value)]++;
}

void histogram_print(const struct histogram *histogram, FILE *out)
{
    const char *separator = "";
    fputc('[', out);
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        if (histogram->count[bucket] == 0)
            continue;
        fprintf(out, "%s[%u,%llu]", separator, bucket, (unsigned long long)histogram->count[bucket]);
        separator = ",";
    }
    fputc(']', out);
}
