#include "source/http_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "source/common_options.h"

enum {
  DEFAULT_CONNECTIONS = 8,
  MAX_CONNECTIONS = 64,
  MAX_WATCH_S = 86400,
};

static int take_number(const struct source_uri *uri, const char *key,
                       unsigned fallback, unsigned most, unsigned *out,
                       struct source_fault *fault) {
  const char *value = common_options_find(uri, key);
  *out = fallback;
  if (!value)
    return 0;
  char *end;
  errno = 0;
  unsigned long n = strtoul(value, &end, 10);
  if (value[0] < '0' || value[0] > '9' || *end || errno || n < 1 || n > most)
    return remote_fault(fault, -EINVAL, "%s: it is no number from 1 to %u", key,
                        most);
  *out = (unsigned)n;
  return 0;
}

static int take_ca(const struct source_uri *uri, struct http_target *target,
                   struct source_fault *fault) {
  const char *ca = common_options_find(uri, "ca");
  if (!ca)
    return 0;
  if (remote_check_path("ca", ca, fault) < 0)
    return -EINVAL;
  target->client.ca = strdup(ca);
  if (target->client.ca)
    return 0;
  snprintf(fault->text, sizeof fault->text, "ca: %s", strerror(ENOMEM));
  return -ENOMEM;
}

int http_options_take(const struct source_uri *uri, struct http_target *target,
                      struct source_fault *fault) {
  unsigned seconds, watch_s;
  int failed = take_number(uri, "connections", DEFAULT_CONNECTIONS,
                           MAX_CONNECTIONS, &target->client.connections, fault);
  if (!failed)
    failed = take_number(uri, "attempt-timeout", COMMON_TIMEOUT_S,
                         COMMON_MAX_TIMEOUT_S, &seconds, fault);
  if (!failed)
    failed = take_number(uri, "watch", 0, MAX_WATCH_S, &watch_s, fault);
  if (failed)
    return failed;
  target->timeout_ms = seconds * 1000;
  target->watch_ms = watch_s * 1000;
  return take_ca(uri, target, fault);
}
