#include "client/command/daemon.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/command/progress.h"
#include "client/command/stdout.h"

/* Of what is warmed, so that progress can be shown. */
#define WARM_PIECE_LEN (64u << 20)

/* The end of a verb whose `a` is closed with it. */
static int end(cachet_admin *a, enum cachet_status status) {
  int exit_status = status == CACHET_OK
                        ? stdout_end()
                        : command_fail("%s", cachet_admin_errmsg(a));
  cachet_admin_close(a);
  return exit_status;
}

/* ---- ls, info ------------------------------------------------------------ */

static int print_image(void *arg, const struct cachet_image_info *image) {
  (void)arg;
  if (image->flags & CACHET_IMAGE_MISSING)
    stdout_print("%15s  ", "missing");
  else
    stdout_print("%15" PRIu64 "  ", image->size);
  stdout_name(image->name);
  stdout_print("\n");
  return 0;
}

int daemon_ls(const struct command *cmd) {
  cachet_admin *a = command_open_daemon(cmd);
  if (!a)
    return 1;
  return end(a, cachet_admin_list(a, print_image, NULL));
}

int daemon_info(const struct command *cmd) {
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

static enum cachet_status warm(cachet *c, uint64_t offset, uint64_t len) {
  struct progress p = progress_begin("warm", len);
  enum cachet_status status = CACHET_OK;
  for (uint64_t done = 0, n; status == CACHET_OK && done < len; done += n) {
    n = len - done < WARM_PIECE_LEN ? len - done : WARM_PIECE_LEN;
    status = cachet_warm(c, offset + done, n);
    progress_show(&p, done + n);
  }
  progress_end(&p);
  return status;
}

int daemon_warm(const struct command *cmd) {
  cachet *c = command_open_cached(cmd, "warm");
  if (!c)
    return 1;
  uint64_t size = cachet_size(c), len = cmd->length;
  int exit_status = 0;
  if (cmd->offset > size)
    exit_status = command_fail("warm: the offset is past the end");
  else if (warm(c, cmd->offset,
                len < size - cmd->offset ? len : size - cmd->offset) !=
           CACHET_OK)
    exit_status = command_fail("%s", cachet_errmsg(c));
  cachet_close(c);
  return exit_status;
}

int daemon_invalidate(const struct command *cmd) {
  cachet *c = command_open_cached(cmd, "invalidate");
  if (!c)
    return 1;
  int exit_status = 0;
  if (cmd->offset > cachet_size(c))
    exit_status = command_fail("invalidate: the offset is past the end");
  else if (cachet_invalidate(c, cmd->offset, cmd->length) != CACHET_OK)
    exit_status = command_fail("%s", cachet_errmsg(c));
  cachet_close(c);
  return exit_status;
}

/* ---- stats --------------------------------------------------------------- */

static int print_stat(void *arg, const char *image, const char *name,
                      uint64_t value) {
  (void)arg;
  if (image) {
    stdout_name(image);
    stdout_print(" ");
  }
  stdout_name(name);
  stdout_print(" %" PRIu64 "\n", value);
  return 0;
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

static int print_json(void *arg, const char *image, const char *name,
                      uint64_t value) {
  struct json *j = arg;
  if (image && (!j->image || strcmp(image, j->image) != 0))
    json_open_image(j, image);
  stdout_print(j->first ? "" : ", ");
  j->first = false;
  stdout_json_string(name);
  stdout_print(": %" PRIu64, value);
  return j->failed;
}

static int print_all_json(cachet_admin *a) {
  struct json j = {.first = true};
  stdout_print("{\"daemon\": {");
  enum cachet_status status = cachet_admin_stats(a, print_json, &j);
  stdout_print(j.image ? "}}}\n" : "}, \"images\": {}}\n");
  free(j.image);
  if (!j.failed)
    return end(a, status);
  cachet_admin_close(a);
  return command_fail("no memory for a name");
}

int daemon_stats(const struct command *cmd) {
  cachet_admin *a = command_open_daemon(cmd);
  if (!a)
    return 1;
  return cmd->json ? print_all_json(a)
                   : end(a, cachet_admin_stats(a, print_stat, NULL));
}

/* ---- add, remove --------------------------------------------------------- */

int daemon_add(const struct command *cmd) {
  cachet_admin *a = command_open_daemon(cmd);
  return a ? end(a, cachet_admin_add(a, cmd->args[0], cmd->args[1])) : 1;
}

int daemon_remove(const struct command *cmd) {
  cachet_admin *a = command_open_daemon(cmd);
  return a ? end(a, cachet_admin_remove(a, cmd->args[0])) : 1;
}

/* ---- drain --------------------------------------------------------------- */

int daemon_drain(const struct command *cmd) {
  cachet_admin *a = command_open_daemon(cmd);
  if (!a)
    return 1;
  return end(a, cachet_admin_drain(a, cmd->timeout_ms));
}
