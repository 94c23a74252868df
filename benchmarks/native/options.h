/* What the load generator is told on its command line. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connection.h"

#define MAX_PIDS 64
#define DIGITS "@SIXTEEN_DIGITS@" /* replaced by 16 hex digits that no other request has */

struct options {
    struct target target;
    char *request; /* a head; @TOKEN@ in it is replaced, and each DIGITS */
    bool varies;   /* it has DIGITS */
    size_t request_length;
    char **tokens;
    size_t token_count, first_token;
    uint64_t body; /* bytes of zeros after each head */
    size_t connections;
    size_t streams; /* of HTTP/2, at a time on each connection */
    double seconds, warmup_s;
    uint64_t warm_requests; /* the window begins after so many answers, at the earliest */
    double rate;       /* requests a second by a schedule; 0: each connection as fast as it is answered */
    uint64_t requests; /* end after so many instead of after `seconds` */
    bool fresh;        /* a new connection for each request */
    bool events;       /* answers are server-sent events that carry the time */
    bool hold;         /* one request on each connection, then keep them open until standard input ends */
    bool unended;      /* of HTTP/2: fill each connection with requests whose answers begin and do not end */
    int pause_ms;      /* after each read: a slow reader */
    clockid_t clocks[MAX_PIDS]; /* whose CPU time is read at both ends of the window */
    size_t clock_count;
};

/* Ends the program with 2 and a sentence on standard error if they make no sense. */
void read_options(struct options *options, int argc, char **argv);

#endif
