/*
 * The agent in the middle of a chain: it knows nothing of tokens, and passes on the Authorization it was given.
 *
 * GET in; the same path below --prefix out to --to, on a connection kept for this one; the answer back. A thread for
 * each connection, since it only ever waits for one thing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define SPACE 65536

static struct sockaddr_in next;
static const char *prefix = "";

static int connect_next(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&next, sizeof next) == 0)
        return fd;
    close(fd);
    return -1;
}

/* A whole message with its body into `bytes`; its length, or -1. */
static ssize_t read_message(int fd, char *bytes)
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
            char *length = strcasestr(bytes, "\ncontent-length:");
            need = (size_t)(end - bytes) + 4;
            if (length != NULL && length < end)
                need += strtoul(length + 16, NULL, 10);
            if (need > SPACE - 1)
                return -1;
        }
    }
    return (ssize_t)have;
}

static ssize_t ask(int *fd, const char *request, size_t length, char *answer)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        if (*fd < 0)
            *fd = connect_next();
        if (*fd >= 0 && send(*fd, request, length, MSG_NOSIGNAL) == (ssize_t)length) {
            ssize_t got = read_message(*fd, answer);
            if (got > 0) {
                char *ends = strcasestr(answer, "\nconnection: close");
                if (ends != NULL && ends < strstr(answer, "\r\n\r\n")) {
                    close(*fd);
                    *fd = -1;
                }
                return got;
            }
        }
        if (*fd >= 0)
            close(*fd);
        *fd = -1; /* it was kept too long: once more on a new one */
    }
    return -1;
}

static void *serve(void *argument)
{
    int client = (int)(long)argument, upstream = -1;
    char *request = malloc(SPACE), *call = malloc(SPACE), *answer = malloc(SPACE);
    while (read_message(client, request) > 0) {
        char path[512] = "/", authorization[8192] = "";
        sscanf(request, "%*15s %511s", path);
        char *field = strcasestr(request, "\nauthorization:");
        if (field != NULL)
            sscanf(field + 15, "%8191[^\r\n]", authorization);
        int length = snprintf(call, SPACE, "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization:%s\r\n\r\n", prefix,
                              path, ntohs(next.sin_port), authorization);
        ssize_t got = ask(&upstream, call, (size_t)length, answer);
        if (got <= 0) {
            static const char failed[] = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
            memcpy(answer, failed, sizeof failed);
            got = sizeof failed - 1;
        }
        if (send(client, answer, (size_t)got, MSG_NOSIGNAL) != got)
            break;
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
