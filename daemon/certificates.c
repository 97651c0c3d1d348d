#include "daemon/certificates.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
                      const struct tls_makers *makers, bool requires_client,
                      struct tls_context **out, char why[TLS_WHY_LEN]) {
  const struct tls_files files = {.certificate = config->tls.certificate,
                                  .key = config->tls.key,
                                  .ca = config->tls.client_ca};
  return makers->server(&files, requires_client, out, why);
}

int certificates_open(const struct config *config, struct tls_context **out,
                      char *err, size_t err_len) {
  const struct config_tls *tls = &config->tls;
  char why[TLS_WHY_LEN];
  assert(!config_tls_missing(config));
  const struct tls_makers *makers = find_makers(err, err_len);
  if (!makers)
    return -ENOSYS;
  int r = read_files(config, makers, tls->requires_client, out, why);
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

static bool is_given(const struct config *config, unsigned setting) {
  return config->origins[setting].line > 0;
}

/* The setting that the user has to look at where one of them is missing.
 * CONFIG_N_SETTINGS: none is given. */
static unsigned find_given(const struct config *config) {
  if (config->tls.certificate && is_given(config, CONFIG_TLS_REQUIRE_CLIENT))
    return CONFIG_TLS_REQUIRE_CLIENT;
  for (unsigned i = CONFIG_TLS_CERTIFICATE; i <= CONFIG_TLS_REQUIRE_CLIENT; i++)
    if (is_given(config, i))
      return i;
  return CONFIG_N_SETTINGS;
}

static void add_error(const struct config *config, unsigned setting,
                      const char *why, struct config_errors *errors) {
  char place[CONFIG_PLACE_LEN];
  config_print_place(setting, &config->origins[setting], place);
  config_errors_add(errors, "%s: %s", place, why);
}

/* Checks the certificate, its key and, if there are any, the authorities. */
static void check_files(const struct config *config,
                        struct config_errors *errors) {
  char why[TLS_WHY_LEN];
  struct tls_context *context;
  const struct tls_makers *makers = find_makers(why, sizeof why);
  /* It is said already where authorities are missing. */
  bool requires_client = config->tls.requires_client && config->tls.client_ca;
  if (makers &&
      read_files(config, makers, requires_client, &context, why) == 0) {
    tls_context_unref(context);
    return;
  }
  unsigned setting = setting_of(why);
  if (setting == CONFIG_TLS_KEY && !config->tls.key)
    setting = CONFIG_TLS_CERTIFICATE; /* it is in there */
  add_error(config, setting, why, errors);
}

/* Checks a file that means nothing yet, because there is no certificate. */
static void check_readable(const struct config *config, unsigned setting,
                           const char *what, const char *path,
                           struct config_errors *errors) {
  char why[TLS_WHY_LEN];
  int fd = path ? open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1;
  if (path && fd < 0) {
    snprintf(why, sizeof why, "%s %.120s: %s", what, path, strerror(errno));
    add_error(config, setting, why, errors);
  }
  if (fd >= 0)
    close(fd);
}

void certificates_check(const struct config *config, const char *needed_by,
                        struct config_errors *errors) {
  const char *missing = config_tls_missing(config);
  unsigned given = find_given(config);
  if (missing && given < CONFIG_N_SETTINGS)
    add_error(config, given, missing, errors);
  else if (missing && needed_by)
    config_errors_add(errors, "%s: %s", needed_by, missing);
  if (config->tls.certificate) {
    check_files(config, errors);
    return;
  }
  check_readable(config, CONFIG_TLS_KEY, TLS_WHY_KEY, config->tls.key, errors);
  check_readable(config, CONFIG_TLS_CLIENT_CA, TLS_WHY_CA,
                 config->tls.client_ca, errors);
}
