#include "source/s3.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/shown_uri.h"
#include "source/common_options.h"
#include "source/http_options.h"
#include "source/http_source.h"
#include "source/kinds.h"
#include "source/s3_address.h"
#include "source/s3_answer.h"
#include "source/s3_credentials.h"
#include "source/s3_keys.h"
#include "source/s3_sign.h"

/* What signs requests.  Once it is open, only the reactor's thread uses it. */
struct s3_signer {
  struct s3_address address;
  bool is_anonymous;
  char *profile, *file; /* NULL: as source/s3_credentials.h has it */
  struct s3_keys *keys; /* NULL: not open yet, or anonymous */
  int64_t skew_s;       /* the server's clock minus ours */
};

static void signer_free(void *arg) {
  struct s3_signer *s = arg;
  s3_address_fini(&s->address);
  s3_keys_free(s->keys);
  free(s->profile);
  free(s->file);
  free(s);
}

/* ---- Requests ------------------------------------------------------------ */

static bool add_header(struct curl_slist **headers, const char *name,
                       const char *value) {
  char *line;
  if (asprintf(&line, "%s: %s", name, value) < 0)
    return false;
  struct curl_slist *longer = curl_slist_append(*headers, line);
  free(line);
  if (longer)
    *headers = longer;
  return longer != NULL;
}

/* Signs only the headers that S3 requires.  The range and the condition need no
 * signature. */
static int sign(const struct s3_signer *s, const char *method, int64_t now_s,
                const struct s3_credentials *c, struct curl_slist **headers) {
  const struct s3_address *a = &s->address;
  const struct s3_time now = s3_time_of(now_s);
  const struct s3_pair version = {"versionId", a->version};
  const struct s3_pair signed_headers[] = {
      {"host", a->host},
      {"x-amz-content-sha256", S3_EMPTY_PAYLOAD},
      {"x-amz-date", now.text},
      {"x-amz-security-token", c->token}};
  const size_t n = c->token ? 4 : 3;
  const struct s3_request request = {
      method,         a->path, &version,        a->version != NULL,
      signed_headers, n,       S3_EMPTY_PAYLOAD};
  const struct s3_key key = {c->access_key, c->secret_key, a->region, "s3"};
  char *authorization = s3_authorization(&request, &key, &now);
  bool done =
      authorization && add_header(headers, "Authorization", authorization);
  free(authorization);
  for (size_t i = 0; i < n; i++)
    done = done &&
           add_header(headers, signed_headers[i].name, signed_headers[i].value);
  return done ? 0 : -ENOMEM;
}

static int signer_add_headers(void *arg, struct http_get *get,
                              struct curl_slist **headers) {
  const struct s3_signer *s = arg;
  const int64_t now_s = time(NULL) + s->skew_s;
  if (s->is_anonymous)
    return 0;
  return sign(s, get->is_head ? "HEAD" : "GET", now_s,
              s3_keys_use(s->keys, now_s, &get->mark), headers);
}

/* ---- Failures ------------------------------------------------------------ */

/* Uses the server's clock from now on.  False: it agrees with the present
 * setting, so another try would be refused as well. */
static bool set_clock(struct s3_signer *s, int64_t server_time) {
  int64_t skew = server_time - time(NULL);
  int64_t change = skew - s->skew_s;
  if (server_time < 0 || (change > -60 && change < 60))
    return false;
  s->skew_s = skew;
  return true;
}

static enum http_advice signer_failed(void *arg, struct http_get *get,
                                      struct http_pause *pause) {
  struct s3_signer *s = arg;
  struct s3_meaning meaning = {0};
  if (get->answer.code >= 300)
    meaning = s3_answer_judge(get->error_body, get->error_len);
  if (meaning.status) {
    get->status = meaning.status;
    snprintf(get->why, sizeof get->why, "%s", meaning.why);
  }
  switch (meaning.remedy) {
  case S3_SET_CLOCK:
    return set_clock(s, get->answer.date) ? HTTP_ASK_AGAIN : HTTP_GIVE_UP;
  case S3_NEW_CREDENTIALS:
    return s->keys ? s3_keys_refused(s->keys, time(NULL) + s->skew_s, get->mark,
                                     get->deadline_ms, pause)
                   : HTTP_GIVE_UP;
  case S3_NO_REMEDY:
    break;
  }
  return HTTP_GIVE_UP;
}

/* ---- Opening ------------------------------------------------------------- */

static int copy(const char *from, char **to, struct source_fault *fault) {
  *to = from ? strdup(from) : NULL;
  return from && !*to ? remote_no_memory(fault) : 0;
}

static int take_anonymous(const struct source_uri *uri, bool *out,
                          struct source_fault *fault) {
  const char *value = common_options_find(uri, "anonymous");
  *out = value && strcmp(value, "yes") == 0;
  if (!value || *out || strcmp(value, "no") == 0)
    return 0;
  snprintf(fault->text, sizeof fault->text, "anonymous: it is yes or no");
  return -EINVAL;
}

static int take_signer(const struct source_uri *uri, struct s3_signer *s,
                       struct source_fault *fault) {
  int failed = s3_address_take(uri, &s->address, fault);
  if (!failed)
    failed = take_anonymous(uri, &s->is_anonymous, fault);
  if (!failed)
    failed = copy(common_options_find(uri, "profile"), &s->profile, fault);
  const char *file = common_options_find(uri, "credentials");
  if (!failed && file)
    failed = remote_check_path("credentials", file, fault);
  return failed ? failed : copy(file, &s->file, fault);
}

static int make_target(const struct source_uri *uri, struct http_target *target,
                       struct source_fault *fault) {
  struct s3_signer *s = calloc(1, sizeof *s);
  if (!s)
    return remote_no_memory(fault);
  *target = (struct http_target){
      .ops = {signer_add_headers, signer_failed, signer_free}, .arg = s};
  int failed = take_signer(uri, s, fault);
  if (!failed)
    failed = http_options_take(uri, target, fault);
  if (!failed)
    failed = copy(s->address.url, &target->url, fault);
  target->shown = failed ? NULL : shown_uri_of(uri->text);
  if (!failed && !target->shown)
    failed = remote_no_memory(fault);
  if (failed)
    http_target_fini(target);
  return failed;
}

static int s3_check(const struct source_uri *uri, struct source_fault *fault) {
  struct http_target target;
  int failed = make_target(uri, &target, fault);
  if (!failed)
    http_target_fini(&target);
  return failed;
}

static int load_keys(struct reactor *r, const struct http_target *target,
                     const struct timespec *deadline,
                     struct source_fault *fault) {
  struct s3_signer *s = target->arg;
  const struct s3_credentials_place place = {
      s->profile, s->file, s->address.region, target->client.ca};
  const char *why;
  if (s->is_anonymous)
    return 0;
  int failed = s3_keys_open(r, &place, time(NULL), deadline, &s->keys, &why);
  if (failed)
    snprintf(fault->text, sizeof fault->text, "%.100s: %s", target->shown, why);
  return failed;
}

static int s3_open(struct reactor *r, const struct source_uri *uri,
                   const struct timespec *deadline, struct source **out,
                   struct source_fault *fault) {
  struct http_target target;
  int failed = make_target(uri, &target, fault);
  if (failed)
    return failed;
  failed = load_keys(r, &target, deadline, fault);
  if (!failed)
    return http_source_open(r, &target, deadline, out, fault);
  http_target_fini(&target);
  return failed;
}

const struct source_kind s3_source_kind = {
    S3_KIND,
    .check = s3_check,
    .open = s3_open,
};
