/* What the load generator is told on its command line. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connection.h"

#define MAX_PIDS 64
#define TOKEN "@TOKEN@"
#define DIGITS "@SIXTEEN_DIGITS@" /* replaced by 16 hex digits that no other request has */

/* A request: a head, and perhaps a short body. TOKEN and each DIGITS in it are replaced. */
struct template {
    char *text;
    size_t length, head_length;
    bool varies;    /* it has DIGITS */
    bool events;    /* the answer is a stream of server-sent events, each with the time */
    uint64_t after; /* its X-Answer-After, in nanoseconds */
    uint64_t body;  /* zeros after the text */
};

struct planned {
    size_t template, token;
};

struct options {
    struct target target;
    struct template *templates;
    size_t template_count;
    struct planned *plan; /* the template and the token of each request; NULL: one template, each token in turn */
    size_t plan_count, plan_warm; /* the first `plan_warm` are sent before the schedule, as fast as answered */
    char **tokens;
    size_t token_count, first_token;
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
