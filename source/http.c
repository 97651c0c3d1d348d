#include "source/http.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "base/shown_uri.h"
#include "source/http_options.h"
#include "source/http_source.h"
#include "source/kinds.h"

static int refuse(struct source_fault *fault, int status, const char *why) {
  snprintf(fault->text, sizeof fault->text, "the URI: %s", why);
  return status;
}

static bool is_http(CURLU *url) {
  char *scheme = NULL;
  curl_url_get(url, CURLUPART_SCHEME, &scheme, 0);
  bool is = scheme && (strcasecmp(scheme, "http") == 0 ||
                       strcasecmp(scheme, "https") == 0);
  curl_free(scheme);
  return is;
}

static int take_url(const struct source_uri *uri, struct http_target *target,
                    struct source_fault *fault) {
  CURLU *url = curl_url();
  if (!url)
    return refuse(fault, -ENOMEM, strerror(ENOMEM));
  int failed = 0;
  CURLUcode bad = curl_url_set(url, CURLUPART_URL, uri->text, CURLU_PATH_AS_IS);
  if (bad) {
    failed = refuse(fault, -EINVAL, curl_url_strerror(bad));
  } else if (!is_http(url)) {
    failed = refuse(fault, -EINVAL, "it is none of http or https");
  } else {
    target->url = strdup(uri->text);
    target->shown = shown_uri_of(uri->text);
    if (!target->url || !target->shown)
      failed = refuse(fault, -ENOMEM, strerror(ENOMEM));
  }
  curl_url_cleanup(url);
  return failed;
}

static int make_target(const struct source_uri *uri, struct http_target *target,
                       struct source_fault *fault) {
  *target = (struct http_target){.follows_redirects = true};
  int failed = take_url(uri, target, fault);
  if (!failed)
    failed = http_options_take(uri, target, fault);
  if (failed)
    http_target_fini(target);
  return failed;
}

static int http_check(const struct source_uri *uri,
                      struct source_fault *fault) {
  struct http_target target;
  int failed = make_target(uri, &target, fault);
  if (!failed)
    http_target_fini(&target);
  return failed;
}

static int http_open(struct reactor *r, const struct source_uri *uri,
                     const struct timespec *deadline, struct source **out,
                     struct source_fault *fault) {
  struct http_target target;
  int failed = make_target(uri, &target, fault);
  return failed ? failed : http_source_open(r, &target, deadline, out, fault);
}

const struct source_kind http_source_kind = {
    HTTP_KIND,
    .check = http_check,
    .open = http_open,
};
