#include "daemon/net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

int address_unix(const char *path, struct address *out, char *err,
                 size_t err_len) {
  memset(out, 0, sizeof *out);
  size_t len = strlen(path);
  if (len == 0) {
    snprintf(err, err_len, "address \"unix:\": it names no path");
    return -EINVAL;
  }
  if (len >= sizeof out->un.sun_path) {
    snprintf(err, err_len,
             "address \"unix:%.40s...\": the path has %zu bytes, a socket's "
             "can have %zu",
             path, len, sizeof out->un.sun_path - 1);
    return -EINVAL;
  }
  out->un.sun_family = AF_UNIX;
  memcpy(out->un.sun_path, path, len + 1);
  out->len = (socklen_t)sizeof out->un;
  return 0;
}

/* A decimal port, 0 (any) to 65535; -1 if it is not one. */
static int parse_port(const char *text) {
  int port = 0;
  if (!*text)
    return -1;
  for (const char *p = text; *p; p++) {
    if (*p < '0' || *p > '9')
      return -1;
    port = port * 10 + (*p - '0');
    if (port > 65535)
      return -1;
  }
  return port;
}

/* Makes the address of a numeric host, or of "localhost".  0 or -EINVAL. */
static int parse_host(const char *host, int port, struct address *out) {
  struct sockaddr_in in4 = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port)};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                             .sin6_port = htons((uint16_t)port)};
  memset(out, 0, sizeof *out);
  if (strcmp(host, "localhost") == 0)
    host = "127.0.0.1";
  if (inet_pton(AF_INET, host, &in4.sin_addr) == 1) {
    memcpy(&out->storage, &in4, sizeof in4);
    out->len = sizeof in4;
    return 0;
  }
  size_t len = strlen(host);
  char bare[INET6_ADDRSTRLEN];
  if (len < 2 || len - 2 >= sizeof bare || host[0] != '[' ||
      host[len - 1] != ']')
    return -EINVAL;
  memcpy(bare, host + 1, len - 2);
  bare[len - 2] = '\0';
  if (inet_pton(AF_INET6, bare, &in6.sin6_addr) != 1)
    return -EINVAL;
  memcpy(&out->storage, &in6, sizeof in6);
  out->len = sizeof in6;
  return 0;
}

/* `rest` is what follows the scheme in `text`. */
static int parse_tcp(const char *text, const char *rest, int default_port,
                     struct address *out, char *err, size_t err_len) {
  if (!*rest)
    return parse_host("localhost", default_port, out);
  const char *colon = strrchr(rest, ':');
  int port = colon ? parse_port(colon + 1) : -1;
  if (port < 0) {
    snprintf(err, err_len,
             "address \"%.100s\": it must end in a port, as in "
             "%.4s127.0.0.1:%d",
             text, text, default_port);
    return -EINVAL;
  }
  char host[64];
  size_t len = (size_t)(colon - rest);
  if (len < sizeof host) {
    memcpy(host, rest, len);
    host[len] = '\0';
    if (parse_host(host, port, out) == 0)
      return 0;
  }
  snprintf(err, err_len,
           "address \"%.100s\": the host must be a number, as 127.0.0.1 or "
           "[::1], or localhost",
           text);
  return -EINVAL;
}

int address_parse(const char *text, struct address *out, char *err,
                  size_t err_len) {
  if (strncmp(text, "unix:", 5) == 0)
    return address_unix(text + 5, out, err, err_len);
  if (strncmp(text, "tcp:", 4) == 0)
    return parse_tcp(text, text + 4, ADDRESS_DEFAULT_PORT, out, err, err_len);
  if (strncmp(text, "tls:", 4) == 0) {
    int r =
        parse_tcp(text, text + 4, ADDRESS_DEFAULT_TLS_PORT, out, err, err_len);
    out->is_tls = r == 0;
    return r;
  }
  snprintf(err, err_len,
           "address \"%.100s\": it must be unix:PATH, tcp:HOST:PORT or "
           "tls:HOST:PORT",
           text);
  return -EINVAL;
}

bool address_is_here(const struct address *a) {
  struct sockaddr_in in4;
  struct sockaddr_in6 in6;
  switch (a->generic.sa_family) {
  case AF_UNIX:
    return true;
  case AF_INET:
    memcpy(&in4, &a->storage, sizeof in4);
    return ntohl(in4.sin_addr.s_addr) >> 24 == 127;
  case AF_INET6:
    memcpy(&in6, &a->storage, sizeof in6);
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
  default:
    return false;
  }
}

int address_check(const struct address *a, char *err, size_t err_len) {
  char text[ADDRESS_TEXT_LEN];
  if (a->is_tls || address_is_here(a))
    return 0;
  address_format(a, text);
  snprintf(err, err_len,
           "address \"%s\": only loopback is allowed without TLS: anybody on "
           "the way could read and change what goes through; write tls: for "
           "tcp:, or allow it by insecure = yes",
           text);
  return -EINVAL;
}

bool address_is_same(const struct address *a, const struct address *b) {
  return a->len == b->len && memcmp(&a->storage, &b->storage, a->len) == 0;
}

/* 0: it has none. */
static in_port_t port_of(const struct address *a) {
  struct sockaddr_in in4;
  struct sockaddr_in6 in6;
  switch (a->generic.sa_family) {
  case AF_INET:
    memcpy(&in4, &a->storage, sizeof in4);
    return in4.sin_port;
  case AF_INET6:
    memcpy(&in6, &a->storage, sizeof in6);
    return in6.sin6_port;
  default:
    return 0;
  }
}

bool address_covers(const struct address *a, const struct address *b) {
  struct sockaddr_in in4;
  struct sockaddr_in6 in6;
  if (address_is_same(a, b))
    return true;
  if (port_of(a) == 0 || port_of(a) != port_of(b))
    return false;
  if (a->generic.sa_family == AF_INET) {
    memcpy(&in4, &a->storage, sizeof in4);
    return in4.sin_addr.s_addr == htonl(INADDR_ANY) &&
           b->generic.sa_family == AF_INET;
  }
  memcpy(&in6, &a->storage, sizeof in6);
  return IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr);
}

void address_format(const struct address *a, char text[ADDRESS_TEXT_LEN]) {
  char host[INET6_ADDRSTRLEN] = "?";
  struct sockaddr_in in4;
  struct sockaddr_in6 in6;
  const char *scheme = a->is_tls ? "tls" : "tcp";
  switch (a->generic.sa_family) {
  case AF_UNIX:
    snprintf(text, ADDRESS_TEXT_LEN, "unix:%s", a->un.sun_path);
    break;
  case AF_INET:
    memcpy(&in4, &a->storage, sizeof in4);
    inet_ntop(AF_INET, &in4.sin_addr, host, sizeof host);
    snprintf(text, ADDRESS_TEXT_LEN, "%s:%s:%d", scheme, host,
             ntohs(in4.sin_port));
    break;
  case AF_INET6:
    memcpy(&in6, &a->storage, sizeof in6);
    inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof host);
    snprintf(text, ADDRESS_TEXT_LEN, "%s:[%s]:%d", scheme, host,
             ntohs(in6.sin6_port));
    break;
  default:
    snprintf(text, ADDRESS_TEXT_LEN, "family:%d", a->generic.sa_family);
  }
}
