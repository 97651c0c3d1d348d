/* The command line, made into a struct.  Pure: it opens, looks up and prints
 * nothing, so a test is a table of arguments. */
#ifndef DAEMON_OPTIONS_H
#define DAEMON_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/window.h"
#include "daemon/log.h"
#include "daemon/net/address.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CONFIG_NAME_MAX 64 /* bytes of an image's name */
#define OPTIONS_ERROR_LEN 320

enum {
  /* The answers to List and GetStats are one Message each, of at most
   * FRAME_MAX_MESSAGE bytes: this many images fit with room to spare. */
  CONFIG_MAX_IMAGES = 128,
  CONFIG_MAX_LISTEN = 16,
  CONFIG_MAX_WORKERS = 64,
};

enum config_action { CONFIG_SERVE, CONFIG_SHOW_VERSION, CONFIG_SHOW_HELP };

enum config_share { SHARE_AS_ALL, SHARE_ON, SHARE_OFF };

struct options_image {
  char name[CONFIG_NAME_MAX + 1];
  char *path; /* decoded */
  enum config_share share;
  unsigned max_age_s; /* what was read longer ago is read again; 0: not given */
  struct window window; /* the part of the file that is served */
};

struct options {
  enum config_action action;
  struct options_image *images;
  size_t n_images;
  struct address listen[CONFIG_MAX_LISTEN];
  size_t n_listen; /* 0: the default socket, or inherited ones */
  uint64_t cache_size;
  uint32_t page_size;
  bool share;         /* local clients may read the mirrors themselves */
  unsigned n_workers; /* 0: by the number of processors */
  enum log_level log_level;
};

/* Reads a command line.  0, or -EINVAL (or -ENOMEM) with the reason in `err`;
 * options_fini() is due in either case.  Not from two threads at once
 * (getopt_long). */
int options_parse(struct options *config, int argc, char *const argv[],
                  char err[OPTIONS_ERROR_LEN]);
void options_fini(struct options *config);

/* The socket to listen on when none is named: $CACHET_SOCKET, else
 * $RUNTIME_DIRECTORY/cachetd.sock, else /run/cachetd/cachetd.sock for root,
 * else $XDG_RUNTIME_DIR/cachetd.sock.  0 or -EINVAL. */
int options_default_address(struct address *out, char err[OPTIONS_ERROR_LEN]);

/* Whether local clients may read this image's memory themselves. */
bool options_shares(const struct options *config,
                    const struct options_image *image);

/* What --help prints. */
extern const char config_usage[];

#ifdef __cplusplus
}
#endif

#endif
