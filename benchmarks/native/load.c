/*
 * The load generator: requests over mTLS (or plain), by a schedule or as fast as they are answered.
 *
 * One thread and one epoll. With a rate, the schedule is fixed in advance: a request that could not be sent in time is
 * sent late, counted as late, and its latency is counted from when it was due, so that a slow server cannot hide.
 * The CPU clocks of the processes under test are read at both ends of the measured window, by this process, so that
 * nobody's scheduling comes between the two.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "calls.h"
#include "common.h"
#include "connection.h"
#include "histogram.h"
#include "options.h"

#define LATE 1000000ull              /* a request that leaves a millisecond after it was due is late */
#define CONNECT_PATIENCE (60 * SECOND) /* for all connections to be there */
#define PATIENCE (60 * SECOND)         /* for each of them to be answered a few times */
#define MAX_OPENING 64               /* connections at once: who opens 1,000 in one moment measures nothing else */
#define RETRY (10 * 1000000ull)      /* until a lost connection is opened again */
#define GRACE (5 * SECOND)             /* after the window, for the answers of calls that were due in it */

static struct options options;
static struct connection *connections;
static struct connection **idle; /* a ring of connections that are READY, the longest idle first */
static size_t idle_first, idle_count;
static int poller, timer;

static bool measuring, window_is_over;
static uint64_t window_start, window_end, next_due, interval;
static uint64_t answered, sent, late, connects, resumed, first_bytes_in, first_bytes_out;
static uint64_t calls, calls_answered, calls_lost; /* due in the window; the others had no answer in time */
static uint64_t statuses[STATUSES], lost_connect, lost_tls, lost_answer;
static uint64_t answered_once;
static uint64_t scheduled_from; /* with a plan: when its warm part was over */
static uint64_t bytes_in, bytes_out;
static struct histogram latency, event_delay;
static char cipher[64] = "none", group[64] = "none";

static void take_event(const char *line)
{
    uint64_t then = strtoull(line, NULL, 10), now = now_ns();
    if (measuring && then > window_start && now >= then)
        histogram_add(&event_delay, now - then);
}

static void send_request(struct connection *connection, uint64_t due)
{
    struct made made = make_call(&options, scheduled_from == 0);
    if (measuring) {
        sent++;
        calls += options.rate == 0 && !options.fresh;
        if (options.rate > 0 && now_ns() > due + LATE)
            late++;
    }
    connection->expects_events = options.events || made.events;
    connection->after = made.after;
    connection_send(connection, made.text, made.length, made.body, due);
}

static void open_connection(struct connection *connection)
{
    calls += options.fresh && measuring && !window_is_over;
    if (!connection_open(connection, &options.target, now_ns())) {
        lost_connect += measuring;
        calls_lost += options.fresh && measuring && !window_is_over;
        return;
    }
    struct epoll_event interest = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
    if (options.pause_ms > 0)
        interest.events = EPOLLIN | EPOLLOUT; /* what is left unread must be told again */
    epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &interest);
}

static void note_tls(struct connection *connection)
{
    if (connection->ssl == NULL || cipher[0] != 'n')
        return;
    snprintf(cipher, sizeof cipher, "%s", SSL_get_cipher_name(connection->ssl));
    const char *name = SSL_group_to_name(connection->ssl, (int)SSL_get_negotiated_group(connection->ssl));
    snprintf(group, sizeof group, "%s", name != NULL ? name : "unknown");
}

static void become_idle(struct connection *connection)
{
    if (idle_count < options.connections)
        idle[(idle_first + idle_count++) % options.connections] = connection;
}

static void count_answer(struct connection *connection)
{
    answered_once++;
    if (!measuring)
        return;
    answered += !window_is_over;
    statuses[connection->status > 0 && connection->status < STATUSES ? connection->status : 0]++;
    uint64_t since = options.fresh ? connection->opened_at : connection->due;
    if (since >= window_start) {
        calls_answered++;
        uint64_t took = now_ns() - since;
        if (!connection->expects_events) /* how long a stream takes is the agent's choice: its events are timed instead */
            histogram_add(&latency, took > connection->after ? took - connection->after : 0);
    }
}

/* A connection is ready: with a schedule it waits for its turn, without one it asks at once. */
static void ready(struct connection *connection, bool after_answer)
{
    if (options.hold && after_answer)
        return;
    if (window_is_over && options.rate == 0 && (!options.fresh || connection->opened_at < window_start || after_answer))
        return; /* only what was begun in the window is brought to its end */
    if (options.plan != NULL && scheduled_from == 0) {
        send_request(connection, now_ns());
        return;
    }
    bool first = options.rate > 0 && options.plan == NULL && window_start == 0 && !after_answer; /* who says nothing is cut by careful servers */
    if (first)
        send_request(connection, now_ns());
    else if (options.rate > 0 || (window_start == 0 && options.warmup_s == 0 && !options.hold))
        become_idle(connection); /* without warm-up all start together */
    else
        send_request(connection, now_ns());
}

static void go_on(struct connection *connection)
{
    while (connection->state != CLOSED) {
        bool was_idle = connection->state == READY;
        enum outcome outcome = connection_go_on(connection, options.pause_ms > 0 ? 1 : 0);
        if (outcome == WAITING)
            return;
        if (outcome == CONNECTED) {
            connects += measuring;
            resumed += measuring && connection->ssl != NULL && SSL_session_reused(connection->ssl);
            note_tls(connection);
            ready(connection, false);
        } else if (outcome == ANSWERED) {
            count_answer(connection);
            if (measuring && options.requests > 0 && answered >= options.requests)
                return;
            if (options.fresh || connection->close_after) {
                connection_close(connection);
                if (!window_is_over)
                    open_connection(connection);
            } else {
                ready(connection, true);
            }
        } else {
            if (measuring && !was_idle) {
                lost_connect += outcome == LOST_CONNECT;
                lost_tls += outcome == LOST_TLS;
                lost_answer += outcome == LOST_ANSWER;
                uint64_t since = options.fresh ? connection->opened_at : connection->due;
                calls_lost += since >= window_start && (options.fresh || outcome == LOST_ANSWER);
            }
            connection_close(connection); /* opened again a moment later */
        }
        if (connection->state == READY && (options.rate > 0 || options.hold || window_start == 0 || window_is_over))
            return;
    }
}

static void send_what_is_due(uint64_t now)
{
    while (next_due <= now && idle_count > 0 && (window_end == 0 || next_due < window_end)) {
        struct connection *connection = idle[idle_first];
        idle_first = (idle_first + 1) % options.connections;
        idle_count--;
        if (connection->state != READY)
            continue; /* lost while it was idle */
        send_request(connection, next_due);
        next_due += interval;
        go_on(connection);
    }
    struct itimerspec at = {.it_value = {(time_t)(next_due / SECOND), (long)(next_due % SECOND)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static size_t count_in(enum state lowest)
{
    size_t count = 0;
    for (size_t at = 0; at < options.connections; at++)
        count += connections[at].state >= lowest;
    return count;
}

static void reopen_lost(uint64_t now)
{
    static uint64_t next;
    if (now < next)
        return;
    next = now + RETRY;
    size_t opening = count_in(CONNECTING) - count_in(READY);
    for (size_t at = 0; at < options.connections && opening < MAX_OPENING; at++) {
        if (connections[at].state == CLOSED) {
            open_connection(&connections[at]);
            opening++;
        }
    }
}

static uint64_t total(bool in)
{
    uint64_t sum = 0;
    for (size_t at = 0; at < options.connections; at++)
        sum += in ? connections[at].bytes_in : connections[at].bytes_out;
    return sum;
}

static void begin_window(void)
{
    clocks_begin(options.clocks, options.clock_count);
    first_bytes_in = total(true);
    first_bytes_out = total(false);
    measuring = true;
    window_start = now_ns();
    next_due = window_start + interval; /* what could not be sent while it was warming up is nobody's debt */
    window_end = options.requests > 0 ? 0 : window_start + (uint64_t)(options.seconds * 1e9);
    if (options.rate > 0 && window_end != 0)
        calls = (window_end - window_start - 1) / interval;
}

static void end_window(void)
{
    clocks_end();
    bytes_in = total(true) - first_bytes_in;
    bytes_out = total(false) - first_bytes_out;
    window_is_over = true;
}

static void wait_a_moment(int milliseconds)
{
    static struct epoll_event events[512];
    int count = epoll_wait(poller, events, 512, milliseconds);
    for (int at = 0; at < count; at++) {
        if (events[at].data.ptr == &timer) {
            uint64_t expired;
            if (read(timer, &expired, sizeof expired) < 0)
                continue;
        } else {
            go_on(events[at].data.ptr);
        }
    }
    if (options.pause_ms > 0)
        usleep((useconds_t)options.pause_ms * 1000);
}

static void report(uint64_t end)
{
    printf("{\"requests\":%llu,\"seconds\":%.6f,", (unsigned long long)answered, (double)(end - window_start) / 1e9);
    clocks_print();
    printf("\"statuses\":");
    print_statuses(statuses);
    printf(",\"lost\":{\"connect\":%llu,\"tls\":%llu,\"answer\":%llu},", (unsigned long long)lost_connect,
           (unsigned long long)lost_tls, (unsigned long long)lost_answer);
    printf("\"sent\":%llu,\"late\":%llu,\"connects\":%llu,\"tokens_used\":%llu,\"tokens\":%zu,",
           (unsigned long long)sent, (unsigned long long)late, (unsigned long long)connects,
           (unsigned long long)tokens_used(&options), options.token_count);
    printf("\"bytes_in\":%llu,\"bytes_out\":%llu,", (unsigned long long)bytes_in, (unsigned long long)bytes_out);
    printf("\"resumed\":%llu,", (unsigned long long)resumed);
    printf("\"calls\":%llu,\"calls_answered\":%llu,", (unsigned long long)calls, (unsigned long long)calls_answered);
    printf("\"cipher\":\"%s\",\"group\":\"%s\",\"openssl\":\"%s\",", cipher, group, OpenSSL_version(OPENSSL_VERSION));
    printf("\"latency\":");
    histogram_print(&latency, stdout);
    printf(",\"event_delay\":");
    histogram_print(&event_delay, stdout);
    printf("}\n");
}

static void connect_all(void)
{
    uint64_t patience = now_ns() + CONNECT_PATIENCE;
    while (count_in(READY) < options.connections) {
        reopen_lost(now_ns());
        wait_a_moment(5);
        if (now_ns() > patience) {
            fprintf(stderr, "load: %zu of %zu connections could be opened\n", count_in(READY), options.connections);
            exit(1);
        }
        if (answered_once > (options.fresh ? 0 : 4 * options.connections))
            return; /* they come and go: who closes after each answer never has all of them */
    }
}

static void hold(void)
{
    while (answered_once < options.connections)
        wait_a_moment(5);
    puts("held");
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
}

/* Every call that was due in the window is waited for: one without an answer counts as such, a slow one as slow. */
static void answer_the_rest(uint64_t end)
{
    while (calls_answered + calls_lost < calls && now_ns() < end + GRACE + longest_after(&options)) {
        if (options.rate > 0) {
            reopen_lost(now_ns());
            send_what_is_due(now_ns());
        } else if (options.fresh ? count_in(CONNECTING) == 0 : count_in(SENDING) == 0) {
            return;
        }
        wait_a_moment(5);
    }
}

static uint64_t run(void)
{
    uint64_t start = now_ns(), warm = start + (uint64_t)(options.warmup_s * 1e9);
    interval = options.rate > 0 ? (uint64_t)(1e9 / options.rate) : 0;
    next_due = start + interval;
    if (options.warmup_s == 0)
        begin_window();
    if (options.rate == 0) {
        for (; idle_count > 0; idle_count--, idle_first++) {
            struct connection *connection = idle[idle_first % options.connections];
            send_request(connection, now_ns());
            go_on(connection);
        }
    }
    for (;;) {
        uint64_t now = now_ns();
        if (options.plan != NULL && scheduled_from == 0) {
            if (answered_once >= options.warm_requests || now > start + PATIENCE) {
                scheduled_from = now;
                next_due = now + interval;
                warm = now + (uint64_t)(options.warmup_s * 1e9);
                say_warm();
            }
        } else if (!measuring && now >= warm && (answered_once >= options.warm_requests || options.events || now > warm + PATIENCE))
            begin_window(); /* every connection, and every pool behind the proxy, is warm */
        if (measuring && (window_end != 0 ? now >= window_end : answered >= options.requests))
            break;
        if (measuring && window_end == 0 && now > window_start + 300 * SECOND)
            break; /* nobody answers any more */
        reopen_lost(now);
        if (options.rate > 0 && (options.plan == NULL || scheduled_from != 0))
            send_what_is_due(now);
        wait_a_moment(measuring && window_end != 0 && window_end - now < 20 * 1000000ull ? 1 : 10);
    }
    uint64_t end = now_ns();
    end_window();
    if (window_end != 0 && !options.events && options.pause_ms == 0)
        answer_the_rest(end);
    return end;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    read_options(&options, argc, argv);
    on_event = take_event;
    connections = calloc(options.connections, sizeof *connections);
    idle = calloc(options.connections, sizeof *idle);
    struct rlimit files = {options.connections + 64, options.connections + 64}, had;
    if (getrlimit(RLIMIT_NOFILE, &had) == 0 && had.rlim_cur < files.rlim_cur)
        setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = &timer};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &interest);
    connect_all();
    if (options.hold) {
        hold();
        return 0;
    }
    report(run());
    return 0;
}
