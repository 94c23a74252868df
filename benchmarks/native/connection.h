/* One connection of the load generator: opened, perhaps with TLS, and then one request after the other. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum state { CLOSED, CONNECTING, HANDSHAKING, READY, SENDING, READING };

enum outcome {
    WAITING,      /* come again when the socket can be read or written */
    CONNECTED,    /* ready for a request */
    ANSWERED,     /* the whole answer is here; see status */
    LOST_CONNECT, /* the connection could not be opened */
    LOST_TLS,     /* the handshake failed */
    LOST_ANSWER   /* the connection ended before the answer did */
};

struct target {
    struct sockaddr_in address;
    SSL_CTX *tls;     /* NULL: plain */
    const char *name; /* for SNI */
    X509 **leaves;    /* if given, each connection shows the next of these, all with the key of `tls` */
    size_t leaf_count;
    bool resumes; /* each connection offers the session of an earlier one */
};

struct connection {
    int fd;
    SSL *ssl;
    enum state state;
    uint64_t due;      /* when the request should have been sent, in nanoseconds */
    uint64_t after;    /* nanoseconds that the agent waits before it answers */
    uint64_t opened_at; /* when the connection was begun */

    char *head; /* of the request, and how much of it is sent */
    size_t head_length, head_sent;
    uint64_t body_left; /* zeros that are still to be sent after the head */

    char answer[65536]; /* what is read but not understood yet */
    size_t answer_length;
    bool in_body, chunked, until_end, close_after;
    bool expects_events; /* the body is server-sent events with a time in each */
    uint64_t body_to_come, chunk_to_come;
    int chunk_state;
    char line[64];
    size_t line_length;
    int status;
    uint64_t bytes_in, bytes_out;
};

/* Begin to connect. False if there is not even a socket. */
bool connection_open(struct connection *connection, const struct target *target, uint64_t now);

void connection_close(struct connection *connection);

/* Begin a request on a connection that is READY. `head` is the connection's own from now on. */
void connection_send(struct connection *connection, char *head, size_t length, uint64_t body, uint64_t due);

/* Do what can be done without waiting, up to `max_reads` reads of the answer (0: no bound). */
enum outcome connection_go_on(struct connection *connection, int max_reads);

/* Keeps a session for the connections that resume: a callback of the TLS context. */
int keep_session(SSL *ssl, SSL_SESSION *session);

/* Told of each line of the body that starts with "data: ", if the connection expects events. */
extern void (*on_event)(const char *line);

#endif
