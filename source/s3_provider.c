#include "source/s3_provider.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "base/cleanup.h"
#include "base/deadline.h"
#include "base/version.h"
#include "source/curl_once.h"
#include "source/s3_credentials.h"
#include "source/s3_grant.h"
#include "source/s3_profiles.h"

#define INSTANCE "http://169.254.169.254"
#define AGENT "http://169.254.170.2"

enum {
  MAX_ANSWER = 64 << 10,
  CONNECT_MS = 2000, /* on a machine without such a service none answers */
};

/* ---- One question -------------------------------------------------------- */

struct exchange {
  CURL *e;
  struct curl_slist *headers;
  long code;
  size_t len;
  char body[MAX_ANSWER];
};

static size_t on_body(char *bytes, size_t size, size_t n, void *arg) {
  struct exchange *x = arg;
  if (size * n > sizeof x->body - x->len)
    return CURL_WRITEFUNC_ERROR;
  memcpy(x->body + x->len, bytes, size * n);
  x->len += size * n;
  return size * n;
}

static struct exchange *exchange_new(void) {
  curl_once();
  struct exchange *x = calloc(1, sizeof *x);
  CURL *e = x ? curl_easy_init() : NULL;
  if (!e) {
    free(x);
    return NULL;
  }
  x->e = e;
  curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
  curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, curl_open_socket);
  curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(e, CURLOPT_WRITEDATA, x);
  curl_easy_setopt(e, CURLOPT_USERAGENT, "cachetd/" CACHETD_VERSION);
  return x;
}

/* Called before the next question, which has headers of its own. */
static void forget_headers(struct exchange *x) {
  for (struct curl_slist *h = x->headers; h; h = h->next)
    explicit_bzero(h->data, strlen(h->data));
  curl_slist_free_all(x->headers);
  x->headers = NULL;
}

static void exchange_free(struct exchange *x) {
  if (!x)
    return;
  curl_easy_cleanup(x->e);
  forget_headers(x);
  s3_wipe((char *)x, sizeof *x);
}

CLEANUP_FUNCTION(struct exchange *, exchange_free)

static bool add_header(struct exchange *x, const char *name,
                       const char *value) {
  char *line;
  int len = asprintf(&line, "%s: %s", name, value);
  if (len < 0)
    return false;
  struct curl_slist *longer = curl_slist_append(x->headers, line);
  s3_wipe(line, (size_t)len);
  if (longer)
    x->headers = longer;
  return longer != NULL;
}

/* 0 for an answer of 200.  -ENOKEY for 404: the service has no keys. */
static int meaning_of(const struct exchange *x, CURLcode code,
                      const char **why) {
  *why = "the service of credentials does not answer";
  if (code == CURLE_OPERATION_TIMEDOUT)
    return -ETIMEDOUT;
  if (code == CURLE_OUT_OF_MEMORY)
    return -ENOMEM;
  if (code != CURLE_OK && code != CURLE_WRITE_ERROR)
    return -ECONNREFUSED;
  *why = "the service of credentials refuses us";
  if (x->code == 200 && code == CURLE_OK)
    return 0;
  if (x->code == 404)
    return -ENOKEY;
  return x->code >= 400 && x->code < 500 ? -EACCES : -EIO;
}

/* `method` and `post` may be NULL: GET, and no body. */
static int ask(struct exchange *x, const char *method, const char *url,
               const char *post, int64_t deadline, const char **why) {
  CURL *e = x->e;
  int left = deadline_left_ms(deadline);
  x->len = 0;
  x->code = 0;
  *why = "the service of credentials does not answer";
  if (left == 0)
    return -ETIMEDOUT;
  bool done = curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_HTTPHEADER, x->headers) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_TIMEOUT_MS,
                               left < 0 ? 0 : (long)left) == CURLE_OK;
  if (done && post)
    done = curl_easy_setopt(e, CURLOPT_POSTFIELDS, post) == CURLE_OK;
  CURLcode code = done ? curl_easy_perform(e) : CURLE_OUT_OF_MEMORY;
  curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &x->code);
  return meaning_of(x, code, why);
}

static int no_memory(const char **why) {
  *why = "there is no memory";
  return -ENOMEM;
}

/* ---- STS ----------------------------------------------------------------- */

static char *sts_url(const struct s3_credentials_place *place) {
  const char *given = s3_variable("AWS_ENDPOINT_URL_STS");
  char *url;
  if (!given)
    given = s3_variable("AWS_ENDPOINT_URL");
  if (given)
    return strdup(given);
  return asprintf(&url, "https://sts.%s.amazonaws.com/",
                  place->region ? place->region : "us-east-1") < 0
             ? NULL
             : url;
}

/* NULL: no memory. */
static char *sts_question(CURL *e, const char *role, const char *session,
                          const char *identity, size_t identity_len) {
  char *role_coded = curl_easy_escape(e, role, 0),
       *session_coded = curl_easy_escape(e, session, 0),
       *identity_coded = curl_easy_escape(e, identity, (int)identity_len),
       *text = NULL;
  if (role_coded && session_coded && identity_coded &&
      asprintf(&text,
               "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=%s"
               "&RoleSessionName=%s&WebIdentityToken=%s",
               role_coded, session_coded, identity_coded) < 0)
    text = NULL;
  if (identity_coded)
    explicit_bzero(identity_coded, strlen(identity_coded));
  curl_free(identity_coded);
  curl_free(session_coded);
  curl_free(role_coded);
  return text;
}

static int ask_sts(const struct s3_credentials_place *place, const char *role,
                   const char *identity, size_t identity_len, int64_t deadline,
                   struct s3_credentials *out, const char **why) {
  const char *session = s3_variable("AWS_ROLE_SESSION_NAME");
  struct exchange *x = exchange_new();
  char *url = sts_url(place);
  char *question = x ? sts_question(x->e, role, session ? session : "cachetd",
                                    identity, identity_len)
                     : NULL;
  int r = no_memory(why);
  if (url && question &&
      (!place->ca ||
       curl_easy_setopt(x->e, CURLOPT_CAINFO, place->ca) == CURLE_OK))
    r = ask(x, NULL, url, question, deadline, why);
  if (r == 0)
    r = s3_grant_of_xml(x->body, x->len, out, why);
  s3_wipe(question, question ? strlen(question) : 0);
  free(url);
  exchange_free(x);
  /* The role is configured, so no other place may be asked for keys. */
  return r == -ENOKEY ? -EACCES : r;
}

int s3_provider_web_identity(const struct s3_credentials_place *place,
                             int64_t deadline, struct s3_credentials *out,
                             const char **why) {
  const char *file = s3_variable("AWS_WEB_IDENTITY_TOKEN_FILE"),
             *role = s3_variable("AWS_ROLE_ARN");
  size_t len;
  if (!file || !role)
    return -ENOKEY;
  char *identity = s3_profiles_read_file(file, &len);
  *why = "the file of the web identity cannot be read";
  if (!identity)
    return -errno;
  size_t end = strcspn(identity, "\r\n");
  int r = ask_sts(place, role, identity, end, deadline, out, why);
  s3_wipe(identity, len);
  return r;
}

/* ---- Containers ---------------------------------------------------------- */

/* Whether a host is this machine, or an agent on its link. */
static bool is_near(const char *host) {
  static const char *const near[] = {"localhost", "[::1]", "169.254.170.2",
                                     "169.254.170.23", "[fd00:ec2::23]"};
  for (size_t i = 0; i < sizeof near / sizeof *near; i++)
    if (strcasecmp(host, near[i]) == 0)
      return true;
  return strncmp(host, "127.", 4) == 0 &&
         strspn(host, "0123456789.") == strlen(host);
}

static bool may_be_asked(const char *text) {
  CURLU *url = curl_url();
  char *scheme = NULL, *host = NULL;
  bool may = url && curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK &&
             curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
             curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
             (strcmp(scheme, "https") == 0 ||
              (strcmp(scheme, "http") == 0 && is_near(host)));
  curl_free(scheme);
  curl_free(host);
  curl_url_cleanup(url);
  return may;
}

static char *agent_url(void) {
  const char *path = s3_variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
             *whole = s3_variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  char *url;
  if (!path)
    return whole ? strdup(whole) : NULL;
  return asprintf(&url, "%s%s", AGENT, path) < 0 ? NULL : url;
}

/* Adds the token for the agent.  If it is in a file, the file is read each
 * time, because it may change. */
static bool add_word(struct exchange *x) {
  const char *word = s3_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
             *file = s3_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
  size_t len = 0;
  char *text = file ? s3_profiles_read_file(file, &len) : NULL;
  if (file && !text)
    return false;
  if (text)
    text[strcspn(text, "\r\n")] = '\0';
  if (text)
    word = text;
  bool done =
      !word || (!strpbrk(word, "\r\n") && add_header(x, "Authorization", word));
  s3_wipe(text, len);
  return done;
}

int s3_provider_container(int64_t deadline, struct s3_credentials *out,
                          const char **why) {
  CLEANUP(cleanup_free) char *url = agent_url();
  if (!url)
    return -ENOKEY;
  *why = "the container's service of credentials is on another machine";
  if (!may_be_asked(url))
    return -EACCES;
  CLEANUP(exchange_freep) struct exchange *x = exchange_new();
  if (!x)
    return no_memory(why);
  if (!add_word(x)) {
    *why = "the file of the container's token cannot be read";
    return -EACCES;
  }
  curl_easy_setopt(x->e, CURLOPT_NOPROXY, "*");
  int r = ask(x, NULL, url, NULL, deadline, why);
  if (r == 0)
    r = s3_grant_of_json(x->body, x->len, out, why);
  return r == -ENOKEY ? -EACCES : r; /* as STS */
}

/* ---- Instances ----------------------------------------------------------- */

/* Takes a word from an answer.  It goes into a header or a URL, so only
 * `allowed` bytes are taken. */
static char *take_word(const struct exchange *x, const char *allowed) {
  size_t len = 0;
  while (len < x->len && x->body[len] && strchr(allowed, x->body[len]))
    len++;
  bool is_whole = len > 0 && (len == x->len || x->body[len] == '\n');
  return is_whole ? strndup(x->body, len) : NULL;
}

#define OF_NAMES                                                               \
  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+=,.@_-"

/* Begins a session, in whose name the following questions are asked. */
static int begin_session(struct exchange *x, const char *endpoint,
                         int64_t deadline, const char **why) {
  char *url;
  if (asprintf(&url, "%s/latest/api/token", endpoint) < 0)
    return no_memory(why);
  int r = add_header(x, "X-aws-ec2-metadata-token-ttl-seconds", "21600")
              ? ask(x, "PUT", url, NULL, deadline, why)
              : no_memory(why);
  free(url);
  forget_headers(x);
  if (r < 0)
    return r;
  char *token = take_word(x, OF_NAMES "/");
  *why = "the metadata service answers something else";
  r = token ? 0 : -EPROTO;
  if (token && !add_header(x, "X-aws-ec2-metadata-token", token))
    r = no_memory(why);
  s3_wipe(token, token ? strlen(token) : 0);
  return r;
}

/* The first role's name stands in a list; its keys below it. */
static int ask_of_role(struct exchange *x, const char *endpoint,
                       const char *role, int64_t deadline, const char **why) {
  char *url;
  if (asprintf(&url, "%s/latest/meta-data/iam/security-credentials/%s",
               endpoint, role) < 0)
    return no_memory(why);
  int r = ask(x, NULL, url, NULL, deadline, why);
  free(url);
  return r;
}

static int ask_instance(struct exchange *x, const char *endpoint,
                        int64_t deadline, struct s3_credentials *out,
                        const char **why) {
  int r = begin_session(x, endpoint, deadline, why);
  if (r == 0)
    r = ask_of_role(x, endpoint, "", deadline, why);
  if (r < 0)
    return r;
  CLEANUP(cleanup_free) char *role = take_word(x, OF_NAMES);
  *why = "the metadata service answers something else";
  r = role ? ask_of_role(x, endpoint, role, deadline, why) : -EPROTO;
  return r < 0 ? r : s3_grant_of_json(x->body, x->len, out, why);
}

int s3_provider_instance(int64_t deadline, struct s3_credentials *out,
                         const char **why) {
  const char *given = s3_variable("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
             *disabled = s3_variable("AWS_EC2_METADATA_DISABLED");
  if (disabled && strcasecmp(disabled, "true") == 0)
    return -ENOKEY;
  CLEANUP(cleanup_free) char *endpoint = strdup(given ? given : INSTANCE);
  CLEANUP(exchange_freep) struct exchange *x = exchange_new();
  if (!endpoint || !x)
    return no_memory(why);
  size_t len = strlen(endpoint);
  if (len && endpoint[len - 1] == '/')
    endpoint[len - 1] = '\0';
  curl_easy_setopt(x->e, CURLOPT_NOPROXY, "*");
  int r = ask_instance(x, endpoint, deadline, out, why);
  /* Most machines are not at Amazon, and have no such service. */
  return !given && (r == -ECONNREFUSED || r == -ETIMEDOUT) ? -ENOKEY : r;
}
