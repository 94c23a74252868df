/*
 * What stands behind every proxy of the benchmark: an HTTP/1.1 server that costs as little as possible.
 *
 *   any path      1 KB of JSON, whatever was sent
 *   /bytes/N      N bytes
 *   /unended      the head and the first half of 4 KB, and nothing more
 *   /events       server-sent events without end: the monotonic time in nanoseconds, every 5 ms
 *   /stream/N/MS  N such events, the next one after so many milliseconds each
 *   …/mcp, …/a2a  1 KB as the result of a message of JSON-RPC with the id 1
 *   /file         the file given by --file, as application/json: the key set of an issuer
 *
 * A request with X-Answer-After: MS is answered so many milliseconds after it arrived.
 *
 * Plain, or with TLS 1.3 that asks for a client certificate of the authority. One thread and one epoll.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EVENT_MS 5
#define ENDLESS UINT64_MAX
#define MAX_HEAD 65536

struct client {
    int fd;
    SSL *ssl;
    bool shaken, gone;
    char *head; /* grows up to MAX_HEAD */
    size_t head_length, head_space;
    uint64_t body_left; /* of the request: still to be read */
    int chunk_state;    /* of a chunked request body; -1: it has none */
    uint64_t chunk_left;
    char start[2048]; /* of the answer: its head, and small bodies */
    size_t start_length, start_sent;
    const char *rest; /* NULL: zeros */
    uint64_t rest_left, rest_at;
    bool answering;
    uint64_t answer_after; /* nanoseconds */
    uint64_t due;         /* of the answer or the next event; 0: it waits for nothing */
    size_t waiting_at;    /* its place among those who wait */
    uint64_t events_left, event_gap; /* of its stream */
    struct client *next_gone;
};

static char json[1025], message[1025];
static char *file;
static size_t file_length;
static const char zeros[65536];
static int poller;
static SSL_CTX *tls;
static struct client *gone, **waiting;
static size_t waiting_count, waiting_space;

static void go(struct client *client);

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void wait_until(struct client *client, uint64_t due)
{
    if (client->due == 0) {
        if (waiting_count == waiting_space) {
            waiting_space = waiting_space * 2 + 64;
            waiting = realloc(waiting, waiting_space * sizeof(struct client *));
        }
        client->waiting_at = waiting_count;
        waiting[waiting_count++] = client;
    }
    client->due = due;
}

static void wait_no_more(struct client *client)
{
    if (client->due == 0)
        return;
    client->due = 0;
    waiting[client->waiting_at] = waiting[--waiting_count];
    waiting[client->waiting_at]->waiting_at = client->waiting_at;
}

static void end(struct client *client)
{
    if (client->gone)
        return;
    client->gone = true;
    if (client->ssl != NULL)
        SSL_free(client->ssl);
    close(client->fd);
    wait_no_more(client);
    client->next_gone = gone; /* an event of the same round may still name it */
    gone = client;
}

static ssize_t put(struct client *client, const char *bytes, size_t length)
{
    if (client->ssl == NULL) {
        ssize_t sent = send(client->fd, bytes, length, MSG_NOSIGNAL);
        return sent >= 0 ? sent : errno == EAGAIN ? 0 : -1;
    }
    int sent = SSL_write(client->ssl, bytes, (int)length);
    if (sent > 0)
        return sent;
    int error = SSL_get_error(client->ssl, sent);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static ssize_t take(struct client *client, char *bytes, size_t length)
{
    if (client->ssl == NULL) {
        ssize_t got = recv(client->fd, bytes, length, 0);
        return got > 0 ? got : got < 0 && errno == EAGAIN ? 0 : -1;
    }
    int got = SSL_read(client->ssl, bytes, (int)length);
    if (got > 0)
        return got;
    int error = SSL_get_error(client->ssl, got);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* True once the whole answer is with the kernel. */
static bool push(struct client *client)
{
    while (client->start_sent < client->start_length) {
        ssize_t sent = put(client, client->start + client->start_sent, client->start_length - client->start_sent);
        if (sent < 0)
            end(client);
        if (sent <= 0)
            return false;
        client->start_sent += (size_t)sent;
    }
    while (client->rest_left > 0) {
        size_t length = client->rest_left < 65536 ? client->rest_left : 65536;
        ssize_t sent = put(client, client->rest != NULL ? client->rest + client->rest_at : zeros, length);
        if (sent < 0)
            end(client);
        if (sent <= 0)
            return false;
        client->rest_left -= (uint64_t)sent;
        client->rest_at += (uint64_t)sent;
    }
    return true;
}

static void answer(struct client *client)
{
    char path[256] = "";
    sscanf(client->head, "%*15s %255s", path);
    const char *format = "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %llu\r\n\r\n";
    unsigned long long length = sizeof json - 1;
    client->rest = json;
    client->rest_at = 0;
    char *after = strcasestr(client->head, "\nx-answer-after:");
    if (after != NULL)
        client->answer_after = strtoull(after + 16, NULL, 10) * 1000000;
    unsigned long long events = ENDLESS, gap = EVENT_MS;
    size_t tail = strlen(path) < 4 ? 0 : strlen(path) - 4;
    if (strncmp(path, "/events", 7) == 0 || sscanf(path, "/stream/%llu/%llu", &events, &gap) == 2) {
        client->start_length = (size_t)snprintf(client->start, sizeof client->start,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        client->rest_left = 0;
        client->events_left = events;
        client->event_gap = gap * 1000000;
    } else if (strcmp(path, "/no-content") == 0 || strcmp(path, "/not-modified") == 0) {
        client->start_length = (size_t)snprintf(client->start, sizeof client->start, "HTTP/1.1 %s\r\n\r\n",
            strcmp(path, "/no-content") == 0 ? "204 No Content" : "304 Not Modified");
        client->rest_left = 0;
    } else {
        const char *type = "application/json";
        if (strncmp(path, "/bytes/", 7) == 0) {
            length = strtoull(path + 7, NULL, 10);
            client->rest = NULL;
            type = "application/octet-stream";
        } else if (strcmp(path, "/unended") == 0) {
            length = 4096;
            client->rest = NULL;
        } else if (strcmp(path, "/file") == 0 && file != NULL) {
            length = file_length;
            client->rest = file;
        } else if (strcmp(path + tail, "/mcp") == 0 || strcmp(path + tail, "/a2a") == 0) {
            client->rest = message;
        }
        client->start_length = (size_t)snprintf(client->start, sizeof client->start, format, type, length);
        client->rest_left = strcmp(path, "/unended") == 0 ? length / 2 : length;
        if (client->rest != NULL && client->start_length + length <= sizeof client->start) { /* one write */
            memcpy(client->start + client->start_length, client->rest, length);
            client->start_length += length;
            client->rest_left = 0;
        }
    }
    client->start_sent = 0;
    client->answering = true;
}

/* Eat body bytes of the request; says how many belonged to it. */
static size_t eat_body(struct client *client, const char *bytes, size_t length)
{
    if (client->chunk_state < 0) {
        size_t here = length < client->body_left ? length : (size_t)client->body_left;
        client->body_left -= here;
        return here;
    }
    size_t at = 0; /* 0 size, 1 rest of its line, 2 data, 3 line end, 4 trailer, 5 trailer line; body_left is 1 until then */
    while (at < length && client->body_left > 0) {
        char byte = bytes[at];
        if (client->chunk_state == 2) {
            size_t here = length - at < client->chunk_left ? length - at : (size_t)client->chunk_left;
            client->chunk_left -= here;
            at += here;
            if (client->chunk_left == 0)
                client->chunk_state = 3;
            continue;
        }
        at++;
        if (client->chunk_state == 0 && byte >= '0' && byte <= '9')
            client->chunk_left = client->chunk_left * 16 + (uint64_t)(byte - '0');
        else if (client->chunk_state == 0 && (byte | 32) >= 'a' && (byte | 32) <= 'f')
            client->chunk_left = client->chunk_left * 16 + (uint64_t)((byte | 32) - 'a' + 10);
        else if (client->chunk_state <= 1)
            client->chunk_state = byte == '\n' ? (client->chunk_left > 0 ? 2 : 4) : 1;
        else if (client->chunk_state == 3)
            client->chunk_state = byte == '\n' ? 0 : 3;
        else if (client->chunk_state == 4 && byte == '\n')
            client->body_left = 0;
        else
            client->chunk_state = byte == '\n' ? 4 : byte == '\r' ? client->chunk_state : 5;
    }
    return at;
}

/* Read until a whole request is there. False: wait for more, or the client is gone. */
static bool read_request(struct client *client)
{
    static char bytes[65536];
    for (;;) {
        char *end_of_head = client->head_length > 0 && client->body_left == 0 && !client->answering
            ? memmem(client->head, client->head_length, "\r\n\r\n", 4) : NULL;
        if (end_of_head != NULL) {
            *end_of_head = '\0';
            size_t length = (size_t)(end_of_head - client->head) + 4;
            char *field = strcasestr(client->head, "\ncontent-length:");
            client->body_left = field != NULL ? strtoull(field + 16, NULL, 10) : 0;
            client->chunk_state = -1;
            if (strcasestr(client->head, "\ntransfer-encoding: chunked") != NULL) {
                client->chunk_state = 0;
                client->chunk_left = 0;
                client->body_left = 1;
            }
            if (strcasestr(client->head, "\nexpect: 100-continue") != NULL)
                put(client, "HTTP/1.1 100 Continue\r\n\r\n", 25);
            answer(client);
            size_t eaten = eat_body(client, client->head + length, client->head_length - length);
            client->head_length -= length + eaten;
            memmove(client->head, client->head + length + eaten, client->head_length);
        }
        if (client->answering && client->body_left == 0)
            return true;
        ssize_t got = take(client, bytes, sizeof bytes);
        if (got < 0)
            end(client);
        if (got <= 0)
            return false;
        size_t eaten = client->body_left > 0 ? eat_body(client, bytes, (size_t)got) : 0;
        size_t left = (size_t)got - eaten;
        if (client->head_length + left > MAX_HEAD) {
            end(client);
            return false;
        }
        if (client->head_length + left > client->head_space) {
            client->head_space = client->head_length + left + 1024;
            client->head = realloc(client->head, client->head_space);
        }
        memcpy(client->head + client->head_length, bytes + eaten, left);
        client->head_length += left;
    }
}

static void go(struct client *client)
{
    if (client->gone)
        return;
    if (client->ssl != NULL && !client->shaken) {
        int done = SSL_do_handshake(client->ssl);
        if (done != 1) {
            int error = SSL_get_error(client->ssl, done);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
                end(client);
            return;
        }
        client->shaken = true;
    }
    while (!client->gone && client->due == 0 && read_request(client)) {
        if (client->answer_after > 0) {
            wait_until(client, now_ns() + client->answer_after);
            client->answer_after = 0;
            return;
        }
        if (!push(client))
            return;
        if (client->events_left > 0) {
            wait_until(client, now_ns() + client->event_gap);
            return;
        }
        client->answering = false;
    }
}

static void send_event(struct client *client)
{
    char line[64], chunk[96];
    int length = snprintf(line, sizeof line, "data: %llu\n\n", (unsigned long long)now_ns());
    bool last = client->events_left != ENDLESS && --client->events_left == 0;
    int whole = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n%s", length, line, last ? "0\r\n\r\n" : "");
    uint64_t due = client->due + client->event_gap;
    if (last)
        wait_no_more(client);
    else
        wait_until(client, due);
    if (put(client, chunk, (size_t)whole) < 0) {
        end(client);
    } else if (last) {
        client->answering = false;
        go(client);
    }
}

/* Answer whoever is due, and return when the next one is; 0 if nobody waits. */
static uint64_t serve_due(void)
{
    uint64_t now = now_ns(), next = 0;
    for (size_t at = waiting_count; at-- > 0;) { /* a removal moves the last one, which was looked at already */
        struct client *client = waiting[at];
        if (client->due <= now) {
            if (client->start_sent < client->start_length || client->events_left == 0) {
                wait_no_more(client);
                go(client);
            } else {
                send_event(client);
            }
        }
    }
    for (size_t at = 0; at < waiting_count; at++)
        next = next == 0 || waiting[at]->due < next ? waiting[at]->due : next;
    return next;
}

static void greet(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct client *client = calloc(1, sizeof *client);
        client->fd = fd;
        client->chunk_state = -1;
        if (tls != NULL) {
            client->ssl = SSL_new(tls);
            SSL_set_fd(client->ssl, fd);
            SSL_set_accept_state(client->ssl);
        }
        struct epoll_event interest = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &interest);
    }
}

static int listen_on(int port)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) {
        perror("backend");
        exit(1);
    }
    return listener;
}

static void read_file(const char *path)
{
    FILE *in = fopen(path, "rb");
    if (in == NULL) {
        perror(path);
        exit(1);
    }
    file = malloc(1 << 20);
    file_length = fread(file, 1, 1 << 20, in);
    fclose(in);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'}, {"certificate", required_argument, NULL, 'c'},
        {"key", required_argument, NULL, 'k'},  {"authority", required_argument, NULL, 'a'},
        {"file", required_argument, NULL, 'f'}, {NULL, 0, NULL, 0},
    };
    const char *certificate = NULL, *key = NULL, *authority = NULL;
    int port = 0, option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': certificate = optarg; break;
        case 'k': key = optarg; break;
        case 'a': authority = optarg; break;
        case 'f': read_file(optarg); break;
        default: return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    memset(json, 'x', sizeof json - 1);
    memcpy(json, "{\"answer\": \"", 12);
    memcpy(json + sizeof json - 3, "\"}", 2);
    static const char result[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"";
    memset(message, 'x', sizeof message - 1);
    memcpy(message, result, sizeof result - 1);
    memcpy(message + sizeof message - 6, "\"}]}}", 5);
    if (certificate != NULL) {
        tls = SSL_CTX_new(TLS_server_method());
        SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
        SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_num_tickets(tls, 0);
        SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
        if (key == NULL || authority == NULL || SSL_CTX_use_certificate_chain_file(tls, certificate) != 1 ||
            SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_load_verify_locations(tls, authority, NULL) != 1) {
            fprintf(stderr, "backend: certificate, key or authority cannot be used\n");
            return 2;
        }
        SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(port), ticker = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = &listener};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &interest);
    interest.data.ptr = &ticker;
    epoll_ctl(poller, EPOLL_CTL_ADD, ticker, &interest);
    uint64_t wakes_at = 0;
    for (;;) {
        static struct epoll_event events[512];
        int count = epoll_wait(poller, events, 512, -1);
        for (int at = 0; at < count; at++) {
            if (events[at].data.ptr == &listener) {
                greet(listener);
            } else if (events[at].data.ptr == &ticker) {
                uint64_t expired;
                if (read(ticker, &expired, sizeof expired) > 0)
                    wakes_at = 0;
            } else {
                go(events[at].data.ptr);
            }
        }
        uint64_t next = serve_due();
        if (next != wakes_at) { /* an idle backend sleeps */
            struct itimerspec at = {.it_value = {(time_t)(next / 1000000000ull), (long)(next % 1000000000ull)}};
            timerfd_settime(ticker, TFD_TIMER_ABSTIME, &at, NULL);
            wakes_at = next;
        }
        while (gone != NULL) {
            struct client *client = gone;
            gone = client->next_gone;
            free(client->head);
            free(client);
        }
    }
}
