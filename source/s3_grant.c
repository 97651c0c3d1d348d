#include "source/s3_grant.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "source/s3_credentials.h"

int64_t s3_grant_time(const char *text) {
  struct tm t = {0};
  const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &t);
  if (!end)
    return 0;
  if (*end == '.')
    end += 1 + strspn(end + 1, "0123456789");
  return strcmp(end, "Z") == 0 ? timegm(&t) : 0;
}

/* Takes them over.  Keys for a while have a token with them. */
static int take(struct s3_credentials *c, char *expiration, const char **why) {
  *why = "the service of credentials answers something else";
  c->expires_s = expiration ? s3_grant_time(expiration) : 0;
  free(expiration);
  if (c->access_key && c->secret_key && c->token)
    return s3_credentials_check(c, why);
  s3_credentials_fini(c);
  return -EPROTO;
}

/* ---- JSON ---------------------------------------------------------------- */

/* Moves the string out: none stays where the parser had it. */
static char *take_json(json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  const char *string = json_string_value(value);
  char *copy = string && *string ? strdup(string) : NULL;
  if (string)
    explicit_bzero((char *)string, json_string_length(value));
  return copy;
}

int s3_grant_of_json(const char *text, size_t len, struct s3_credentials *out,
                     const char **why) {
  json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
  *out = (struct s3_credentials){.access_key = take_json(object, "AccessKeyId"),
                                 .secret_key =
                                     take_json(object, "SecretAccessKey"),
                                 .token = take_json(object, "Token")};
  char *expiration = take_json(object, "Expiration");
  json_decref(object);
  return take(out, expiration, why);
}

/* ---- XML ----------------------------------------------------------------- */

/* What stands in the first element of that name, which has no attributes.
 * Neither keys nor tokens have a character that XML would write otherwise. */
static char *take_xml(const char *text, size_t len, const char *name) {
  char tag[32];
  size_t tag_len = (size_t)snprintf(tag, sizeof tag, "<%s>", name);
  const char *begin = memmem(text, len, tag, tag_len);
  if (!begin)
    return NULL;
  begin += tag_len;
  size_t rest = len - (size_t)(begin - text);
  const char *end = memchr(begin, '<', rest);
  bool is_there = end && end > begin && *begin;
  return is_there ? strndup(begin, (size_t)(end - begin)) : NULL;
}

int s3_grant_of_xml(const char *text, size_t len, struct s3_credentials *out,
                    const char **why) {
  *out = (struct s3_credentials){
      .access_key = take_xml(text, len, "AccessKeyId"),
      .secret_key = take_xml(text, len, "SecretAccessKey"),
      .token = take_xml(text, len, "SessionToken")};
  return take(out, take_xml(text, len, "Expiration"), why);
}
