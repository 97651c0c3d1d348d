#include "daemon/certificates.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/module.h"
#include "daemon/log.h"
#include "daemon/net/address.h"
#include "proto/tls.h"

/* What makes TLS.  NULL: its module cannot be loaded; the reason is in `why`.
 */
static const struct tls_makers *find_makers(char *why, size_t why_len) {
  static struct module module = {"tls", "cachetd", NULL};
  return module_load(&module, "TLS", why, why_len);
}

static void warn_of_key(const char *path) {
  struct stat st;
  if (stat(path, &st) == 0 && st.st_mode & (S_IROTH | S_IWOTH))
    log_event(LEVEL_WARN, "tls-key-exposed", LOG_TEXT("key", path),
              LOG_TEXT("advice", "every user can read it: chmod o= it, and "
                                 "have a new one made"));
}

static void tell_of_certificate(const struct tls_context *context,
                                const char *path) {
  char until[TLS_TIME_LEN];
  const char *flaw = tls_own_certificate(context, until);
  if (flaw)
    log_event(LEVEL_WARN, "tls-certificate-invalid",
              LOG_TEXT("certificate", path), LOG_TEXT("reason", flaw),
              LOG_TEXT("advice", "clients refuse it: have a new one signed, "
                                 "and reload"));
  else
    log_event(LEVEL_INFO, "tls-certificate", LOG_TEXT("certificate", path),
              LOG_TEXT("valid_until", until));
}

static int read_files(const struct config *config,
                      const struct tls_makers *makers, struct tls_context **out,
                      char why[TLS_WHY_LEN]) {
  const struct tls_files files = {.certificate = config->tls.certificate,
                                  .key = config->tls.key,
                                  .ca = config->tls.client_ca};
  return makers->server(&files, config->tls.requires_client, out, why);
}

int certificates_open(const struct config *config, struct tls_context **out,
                      char *err, size_t err_len) {
  const struct config_tls *tls = &config->tls;
  const char *missing = config_tls_missing(config);
  char why[TLS_WHY_LEN];
  if (missing) { /* for a socket that was inherited */
    snprintf(err, err_len, "%s", missing);
    return -EINVAL;
  }
  const struct tls_makers *makers = find_makers(err, err_len);
  if (!makers)
    return -ENOSYS;
  int r = read_files(config, makers, out, why);
  if (r < 0) {
    snprintf(err, err_len, "TLS: %s", why);
    return r;
  }
  warn_of_key(tls->key ? tls->key : tls->certificate);
  tell_of_certificate(*out, tls->certificate);
  return 0;
}

/* The setting that named the file which `why` is about. */
static unsigned setting_of(const char *why) {
  if (strncmp(why, TLS_WHY_KEY, strlen(TLS_WHY_KEY)) == 0)
    return CONFIG_TLS_KEY;
  if (strncmp(why, TLS_WHY_CA, strlen(TLS_WHY_CA)) == 0)
    return CONFIG_TLS_CLIENT_CA;
  return CONFIG_TLS_CERTIFICATE;
}

void certificates_check_module(const struct config *config,
                               struct config_errors *errors) {
  char why[TLS_WHY_LEN], place[CONFIG_PLACE_LEN], address[ADDRESS_TEXT_LEN];
  for (size_t i = 0; i < config->n_listen; i++) {
    if (!config->listen[i].is_tls || find_makers(why, sizeof why))
      continue;
    address_format(&config->listen[i], address);
    config_print_place(CONFIG_LISTEN, &config->listen_origins[i], place);
    config_errors_add(errors, "%s: %s: %s", place, address, why);
    return; /* once is enough */
  }
}

void certificates_check(const struct config *config,
                        struct config_errors *errors) {
  char why[TLS_WHY_LEN], place[CONFIG_PLACE_LEN];
  struct tls_context *context;
  if (!config->tls.certificate || config_tls_missing(config))
    return;
  const struct tls_makers *makers = find_makers(why, sizeof why);
  if (makers && read_files(config, makers, &context, why) == 0) {
    tls_context_unref(context);
    return;
  }
  unsigned setting = setting_of(why);
  if (setting == CONFIG_TLS_KEY && !config->tls.key)
    setting = CONFIG_TLS_CERTIFICATE; /* it is in there */
  config_print_place(setting, &config->origins[setting], place);
  config_errors_add(errors, "%s: %s", place, why);
}
