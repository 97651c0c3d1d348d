/* Verbs about a daemon and its images: ls, info, warm, invalidate, stats. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/command/command.h"
#include "client/command/stdout.h"
#include "client/remote/admin.h"

static struct admin *open_daemon(const struct command *cmd) {
  struct cachet_error err;
  struct uri u;
  struct admin *a;
  if (command_address(cmd, NULL, &u, &err) != CACHET_OK)
    return command_fail(err.message), NULL;
  enum cachet_status status = admin_open(&u, &cmd->options, &a, &err);
  uri_fini(&u);
  if (status != CACHET_OK)
    return command_fail(err.message), NULL;
  return a;
}

/* ---- ls, info ------------------------------------------------------------ */

static void print_image(void *arg, const struct admin_image *image) {
  (void)arg;
  if (image->missing)
    stdout_print("%15s  ", "missing");
  else
    stdout_print("%15" PRIu64 "  ", image->size);
  stdout_name(image->name);
  stdout_print("\n");
}

int command_ls(const struct command *cmd) {
  struct admin *a = open_daemon(cmd);
  struct cachet_error err;
  if (!a)
    return 1;
  enum cachet_status status = admin_list(a, print_image, NULL, &err);
  admin_close(a);
  return status == CACHET_OK ? stdout_end() : command_fail(err.message);
}

int command_info(const struct command *cmd) {
  cachet *c = command_open(cmd);
  if (!c)
    return 1;
  stdout_print("size:      %" PRIu64 "\n", cachet_size(c));
  stdout_print("page size: %zu\n", cachet_page_size(c));
  stdout_print("pages:     %" PRIu64 "\n", cachet_pages(c, 0, CACHET_TO_END));
  stdout_print("epoch:     %016" PRIx64 "\n", cachet_epoch(c));
  stdout_print("shared:    %s\n", cachet_is_shared(c) ? "yes" : "no");
  cachet_close(c);
  return stdout_end();
}

/* ---- warm, invalidate ---------------------------------------------------- */

static enum cachet_status warm(cachet *c, uint64_t offset, uint64_t len,
                               struct cachet_error *err) {
  struct progress p = progress_begin("warm", len);
  enum cachet_status status = CACHET_OK;
  for (uint64_t done = 0; status == CACHET_OK && done < len;) {
    uint64_t n = len - done, max = admin_warm_max(c);
    if (n > max)
      n = max;
    status = admin_warm(c, offset + done, n, err);
    done += n;
    progress_show(&p, done);
  }
  progress_end(&p);
  return status;
}

int command_warm(const struct command *cmd) {
  cachet *c = command_open(cmd);
  if (!c)
    return 1;
  uint64_t size = cachet_size(c), len = cmd->length;
  if (cmd->offset > size) {
    cachet_close(c);
    return command_fail("warm: the offset is past the end");
  }
  if (len > size - cmd->offset)
    len = size - cmd->offset;
  struct cachet_error err;
  enum cachet_status status = warm(c, cmd->offset, len, &err);
  cachet_close(c);
  return status == CACHET_OK ? 0 : command_fail(err.message);
}

int command_invalidate(const struct command *cmd) {
  cachet *c = command_open(cmd);
  if (!c)
    return 1;
  int exit_status = 0;
  if (cmd->offset > cachet_size(c))
    exit_status = command_fail("invalidate: the offset is past the end");
  else if (cachet_invalidate(c, cmd->offset, cmd->length) != CACHET_OK)
    exit_status = command_fail(cachet_errmsg(c));
  cachet_close(c);
  return exit_status;
}

/* ---- stats --------------------------------------------------------------- */

static void print_stat(void *arg, const char *image, const char *name,
                       uint64_t value) {
  (void)arg;
  if (image) {
    stdout_name(image);
    stdout_print(" ");
  }
  stdout_name(name);
  stdout_print(" %" PRIu64 "\n", value);
}

/* Counters come grouped: the daemon's, then image by image. */
struct json {
  char *image; /* whose group is open; NULL: the daemon's */
  bool first;  /* nothing is in the group yet */
  bool failed; /* no memory */
};

static void json_open_image(struct json *j, const char *image) {
  stdout_print(j->image ? "}, " : "}, \"images\": {");
  free(j->image);
  j->image = strdup(image);
  j->failed |= !j->image;
  stdout_json_string(image);
  stdout_print(": {");
  j->first = true;
}

static void print_json(void *arg, const char *image, const char *name,
                       uint64_t value) {
  struct json *j = arg;
  if (j->failed)
    return;
  if (image && (!j->image || strcmp(image, j->image)))
    json_open_image(j, image);
  stdout_print(j->first ? "" : ", ");
  j->first = false;
  stdout_json_string(name);
  stdout_print(": %" PRIu64, value);
}

static enum cachet_status stats_json(struct admin *a,
                                     struct cachet_error *err) {
  struct json j = {.first = true};
  stdout_print("{\"daemon\": {");
  enum cachet_status status = admin_stats(a, print_json, &j, err);
  stdout_print(j.image ? "}}}\n" : "}, \"images\": {}}\n");
  if (status == CACHET_OK && j.failed)
    status = error_set(err, CACHET_E_NOMEM, 0, "no memory for a name");
  free(j.image);
  return status;
}

int command_stats(const struct command *cmd) {
  struct admin *a = open_daemon(cmd);
  struct cachet_error err;
  if (!a)
    return 1;
  enum cachet_status status =
      cmd->json ? stats_json(a, &err) : admin_stats(a, print_stat, NULL, &err);
  admin_close(a);
  return status == CACHET_OK ? stdout_end() : command_fail(err.message);
}
