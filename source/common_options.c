#include "source/common_options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *common_options_find(const struct source_uri *uri, const char *key) {
  const char *value = NULL;
  for (size_t i = 0; i < uri->n_options; i++)
    if (strcmp(uri->options[i].key, key) == 0)
      value = uri->options[i].value;
  return value;
}

int common_options_take_timeout(const char *value, int *to_ms,
                                struct source_fault *fault) {
  char *end;
  unsigned long s =
      isdigit((unsigned char)*value) ? strtoul(value, &end, 10) : 0;
  if (s < 1 || s > COMMON_MAX_TIMEOUT_S || *end) {
    snprintf(fault->text, sizeof fault->text,
             "attempt-timeout is not a number of seconds from 1 to %d",
             COMMON_MAX_TIMEOUT_S);
    return -EINVAL;
  }
  *to_ms = (int)s * 1000;
  return 0;
}
