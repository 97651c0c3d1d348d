#include "daemon/listeners.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/certificates.h"
#include "daemon/options.h"
#include "proto/tls.h"

/* ---- Inherited ----------------------------------------------------------- */

/* Whether a socket is for TLS, by its name.  That is the name of its unit,
 * unless the unit sets another one (FileDescriptorName=). */
static bool is_tls_name(const char *name) {
  return strcmp(name, "tls") == 0 || strcmp(name, "cachetd-tls.socket") == 0;
}

static unsigned flags_of(const struct config *config, bool is_tls) {
  return (is_tls ? LISTENER_TLS : 0u) |
         (config->insecure ? LISTENER_INSECURE : 0u);
}

int listeners_adopt(struct listeners *l, const struct config *config,
                    struct inherited *inherited, char *err, size_t err_len) {
  const char *name;
  unsigned i = 0;
  for (int fd; (fd = inherited_take_socket(inherited, &i, &name)) >= 0;) {
    if (l->n == CONFIG_MAX_LISTEN) {
      snprintf(err, err_len, "inherited sockets: there are too many");
      return -E2BIG;
    }
    int r = listener_adopt(fd, flags_of(config, is_tls_name(name)),
                           &l->all[l->n], err, err_len);
    if (r < 0)
      return r;
    l->asked[l->n] = *listener_address(l->all[l->n]);
    l->names[l->n] = name;
    l->n_inherited = ++l->n;
  }
  return 0;
}

/* Keeps the sockets that were inherited, whatever the configuration says. */
static int keep_inherited(const struct listeners *before,
                          const struct config *config, struct listeners *now,
                          char *err, size_t err_len) {
  for (unsigned i = 0; i < before->n_inherited; i++) {
    int r = config->insecure
                ? 0
                : address_check(listener_address(before->all[i]), err, err_len);
    if (r < 0)
      return r;
    now->all[now->n] = listener_ref(before->all[i]);
    now->asked[now->n] = before->asked[i];
    now->names[now->n] = before->names[i];
    now->n_inherited = ++now->n;
  }
  return 0;
}

/* The number of the inherited one that listens at this address, or -1. */
static int find_inherited(const struct listeners *l,
                          const struct address *address) {
  for (unsigned i = 0; i < l->n_inherited; i++)
    if (listener_covers(l->all[i], address))
      return (int)i;
  return -1;
}

/* Addresses that contradict the name of a socket. */
static void check_names(const struct listeners *l, const struct config *config,
                        struct config_errors *errors) {
  char place[CONFIG_PLACE_LEN], address[ADDRESS_TEXT_LEN];
  for (size_t i = 0; i < config->n_listen; i++) {
    bool is_tls = config->listen[i].is_tls;
    int at = find_inherited(l, &config->listen[i]);
    if (at < 0 || listener_is_tls(l->all[at]) == is_tls)
      continue;
    config_print_place(CONFIG_LISTEN, &config->listen_origins[i], place);
    address_format(&config->listen[i], address);
    config_errors_add(errors,
                      "%s: %s: systemd passed %s by the name \"%s\", which is "
                      "%s in its socket unit",
                      place, address, listener_text(l->all[at]), l->names[at],
                      is_tls ? "not for TLS; write tcp: for tls:, or "
                               "FileDescriptorName=tls"
                             : "for TLS; write tls: for tcp:, or "
                               "FileDescriptorName=tcp");
  }
}

/* The number of the first inherited one that is for TLS, or -1. */
static int find_inherited_tls(const struct listeners *l) {
  for (unsigned i = 0; i < l->n_inherited; i++)
    if (listener_is_tls(l->all[i]))
      return (int)i;
  return -1;
}

static bool needs_certificates(const struct listeners *l,
                               const struct config *config) {
  return config_uses_tls(config) || find_inherited_tls(l) >= 0;
}

void listeners_check(const struct listeners *l, const struct config *config,
                     struct config_errors *errors) {
  char socket[512];
  int at = find_inherited_tls(l);
  check_names(l, config, errors);
  if (at >= 0)
    snprintf(socket, sizeof socket,
             "%s, which systemd passed by the name \"%s\"",
             listener_text(l->all[at]), l->names[at]);
  if (needs_certificates(l, config))
    certificates_check(config, at >= 0 ? socket : NULL, errors);
}

/* ---- Opened -------------------------------------------------------------- */

/* The one that the configuration before named this address for, or NULL. */
static struct listener *find_same(const struct listeners *before,
                                  const struct address *address) {
  for (unsigned i = before->n_inherited; i < before->n; i++)
    if (address_is_same(&before->asked[i], address))
      return before->all[i];
  return NULL;
}

/* Keeps the socket at this address, if there is one.  A change between tcp: and
 * tls: makes a new listener on the same socket, because a second socket cannot
 * be bound while the first is open. */
static int open_one(const struct listeners *before,
                    const struct address *address, struct listener **out,
                    char *err, size_t err_len) {
  struct listener *same = find_same(before, address);
  if (same && listener_is_tls(same) == address->is_tls) {
    *out = listener_ref(same);
    return 0;
  }
  return same ? listener_share(same, address, out, err, err_len)
              : listener_open(address, out, err, err_len);
}

/* Opens what is not inherited. */
static int open_each(const struct listeners *before,
                     const struct address *addresses, size_t n,
                     struct listeners *now, char *err, size_t err_len) {
  for (size_t i = 0; i < n; i++) {
    if (find_inherited(now, &addresses[i]) >= 0) /* H3 */
      continue;
    int r = open_one(before, &addresses[i], &now->all[now->n], err, err_len);
    if (r < 0)
      return r;
    now->asked[now->n++] = addresses[i];
  }
  return 0;
}

static int open_named(const struct listeners *before,
                      const struct config *config, struct listeners *now,
                      char *err, size_t err_len) {
  char why[OPTIONS_ERROR_LEN];
  struct address at_default;
  if (config->n_listen || now->n_inherited)
    return open_each(before, config->listen, config->n_listen, now, err,
                     err_len);
  if (options_default_address(&at_default, why) < 0) {
    snprintf(err, err_len, "%s", why);
    return -EDESTADDRREQ;
  }
  return open_each(before, &at_default, 1, now, err, err_len);
}

/* ---- All ----------------------------------------------------------------- */

int listeners_open(const struct listeners *before, const struct config *config,
                   struct listeners *now, char *err, size_t err_len) {
  *now = (struct listeners){.n = 0};
  int r = keep_inherited(before, config, now, err, err_len);
  if (r == 0 && needs_certificates(now, config))
    r = certificates_open(config, &now->tls, err, err_len);
  /* The last step that can fail: a client that connects after it must be
   * served. */
  if (r == 0)
    r = open_named(before, config, now, err, err_len);
  if (r < 0)
    listeners_fini(now);
  return r;
}

void listeners_commit(struct listeners *l) {
  for (unsigned i = 0; i < l->n; i++)
    if (listener_is_tls(l->all[i]))
      listener_set_tls(l->all[i], l->tls);
}

bool listeners_have(const struct listeners *l,
                    const struct listener *listener) {
  for (unsigned i = 0; i < l->n; i++)
    if (l->all[i] == listener)
      return true;
  return false;
}

void listeners_fini(struct listeners *l) {
  for (unsigned i = 0; i < l->n; i++)
    listener_unref(l->all[i]);
  tls_context_unref(l->tls);
  *l = (struct listeners){.n = 0};
}
