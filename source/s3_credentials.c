#include "source/s3_credentials.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "source/s3_profiles.h"
#include "source/s3_provider.h"

const char *s3_variable(const char *name) {
  const char *value = secure_getenv(name);
  return value && *value ? value : NULL;
}

void s3_wipe(char *text, size_t len) {
  if (text)
    OPENSSL_cleanse(text, len);
  free(text);
}

static void wipe_string(char *text) { s3_wipe(text, text ? strlen(text) : 0); }

void s3_credentials_fini(struct s3_credentials *c) {
  wipe_string(c->access_key);
  wipe_string(c->secret_key);
  wipe_string(c->token);
  *c = (struct s3_credentials){0};
}

static const char no_keys[] =
    "there are no credentials: neither AWS_ACCESS_KEY_ID, nor a profile, nor a "
    "service that gives some";

static bool is_printable(const char *text) {
  for (; text && *text; text++)
    if (*text < '!' || *text > '~')
      return false;
  return true;
}

int s3_credentials_check(struct s3_credentials *c, const char **why) {
  bool is_there = c->access_key && c->secret_key;
  if (is_there && is_printable(c->access_key) && is_printable(c->secret_key) &&
      is_printable(c->token))
    return 0;
  *why = is_there ? "the credentials have characters that no credentials have"
                  : no_keys;
  s3_credentials_fini(c);
  return is_there ? -EPROTO : -ENOKEY;
}

static bool same(const char *a, const char *b) {
  return a == b || (a && b && strcmp(a, b) == 0);
}

bool s3_credentials_same(const struct s3_credentials *a,
                         const struct s3_credentials *b) {
  return same(a->access_key, b->access_key) &&
         same(a->secret_key, b->secret_key) && same(a->token, b->token);
}

/* ---- The order ----------------------------------------------------------- */

static char *copy_of(const char *text) { return text ? strdup(text) : NULL; }

static int load_variables(struct s3_credentials *out, const char **why) {
  *out = (struct s3_credentials){
      .access_key = copy_of(s3_variable("AWS_ACCESS_KEY_ID")),
      .secret_key = copy_of(s3_variable("AWS_SECRET_ACCESS_KEY")),
      .token = copy_of(s3_variable("AWS_SESSION_TOKEN"))};
  return s3_credentials_check(out, why);
}

int s3_credentials_load(const struct s3_credentials_place *place,
                        int64_t deadline, struct s3_credentials *out,
                        const char **why) {
  if (place->profile || place->file)
    return s3_profiles_load(place, out, why);
  int r = load_variables(out, why);
  if (r == -ENOKEY)
    r = s3_provider_web_identity(place, deadline, out, why);
  if (r == -ENOKEY)
    r = s3_profiles_load(place, out, why);
  if (r == -ENOKEY)
    r = s3_provider_container(deadline, out, why);
  if (r == -ENOKEY)
    r = s3_provider_instance(deadline, out, why);
  if (r == -ENOKEY)
    *why = no_keys;
  return r;
}
