/*
 * The agent in the middle of a chain: it knows nothing of tokens, and passes on the Authorization it was given.
 *
 * A request in; the same one below --prefix (/mcp: --mcp-prefix) out to --to, on a connection kept for this one; the
 * answer or the stream of events back. A thread for each connection, since it only ever waits for one thing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define SPACE (128 * 1024)

static struct sockaddr_in next;
static const char *prefix = "", *mcp_prefix = "";

static int connect_next(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&next, sizeof next) == 0)
        return fd;
    close(fd);
    return -1;
}

/* A message up to the end of a body of known length into `bytes`: its length so far, or -1. `chunked`: the rest comes in chunks. */
static ssize_t read_message(int fd, char *bytes, bool *chunked)
{
    size_t have = 0, need = 0;
    while (need == 0 || have < need) {
        if (have == SPACE - 1)
            return -1;
        ssize_t got = recv(fd, bytes + have, SPACE - 1 - have, 0);
        if (got <= 0)
            return -1;
        have += (size_t)got;
        bytes[have] = '\0';
        char *end = need == 0 ? strstr(bytes, "\r\n\r\n") : NULL;
        if (end != NULL) {
            char *length = strcasestr(bytes, "\ncontent-length:"), *coding = strcasestr(bytes, "\ntransfer-encoding: chunked");
            need = (size_t)(end - bytes) + 4;
            *chunked = coding != NULL && coding < end;
            if (length != NULL && length < end)
                need += strtoul(length + 16, NULL, 10);
            if (need > SPACE - 1)
                return -1;
        }
    }
    return (ssize_t)have;
}

static ssize_t ask(int *fd, const char *request, size_t length, char *answer, bool *chunked)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        if (*fd < 0)
            *fd = connect_next();
        if (*fd >= 0 && send(*fd, request, length, MSG_NOSIGNAL) == (ssize_t)length) {
            ssize_t got = read_message(*fd, answer, chunked);
            if (got > 0)
                return got;
        }
        if (*fd >= 0)
            close(*fd);
        *fd = -1; /* it was kept too long: once more on a new one */
    }
    return -1;
}

/* Pass on an answer whose first `got` bytes are in `answer`. False if an end is gone. */
static bool pass_on(int client, int upstream, char *answer, ssize_t got, bool chunked)
{
    char *body = strstr(answer, "\r\n\r\n") + 4;
    size_t tail = 0;
    char last[8] = ""; /* the end of a chunked body may come in two reads */
    for (char *from = body;; from = answer) {
        size_t length = (size_t)(answer + got - from), keeps = length < 5 ? length : 5;
        if (send(client, answer, (size_t)got, MSG_NOSIGNAL) != got)
            return false;
        if (keeps < 5)
            memmove(last, last + keeps, tail = tail < 5 - keeps ? tail : 5 - keeps);
        else
            tail = 0;
        memcpy(last + tail, from + length - keeps, keeps);
        tail += keeps;
        if (!chunked || (tail == 5 && memcmp(last, "0\r\n\r\n", 5) == 0))
            return true;
        if ((got = recv(upstream, answer, SPACE - 1, 0)) <= 0)
            return false;
    }
}

/* The fields that an agent copies from the request that it serves to the one that it makes. */
static size_t copy_fields(char *to, char *head)
{
    static const char *const copied[] = {"authorization:", "content-type:", "content-length:", "accept:", "mcp-", "x-answer-after:"};
    size_t length = 0;
    for (char *line = strstr(head, "\r\n") + 2, *end; (end = strstr(line, "\r\n")) != line; line = end + 2)
        for (size_t at = 0; at < sizeof copied / sizeof *copied; at++)
            if (strncasecmp(line, copied[at], strlen(copied[at])) == 0) {
                memcpy(to + length, line, (size_t)(end - line) + 2);
                length += (size_t)(end - line) + 2;
            }
    return length;
}

static void *serve(void *argument)
{
    int client = (int)(long)argument, upstream = -1;
    char *request = malloc(SPACE), *call = malloc(2 * SPACE), *answer = malloc(SPACE);
    bool chunked;
    for (ssize_t have; (have = read_message(client, request, &chunked)) > 0 && !chunked;) {
        char method[16] = "GET", path[512] = "/";
        sscanf(request, "%15s %511s", method, path);
        char *body = strstr(request, "\r\n\r\n") + 4;
        size_t body_length = (size_t)(request + have - body);
        size_t length = (size_t)snprintf(call, 1024, "%s %s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", method,
                                         strcmp(path, "/mcp") == 0 ? mcp_prefix : prefix, path, ntohs(next.sin_port));
        length += copy_fields(call + length, request);
        memcpy(call + length, "\r\n", 2);
        memcpy(call + length + 2, body, body_length);
        ssize_t got = ask(&upstream, call, length + 2 + body_length, answer, &chunked);
        if (got <= 0) {
            static const char failed[] = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
            memcpy(answer, failed, sizeof failed);
            got = sizeof failed - 1;
            chunked = false;
        }
        char *ends = strcasestr(answer, "\nconnection: close"); /* before the answer is overwritten */
        bool over = ends != NULL && ends < strstr(answer, "\r\n\r\n");
        if (!pass_on(client, upstream, answer, got, chunked))
            break;
        if (over && upstream >= 0) {
            close(upstream);
            upstream = -1;
        }
    }
    close(client);
    if (upstream >= 0)
        close(upstream);
    free(request);
    free(call);
    free(answer);
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},
        {"to", required_argument, NULL, 't'},
        {"prefix", required_argument, NULL, 'x'},
        {"mcp-prefix", required_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    int option, port = 0, on = 1;
    next.sin_family = AF_INET;
    next.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 't': next.sin_port = htons((uint16_t)atoi(optarg)); break;
        case 'x': prefix = optarg; break;
        case 'm': mcp_prefix = optarg; break;
        default: return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&own, sizeof own) < 0 || listen(listener, 1024) < 0) {
        perror("relay");
        return 1;
    }
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 262144);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;
        if (client < 0)
            continue;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (pthread_create(&thread, &small, serve, (void *)(long)client) != 0)
            close(client);
    }
}
