#include "daemon/certificates.h"

#include <stdio.h>
#include <sys/stat.h>

#include "daemon/log.h"
#include "proto/tls.h"

static void warn_of_key(const char *path) {
  struct stat st;
  if (stat(path, &st) == 0 && st.st_mode & (S_IROTH | S_IWOTH))
    log_event(LEVEL_WARN, "tls-key-exposed", LOG_TEXT("key", path),
              LOG_TEXT("advice", "every user can read it: chmod o= it, and "
                                 "have a new one made"));
}

int certificates_open(const struct config *config, struct tls_context **out,
                      char *err, size_t err_len) {
  const struct tls_files files = {.certificate = config->tls.certificate,
                                  .key = config->tls.key,
                                  .ca = config->tls.client_ca};
  char why[TLS_WHY_LEN];
  *out = NULL;
  if (!config_uses_tls(config))
    return 0;
  int r = tls_server(&files, config->tls.requires_client, out, why);
  if (r < 0)
    snprintf(err, err_len, "TLS: %s", why);
  else
    warn_of_key(files.key ? files.key : files.certificate);
  return r;
}
