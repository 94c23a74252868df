/*
 * The agent that serves HTTP/2 without TLS (prior knowledge), as gRPC servers do, by nghttp2.
 *
 *   a call of gRPC   one message of 32 bytes, and trailers with `grpc-status: 0`
 *   any other        1 KB of JSON, as backend.c
 *
 * One thread and one epoll.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_OUT (256 * 1024)
#define NV(name, value) {(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, NGHTTP2_NV_FLAG_NONE}

struct client {
    int fd;
    nghttp2_session *session;
    size_t out_length, out_sent;
    char out[MAX_OUT];
};

struct call {
    bool grpc;
    size_t sent;
};

static uint8_t json[1024], message[37] = {0, 0, 0, 0, 32}; /* not compressed, 32 bytes */
static nghttp2_session_callbacks *callbacks;

static ssize_t give(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t length, uint32_t *flags,
                    nghttp2_data_source *source, void *user)
{
    (void)user;
    struct call *call = source->ptr;
    const uint8_t *body = call->grpc ? message : json;
    size_t left = (call->grpc ? sizeof message : sizeof json) - call->sent;
    size_t here = length < left ? length : left;
    memcpy(buffer, body + call->sent, here);
    call->sent += here;
    if (here == left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (call->grpc) {
            nghttp2_nv trailers[] = {NV("grpc-status", "0")};
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            nghttp2_submit_trailer(session, id, trailers, 1);
        }
    }
    return (ssize_t)here;
}

static void answer(nghttp2_session *session, int32_t id, struct call *call)
{
    nghttp2_nv of_grpc[] = {NV(":status", "200"), NV("content-type", "application/grpc")};
    nghttp2_nv plain[] = {NV(":status", "200"), NV("content-type", "application/json"), NV("content-length", "1024")};
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = give};
    nghttp2_submit_response(session, id, call->grpc ? of_grpc : plain, call->grpc ? 2 : 3, &body);
}

static int begin(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)user;
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, calloc(1, sizeof(struct call)));
    return 0;
}

static int take_field(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                      const uint8_t *value, size_t value_length, uint8_t flags, void *user)
{
    (void)flags, (void)user;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call != NULL && name_length == 12 && memcmp(name, "content-type", 12) == 0)
        call->grpc = value_length >= 16 && memcmp(value, "application/grpc", 16) == 0;
    return 0;
}

static int take_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)user;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call != NULL && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        answer(session, frame->hd.stream_id, call);
    return 0;
}

static int end_call(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    (void)error, (void)user;
    free(nghttp2_session_get_stream_user_data(session, id));
    return 0;
}

static bool push(struct client *client)
{
    for (;;) {
        while (client->out_length < MAX_OUT / 2) {
            const uint8_t *bytes;
            ssize_t length = nghttp2_session_mem_send(client->session, &bytes);
            if (length < 0)
                return false;
            if (length == 0)
                break;
            memcpy(client->out + client->out_length, bytes, (size_t)length);
            client->out_length += (size_t)length;
        }
        if (client->out_sent == client->out_length)
            return nghttp2_session_want_read(client->session) || nghttp2_session_want_write(client->session);
        ssize_t done = send(client->fd, client->out + client->out_sent, client->out_length - client->out_sent, MSG_NOSIGNAL);
        if (done < 0)
            return errno == EAGAIN;
        client->out_sent += (size_t)done;
        if (client->out_sent == client->out_length)
            client->out_sent = client->out_length = 0;
    }
}

static bool pull(struct client *client)
{
    static uint8_t bytes[65536];
    for (;;) {
        ssize_t got = recv(client->fd, bytes, sizeof bytes, 0);
        if (got < 0)
            return errno == EAGAIN;
        if (got == 0 || nghttp2_session_mem_recv(client->session, bytes, (size_t)got) != got)
            return false;
    }
}

static void greet(int poller, int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct client *client = calloc(1, sizeof *client);
        client->fd = fd;
        nghttp2_session_server_new(&client->session, callbacks, client);
        nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 100}};
        nghttp2_submit_settings(client->session, NGHTTP2_FLAG_NONE, settings, 1);
        struct epoll_event interest = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &interest);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[1], "--port") != 0) {
        fprintf(stderr, "h2_backend: needs --port PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    memset(json, 'x', sizeof json);
    memcpy(json, "{\"answer\": \"", 12);
    memcpy(json + sizeof json - 2, "\"}", 2);
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, begin);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, take_field);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, take_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, end_call);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) {
        perror("h2_backend");
        return 1;
    }
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &interest);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(poller, events, 256, -1);
        for (int at = 0; at < count; at++) {
            struct client *client = events[at].data.ptr;
            if (client == NULL) {
                greet(poller, listener);
            } else if (!pull(client) || !push(client)) {
                nghttp2_session_del(client->session);
                close(client->fd);
                free(client); /* one event a descriptor in each round, so no other names it */
            }
        }
    }
}
