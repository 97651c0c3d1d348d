#include "daemon/memory_limit.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The search for limits, and the least that was found. */
struct search {
  const char *root;
  struct memory_limit *limit;
};

/* A hierarchy of groups, and where this process is in it. */
struct hierarchy {
  bool is_v2;
  char *group;       /* the process's, from the hierarchy's root on */
  char *mount_point; /* NULL: it is not mounted */
  char *mount_root;  /* the group that is mounted there */
};

/* ---- Files --------------------------------------------------------------- */

/* NULL with errno set. */
static FILE *open_below(const struct search *s, const char *path) {
  char full[PATH_MAX];
  if ((size_t)snprintf(full, sizeof full, "%s%s", s->root, path) >=
      sizeof full) {
    errno = ENAMETOOLONG;
    return NULL;
  }
  return fopen(full, "re");
}

/* Calls `take` for each line, without its end. */
static void for_each_line(const struct search *s, const char *path,
                          void (*take)(char *line, void *arg), void *arg) {
  FILE *f = open_below(s, path);
  char *line = NULL;
  size_t size = 0;
  if (!f)
    return;
  while (getline(&line, &size, f) >= 0) {
    line[strcspn(line, "\n")] = '\0';
    take(line, arg);
  }
  free(line);
  fclose(f);
}

/* Reads a number that `behind` follows.  False: the text is not that. */
static bool parse_number(const char *text, const char *behind, uint64_t *out) {
  char *end;
  errno = 0;
  unsigned long long n = strtoull(text, &end, 10);
  if (!isdigit((unsigned char)*text) || strcmp(end, behind) != 0)
    return false;
  *out = errno ? UINT64_MAX : n;
  return true;
}

static void print_path(char to[MEMORY_LIMIT_PATH_LEN], const char *path) {
  snprintf(to, MEMORY_LIMIT_PATH_LEN, "%.*s", MEMORY_LIMIT_PATH_LEN - 1, path);
}

static void note_limit(const struct search *s, const char *path,
                       uint64_t bytes) {
  if (bytes >= s->limit->bytes)
    return;
  s->limit->bytes = bytes;
  print_path(s->limit->from, path);
}

/* One file of a group. */
static void read_limit(const struct search *s, const char *directory,
                       const char *name) {
  char path[PATH_MAX], text[32];
  uint64_t bytes;
  if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >=
      sizeof path)
    return;
  FILE *f = open_below(s, path);
  if (!f && (errno == ENOENT || errno == ENOTDIR))
    return; /* the topmost group has no limits */
  bool any = f && fgets(text, sizeof text, f);
  if (f)
    fclose(f);
  if (any && strcmp(text, "max\n") == 0)
    return;
  if (any && parse_number(text, "\n", &bytes))
    note_limit(s, path, bytes);
  else if (!*s->limit->unread)
    print_path(s->limit->unread, path);
}

/* ---- The machine --------------------------------------------------------- */

static void take_meminfo(char *line, void *arg) {
  static const char key[] = "MemTotal:";
  uint64_t kib;
  if (strncmp(line, key, sizeof key - 1) != 0)
    return;
  const char *value = line + sizeof key - 1;
  value += strspn(value, " ");
  if (parse_number(value, " kB", &kib) && kib <= UINT64_MAX >> 10)
    note_limit(arg, "/proc/meminfo", kib << 10);
}

/* ---- The groups ---------------------------------------------------------- */

/* Whether `word` is in a list with commas. */
static bool has_word(const char *list, const char *word) {
  size_t len = strlen(word);
  for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : at)
    if (strncmp(at, word, len) == 0 && (at[len] == ',' || !at[len]))
      return true;
  return false;
}

/* A line of /proc/self/cgroup: NUMBER:CONTROLLERS:GROUP.  Version 2 has neither
 * number nor controllers. */
static void take_group(char *line, void *arg) {
  struct hierarchy *h = arg;
  char *controllers = strchr(line, ':');
  char *group = controllers ? strchr(++controllers, ':') : NULL;
  if (!group || h->group)
    return;
  *group++ = '\0';
  if (h->is_v2 ? strcmp(line, "0:") == 0 : has_word(controllers, "memory"))
    h->group = strdup(group);
}

/* Blanks and the like are \NNN in mountinfo. */
static void unescape(char *text) {
  char *to = text;
  for (char *from = text; *from; to++) {
    unsigned byte;
    if (*from == '\\' && sscanf(from + 1, "%3o", &byte) == 1 && byte < 256 &&
        strspn(from + 1, "01234567") >= 3) {
      *to = (char)byte;
      from += 4;
    } else {
      *to = *from++;
    }
  }
  *to = '\0';
}

/* What of `group` is below `mount_root`; NULL: it is not. */
static const char *below(const char *mount_root, const char *group) {
  size_t len = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);
  if (strncmp(group, mount_root, len) != 0 || (group[len] && group[len] != '/'))
    return NULL;
  return group + len;
}

/* A line of /proc/self/mountinfo: NUMBER PARENT DEVICE ROOT POINT OPTIONS
 * ANYTHING... - TYPE SOURCE OPTIONS.  The first mount in which the group can be
 * seen is taken, else the first. */
static void take_mount(char *line, void *arg) {
  struct hierarchy *h = arg;
  char *fields[5], *save = NULL, *behind = strstr(line, " - ");
  char *type = behind ? strtok_r(behind + 3, " ", &save) : NULL;
  char *source = type ? strtok_r(NULL, " ", &save) : NULL;
  char *options = source ? strtok_r(NULL, " ", &save) : NULL;
  if (!options || strcmp(type, h->is_v2 ? "cgroup2" : "cgroup") != 0 ||
      (!h->is_v2 && !has_word(options, "memory")))
    return;
  *behind = '\0';
  for (int i = 0; i < 5; i++)
    if (!(fields[i] = strtok_r(i ? NULL : line, " ", &save)))
      return;
  char *root = fields[3], *point = fields[4];
  unescape(root);
  unescape(point);
  if (h->mount_point &&
      (below(h->mount_root, h->group) || !below(root, h->group)))
    return;
  free(h->mount_root);
  free(h->mount_point);
  h->mount_root = strdup(root);
  h->mount_point = strdup(point);
}

static bool has_dots(const char *path) {
  for (const char *at = strstr(path, "/.."); at; at = strstr(at + 1, "/.."))
    if (at[3] == '/' || !at[3])
      return true;
  return false;
}

static void read_group(const struct search *s, const struct hierarchy *h,
                       const char *directory) {
  if (h->is_v2) {
    read_limit(s, directory, "memory.max");
    read_limit(s, directory, "memory.high");
  } else {
    read_limit(s, directory, "memory.limit_in_bytes");
  }
}

/* Prints the directory of the group.  If the mount does not contain the group,
 * it is the topmost directory of the mount.  False: it is too long. */
static bool print_directory(const struct hierarchy *h, char *to, size_t len) {
  const char *group = below(h->mount_root, h->group);
  if (!group || has_dots(group) || strcmp(group, "/") == 0)
    group = "";
  return (size_t)snprintf(to, len, "%s%s", h->mount_point, group) < len;
}

/* Finds a hierarchy.  False: there is none, or it is not mounted.  The caller
 * calls hierarchy_fini() in either case. */
static bool hierarchy_find(const struct search *s, bool is_v2,
                           struct hierarchy *h) {
  *h = (struct hierarchy){.is_v2 = is_v2};
  for_each_line(s, "/proc/self/cgroup", take_group, h);
  if (h->group)
    for_each_line(s, "/proc/self/mountinfo", take_mount, h);
  return h->mount_point && h->mount_root;
}

static void hierarchy_fini(struct hierarchy *h) {
  free(h->group);
  free(h->mount_point);
  free(h->mount_root);
}

/* Reads the limits of the group and of the groups above it, as far as they are
 * mounted. */
static void read_groups(const struct search *s, bool is_v2) {
  struct hierarchy h;
  char directory[PATH_MAX];
  if (hierarchy_find(s, is_v2, &h) &&
      print_directory(&h, directory, sizeof directory)) {
    read_group(s, &h, directory);
    while (strlen(directory) > strlen(h.mount_point)) {
      *strrchr(directory, '/') = '\0';
      read_group(s, &h, directory);
    }
  }
  hierarchy_fini(&h);
}

bool memory_limit_group(const char *root, char *to, size_t len) {
  struct search s = {root, NULL};
  struct hierarchy h;
  bool is_there = hierarchy_find(&s, true, &h) && print_directory(&h, to, len);
  hierarchy_fini(&h);
  return is_there;
}

void memory_limit_read(const char *root, struct memory_limit *out) {
  struct search s = {root, out};
  *out = (struct memory_limit){.bytes = UINT64_MAX};
  for_each_line(&s, "/proc/meminfo", take_meminfo, &s);
  read_groups(&s, true);
  read_groups(&s, false);
}
