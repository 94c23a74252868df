#define _GNU_SOURCE
#include "options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void fail(const char *what, const char *value)
{
    fprintf(stderr, "load: %s: %s\n", what, value);
    exit(2);
}

static char *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail("cannot be read", path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *bytes = malloc((size_t)size + 1);
    if (bytes == NULL || fread(bytes, 1, (size_t)size, file) != (size_t)size)
        fail("cannot be read", path);
    fclose(file);
    bytes[size] = '\0';
    *length = (size_t)size;
    return bytes;
}

static void read_tokens(struct options *options, const char *path)
{
    size_t length;
    char *text = read_file(path, &length);
    size_t lines = 0;
    for (size_t at = 0; at < length; at++)
        lines += text[at] == '\n';
    options->tokens = calloc(lines + 1, sizeof *options->tokens);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        options->tokens[options->token_count++] = line;
    if (options->token_count == 0)
        fail("holds no token", path);
}

static void read_template(struct options *options, const char *path)
{
    options->templates = realloc(options->templates, (options->template_count + 1) * sizeof *options->templates);
    struct template *template = &options->templates[options->template_count++];
    memset(template, 0, sizeof *template);
    template->text = read_file(path, &template->length);
    char *end = strstr(template->text, "\r\n\r\n"), *after = strcasestr(template->text, "\r\nx-answer-after: ");
    template->head_length = end != NULL ? (size_t)(end - template->text) + 4 : template->length;
    template->varies = strstr(template->text, DIGITS) != NULL;
    template->events = strcasestr(template->text, "\r\naccept: text/event-stream\r\n") != NULL;
    template->after = after != NULL ? strtoull(after + 18, NULL, 10) * 1000000 : 0;
}

static void read_plan(struct options *options, const char *path)
{
    size_t length, lines = 0;
    char *text = read_file(path, &length);
    for (size_t at = 0; at < length; at++)
        lines += text[at] == '\n';
    options->plan = calloc(lines + 1, sizeof *options->plan);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        struct planned *planned = &options->plan[options->plan_count++];
        if (sscanf(line, "%zu %zu", &planned->template, &planned->token) != 2)
            fail("is not a plan", path);
    }
}

static void check_plan(const struct options *options)
{
    if (options->plan_warm >= options->plan_count)
        fail("leaves nothing of the plan", "--plan-warm");
    for (size_t at = 0; at < options->plan_count; at++)
        if (options->plan[at].template >= options->template_count || options->plan[at].token >= options->token_count)
            fail("names a template or token that is not there", "--plan");
}

static void read_target(struct options *options, char *text)
{
    char *colon = strrchr(text, ':');
    if (colon == NULL)
        fail("is no HOST:PORT", text);
    *colon = '\0';
    options->target.address.sin_family = AF_INET;
    options->target.address.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, text, &options->target.address.sin_addr) != 1)
        fail("is no IPv4 address", text);
}

static void read_pids(struct options *options, char *text)
{
    for (char *pid = strtok(text, ","); pid != NULL; pid = strtok(NULL, ",")) {
        if (options->clock_count == MAX_PIDS || clock_getcpuclockid(atoi(pid), &options->clocks[options->clock_count]))
            fail("has no CPU clock", pid);
        options->clock_count++;
    }
}

static void read_leaves(struct target *target, const char *path)
{
    BIO *file = BIO_new_file(path, "r");
    if (file == NULL)
        fail("cannot be read", path);
    for (X509 *leaf; (leaf = PEM_read_bio_X509(file, NULL, NULL, NULL)) != NULL;) {
        target->leaves = realloc(target->leaves, (target->leaf_count + 1) * sizeof *target->leaves);
        target->leaves[target->leaf_count++] = leaf;
    }
    BIO_free(file);
    if (target->leaf_count == 0)
        fail("holds no certificate", path);
}

static SSL_CTX *tls_context(const char *certificate, const char *key, const char *authority)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* every handshake is a full one */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        fail("is no certificate", certificate);
    if (key == NULL || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        fail("is no key", key != NULL ? key : "none");
    if (authority != NULL) { /* the chain is checked, the name is not: peers of a test have none */
        if (SSL_CTX_load_verify_locations(context, authority, NULL) != 1)
            fail("is no bundle", authority);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    }
    return context;
}

void read_options(struct options *options, int argc, char **argv)
{
    static const struct option known[] = {
        {"connect", required_argument, NULL, 'C'},   {"certificate", required_argument, NULL, 'c'},
        {"key", required_argument, NULL, 'k'},       {"authority", required_argument, NULL, 'a'},
        {"name", required_argument, NULL, 'n'},      {"request", required_argument, NULL, 'r'},
        {"tokens", required_argument, NULL, 't'},    {"first-token", required_argument, NULL, 'f'},
        {"body", required_argument, NULL, 'b'},      {"connections", required_argument, NULL, 'N'},
        {"seconds", required_argument, NULL, 's'},   {"warmup", required_argument, NULL, 'w'},
        {"rate", required_argument, NULL, 'R'},      {"requests", required_argument, NULL, 'q'},
        {"fresh", no_argument, NULL, 'F'},           {"events", no_argument, NULL, 'e'},
        {"hold", no_argument, NULL, 'h'},            {"pause-ms", required_argument, NULL, 'p'},
        {"pids", required_argument, NULL, 'P'},      {"warm-requests", required_argument, NULL, 'W'},
        {"leaves", required_argument, NULL, 'L'},    {"resume", no_argument, NULL, 'S'},
        {"streams", required_argument, NULL, 'm'},   {"unended", no_argument, NULL, 'u'},
        {"plan", required_argument, NULL, 'l'},      {"plan-warm", required_argument, NULL, 'A'},
        {NULL, 0, NULL, 0},
    };
    const char *certificate = NULL, *key = NULL, *authority = NULL;
    memset(options, 0, sizeof *options);
    options->connections = 1;
    options->streams = 1;
    options->seconds = 1;
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'C': read_target(options, optarg); break;
        case 'c': certificate = optarg; break;
        case 'k': key = optarg; break;
        case 'a': authority = optarg; break;
        case 'n': options->target.name = optarg; break;
        case 'r': read_template(options, optarg); break;
        case 't': read_tokens(options, optarg); break;
        case 'f': options->first_token = strtoull(optarg, NULL, 10); break;
        case 'b': /* of the last --request */
            if (options->template_count > 0)
                options->templates[options->template_count - 1].body = strtoull(optarg, NULL, 10);
            break;
        case 'l': read_plan(options, optarg); break;
        case 'A': options->plan_warm = strtoull(optarg, NULL, 10); break;
        case 'N': options->connections = strtoull(optarg, NULL, 10); break;
        case 's': options->seconds = atof(optarg); break;
        case 'w': options->warmup_s = atof(optarg); break;
        case 'R': options->rate = atof(optarg); break;
        case 'q': options->requests = strtoull(optarg, NULL, 10); break;
        case 'F': options->fresh = true; break;
        case 'e': options->events = true; break;
        case 'h': options->hold = true; break;
        case 'p': options->pause_ms = atoi(optarg); break;
        case 'W': options->warm_requests = strtoull(optarg, NULL, 10); break;
        case 'P': read_pids(options, optarg); break;
        case 'L': read_leaves(&options->target, optarg); break;
        case 'm': options->streams = strtoull(optarg, NULL, 10); break;
        case 'u': options->unended = true; break;
        case 'S': options->target.resumes = true; break;
        default: exit(2);
        }
    }
    if (options->target.address.sin_port == 0 || options->templates == NULL || options->connections == 0 || options->streams == 0)
        fail("needed", "--connect, --request, --connections");
    if (options->plan != NULL)
        check_plan(options);
    size_t slots = options->connections * options->streams;
    if (options->plan != NULL)
        options->warm_requests = options->plan_warm > slots ? options->plan_warm : slots;
    else if (options->warm_requests < 3 * slots)
        options->warm_requests = 3 * slots;
    if (certificate != NULL)
        options->target.tls = tls_context(certificate, key, authority);
    if (options->target.resumes) {
        SSL_CTX_set_session_cache_mode(options->target.tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(options->target.tls, keep_session);
    }
    if (strstr(options->templates[0].text, TOKEN) != NULL && options->tokens == NULL)
        fail("needed", "--tokens, for @TOKEN@ in the request");
}
