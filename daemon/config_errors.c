#include "daemon/config_errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void config_errors_add(struct config_errors *errors, const char *format, ...) {
  va_list args;
  char *message;
  va_start(args, format);
  bool kept =
      errors->n < CONFIG_MAX_ERRORS && vasprintf(&message, format, args) >= 0;
  va_end(args);
  if (kept)
    errors->messages[errors->n++] = message;
  else
    errors->n_more++;
}

void config_errors_fini(struct config_errors *errors) {
  for (size_t i = 0; i < errors->n; i++)
    free(errors->messages[i]);
  *errors = (struct config_errors){.n = 0};
}
