#include "source/s3_profiles.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "source/s3_credentials.h"

enum {
  MAX_FILE = 1 << 20,
};

/* ---- The text ------------------------------------------------------------ */

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
char *s3_profiles_find(const char *text, const char *profile, const char *key) {
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

/* ---- The file ------------------------------------------------------------ */

char *s3_profiles_read_file(const char *path, size_t *out_len) {
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
  int error = text ? errno : ENOMEM;
  close(fd);
  if (n < 0) {
    s3_wipe(text, len);
    errno = error;
    return NULL;
  }
  text[len] = '\0';
  *out_len = len;
  return text;
}

static char *path_of(const struct s3_credentials_place *place) {
  const char *path = place->file;
  char *in_home;
  if (!path)
    path = s3_variable("AWS_SHARED_CREDENTIALS_FILE");
  if (path)
    return strdup(path);
  const char *home = s3_variable("HOME");
  if (!home || asprintf(&in_home, "%s/.aws/credentials", home) < 0)
    return NULL;
  return in_home;
}

int s3_profiles_load(const struct s3_credentials_place *place,
                     struct s3_credentials *out, const char **why) {
  const char *profile = place->profile;
  if (!profile)
    profile = s3_variable("AWS_PROFILE");
  if (!profile)
    profile = "default";
  char *path = path_of(place);
  size_t len = 0;
  char *text = path ? s3_profiles_read_file(path, &len) : NULL;
  int error = path && !text ? errno : ENOENT;
  free(path);
  *out = (struct s3_credentials){0};
  *why = "the file of credentials cannot be read";
  if (!text)
    return error == ENOENT ? -ENOKEY : -error;
  out->access_key = s3_profiles_find(text, profile, "aws_access_key_id");
  out->secret_key = s3_profiles_find(text, profile, "aws_secret_access_key");
  out->token = s3_profiles_find(text, profile, "aws_session_token");
  s3_wipe(text, len);
  return s3_credentials_check(out, why);
}
