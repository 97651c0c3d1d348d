/* The command line, and the configuration that it and the files together are.
 */
#ifndef DAEMON_OPTIONS_H
#define DAEMON_OPTIONS_H

#include <stddef.h>

#include "daemon/config.h"
#include "daemon/config_errors.h"
#include "daemon/net/address.h"

#ifdef __cplusplus
extern "C" {
#endif

#define OPTIONS_ERROR_LEN 320

/* The configuration file, if there is one. */
#define OPTIONS_DEFAULT_FILE "/etc/cachetd/cachetd.conf"

enum options_action {
  OPTIONS_SERVE,
  OPTIONS_CHECK_CONFIG,
  OPTIONS_SHOW_VERSION,
  OPTIONS_SHOW_HELP,
};

struct options {
  enum options_action action;
  const struct source_kind *const *kinds; /* of remote sources, for
                                             options_load(); NULL: none */
  char *directory; /* the working directory, to which relative paths refer;
                      NULL: there is none */
  const char *config_file;    /* NULL: the default one, if it is there */
  char *whole_path;           /* of config_file, from the root on; or NULL */
  uint64_t fitted_size;       /* as in struct config */
  struct option_given *given; /* what sets a value, in its order */
  size_t n_given;
};

/* Reads a command line, but no values yet.  0, or -EINVAL (or -ENOMEM) with the
 * reason in `err`; options_fini() is due in either case.  The strings are still
 * those of `argv`.  Not from two threads at once (getopt_long). */
int options_parse(struct options *options, int argc, char *const argv[],
                  char err[OPTIONS_ERROR_LEN]);
void options_fini(struct options *options);

/* Reads an image as a peer of the daemon may name it: `name`, and `source` as
 * behind the = of --image, with a path from the root on, or a URI of one of the
 * kinds.  config_image_fini()
 * is due.  0; -EINVAL with the reason in `why`; -ENOMEM. */
int options_parse_image(struct config_image *image,
                        const struct source_kind *const *kinds,
                        const char *name, const char *source,
                        char why[CONFIG_WHY_LEN]);

/* Gives `config` the values that the command line gives.  Opens, looks up and
 * prints nothing. */
void options_apply(const struct options *options, struct config *config,
                   struct config_errors *errors);

/* Reads the configuration: defaults, files, command line, each over the one
 * before it; and checks the whole.  It may be called again at any time, to read
 * files that changed.
 *
 * 0, and config_fini() is due; or -EINVAL with what is wrong in `errors`, of
 * which config_errors_fini() is due in either case. */
int options_load(const struct options *options, struct config *config,
                 struct config_errors *errors);

/* The socket to listen on when none is named: $CACHET_SOCKET, else
 * $RUNTIME_DIRECTORY/cachetd.sock, else /run/cachetd/cachetd.sock for root,
 * else $XDG_RUNTIME_DIR/cachetd.sock.  0 or -EINVAL. */
int options_default_address(struct address *out, char err[OPTIONS_ERROR_LEN]);

/* What --help prints. */
extern const char options_usage[];

#ifdef __cplusplus
}
#endif

#endif
