#define _GNU_SOURCE
#include "common.h"

#include <stdio.h>
#include <string.h>

#include "options.h"

static const clockid_t *clocks;
static size_t clock_count;
static double cpu[MAX_PIDS], own;

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

double cpu_s(clockid_t clock)
{
    struct timespec used;
    if (clock_gettime(clock, &used) < 0)
        return -1;
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

void clocks_begin(const clockid_t *of, size_t count)
{
    clocks = of;
    clock_count = count;
    for (size_t at = 0; at < count; at++)
        cpu[at] = cpu_s(of[at]);
    own = cpu_s(CLOCK_PROCESS_CPUTIME_ID);
}

void clocks_end(void)
{
    for (size_t at = 0; at < clock_count; at++)
        cpu[at] = cpu_s(clocks[at]) - cpu[at];
    own = cpu_s(CLOCK_PROCESS_CPUTIME_ID) - own;
}

void clocks_print(void)
{
    printf("\"own_cpu_s\":%.6f,\"cpu_each_s\":[", own);
    for (size_t at = 0; at < clock_count; at++)
        printf("%s%.9f", at > 0 ? "," : "", cpu[at]);
    printf("],");
}

void print_statuses(const uint64_t statuses[STATUSES])
{
    const char *separator = "";
    printf("{");
    for (int status = 0; status < STATUSES; status++) {
        if (statuses[status] == 0)
            continue;
        printf("%s\"%d\":%llu", separator, status, (unsigned long long)statuses[status]);
        separator = ",";
    }
    printf("}");
}

static uint64_t next_number(void)
{
    static uint64_t count;
    uint64_t mixed = ++count * 0x9e3779b97f4a7c15ull; /* splitmix64: each once, in no order */
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebull;
    return mixed ^ (mixed >> 31);
}

void vary(char *head, size_t length)
{
    head[length] = 0;
    for (char *place = head; (place = strstr(place, DIGITS)) != NULL;) {
        char digits[17];
        snprintf(digits, sizeof digits, "%016llx", (unsigned long long)next_number());
        memcpy(place, digits, 16);
        place += 16;
    }
}
