/*
 * The load generator of HTTP/2: many streams on each connection, by nghttp2, over mTLS or plain (prior knowledge).
 *
 * It has the options, the window and the report of load.c. Saturated: each connection always has --streams requests in
 * progress. With a rate, the schedule is fixed in advance, and latency counts from when a request was due. The request
 * is the file of HTTP/1.1 that load.c reads, written as fields of HTTP/2. nghttp2 never puts Authorization into the
 * table of the compression, so a token comes as a literal each time, as from most clients.
 *
 * An answer of gRPC counts as its HTTP status only with `grpc-status: 0`, else as status 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "calls.h"
#include "common.h"
#include "histogram.h"
#include "options.h"

#define LATE 1000000ull
#define PATIENCE (60 * SECOND)
#define MAX_OPENING 64
#define RETRY (10 * 1000000ull)
#define GRACE (5 * SECOND)
#define MAX_FIELDS 64
#define MAX_OUT (256 * 1024)
#define STREAM_WINDOW (4 << 20) /* as Go's client: windows seldom matter with short answers */
#define CONNECTION_WINDOW (1 << 30)

struct caller {
    int fd;
    SSL *ssl;
    enum state state; /* CLOSED, CONNECTING, HANDSHAKING or READY */
    nghttp2_session *session;
    size_t open; /* streams in progress */
    uint64_t opened_at;
    size_t out_length, out_sent;
    char out[MAX_OUT];
};

struct call {
    struct caller *caller;
    uint64_t due, body_left, after;
    char *text; /* of the body, before its zeros */
    size_t text_left;
    bool events;
    int status, grpc_status; /* -1: none */
    bool grpc;
};

static struct options options;
static struct caller *callers;
static size_t next_caller;
static int poller;
static nghttp2_session_callbacks *callbacks;

static bool measuring, window_is_over;
static uint64_t window_start, window_end, next_due, interval, answered, sent, late, connects, answered_once;
static uint64_t calls, calls_answered, calls_lost, statuses[STATUSES], lost_connect, lost_tls, lost_answer, scheduled_from;
static uint64_t bytes_in, bytes_out;
static struct histogram latency;
static char cipher[64] = "none", group[64] = "none";

static void open_caller(struct caller *caller);
static void go_on(struct caller *caller);

/* --- one call */

static ssize_t give_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t length, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    (void)session, (void)id, (void)user;
    struct call *call = source->ptr;
    size_t text = length < call->text_left ? length : call->text_left;
    memcpy(buffer, call->text, text);
    memmove(call->text, call->text + text, call->text_left -= text);
    size_t here = length - text < call->body_left ? length - text : (size_t)call->body_left;
    memset(buffer + text, 0, here);
    call->body_left -= here;
    if (call->body_left == 0 && call->text_left == 0)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)(text + here);
}

static nghttp2_nv field(const char *name, size_t name_length, const char *value, size_t value_length)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, name_length, value_length, NGHTTP2_NV_FLAG_NONE};
}

static bool submit(struct caller *caller, uint64_t due)
{
    nghttp2_nv fields[MAX_FIELDS];
    struct made made = make_call(&options, scheduled_from == 0);
    char *line = made.text, *end = strstr(line, "\r\n");
    char *path = strchr(line, ' ') + 1, *version = strchr(path, ' ');
    const char *scheme = options.target.tls != NULL ? "https" : "http";
    fields[0] = field(":method", 7, line, (size_t)(path - line) - 1);
    fields[1] = field(":scheme", 7, scheme, strlen(scheme));
    fields[2] = field(":path", 5, path, (size_t)(version - path));
    size_t count = 4; /* the authority is the third */
    struct call *call = calloc(1, sizeof *call);
    *call = (struct call){.caller = caller, .due = due, .body_left = made.body, .grpc_status = -1};
    call->after = made.after;
    call->events = made.events;
    call->text_left = made.length - made.head_length;
    call->text = memcpy(malloc(call->text_left + 1), made.text + made.head_length, call->text_left);
    for (line = end + 2; (end = strstr(line, "\r\n")) != NULL && end > line && count < MAX_FIELDS; line = end + 2) {
        char *colon = strchr(line, ':'), *value = colon + 2;
        if (strncasecmp(line, "host:", 5) == 0)
            fields[3] = field(":authority", 10, value, (size_t)(end - value));
        else
            fields[count++] = field(line, (size_t)(colon - line), value, (size_t)(end - value));
        call->grpc |= strncasecmp(line, "content-type: application/grpc", 30) == 0;
    }
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = give_body};
    bool has_body = call->body_left + call->text_left > 0;
    bool submitted = nghttp2_submit_request(caller->session, NULL, fields, count, has_body ? &body : NULL, call) >= 0;
    free(made.text);
    if (!submitted) {
        free(call->text);
        free(call);
        return false;
    }
    caller->open++;
    if (measuring) {
        sent++;
        calls += options.rate == 0 && !options.fresh;
        late += options.rate > 0 && now_ns() > due + LATE;
    }
    return true;
}

static int take_field(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                      const uint8_t *value, size_t value_length, uint8_t flags, void *user)
{
    (void)flags, (void)user, (void)value_length;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call == NULL)
        return 0;
    if (name_length == 7 && memcmp(name, ":status", 7) == 0)
        call->status = atoi((const char *)value);
    else if (name_length == 11 && memcmp(name, "grpc-status", 11) == 0)
        call->grpc_status = atoi((const char *)value);
    return 0;
}

static int take_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)user;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (options.unended && frame->hd.type == NGHTTP2_HEADERS && call != NULL && call->status == 200)
        answered_once++;
    return 0;
}

static int end_call(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    (void)user;
    struct call *call = nghttp2_session_get_stream_user_data(session, id);
    if (call == NULL)
        return 0;
    call->caller->open--;
    uint64_t since = options.fresh ? call->caller->opened_at : call->due;
    if (error != NGHTTP2_NO_ERROR) {
        lost_answer += measuring;
        calls_lost += measuring && since >= window_start;
    } else {
        answered_once += !options.unended;
        if (measuring) {
            answered += !window_is_over;
            int status = call->grpc && call->grpc_status != 0 ? 0 : call->status;
            statuses[status > 0 && status < STATUSES ? status : 0]++;
            if (since >= window_start) {
                calls_answered++;
                uint64_t took = now_ns() - since;
                if (!call->events)
                    histogram_add(&latency, took > call->after ? took - call->after : 0);
            }
        }
    }
    free(call->text);
    free(call);
    return 0;
}

/* --- one connection */

static void close_caller(struct caller *caller)
{
    if (caller->session != NULL) {
        lost_answer += measuring ? caller->open : 0;
        calls_lost += measuring ? caller->open : 0;
        nghttp2_session_del(caller->session); /* its calls end without a callback: their memory is small */
        caller->session = NULL;
    }
    if (caller->ssl != NULL) {
        if (caller->state == READY)
            SSL_shutdown(caller->ssl);
        SSL_free(caller->ssl);
        caller->ssl = NULL;
    }
    close(caller->fd);
    caller->open = 0;
    caller->state = CLOSED;
}

static void open_caller(struct caller *caller)
{
    memset(caller, 0, offsetof(struct caller, out));
    calls += options.fresh && measuring && !window_is_over;
    caller->opened_at = now_ns();
    caller->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(caller->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    caller->state = CONNECTING;
    if (options.target.tls != NULL) {
        caller->ssl = SSL_new(options.target.tls);
        SSL_set_fd(caller->ssl, caller->fd);
        SSL_set_connect_state(caller->ssl);
        SSL_set_tlsext_host_name(caller->ssl, options.target.name);
        SSL_set_alpn_protos(caller->ssl, (const unsigned char *)"\x02h2", 3);
    }
    const struct sockaddr *address = (const struct sockaddr *)&options.target.address;
    if (connect(caller->fd, address, sizeof options.target.address) < 0 && errno != EINPROGRESS) {
        lost_connect += measuring;
        close_caller(caller);
        return;
    }
    struct epoll_event interest = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = caller};
    epoll_ctl(poller, EPOLL_CTL_ADD, caller->fd, &interest);
}

/* Write what nghttp2 has to say. False if the connection is gone. */
static bool push(struct caller *caller)
{
    for (;;) {
        while (caller->out_length < MAX_OUT / 2) {
            const uint8_t *bytes;
            ssize_t length = nghttp2_session_mem_send(caller->session, &bytes);
            if (length < 0)
                return false;
            if (length == 0)
                break;
            memcpy(caller->out + caller->out_length, bytes, (size_t)length);
            caller->out_length += (size_t)length;
        }
        if (caller->out_sent == caller->out_length)
            return true;
        size_t left = caller->out_length - caller->out_sent;
        ssize_t done;
        if (caller->ssl != NULL) {
            int put = SSL_write(caller->ssl, caller->out + caller->out_sent, (int)left);
            int error = put > 0 ? SSL_ERROR_NONE : SSL_get_error(caller->ssl, put);
            done = put > 0 ? put : error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
        } else {
            done = send(caller->fd, caller->out + caller->out_sent, left, MSG_NOSIGNAL);
            done = done < 0 && errno == EAGAIN ? 0 : done;
        }
        if (done < 0)
            return false;
        if (done == 0)
            return true;
        bytes_out += (uint64_t)done;
        caller->out_sent += (size_t)done;
        if (caller->out_sent == caller->out_length)
            caller->out_sent = caller->out_length = 0;
    }
}

/* Read what is there. False if the connection is gone. */
static bool pull(struct caller *caller)
{
    static uint8_t bytes[65536];
    for (;;) {
        ssize_t got;
        if (caller->ssl != NULL) {
            int read = SSL_read(caller->ssl, bytes, sizeof bytes);
            int error = read > 0 ? SSL_ERROR_NONE : SSL_get_error(caller->ssl, read);
            got = read > 0 ? read : error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
        } else {
            got = recv(caller->fd, bytes, sizeof bytes, 0);
            got = got < 0 && errno == EAGAIN ? 0 : got == 0 ? -1 : got;
        }
        if (got <= 0)
            return got == 0;
        bytes_in += (uint64_t)got;
        if (nghttp2_session_mem_recv(caller->session, bytes, (size_t)got) != got)
            return false;
    }
}

static bool may_ask(const struct caller *caller)
{
    return caller->state == READY && caller->open < options.streams &&
           nghttp2_session_check_request_allowed(caller->session);
}

static void ask(struct caller *caller)
{
    if ((options.rate > 0 && (window_start != 0 || scheduled_from != 0)) || (window_is_over && !options.fresh))
        return;
    if (options.hold && nghttp2_session_get_next_stream_id(caller->session) > 1)
        return; /* it has asked */
    bool once = options.fresh || options.rate > 0; /* with a schedule, warm up by one at a time */
    while (may_ask(caller) && !(once && caller->open > 0)) {
        if (options.fresh && nghttp2_session_get_next_stream_id(caller->session) > 1)
            return;
        if (!submit(caller, now_ns()))
            return;
    }
}

static void begin_session(struct caller *caller)
{
    connects += measuring;
    if (caller->ssl != NULL && cipher[0] == 'n') {
        snprintf(cipher, sizeof cipher, "%s", SSL_get_cipher_name(caller->ssl));
        const char *name = SSL_group_to_name(caller->ssl, (int)SSL_get_negotiated_group(caller->ssl));
        snprintf(group, sizeof group, "%s", name != NULL ? name : "unknown");
    }
    nghttp2_session_client_new(&caller->session, callbacks, caller);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
    };
    nghttp2_submit_settings(caller->session, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(caller->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
    caller->state = READY;
}

static bool speaks_h2(struct caller *caller)
{
    const unsigned char *chosen = NULL;
    unsigned length = 0;
    SSL_get0_alpn_selected(caller->ssl, &chosen, &length);
    return length == 2 && memcmp(chosen, "h2", 2) == 0;
}

/* False while the connection is not there yet, or gone. */
static bool is_ready(struct caller *caller)
{
    if (caller->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(caller->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        if (error != 0) {
            lost_connect += measuring;
            close_caller(caller);
            return false;
        }
        if (getpeername(caller->fd, (struct sockaddr *)&peer, &size) < 0)
            return false;
        if (caller->ssl == NULL)
            begin_session(caller);
        else
            caller->state = HANDSHAKING;
    }
    if (caller->state == HANDSHAKING) {
        int done = SSL_do_handshake(caller->ssl);
        int error = done == 1 ? SSL_ERROR_NONE : SSL_get_error(caller->ssl, done);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
            return false;
        if (error != SSL_ERROR_NONE || !speaks_h2(caller)) {
            lost_tls += measuring;
            close_caller(caller);
            return false;
        }
        begin_session(caller);
    }
    return caller->state == READY;
}

static void go_on(struct caller *caller)
{
    if (caller->state == CLOSED || !is_ready(caller))
        return;
    ask(caller);
    if (!push(caller) || !pull(caller)) {
        close_caller(caller); /* opened again a moment later */
        return;
    }
    ask(caller);
    if (!push(caller)) {
        close_caller(caller);
        return;
    }
    bool used = nghttp2_session_get_next_stream_id(caller->session) > 1;
    if (caller->open == 0 && used && (options.fresh || !nghttp2_session_check_request_allowed(caller->session))) {
        close_caller(caller);
        if (!window_is_over)
            open_caller(caller);
    }
}

/* --- the run */

static bool is_due(uint64_t now)
{
    return options.rate > 0 && next_due <= now && (window_end == 0 || next_due < window_end);
}

static void send_what_is_due(uint64_t now)
{
    for (size_t tried = 0; is_due(now) && tried < options.connections;) {
        struct caller *caller = &callers[next_caller++ % options.connections];
        if (!may_ask(caller)) {
            tried++;
            continue;
        }
        tried = 0;
        submit(caller, next_due);
        next_due += interval;
        go_on(caller);
    }
}

static size_t count_in(enum state lowest)
{
    size_t count = 0;
    for (size_t at = 0; at < options.connections; at++)
        count += callers[at].state >= lowest;
    return count;
}

static bool any_open(void)
{
    for (size_t at = 0; at < options.connections; at++)
        if (callers[at].open > 0 || (options.fresh && callers[at].state != CLOSED))
            return true;
    return false;
}

static void reopen_lost(uint64_t now)
{
    static uint64_t next;
    if (now < next)
        return;
    next = now + RETRY;
    size_t opening = count_in(CONNECTING) - count_in(READY);
    for (size_t at = 0; at < options.connections && opening < MAX_OPENING; at++)
        if (callers[at].state == CLOSED) {
            open_caller(&callers[at]);
            opening++;
        }
}

static void wait_a_moment(int milliseconds)
{
    static struct epoll_event events[512];
    int count = epoll_wait(poller, events, 512, milliseconds);
    for (int at = 0; at < count; at++)
        go_on(events[at].data.ptr);
}

static void connect_all(void)
{
    uint64_t patience = now_ns() + PATIENCE;
    while (count_in(READY) < options.connections && answered_once <= 4 * options.connections) {
        reopen_lost(now_ns());
        wait_a_moment(5);
        if (now_ns() > patience) {
            fprintf(stderr, "h2_load: %zu of %zu connections speak HTTP/2\n", count_in(READY), options.connections);
            exit(1);
        }
    }
}

static void hold(void)
{
    uint64_t wanted = options.connections * options.streams, patience = now_ns() + PATIENCE;
    while (answered_once < wanted && now_ns() < patience)
        wait_a_moment(5);
    if (answered_once < wanted) {
        fprintf(stderr, "h2_load: %llu of %llu calls were answered\n", (unsigned long long)answered_once,
                (unsigned long long)wanted);
        exit(1);
    }
    puts("held");
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
}

static void begin_window(void)
{
    clocks_begin(options.clocks, options.clock_count);
    bytes_in = bytes_out = 0;
    measuring = true;
    window_start = now_ns();
    next_due = window_start + interval;
    window_end = window_start + (uint64_t)(options.seconds * 1e9);
    if (options.rate > 0)
        calls = (window_end - window_start - 1) / interval;
}

static void end_window(void)
{
    clocks_end();
    window_is_over = true;
}

static uint64_t run(void)
{
    uint64_t start = now_ns(), warm = start + (uint64_t)(options.warmup_s * 1e9);
    interval = options.rate > 0 ? (uint64_t)(1e9 / options.rate) : 0;
    for (;;) {
        uint64_t now = now_ns();
        if (options.plan != NULL && scheduled_from == 0) {
            if (answered_once >= options.warm_requests || now > start + PATIENCE) {
                scheduled_from = now;
                next_due = now + interval;
                warm = now + (uint64_t)(options.warmup_s * 1e9);
                say_warm();
            }
        } else if (!measuring && now >= warm && (answered_once >= options.warm_requests || now > warm + PATIENCE))
            begin_window();
        if (measuring && now >= window_end)
            break;
        reopen_lost(now);
        if (measuring || scheduled_from != 0)
            send_what_is_due(now);
        wait_a_moment((measuring || scheduled_from != 0) && (options.rate > 0 || window_end - now < 20 * 1000000ull) ? 1 : 10);
    }
    uint64_t end = now_ns();
    uint64_t in = bytes_in, out = bytes_out;
    end_window();
    while (calls_answered + calls_lost < calls && (any_open() || is_due(end)) && now_ns() < end + GRACE + longest_after(&options)) {
        send_what_is_due(end);
        wait_a_moment(5);
    }
    bytes_in = in;
    bytes_out = out;
    return end;
}

static void report(uint64_t end)
{
    printf("{\"requests\":%llu,\"seconds\":%.6f,", (unsigned long long)answered,
           (double)(end - window_start) / 1e9);
    clocks_print();
    printf("\"statuses\":");
    print_statuses(statuses);
    printf(",\"lost\":{\"connect\":%llu,\"tls\":%llu,\"answer\":%llu},", (unsigned long long)lost_connect,
           (unsigned long long)lost_tls, (unsigned long long)lost_answer);
    printf("\"sent\":%llu,\"late\":%llu,\"connects\":%llu,\"tokens_used\":%llu,\"tokens\":%zu,",
           (unsigned long long)sent, (unsigned long long)late, (unsigned long long)connects,
           (unsigned long long)tokens_used(&options), options.token_count);
    printf("\"bytes_in\":%llu,\"bytes_out\":%llu,\"calls\":%llu,\"calls_answered\":%llu,", (unsigned long long)bytes_in,
           (unsigned long long)bytes_out, (unsigned long long)calls, (unsigned long long)calls_answered);
    printf("\"cipher\":\"%s\",\"group\":\"%s\",\"openssl\":\"%s\",\"latency\":", cipher, group,
           OpenSSL_version(OPENSSL_VERSION));
    histogram_print(&latency, stdout);
    printf(",\"event_delay\":[]}\n");
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    read_options(&options, argc, argv);
    options.hold |= options.unended;
    callers = calloc(options.connections, sizeof *callers);
    struct rlimit files = {options.connections + 64, options.connections + 64}, had;
    if (getrlimit(RLIMIT_NOFILE, &had) == 0 && had.rlim_cur < files.rlim_cur)
        setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(EPOLL_CLOEXEC);
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, take_field);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, take_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, end_call);
    connect_all();
    if (options.hold) {
        hold();
        return 0;
    }
    report(run());
    return 0;
}
