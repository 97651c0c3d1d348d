#include "daemon/inherited.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

int inherited_find(struct inherited *in) {
  *in = (struct inherited){0};
  int n = sd_listen_fds_with_names(1, &in->names);
  if (n <= 0)
    return n;
  in->fds = malloc((size_t)n * sizeof *in->fds);
  if (!in->fds)
    return -ENOMEM;
  in->n = (unsigned)n;
  for (int i = 0; i < n; i++)
    in->fds[i] = SD_LISTEN_FDS_START + i;
  return 0;
}

static bool is_socket(int fd) {
  struct stat st;
  return fd >= 0 && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

int inherited_take_socket(struct inherited *in, unsigned *i,
                          const char **name) {
  while (*i < in->n && !is_socket(in->fds[*i]))
    ++*i;
  if (*i == in->n)
    return -1;
  int fd = in->fds[*i];
  in->fds[*i] = -1;
  *name = in->names[(*i)++];
  return fd;
}

void inherited_fini(struct inherited *in) {
  for (char **name = in->names; name && *name; name++)
    free(*name);
  free(in->names);
  free(in->fds);
  *in = (struct inherited){0};
}
