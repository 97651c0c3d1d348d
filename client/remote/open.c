/* Opening a daemon's image.  If the daemon does not serve it, the error message
 * names images that it serves. */
#include <stdio.h>
#include <string.h>

#include "base/deadline.h"
#include "client/remote/command.h"
#include "client/remote/remote.h"

/* The names only help the user, so an open waits at most a second for them. */
enum { MAX_NAMES = 5, MAX_TEXT_LEN = 64, MAX_WAIT_MS = 1000 };

/* Appends text that the daemon may have made.  Control characters, which could
 * change a terminal, become question marks. */
static void append_text(char *text, size_t size, const char *more) {
  char shown[MAX_TEXT_LEN + 1];
  size_t n = 0, len = strlen(text);
  for (; more[n] && n < MAX_TEXT_LEN; n++)
    shown[n] = (unsigned char)more[n] < ' ' || more[n] == 0x7f ? '?' : more[n];
  shown[n] = '\0';
  snprintf(text + len, size - len, "%s", shown);
}

static int append_names(void *arg, const wire_message *msg) {
  struct cachet_error *err = arg;
  const Cachet__Wire__Images *images = msg->images;
  size_t size = sizeof err->message;
  append_text(err->message, size,
              images->n_images ? "; it serves " : "; it serves nothing");
  for (size_t i = 0; i < images->n_images && i < MAX_NAMES; i++) {
    if (i > 0)
      append_text(err->message, size, ", ");
    append_text(err->message, size, images->images[i]->name);
  }
  if (images->n_images > MAX_NAMES) {
    char rest[48];
    snprintf(rest, sizeof rest, " and %s%zu more",
             images->more ? "at least " : "", images->n_images - MAX_NAMES);
    append_text(err->message, size, rest);
  }
  return 0;
}

/* Adds the names of up to five images to the message, if the daemon sends them
 * by `deadline`. */
static void name_images(const struct uri *u, const struct options *options,
                        int64_t deadline, struct cachet_error *err) {
  Cachet__Wire__List list = CACHET__WIRE__LIST__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_LIST;
  msg.list = &list;
  int left =
      deadline_left_ms(deadline_earlier(deadline, deadline_after(MAX_WAIT_MS)));
  struct options hurried = *options;
  hurried.connect_timeout_ms = hurried.request_timeout_ms = left;
  struct backend *b;
  if (remote_connect(u, &hurried, &b, NULL) != CACHET_OK)
    return;
  remote_command(b, &msg, CACHET__WIRE__MESSAGE__BODY_IMAGES, append_names, err,
                 NULL);
  b->ops->close(b);
}

enum cachet_status remote_open(const struct uri *u,
                               const struct options *options,
                               struct backend **out, struct cachet_error *err) {
  int64_t deadline = deadline_after(options->connect_timeout_ms);
  enum cachet_status status = remote_connect_image(u, options, out, err);
  if (status == CACHET_E_NOIMAGE && err)
    name_images(u, options, deadline, err);
  return status;
}
