/* A container's health check, in the image as /opt/sidecar/native/healthcheck. It makes the checks of `sidecar healthcheck`
 * without an interpreter, whose start takes seconds on a starved machine.
 *
 *   healthcheck [--config FILE] [--probe HOST:PORT] [--live]      the probe listener says "ready" (or "alive")
 *   healthcheck --connect HOST:PORT|/SOCKET                       it accepts connections
 *   healthcheck --network                                         there is more than loopback
 *   healthcheck --restart-without-network ...                     ends process 1 if only loopback is left
 *
 * Exit codes: 0 healthy, 1 not, with the reason on standard error. tests/test_healthcheck_program.py compares both. */
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { TIMEOUT_S = 3, WHOLE_S = 4, MAX_FILE = 262144, MAX_ANSWER = 65536, MAX_ADDRESS = 300 };

static int fail(const char *address, const char *what) {
  fprintf(stderr, "%s %s\n", address, what);
  return 1;
}

static int has_network(void) {
  struct ifaddrs *all, *one;
  int found = 0;
  if (getifaddrs(&all)) return 1; /* unknown: do not restart */
  for (one = all; one && !found; one = one->ifa_next) {
    if (!one->ifa_addr) continue;
    if (one->ifa_addr->sa_family == AF_INET) {
      unsigned long host = ntohl(((struct sockaddr_in *)one->ifa_addr)->sin_addr.s_addr);
      found = host >> 24 != 127 && host >> 16 != 0xa9fe;
    } else if (one->ifa_addr->sa_family == AF_INET6) {
      const struct in6_addr *host = &((struct sockaddr_in6 *)one->ifa_addr)->sin6_addr;
      found = !IN6_IS_ADDR_LOOPBACK(host) && !IN6_IS_ADDR_LINKLOCAL(host);
    }
  }
  freeifaddrs(all);
  return found;
}

static int connected(int family, const struct sockaddr *to, socklen_t size) {
  struct timeval limit = {TIMEOUT_S, 0};
  int to_it = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (to_it < 0) return -1;
  setsockopt(to_it, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(to_it, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* it also limits connect() */
  if (!connect(to_it, to, size)) return to_it;
  close(to_it);
  return -1;
}

/* Connects to HOST:PORT, [IPV6]:PORT or the path of a socket; -1 if that fails or takes too long. */
static int dial(const char *address) {
  char host[MAX_ADDRESS];
  struct sockaddr_un path = {.sun_family = AF_UNIX};
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all, *one;
  const char *port = strrchr(address, ':');
  int to_it = -1;
  if (strlen(address) >= sizeof host) return -1;
  if (address[0] == '/') {
    if (strlen(address) >= sizeof path.sun_path) return -1;
    strcpy(path.sun_path, address);
    return connected(AF_UNIX, (struct sockaddr *)&path, sizeof path);
  }
  if (!port) return -1;
  strcpy(host, address[0] == '[' ? address + 1 : address);
  host[port - address - (address[0] == '[' ? 1 : 0)] = 0;
  if (host[0] && host[strlen(host) - 1] == ']') host[strlen(host) - 1] = 0;
  if (getaddrinfo(host, port + 1, &hints, &all)) return -1;
  for (one = all; one && to_it < 0; one = one->ai_next) to_it = connected(one->ai_family, one->ai_addr, one->ai_addrlen);
  freeaddrinfo(all);
  return to_it;
}

enum style { COLUMN_0, LINE, FLOW };

static int depth(const char *from, const char *to) {
  int open = 0;
  for (; from < to; from++) open += (*from == '{') - (*from == '}');
  return open;
}

/* Returns what follows `key:`, quoted or not: at the start of a file's line, behind indentation, or behind a brace or comma. */
static const char *value_of(const char *from, const char *end, const char *key, enum style style) {
  size_t length = strlen(key);
  const char *here, *begin, *after;
  for (here = from; here + length < end; here++) {
    if (strncmp(here, key, length)) continue;
    begin = here, after = here + length;
    if (here > from && strchr("\"'", here[-1])) {
      if (*after++ != here[-1]) continue;
      begin--;
    }
    after += strspn(after, " \t");
    if (*after != ':') continue;
    if (style == LINE)
      while (begin > from && begin[-1] == ' ') begin--;
    if (style != FLOW && (begin == from || begin[-1] == '\n')) return after + 1;
    if (style == FLOW) {
      while (begin > from && strchr(" \t\r\n", begin[-1])) begin--;
      if (begin > from && strchr("{,", begin[-1]) && depth(from, begin) == 1) return after + 1;
    }
  }
  return 0;
}

/* Copies `probe.listen` of a settings file into `address`, which stays unchanged if there is none. */
static void listen_of(const char *file, char *address) {
  static char text[MAX_FILE + 1];
  const char *probe, *end, *listen;
  FILE *opened = fopen(file, "r");
  size_t size, at;
  int flow;
  if (!opened) return;
  size = fread(text, 1, MAX_FILE, opened);
  fclose(opened);
  text[size] = 0;
  probe = value_of(text, text + size, "probe", text[strspn(text, " \t\r\n")] == '{' ? FLOW : COLUMN_0);
  if (!probe) return;
  probe += strspn(probe, " \t");
  flow = *probe == '{';
  if (flow) end = strchr(probe, '}');
  else /* lines deeper than the key */
    for (end = strchr(probe, '\n'); end && end[1] && strchr(" \n#", end[1]); end = strchr(end + 1, '\n')) continue;
  listen = value_of(probe, end ? end : text + size, "listen", flow ? FLOW : LINE);
  if (!listen) return;
  listen += strspn(listen, " \t\"'");
  at = strcspn(listen, flow ? " \t\r\n,}\"'" : " \t\r\n\"'");
  if (!at || at >= MAX_ADDRESS) return;
  memcpy(address, listen, at);
  address[at] = 0;
}

/* Finds the probe listener's address, for a client on this machine: in the variable, the settings, or the default. */
static void probe_of(const char *file, char *address) {
  const char *said = getenv("SIDECAR__PROBE__LISTEN");
  strcpy(address, "127.0.0.1:7090");
  if (said && *said && strlen(said) < MAX_ADDRESS) strcpy(address, said);
  else listen_of(file, address);
  if (!strncmp(address, "0.0.0.0:", 8)) memmove(address + 9, address + 7, strlen(address) - 6), memcpy(address, "127.0.0.1", 9);
  if (!strncmp(address, "[::]:", 5)) memmove(address + 5, address + 4, strlen(address) - 3), memcpy(address, "[::1]", 5);
}

static int ask(const char *address, const char *path) {
  static char answer[MAX_ANSWER + 1];
  size_t have = 0;
  ssize_t got;
  const char *body;
  int to_it = dial(address);
  if (to_it < 0) return fail(address, "gives no answer");
  dprintf(to_it, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, address);
  while (have < MAX_ANSWER && (got = read(to_it, answer + have, MAX_ANSWER - have)) > 0) have += (size_t)got;
  close(to_it);
  answer[have] = 0;
  if (strncmp(answer, "HTTP/1.1 ", 9)) return fail(address, "does not answer in HTTP");
  if (!strncmp(answer + 9, "200 ", 4)) return 0;
  body = strstr(answer, "\r\n\r\n");
  fputs(body && body[4] ? body + 4 : answer, stderr);
  return 1;
}

int main(int count, char **words) {
  const char *file = "/etc/sidecar/sidecar.yaml", *probe = 0, *to = 0;
  char address[MAX_ADDRESS + 8];
  int at, live = 0, restart = 0, network = 0, to_it;
  for (at = 1; at < count; at++) {
    const char **into = !strcmp(words[at], "--config") ? &file : !strcmp(words[at], "--probe") ? &probe : !strcmp(words[at], "--connect") ? &to : 0;
    if (into && at + 1 < count) *into = words[++at];
    else if (!strcmp(words[at], "--live")) live = 1;
    else if (!strcmp(words[at], "--network")) network = 1;
    else if (!strcmp(words[at], "--restart-without-network")) restart = 1;
    else return fail(words[at], "is no option of this check: --config FILE, --probe ADDRESS, --live, --connect ADDRESS, --network, --restart-without-network");
  }
  signal(SIGPIPE, SIG_IGN);
  alarm(WHOLE_S); /* for a name that does not resolve, or an answer that trickles */
  if (restart && !has_network()) {
    fputs("the network has only loopback left: ending this container's first process\n", stderr);
    kill(1, SIGTERM);
    return 1;
  }
  if (network) return has_network() ? 0 : fail("the network", "has only loopback");
  if (to) {
    if ((to_it = dial(to)) < 0) return fail(to, "accepts no connection");
    close(to_it);
    return 0;
  }
  if (!probe) probe_of(file, address);
  return ask(probe ? probe : address, live ? "/livez" : "/readyz");
}
