/* What both load generators share: clocks, requests that differ, and a part of their results. */
#ifndef COMMON_H
#define COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define SECOND 1000000000ull
#define STATUSES 600

/* Monotonic time in nanoseconds. */
uint64_t now_ns(void);

/* CPU time of a clock in seconds; -1 if its process is gone. */
double cpu_s(clockid_t clock);

/* CPU time of the processes under test and of this one. */
void clocks_begin(const clockid_t *clocks, size_t count);
void clocks_end(void);
void clocks_print(void); /* members of a JSON object, with a comma at the end */

/* Print how often each status came, as a JSON object. */
void print_statuses(const uint64_t statuses[STATUSES]);

/* Replace each DIGITS of the options by a number that no other request has. `head` has room for one byte more. */
void vary(char *head, size_t length);

#endif
