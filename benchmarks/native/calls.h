/* The next request of a load generator, from its templates, tokens and plan. */
#ifndef CALLS_H
#define CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "options.h"

struct made {
    char *text; /* the caller frees it */
    size_t length, head_length;
    uint64_t body;  /* zeros after the text */
    uint64_t after; /* nanoseconds that the agent waits before it answers */
    bool events;
};

/* Make the next request. `warm`: from the start of the plan, which comes before the schedule. */
struct made make_call(const struct options *options, bool warm);

/* The longest time, in nanoseconds, that the agent waits before an answer. */
uint64_t longest_after(const struct options *options);

/* Say on standard output that the warm part of the plan is over, and its schedule begins. */
void say_warm(void);

/* Tokens that were used; more than there are once the plan began again. */
uint64_t tokens_used(const struct options *options);

#endif
