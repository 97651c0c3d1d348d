/* cachetd: serves images to many processes from one bounded cache. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "base/std_fds.h"
#include "base/version.h"
#include "cache/barrier.h"
#include "cache/mirror.h"
#include "daemon/config.h"
#include "daemon/config_errors.h"
#include "daemon/log.h"
#include "daemon/missing.h"
#include "daemon/net/listener.h"
#include "daemon/opening.h"
#include "daemon/options.h"
#include "daemon/process.h"
#include "daemon/server.h"
#include "source/file.h"
#include "source/window.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* At the end: for the last lines of the log, if nobody reads them. */
enum { LOG_STOP_MS = 500 };

/* Descriptors: of an image with its mirrors and its file or device, old and new
 * (the pool's threads open no others); of a worker; of an attachment: a
 * process, and a retired epoch's mirror and file; and of one whose own are on
 * their way. */
enum {
  FDS_OF_DAEMON = 96,
  FDS_PER_IMAGE = 12,
  FDS_PER_WORKER = 4,
  FDS_PER_ATTACHMENT = 5,
  FDS_SENDING = 4,
};

/* More workers than this gain nothing: they are limited by the memory bus. */
enum { MAX_DEFAULT_WORKERS = 8 };

/* For files that cannot be opened at once. */
enum { OPEN_PATIENCE_S = 5 };

/* What main() gathers for the server, which takes the sources and the
 * listeners over. */
struct setup {
  struct server_image images[CONFIG_MAX_IMAGES];
  unsigned n_images, n_missing;
  struct listener *listeners[2 * CONFIG_MAX_LISTEN];
  unsigned n_listeners;
};

static struct server *the_server; /* for the signal handler */

static void on_signal(int number) {
  (void)number;
  server_stop(the_server);
}

static void setup_drop(struct setup *setup) {
  for (unsigned i = 0; i < setup->n_images; i++)
    setup->images[i].source->ops->close(setup->images[i].source);
  for (unsigned i = 0; i < setup->n_listeners; i++)
    listener_free(setup->listeners[i]);
}

static int fail_start(const char *story) {
  log_event(LEVEL_ERROR, "start-failed", LOG_TEXT("reason", story));
  return EXIT_FAILED;
}

static void warn_of_format(const struct config_image *image,
                           const char *format) {
  log_event(LEVEL_WARN, "image-format", LOG_TEXT("image", image->name),
            LOG_TEXT("format", format),
            LOG_TEXT("advice", "the bytes of the file are served, not those "
                               "of the disk in it"));
}

static int fail_window(const struct config_image *image, uint64_t size) {
  const struct window *w = &image->window;
  char length[40] = "", story[512];
  if (w->length != WINDOW_TO_END)
    snprintf(length, sizeof length, ",length=%" PRIu64, w->length);
  snprintf(story, sizeof story,
           "image \"%s\": the window offset=%" PRIu64 "%s reaches past the end "
           "of %.256s, which has %" PRIu64 " bytes; choose a smaller one",
           image->name, w->offset, length, image->path, size);
  return fail_start(story);
}

/* Puts the part of `to->source` that is to be served in its place.  0, or a
 * negative errno; -ERANGE: there is no such part. */
static int cut_window(const struct config_image *image,
                      struct server_image *to) {
  const struct window *w = &image->window;
  if (window_is_whole(w))
    return 0;
  return to->missing ? window_source_new_later(to->source, w, &to->source)
                     : window_source_new(to->source, w, &to->source);
}

/* Takes what was opened.  One that cannot be opened now is served once it can.
 * 0 or a negative errno: there is no memory. */
static int take_source(const struct config_image *image,
                       struct opening *opening, const struct timespec *deadline,
                       struct server_image *to) {
  const char *format = NULL;
  int r = opening_end(opening, deadline, &to->source, &format);
  if (r < 0) {
    to->missing = -r;
    log_event(LEVEL_ERROR, "image-missing", LOG_TEXT("image", image->name),
              LOG_TEXT("path", image->path),
              LOG_TEXT("reason", missing_reason(-r)));
    r = file_source_open_later(image->path, FILE_DONTCACHE, &to->source);
    if (r < 0)
      return r;
  }
  if (format)
    warn_of_format(image, format);
  if (image->max_age_s)
    file_source_set_max_age(to->source, image->max_age_s);
  else
    file_source_doubt_writers(to->source);
  return 0;
}

/* 0; or the exit status, with the reason logged, and nothing is taken. */
static int take_image(const struct config *config,
                      const struct config_image *image, struct opening *opening,
                      const struct timespec *deadline,
                      struct server_image *to) {
  *to = (struct server_image){.name = image->name,
                              .share = config_shares(config, image),
                              .path = image->path};
  int r = opening ? take_source(image, opening, deadline, to) : -ENOMEM;
  if (r == 0)
    r = cut_window(image, to);
  if (r == 0)
    return 0;
  int status = r == -ERANGE ? fail_window(image, to->source->size)
                            : fail_start("out of memory");
  if (to->source)
    to->source->ops->close(to->source);
  return status;
}

/* All at once, so that those that hang are waited for together. */
static int open_images(const struct config *config, struct setup *setup) {
  struct opening *openings[CONFIG_MAX_IMAGES];
  struct timespec deadline;
  int status = 0;
  clock_gettime(CLOCK_MONOTONIC, &deadline);
  deadline.tv_sec += OPEN_PATIENCE_S;
  for (size_t i = 0; i < config->n_images; i++)
    openings[i] = opening_begin(config->images[i].path);
  for (size_t i = 0; i < config->n_images; i++) {
    struct server_image *to = &setup->images[setup->n_images];
    int r = take_image(config, &config->images[i], openings[i], &deadline, to);
    if (r != 0) {
      status = r;
      continue;
    }
    setup->n_images++;
    setup->n_missing += to->missing != 0;
  }
  return status;
}

/* Where none is there something is wrong with the command, and who gave it is
 * to see that.  But if a service manager listens for us it would start us again
 * and again, and in the end close its sockets: so we wait for the images. */
static int check_images(const struct setup *setup) {
  if (setup->n_missing == setup->n_images && setup->n_listeners == 0)
    return fail_start("none of the images can be opened");
  return 0;
}

/* Takes over what systemd opened for us. */
static int adopt_listeners(struct setup *setup) {
  char story[512];
  int n = sd_listen_fds(1);
  if (n < 0) {
    snprintf(story, sizeof story, "inherited sockets: %s", strerror(-n));
    return fail_start(story);
  }
  if (n > CONFIG_MAX_LISTEN)
    return fail_start("inherited sockets: there are too many");
  for (int i = 0; i < n; i++) {
    struct listener **to = &setup->listeners[setup->n_listeners];
    if (listener_adopt(SD_LISTEN_FDS_START + i, to, story, sizeof story) < 0)
      return fail_start(story);
    setup->n_listeners++;
  }
  return 0;
}

static int open_listeners(struct config *config, struct setup *setup) {
  char story[512];
  if (config->n_listen == 0 && setup->n_listeners == 0) {
    char err[OPTIONS_ERROR_LEN];
    if (options_default_address(&config->listen[0], err) < 0) {
      fprintf(stderr, "cachetd: %s\n", err);
      return EXIT_USAGE;
    }
    config->n_listen = 1;
  }
  for (size_t i = 0; i < config->n_listen; i++) {
    struct listener **to = &setup->listeners[setup->n_listeners];
    if (listener_open(&config->listen[i], to, story, sizeof story) < 0)
      return fail_start(story);
    setup->n_listeners++;
  }
  return 0;
}

static unsigned default_workers(void) {
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  if (n < 1)
    return 1;
  return n > MAX_DEFAULT_WORKERS ? MAX_DEFAULT_WORKERS : (unsigned)n;
}

static void warn_if_root(void) {
  if (geteuid() == 0)
    log_event(LEVEL_WARN, "running-as-root",
              LOG_TEXT("advice", "run it under a user of its own: every "
                                 "process of that user is trusted"));
}

/* What the machine is set to that costs memory or speed. */
static void tell_of_machine(void) {
  if (mirror_is_overcommit_strict())
    log_event(LEVEL_INFO, "overcommit-strict",
              LOG_TEXT("meaning", "vm.overcommit_memory is 2: two bytes for "
                                  "each page of an image are allocated when "
                                  "the image is opened"));
  if (mirror_is_shmem_huge())
    log_event(LEVEL_WARN, "shmem-huge-pages",
              LOG_TEXT("advice",
                       "set /sys/kernel/mm/transparent_hugepage/shmem_enabled "
                       "to advise or never: pages are written a slower way, "
                       "so that each takes no more than its own memory"));
}

static void catch_signals(struct server *s) {
  struct sigaction stop = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  the_server = s;
  sigaction(SIGTERM, &stop, NULL);
  sigaction(SIGINT, &stop, NULL);
}

/* One line that says where to find us, and systemd's notice. */
static void announce_ready(const struct config *config,
                           const struct setup *setup, unsigned n_workers) {
  char addresses[512];
  size_t len = 0;
  for (unsigned i = 0; i < setup->n_listeners && len < sizeof addresses; i++)
    len += (size_t)snprintf(addresses + len, sizeof addresses - len, "%s%s",
                            i ? "," : "", listener_text(setup->listeners[i]));
  log_event(LEVEL_INFO, "ready", LOG_TEXT("version", CACHETD_VERSION),
            LOG_NUMBER("images", setup->n_images),
            LOG_TEXT("listen", addresses), LOG_NUMBER("workers", n_workers),
            LOG_NUMBER("cache_size", config->cache_size),
            LOG_NUMBER("page_size", config->page_size));
  sd_notify(0, "READY=1");
}

/* Cuts the limits down to the descriptors that we may have: those of the daemon
 * itself come first, so that no number of clients keeps it from opening an
 * image anew.  0; -EMFILE: there are too few for it alone. */
static int fit_limits(const struct server_config *server, struct limits *to) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
    return -errno;
  uint64_t own = FDS_OF_DAEMON + FDS_PER_IMAGE * (uint64_t)server->n_images +
                 FDS_PER_WORKER * server->n_workers;
  if (limit.rlim_cur <= own)
    return -EMFILE;
  uint64_t left = limit.rlim_cur - own;
  bool share = false;
  for (unsigned i = 0; i < server->n_images; i++)
    share |= server->images[i].share;
  if (!share)
    to->max_attachments = 0;
  else if (to->max_attachments > left * 3 / (8 * FDS_PER_ATTACHMENT))
    to->max_attachments = (unsigned)(left * 3 / (8 * FDS_PER_ATTACHMENT));
  unsigned most = to->max_attachments ? to->max_attachments / 8 + 1 : 0;
  if (to->max_attachments_sending > most)
    to->max_attachments_sending = most;
  uint64_t taken = (uint64_t)to->max_attachments * FDS_PER_ATTACHMENT +
                   (uint64_t)to->max_attachments_sending * FDS_SENDING;
  left -= taken < left ? taken : left;
  if (to->max_connections > left)
    to->max_connections = (unsigned)left;
  unsigned user_most = to->max_connections - to->max_connections / 8;
  if (to->max_user_connections > user_most)
    to->max_user_connections = user_most;
  return 0;
}

static int serve(const struct config *config, struct setup *setup) {
  char story[512];
  unsigned n_workers =
      config->n_workers ? config->n_workers : default_workers();
  struct server_config server_config = {
      .limits = limits_default(),
      .cache_size = config->cache_size,
      .page_size = config->page_size,
      .n_workers = n_workers,
      .images = setup->images,
      .n_images = setup->n_images,
      .listeners = setup->listeners,
      .n_listeners = setup->n_listeners,
  };
  struct server *s;
  if (fit_limits(&server_config, &server_config.limits) < 0) {
    setup_drop(setup);
    return fail_start("the limit of open files (ulimit -n) is too low");
  }
  if (server_new(&server_config, &s, story, sizeof story) < 0)
    return fail_start(story);
  catch_signals(s);
  int status = EXIT_SUCCESS;
  int r = server_start(s);
  if (r < 0) {
    snprintf(story, sizeof story, "start threads: %s", strerror(-r));
    status = fail_start(story);
  } else {
    announce_ready(config, setup, n_workers);
    server_serve(s);
    sd_notify(0, "STOPPING=1");
    log_event(LEVEL_INFO, "stopping", LOG_NUMBER("images", setup->n_images));
  }
  server_shutdown(s);
  /* From here a signal has nothing left to stop. */
  signal(SIGTERM, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  server_free(s);
  return status;
}

/* To standard output.  Its failures count. */
static int say(const char *text) {
  if (fputs(text, stdout) >= 0 && fflush(stdout) == 0)
    return EXIT_SUCCESS;
  fprintf(stderr, "cachetd: standard output: %s\n", strerror(errno));
  return EXIT_FAILED;
}

static int open_and_serve(struct config *config) {
  static struct setup setup; /* too large for a stack */
  warn_if_root();
  tell_of_machine();
  int status = open_images(config, &setup);
  if (status == 0)
    status = adopt_listeners(&setup);
  if (status == 0)
    status = check_images(&setup);
  if (status == 0)
    status = open_listeners(config, &setup);
  if (status != 0) {
    setup_drop(&setup);
    return status;
  }
  process_leave_directory();
  return serve(config, &setup);
}

static int run(struct config *config) {
  char story[128];
  log_set_level(config->log_level);
  process_init();
  barrier_register(); /* milliseconds once there is a second thread */
  int r = log_start();
  if (r < 0) {
    snprintf(story, sizeof story, "start the log's thread: %s", strerror(-r));
    return fail_start(story);
  }
  int status = open_and_serve(config);
  log_stop(LOG_STOP_MS);
  return status;
}

/* Says all that is wrong with the configuration.  The lines of --check-config
 * begin with the place, as those of a compiler do. */
static int fail_config(const struct config_errors *errors, const char *before) {
  for (size_t i = 0; i < errors->n; i++)
    fprintf(stderr, "%s%s\n", before, errors->messages[i]);
  if (errors->n_more)
    fprintf(stderr, "%sand %zu more\n", before, errors->n_more);
  return EXIT_USAGE;
}

/* One line for a configuration that has no mistakes. */
static int say_right(const struct config *config) {
  char line[128];
  snprintf(line, sizeof line,
           "the configuration is right: %zu files read, %zu images\n",
           config->n_files, config->n_images);
  return say(line);
}

static int load_and_run(const struct options *options) {
  bool checks = options->action == OPTIONS_CHECK_CONFIG;
  struct config config;
  struct config_errors errors;
  int status;
  if (options_load(options, &config, &errors) < 0) {
    status = fail_config(&errors, checks ? "" : "cachetd: ");
  } else {
    status = checks ? say_right(&config) : run(&config);
    config_fini(&config);
  }
  config_errors_fini(&errors);
  return status;
}

int main(int argc, char *argv[]) {
  struct options options;
  char err[OPTIONS_ERROR_LEN];
  int status = EXIT_SUCCESS;
  if (std_fds_open() < 0)
    return EXIT_FAILED; /* there is nowhere to say so */
  if (options_parse(&options, argc, argv, err) < 0) {
    fprintf(stderr, "cachetd: %s\nTry cachetd --help.\n", err);
    status = EXIT_USAGE;
  } else if (options.action == OPTIONS_SHOW_VERSION) {
    status = say("cachetd " CACHETD_VERSION "\n");
  } else if (options.action == OPTIONS_SHOW_HELP) {
    status = say(options_usage);
  } else {
    status = load_and_run(&options);
  }
  options_fini(&options);
  return status;
}
