#include "source/s3_credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/fd.h"

enum {
  MAX_FILE = 1 << 20,
};

/* ---- The files ----------------------------------------------------------- */

struct span {
  const char *at;
  size_t len;
};

static struct span trim(struct span s) {
  while (s.len && strchr(" \t\r", s.at[0])) {
    s.at++;
    s.len--;
  }
  while (s.len && strchr(" \t\r", s.at[s.len - 1]))
    s.len--;
  return s;
}

static bool equals(struct span s, const char *text) {
  return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

static bool is_profile(struct span line, const char *profile) {
  const char word[] = "profile";
  struct span name = trim((struct span){line.at + 1, line.len - 2});
  if (equals(name, profile))
    return true;
  if (name.len <= sizeof word || strncmp(name.at, word, sizeof word - 1) != 0)
    return false;
  name.at += sizeof word - 1;
  name.len -= sizeof word - 1;
  return strchr(" \t", name.at[0]) && equals(trim(name), profile);
}

/* A line is as long as its token: no parser with a limit does. */
char *s3_credentials_find(const char *text, const char *profile,
                          const char *key) {
  bool is_there = false;
  for (; *text; text += *text == '\n') {
    size_t len = strcspn(text, "\n");
    struct span line = trim((struct span){text, len});
    const char *equal = memchr(line.at, '=', line.len);
    text += len;
    if (line.len >= 2 && line.at[0] == '[' && line.at[line.len - 1] == ']') {
      is_there = is_profile(line, profile);
    } else if (is_there && equal && line.at[0] != '#' && line.at[0] != ';') {
      struct span name =
          trim((struct span){line.at, (size_t)(equal - line.at)});
      struct span value = trim(
          (struct span){equal + 1, line.len - (size_t)(equal + 1 - line.at)});
      if (equals(name, key) && value.len)
        return strndup(value.at, value.len);
    }
  }
  return NULL;
}

/* All of a file; NULL, with errno set. */
static char *read_file(const char *path) {
  int fd = fd_above_std(open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (fd < 0)
    return NULL;
  char *text = malloc(MAX_FILE + 1);
  size_t len = 0;
  ssize_t n = text ? 1 : -1;
  while (n > 0 && len < MAX_FILE) {
    n = read(fd, text + len, MAX_FILE - len);
    len += n > 0 ? (size_t)n : 0;
  }
  int error = errno;
  close(fd);
  if (n < 0) {
    free(text);
    errno = text ? error : ENOMEM;
    return NULL;
  }
  text[len] = '\0';
  return text;
}

/* ---- Where to look ------------------------------------------------------- */

static const char *variable(const char *name) {
  const char *value = secure_getenv(name);
  return value && *value ? value : NULL;
}

static char *file_path(const struct s3_credentials_place *place) {
  const char *path = place->file;
  char *in_home;
  if (!path)
    path = variable("AWS_SHARED_CREDENTIALS_FILE");
  if (path)
    return strdup(path);
  const char *home = variable("HOME");
  if (!home || asprintf(&in_home, "%s/.aws/credentials", home) < 0)
    return NULL;
  return in_home;
}

static int check(struct s3_credentials *c, const char **why) {
  if (c->access_key && c->secret_key)
    return 0;
  s3_credentials_fini(c);
  *why = "there are no credentials: neither AWS_ACCESS_KEY_ID nor a profile";
  return -ENOKEY;
}

static int load_file(const struct s3_credentials_place *place,
                     struct s3_credentials *out, const char **why) {
  const char *profile = place->profile;
  if (!profile)
    profile = variable("AWS_PROFILE");
  if (!profile)
    profile = "default";
  char *path = file_path(place);
  char *text = path ? read_file(path) : NULL;
  int error = errno;
  free(path);
  if (!text && path && error != ENOENT) {
    *why = "the file of credentials cannot be read";
    return -error;
  }
  *out = (struct s3_credentials){0};
  if (text) {
    out->access_key = s3_credentials_find(text, profile, "aws_access_key_id");
    out->secret_key =
        s3_credentials_find(text, profile, "aws_secret_access_key");
    out->token = s3_credentials_find(text, profile, "aws_session_token");
    OPENSSL_cleanse(text, strlen(text));
    free(text);
  }
  return check(out, why);
}

int s3_credentials_load(const struct s3_credentials_place *place,
                        struct s3_credentials *out, const char **why) {
  const char *access_key = variable("AWS_ACCESS_KEY_ID");
  const char *secret_key = variable("AWS_SECRET_ACCESS_KEY");
  const char *token = variable("AWS_SESSION_TOKEN");
  if (place->profile || place->file || !access_key || !secret_key)
    return load_file(place, out, why);
  *out = (struct s3_credentials){.access_key = strdup(access_key),
                                 .secret_key = strdup(secret_key),
                                 .token = token ? strdup(token) : NULL};
  return check(out, why);
}

void s3_credentials_fini(struct s3_credentials *c) {
  if (c->secret_key)
    OPENSSL_cleanse(c->secret_key, strlen(c->secret_key));
  free(c->access_key);
  free(c->secret_key);
  free(c->token);
  *c = (struct s3_credentials){0};
}
