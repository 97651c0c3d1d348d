#include "client/command/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/format.h"
#include "base/shown_uri.h"
#include "client/command/address.h"

int command_fail(const char *format, ...) {
  va_list args;
  fputs("cachet: ", stderr);
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
  return 1;
}

bool command_is_name(const char *image) { return !strpbrk(image, "/:"); }

/* Whether IMAGE is on a daemon, or is meant to be. */
static bool is_of_daemon(const struct command *cmd) {
  const char *image = cmd->args[0];
  return command_is_name(image) ? !cmd->uri || address_is_of_daemon(cmd->uri)
                                : address_is_of_daemon(image);
}

/* The URI of an image, or, "", of the daemon.  NULL, after a message, if there
 * is none. */
static char *make_uri(const struct command *cmd, const char *image) {
  if (cmd->uri && address_is_file(cmd->uri))
    return command_fail("--uri: not a daemon's"), NULL;
  char *uri = command_is_name(image)
                  ? address_make(cmd->socket, cmd->uri, image)
                  : strdup(image);
  if (!uri)
    command_fail("no memory for an address");
  return uri;
}

/* A name is one of a daemon's image; but there may be a file of that name. */
static void fail_open(const char *image, const struct cachet_error *err) {
  struct stat st;
  command_fail("%s", err->message);
  if (command_is_name(image) && stat(image, &st) == 0 &&
      (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
    command_fail("%s is a name on the daemon; for a file write ./%s", image,
                 image);
}

/* Says so if a file is no image but has one in it. */
static void warn_of_format(cachet *c, const char *image) {
  char head[FORMAT_PEEK_LEN];
  size_t len =
      cachet_size(c) < sizeof head ? (size_t)cachet_size(c) : sizeof head;
  const char *format =
      cachet_read(c, 0, head, len) == CACHET_OK ? format_of(head, len) : NULL;
  if (!format)
    return;
  char *shown = shown_uri_of(image);
  command_fail("warning: %s is a %s file: these are its own bytes, not those "
               "of the disk in it",
               shown ? shown : "it", format);
  free(shown);
}

cachet *command_open(const struct command *cmd) {
  const char *image = cmd->args[0];
  struct cachet_error err;
  cachet *c;
  char *uri = make_uri(cmd, image);
  if (!uri)
    return NULL;
  enum cachet_status status = cachet_open(uri, &cmd->options, &c, &err);
  free(uri);
  if (status != CACHET_OK)
    return fail_open(image, &err), NULL;
  if (!command_is_name(image) && address_is_file(image))
    warn_of_format(c, image);
  return c;
}

cachet *command_open_cached(const struct command *cmd, const char *verb) {
  if (is_of_daemon(cmd))
    return command_open(cmd);
  command_fail("%s: there is no daemon between: name an image that a daemon "
               "serves (see cachet ls)",
               verb);
  return NULL;
}

cachet_admin *command_open_daemon(const struct command *cmd) {
  struct cachet_error err;
  cachet_admin *a;
  char *uri = make_uri(cmd, "");
  if (!uri)
    return NULL;
  enum cachet_status status = cachet_admin_open(uri, &cmd->options, &a, &err);
  free(uri);
  if (status != CACHET_OK)
    return command_fail("%s", err.message), NULL;
  return a;
}
