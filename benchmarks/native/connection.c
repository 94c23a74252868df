#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

void (*on_event)(const char *line);

static const char zeros[65536];
static SSL_SESSION *last_session;
static size_t next_leaf;

int keep_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(last_session);
    last_session = session;
    return 1; /* it is ours now */
}

bool connection_open(struct connection *connection, const struct target *target, uint64_t now)
{
    memset(connection, 0, offsetof(struct connection, answer));
    connection->answer_length = 0;
    connection->in_body = false;
    connection->opened_at = now;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0)
        return false;
    int on = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection->state = CONNECTING;
    if (target->tls != NULL) {
        connection->ssl = SSL_new(target->tls);
        SSL_set_fd(connection->ssl, connection->fd);
        SSL_set_connect_state(connection->ssl);
        if (target->name != NULL)
            SSL_set_tlsext_host_name(connection->ssl, target->name);
        if (target->leaf_count > 0)
            SSL_use_certificate(connection->ssl, target->leaves[next_leaf++ % target->leaf_count]);
        if (target->resumes && last_session != NULL)
            SSL_set_session(connection->ssl, last_session);
    }
    const struct sockaddr *address = (const struct sockaddr *)&target->address;
    if (connect(connection->fd, address, sizeof target->address) < 0 && errno != EINPROGRESS) {
        connection_close(connection);
        return false;
    }
    return true;
}

void connection_close(struct connection *connection)
{
    if (connection->state == CLOSED)
        return;
    if (connection->ssl != NULL) {
        if (connection->state >= READY)
            SSL_shutdown(connection->ssl); /* says goodbye, and waits for nobody */
        SSL_free(connection->ssl);
        connection->ssl = NULL;
    }
    close(connection->fd);
    free(connection->head);
    connection->head = NULL;
    connection->state = CLOSED;
}

void connection_send(struct connection *connection, char *head, size_t length, uint64_t body, uint64_t due)
{
    free(connection->head);
    connection->head = head;
    connection->head_length = length;
    connection->head_sent = 0;
    connection->body_left = body;
    connection->due = due;
    connection->in_body = false;
    connection->close_after = false;
    connection->line_length = 0;
    connection->state = SENDING;
}

/* Bytes written, 0 if the socket is full, -1 if the connection is gone. */
static ssize_t put(struct connection *connection, const char *bytes, size_t length)
{
    if (connection->ssl == NULL) {
        ssize_t sent = send(connection->fd, bytes, length, MSG_NOSIGNAL);
        if (sent >= 0)
            return sent;
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    }
    int sent = SSL_write(connection->ssl, bytes, (int)length);
    if (sent > 0)
        return sent;
    int error = SSL_get_error(connection->ssl, sent);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* Bytes read, 0 if there are none yet, -1 at the end of the stream, -2 if the connection is gone. */
static ssize_t take(struct connection *connection, char *bytes, size_t length)
{
    if (connection->ssl == NULL) {
        ssize_t got = recv(connection->fd, bytes, length, 0);
        if (got > 0)
            return got;
        if (got == 0)
            return -1;
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -2;
    }
    int got = SSL_read(connection->ssl, bytes, (int)length);
    if (got > 0)
        return got;
    int error = SSL_get_error(connection->ssl, got);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return 0;
    return error == SSL_ERROR_ZERO_RETURN ? -1 : -2;
}

/* False if the connection is gone; `left` says whether something is still to be sent. */
static bool push(struct connection *connection, bool *left)
{
    while (connection->head_sent < connection->head_length) {
        size_t length = connection->head_length - connection->head_sent;
        ssize_t sent = put(connection, connection->head + connection->head_sent, length);
        if (sent <= 0) {
            *left = true;
            return sent == 0;
        }
        connection->head_sent += (size_t)sent;
        connection->bytes_out += (uint64_t)sent;
    }
    while (connection->body_left > 0) {
        size_t length = connection->body_left < 16384 ? connection->body_left : 16384;
        ssize_t sent = put(connection, zeros, length);
        if (sent <= 0) {
            *left = true;
            return sent == 0;
        }
        connection->body_left -= (uint64_t)sent;
        connection->bytes_out += (uint64_t)sent;
    }
    *left = false;
    return true;
}

static bool understand_head(struct connection *connection, size_t length)
{
    char *head = connection->answer;
    head[length - 2] = '\0'; /* the empty line's own end */
    if (length < 14 || strncmp(head, "HTTP/1.", 7) != 0)
        return false;
    connection->status = atoi(head + 9);
    connection->chunked = false;
    connection->until_end = true;
    connection->body_to_come = 0;
    for (char *line = strstr(head, "\r\n"); line != NULL && line[2] != '\0'; line = strstr(line + 2, "\r\n")) {
        char *name = line + 2;
        if (strncasecmp(name, "content-length:", 15) == 0) {
            connection->until_end = false;
            connection->body_to_come = strtoull(name + 15, NULL, 10);
        } else if (strncasecmp(name, "transfer-encoding: chunked", 26) == 0) {
            connection->until_end = false;
            connection->chunked = true;
            connection->chunk_state = 0;
            connection->chunk_to_come = 0;
        } else if (strncasecmp(name, "connection: close", 17) == 0) {
            connection->close_after = true;
        }
    }
    if (connection->status == 204 || connection->status == 304)
        connection->until_end = false;
    if (connection->until_end)
        connection->close_after = true;
    connection->in_body = true;
    return true;
}

static void look_for_events(struct connection *connection, const char *bytes, size_t length)
{
    if (!connection->expects_events)
        return;
    for (size_t at = 0; at < length; at++) {
        if (bytes[at] != '\n') {
            if (connection->line_length < sizeof connection->line - 1)
                connection->line[connection->line_length++] = bytes[at];
            continue;
        }
        connection->line[connection->line_length] = '\0';
        if (strncmp(connection->line, "data: ", 6) == 0 && on_event != NULL)
            on_event(connection->line + 6);
        connection->line_length = 0;
    }
}

/* Eat from `bytes`; says how many were eaten, and whether the body is complete. */
static size_t eat_chunked(struct connection *connection, const char *bytes, size_t length, bool *complete)
{
    enum { SIZE, REST_OF_SIZE, DATA, DATA_END, TRAILER, TRAILER_LINE };
    size_t at = 0;
    while (at < length && !*complete) {
        char byte = bytes[at];
        switch (connection->chunk_state) {
        case SIZE:
            if (byte >= '0' && byte <= '9')
                connection->chunk_to_come = connection->chunk_to_come * 16 + (uint64_t)(byte - '0');
            else if ((byte | 32) >= 'a' && (byte | 32) <= 'f')
                connection->chunk_to_come = connection->chunk_to_come * 16 + (uint64_t)((byte | 32) - 'a' + 10);
            else
                connection->chunk_state = byte == '\n' ? (connection->chunk_to_come ? DATA : TRAILER) : REST_OF_SIZE;
            at++;
            break;
        case REST_OF_SIZE:
            if (byte == '\n')
                connection->chunk_state = connection->chunk_to_come ? DATA : TRAILER;
            at++;
            break;
        case DATA: {
            size_t here = length - at;
            if (here > connection->chunk_to_come)
                here = connection->chunk_to_come;
            look_for_events(connection, bytes + at, here);
            connection->chunk_to_come -= here;
            at += here;
            if (connection->chunk_to_come == 0)
                connection->chunk_state = DATA_END;
            break;
        }
        case DATA_END:
            if (byte == '\n')
                connection->chunk_state = SIZE;
            at++;
            break;
        case TRAILER:
            if (byte == '\n')
                *complete = true;
            else if (byte != '\r')
                connection->chunk_state = TRAILER_LINE;
            at++;
            break;
        default:
            if (byte == '\n')
                connection->chunk_state = TRAILER;
            at++;
        }
    }
    return at;
}

/* What is in `answer`: understood as far as possible. False if it is no HTTP; `complete` at the end of the answer. */
static bool understand(struct connection *connection, bool *complete)
{
    size_t at = 0;
    if (!connection->in_body) {
        char *end = memmem(connection->answer, connection->answer_length, "\r\n\r\n", 4);
        if (end == NULL)
            return connection->answer_length < sizeof connection->answer;
        at = (size_t)(end - connection->answer) + 4;
        if (!understand_head(connection, at))
            return false;
    }
    const char *bytes = connection->answer + at;
    size_t length = connection->answer_length - at;
    if (connection->chunked) {
        eat_chunked(connection, bytes, length, complete);
    } else if (connection->until_end) {
        look_for_events(connection, bytes, length);
    } else {
        if (length > connection->body_to_come)
            return false; /* surplus bytes: nobody asked for more */
        look_for_events(connection, bytes, length);
        connection->body_to_come -= length;
        *complete = connection->body_to_come == 0;
    }
    connection->answer_length = 0;
    return true;
}

static enum outcome read_answer(struct connection *connection, int max_reads)
{
    for (int reads = 0; max_reads == 0 || reads < max_reads; reads++) {
        char *free_space = connection->answer + connection->answer_length;
        ssize_t got = take(connection, free_space, sizeof connection->answer - connection->answer_length);
        if (got == 0)
            return WAITING;
        if (got == -1 && connection->in_body && connection->until_end) {
            connection->state = READY;
            return ANSWERED;
        }
        if (got < 0)
            return LOST_ANSWER;
        connection->bytes_in += (uint64_t)got;
        connection->answer_length += (size_t)got;
        bool complete = false;
        if (!understand(connection, &complete))
            return LOST_ANSWER;
        if (complete) {
            connection->state = READY;
            return ANSWERED;
        }
    }
    return WAITING;
}

enum outcome connection_go_on(struct connection *connection, int max_reads)
{
    if (connection->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error != 0)
            return LOST_CONNECT;
        struct sockaddr_in peer;
        length = sizeof peer;
        if (getpeername(connection->fd, (struct sockaddr *)&peer, &length) < 0)
            return WAITING;
        connection->state = connection->ssl != NULL ? HANDSHAKING : READY;
        if (connection->state == READY)
            return CONNECTED;
    }
    if (connection->state == HANDSHAKING) {
        ERR_clear_error();
        int done = SSL_do_handshake(connection->ssl);
        if (done != 1) {
            int error = SSL_get_error(connection->ssl, done);
            return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? WAITING : LOST_TLS;
        }
        connection->state = READY;
        return CONNECTED;
    }
    if (connection->state == SENDING) {
        bool left = false;
        if (!push(connection, &left))
            return LOST_ANSWER;
        if (!left)
            connection->state = READING;
    }
    if (connection->state == READING || (connection->state == SENDING && connection->body_left > 0))
        return read_answer(connection, max_reads); /* a refusal may come before the body is sent */
    if (connection->state == READY) { /* idle: the other end may have closed it, or sends a session ticket */
        char byte;
        ssize_t got = take(connection, &byte, 1);
        return got == 0 ? WAITING : LOST_ANSWER;
    }
    return WAITING;
}
