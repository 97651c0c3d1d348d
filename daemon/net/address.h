/* Where the daemon listens: an address of the command line, made ready for
 * bind(2). */
#ifndef DAEMON_NET_ADDRESS_H
#define DAEMON_NET_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ADDRESS_DEFAULT_PORT 10819
#define ADDRESS_DEFAULT_TLS_PORT 10820

/* The longest "unix:PATH" or "tcp:[...]:PORT", with its NUL. */
#define ADDRESS_TEXT_LEN (sizeof "unix:" + sizeof(struct sockaddr_un))

struct address {
  bool is_tls;
  socklen_t len;
  union {
    struct sockaddr generic;
    struct sockaddr_un un; /* sun_path ends in a NUL */
    struct sockaddr_storage storage;
  };
};

/* Reads `unix:PATH`, `tcp:HOST:PORT`, `tls:HOST:PORT`, `tcp:` or `tls:`.  0, or
 * -EINVAL with the reason in `err`.  HOST is a number or "localhost", an IPv6
 * one in brackets.  Looks nothing up. */
int address_parse(const char *text, struct address *out, char *err,
                  size_t err_len);

/* The address of a Unix socket.  As address_parse(). */
int address_unix(const char *path, struct address *out, char *err,
                 size_t err_len);

/* Whether what goes through does not leave the machine: a Unix socket, or a
 * loopback address. */
bool address_is_here(const struct address *a);

/* 0 if nobody on the way can read or change what goes through: a Unix socket, a
 * loopback address, or TLS.  Else -EINVAL, with advice in `err`. */
int address_check(const struct address *a, char *err, size_t err_len);

/* Whether a socket can be bound to one of the two alone. */
bool address_is_same(const struct address *a, const struct address *b);

/* Whether connections to `b` come to a socket that is bound to `a`: the two are
 * the same, or have the same port, and the host of `a` is 0.0.0.0 or [::].  A
 * socket at [::] that takes IPv6 alone (IPV6_V6ONLY) is the caller's to
 * recognise. */
bool address_covers(const struct address *a, const struct address *b);

/* Writes the address as address_parse() reads it. */
void address_format(const struct address *a, char text[ADDRESS_TEXT_LEN]);

#ifdef __cplusplus
}
#endif

#endif
