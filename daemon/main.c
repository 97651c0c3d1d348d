/* cachetd: serves images to many processes from one bounded cache. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/module.h"
#include "base/std_fds.h"
#include "base/version.h"
#include "cache/barrier.h"
#include "cache/mirror.h"
#include "daemon/certificates.h"
#include "daemon/config.h"
#include "daemon/config_errors.h"
#include "daemon/directories.h"
#include "daemon/engine/restore.h"
#include "daemon/http_server.h"
#include "daemon/image_sources.h"
#include "daemon/inherited.h"
#include "daemon/listeners.h"
#include "daemon/locked_code.h"
#include "daemon/log.h"
#include "daemon/memory_limit.h"
#include "daemon/monitor.h"
#include "daemon/options.h"
#include "daemon/pressure.h"
#include "daemon/process.h"
#include "daemon/reloader.h"
#include "daemon/remotes.h"
#include "daemon/sandbox.h"
#include "daemon/server.h"
#include "source/registry.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* How long the end waits for the last lines of the log, if they are not
 * read. */
enum { LOG_STOP_MS = 500 };

/* The most that a stop takes after a drain, whatever hangs, and the most that a
 * start waits for what hangs.  Both together are less than the 5 s for which
 * clients wait, so that they do not notice a restart. */
enum { STOP_MS = 1500, START_MS = 3000 };

/* The most that a stop takes, as the service manager is told. */
enum { STOP_TOLD_MS = 15000 };

/* How many descriptors are needed.  An image has its mirrors and its file or
 * device, both of the old and of the new epoch; the threads of the pool open no
 * others.  A remote source has its connections.  An attachment has a pidfd, and
 * may hold the mirror and the file of a retired epoch; until its own
 * descriptors are sent it has those, too. */
enum {
  FDS_OF_DAEMON = 96,
  FDS_PER_IMAGE = 12,
  FDS_PER_REMOTE = 16,
  FDS_PER_WORKER = 4,
  FDS_PER_ATTACHMENT = 5,
  FDS_SENDING = 4,
  /* Three of its mirror, the file twice; where there is none left for a second
   * epoch it keeps the first. */
  FDS_PER_FOUND_IMAGE = 6,
  FDS_OF_METRICS = HTTP_SERVER_MAX_CONNECTIONS + 8,
  /* Kept for images that a reload adds: some sixteen. */
  FDS_FOR_MORE_IMAGES = 16 * FDS_PER_IMAGE,
};

/* What main() gathers for the server, which takes the sources over. */
struct setup {
  const struct config *config;
  struct server_image *images; /* config's n_images; NULL: none is open */
  unsigned n_images, n_missing;
  struct directories *directories;
  struct remotes *remotes;
  struct listeners listeners;
  struct listener *metrics; /* NULL: there are none */
  struct inherited inherited;
  struct timespec start_by; /* what hangs is not waited for any longer */
};

static struct server *the_server; /* for the signal handler */

static void on_terminate(int number) {
  (void)number;
  server_terminate(the_server);
}

static void on_interrupt(int number) {
  (void)number;
  server_stop(the_server);
}

static struct reloader *the_reloader; /* likewise */

static void on_hangup(int number) {
  (void)number;
  reloader_request(the_reloader);
}

static void setup_drop(struct setup *setup) {
  image_sources_close(setup->images, setup->n_images);
  listeners_fini(&setup->listeners);
  listener_unref(setup->metrics);
}

static int fail_start(const char *reason) {
  log_event(LEVEL_ERROR, "start-failed", LOG_TEXT("reason", reason));
  return EXIT_FAILED;
}

/* Another start with the same configuration and sockets would fail again. */
static int fail_usage(const char *reason) {
  fprintf(stderr, "cachetd: %s\n", reason);
  return EXIT_USAGE;
}

/* Prints all mistakes of the configuration.  Each line of --check-config begins
 * with file and line, as those of a compiler do. */
static int fail_config(const struct config_errors *errors, const char *before) {
  for (size_t i = 0; i < errors->n; i++)
    fprintf(stderr, "%s%s\n", before, errors->messages[i]);
  if (errors->n_more)
    fprintf(stderr, "%sand %zu more\n", before, errors->n_more);
  return EXIT_USAGE;
}

static int start_remotes(struct setup *setup) {
  char reason[128];
  int r = remotes_new(&setup->remotes);
  if (r == 0) {
    module_load_by(remotes_load, setup->remotes);
    return 0;
  }
  snprintf(reason, sizeof reason, "start the thread of remote sources: %s",
           strerror(-r));
  return fail_start(reason);
}

static int open_images(const struct config *config, struct setup *setup) {
  CLEANUP(cleanup_free)
  const struct config_image **all =
      calloc(config->n_images, sizeof(const struct config_image *));
  setup->images = calloc(config->n_images, sizeof *setup->images);
  if (!all || !setup->images)
    return fail_start("out of memory");
  for (size_t i = 0; i < config->n_images; i++)
    all[i] = &config->images[i];
  int r =
      image_sources_open(config, all, config->n_images, IMAGE_SOURCES_START_MS,
                         setup->remotes, "start-failed", setup->images);
  if (r < 0)
    return EXIT_FAILED;
  setup->n_images = (unsigned)config->n_images;
  for (unsigned i = 0; i < setup->n_images; i++)
    setup->n_missing += setup->images[i].missing != 0 &&
                        setup->images[i].missing != EINPROGRESS;
  return 0;
}

static int open_directories(const struct config *config, struct setup *setup) {
  bool differs;
  setup->directories = directories_new();
  int r = setup->directories
              ? directories_set(setup->directories, config, &differs)
              : -ENOMEM;
  if (r == 0)
    return 0;
  return fail_start(r == -ENOSYS ? DIRECTORIES_NEED : "out of memory");
}

/* Whether at least one image can be served.  If none can, the command is
 * probably wrong, and the administrator should see that, so the start fails.
 * With sockets from a service manager the daemon waits for its images instead:
 * the manager would start it again and again, and in the end close its sockets.
 */
static bool has_images(const struct setup *setup) {
  return setup->n_images == 0 || setup->n_missing < setup->n_images ||
         setup->config->n_directories > 0 || setup->listeners.n_inherited > 0;
}

static int check_images(const struct setup *setup) {
  return has_images(setup) ? 0 : fail_start("none of the images can be opened");
}

static int miss_image(void *arg, unsigned i, int error, const char *why,
                      struct server_image *out) {
  struct setup *setup = arg;
  setup->n_missing++;
  return has_images(setup)
             ? image_sources_open_missing(
                   setup->config, &setup->config->images[i], setup->remotes,
                   error, why, "start-failed", out)
             : -error;
}

/* Adopts the sockets that systemd opened.  Other inherited descriptors are
 * restored later. */
static int adopt_listeners(const struct config *config, struct setup *setup) {
  char reason[512];
  int r = inherited_find(&setup->inherited);
  if (r < 0)
    snprintf(reason, sizeof reason, "inherited sockets: %s", strerror(-r));
  else
    r = listeners_adopt(&setup->listeners, config, &setup->inherited, reason,
                        sizeof reason);
  if (r == -EINVAL) /* one of them is not allowed, or of another kind */
    return fail_usage(reason);
  return r < 0 ? fail_start(reason) : 0;
}

/* Checks the configuration against the sockets that were adopted. */
static int check_listeners(const struct config *config,
                           const struct setup *setup) {
  struct config_errors errors = {.n = 0};
  int status = 0;
  listeners_check(&setup->listeners, config, &errors);
  if (config_errors_any(&errors))
    status = fail_config(&errors, "cachetd: ");
  config_errors_fini(&errors);
  return status;
}

/* Opens the listeners that were not adopted. */
static int open_listeners(const struct config *config, struct setup *setup) {
  char reason[512];
  struct listeners all;
  int r =
      listeners_open(&setup->listeners, config, &all, reason, sizeof reason);
  if (r == -EDESTADDRREQ) /* there is no default address */
    return fail_usage(reason);
  if (r < 0)
    return fail_start(reason);
  listeners_commit(&all);
  listeners_fini(&setup->listeners);
  setup->listeners = all;
  return 0;
}

static int open_metrics(const struct config *config, struct setup *setup) {
  char reason[512];
  if (config->metrics.len && listener_open(&config->metrics, &setup->metrics,
                                           reason, sizeof reason) < 0)
    return fail_start(reason);
  return 0;
}

static void warn_if_root(void) {
  if (geteuid() == 0)
    log_event(LEVEL_WARN, "running-as-root",
              LOG_TEXT("advice", "run it under a user of its own: every "
                                 "process of that user is trusted"));
}

static bool any_is_huge(const struct config *config) {
  for (size_t i = 0; i < config->n_images; i++)
    if (config->images[i].huge)
      return true;
  return false;
}

/* "never" would take the huge pages from the images that should have them. */
static const char *advice_on_shmem(const struct config *config) {
  return any_is_huge(config)
             ? "set /sys/kernel/mm/transparent_hugepage/shmem_enabled to "
               "advise: small pages are written a slower way, so that each "
               "takes no more than its own memory"
             : "set /sys/kernel/mm/transparent_hugepage/shmem_enabled to "
               "advise or never: pages are written a slower way, so that each "
               "takes no more than its own memory";
}

/* Logs settings of the machine that cost memory or speed. */
static void tell_of_machine(const struct config *config) {
  if (mirror_is_overcommit_strict())
    log_event(LEVEL_INFO, "overcommit-strict",
              LOG_TEXT("meaning", "vm.overcommit_memory is 2: two bytes for "
                                  "each page of an image are allocated when "
                                  "the image is opened"));
  if (mirror_is_shmem_huge())
    log_event(LEVEL_WARN, "shmem-huge-pages",
              LOG_TEXT("advice", advice_on_shmem(config)));
}

static void tell_of_memory(void) {
  struct memory_limit limit;
  memory_limit_read("", &limit);
  if (*limit.unread)
    log_event(LEVEL_WARN, "memory-limit-unread", LOG_TEXT("path", limit.unread),
              LOG_TEXT("meaning", "the cache was not held against it"));
  if (limit.bytes != UINT64_MAX)
    log_event(LEVEL_INFO, "memory-limit", LOG_NUMBER("bytes", limit.bytes),
              LOG_TEXT("from", limit.from));
}

static void catch_signals(struct server *s) {
  struct sigaction end = {.sa_handler = on_terminate, .sa_flags = SA_RESTART};
  struct sigaction stop = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
  the_server = s;
  sigaction(SIGTERM, &end, NULL);
  sigaction(SIGINT, &stop, NULL);
}

/* A stop takes too long, because a source, a file or a directory hangs.  The
 * next process continues as it does after a kill, which may come at any
 * moment.  The call itself: _exit(3) of a sanitizer finds fault with threads
 * that were not joined. */
static void on_stop_over(int number) {
  (void)number;
  syscall(SYS_exit_group, EXIT_SUCCESS);
}

/* Ends the process after `ms`, if it is still there; 0: no more. */
static void limit_stop(int ms) {
  const struct sigaction over = {.sa_handler = on_stop_over};
  const struct itimerval in = {
      .it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000}};
  sigaction(SIGALRM, &over, NULL);
  setitimer(ITIMER_REAL, &in, NULL);
}

/* NULL: there is none, and the signal is ignored. */
static struct reloader *
reload_on_hangup(const struct options *options, struct config *config,
                 struct listeners *listeners, struct directories *directories,
                 struct remotes *remotes, struct server *s) {
  struct sigaction reload = {.sa_handler = on_hangup, .sa_flags = SA_RESTART};
  the_reloader =
      reloader_new(options, config, listeners, directories, remotes, s);
  if (!the_reloader) {
    log_event(LEVEL_WARN, "no-reload",
              LOG_TEXT("reason", "there is no thread for it"));
    return NULL;
  }
  const struct change_maker maker = reloader_change_maker(the_reloader);
  server_set_change_maker(s, &maker);
  sigaction(SIGHUP, &reload, NULL);
  return the_reloader;
}

static void set_cache_size(void *arg, uint64_t size) {
  server_set_cache_size(arg, size); /* it is no larger than at start */
}

/* NULL: it is not asked for, or cannot be, which the log says. */
static struct pressure *shrink_on_pressure(const struct config *config,
                                           struct server *s) {
  if (!config->shrinks)
    return NULL;
  struct pressure_options options = {.fd = pressure_open(""),
                                     .events = POLLPRI,
                                     .size = config->cache_size,
                                     .least = config_least_size(config),
                                     .set = set_cache_size,
                                     .arg = s};
  struct pressure *pressure = options.fd < 0 ? NULL : pressure_start(&options);
  if (!pressure)
    log_event(LEVEL_WARN, "no-memory-pressure",
              LOG_TEXT("reason", options.fd < 0 ? strerror(-options.fd)
                                                : "there is no thread for it"),
              LOG_TEXT("meaning", "the cache keeps its size"));
  return pressure;
}

/* NULL: they are not asked for, or cannot be, which the log says. */
static struct monitor *start_monitor(struct setup *setup, struct server *s) {
  struct monitor *monitor = NULL;
  char address[ADDRESS_TEXT_LEN];
  if (!setup->metrics)
    return NULL;
  snprintf(address, sizeof address, "%s", listener_text(setup->metrics));
  int r = monitor_start(s, setup->metrics, &monitor);
  setup->metrics = NULL;
  if (r < 0)
    log_event(LEVEL_WARN, "no-metrics", LOG_TEXT("reason", strerror(-r)));
  else
    log_event(LEVEL_INFO, "metrics", LOG_TEXT("listen", address));
  return monitor;
}

/* Logs where the daemon listens, and notifies systemd. */
static void announce_ready(const struct config *config,
                           const struct setup *setup, unsigned n_workers) {
  char addresses[512];
  size_t len = 0;
  for (unsigned i = 0; i < setup->listeners.n && len < sizeof addresses; i++)
    len +=
        (size_t)snprintf(addresses + len, sizeof addresses - len, "%s%s",
                         i ? "," : "", listener_text(setup->listeners.all[i]));
  log_event(LEVEL_INFO, "ready", LOG_TEXT("version", CACHETD_VERSION),
            LOG_NUMBER("images", setup->n_images),
            LOG_TEXT("listen", addresses), LOG_NUMBER("workers", n_workers),
            LOG_NUMBER("cache_size", config->cache_size),
            LOG_NUMBER("page_size", config->page_size));
  sd_notify(0, "READY=1");
}

/* How many remote sources there are.  A hash tree is one of its own. */
static unsigned count_remote(const struct config *config) {
  unsigned n = 0;
  for (size_t i = 0; i < config->n_images; i++) {
    const struct config_image *image = &config->images[i];
    n += (image->uri != NULL) + (image->verity.root_len > 0);
  }
  return n;
}

/* Cuts the limits down to the descriptors that the process may have.  Those of
 * the daemon itself come first, so that no number of clients keeps it from
 * opening an image again.  Some are kept for images that a reload adds.
 * Attachments count even if no image is shared now, because a reload may share
 * some.  Returns 0; -EMFILE: there are too few for the daemon alone. */
static int fit_limits(const struct server_config *server, unsigned n_remote,
                      bool has_metrics, struct limits *to) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
    return -errno;
  uint64_t own = FDS_OF_DAEMON + FDS_PER_IMAGE * (uint64_t)server->n_images +
                 FDS_PER_REMOTE * (uint64_t)n_remote +
                 FDS_PER_WORKER * server->n_workers +
                 (has_metrics ? FDS_OF_METRICS : 0);
  if (limit.rlim_cur <= own)
    return -EMFILE;
  uint64_t left = limit.rlim_cur - own;
  uint64_t for_found = server->finds ? left / 4 : FDS_FOR_MORE_IMAGES;
  if (to->max_found_images > for_found / FDS_PER_FOUND_IMAGE)
    to->max_found_images = (unsigned)(for_found / FDS_PER_FOUND_IMAGE);
  if (server->finds)
    left -= to->max_found_images * (uint64_t)FDS_PER_FOUND_IMAGE;
  left -= left / 8 < FDS_FOR_MORE_IMAGES ? left / 8 : FDS_FOR_MORE_IMAGES;
  if (to->max_attachments > left * 3 / (8 * FDS_PER_ATTACHMENT))
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

/* The interval of keep-alive messages: half of what the service manager asks
 * for, as sd_notify(3) advises.  0: it asks for none. */
static int watchdog_interval_ms(void) {
  uint64_t us;
  if (sd_watchdog_enabled(0, &us) <= 0)
    return 0;
  uint64_t ms = us / 2000;
  return ms < 1 ? 1 : ms > INT_MAX ? INT_MAX : (int)ms;
}

static void tell_alive(void *arg) {
  (void)arg;
  sd_notify(0, "WATCHDOG=1");
}

/* A drain without a time limit is not reported to the service manager as a
 * stop, because the manager would not wait so long. */
static void tell_draining(void *arg, int timeout_ms, unsigned n_clients) {
  (void)arg;
  if (timeout_ms < 0)
    sd_notifyf(0, "STATUS=Draining, until %u clients have left", n_clients);
  else
    sd_notifyf(
        0,
        "STOPPING=1\nSTATUS=Draining, for %d s at most, until %u clients "
        "have left\nEXTEND_TIMEOUT_USEC=%llu",
        timeout_ms / 1000, n_clients,
        ((unsigned long long)timeout_ms + STOP_TOLD_MS) * 1000);
}

/* What the server is made of: of `setup`, of what the process before has left,
 * and of the configuration. */
static struct server_config describe_server(const struct config *config,
                                            struct setup *setup,
                                            const struct restore_fds *left) {
  return (struct server_config){
      .limits = limits_default(),
      .cache_size = config->cache_size,
      .page_size = config->page_size,
      .n_workers = config_workers(config),
      .images = setup->images,
      .n_images = setup->n_images,
      .miss = miss_image,
      .arg = setup,
      .place = directories_place(setup->directories),
      .finds = config->n_directories > 0,
      .shares_found = config->n_directories > 0 && config->share,
      .listeners = setup->listeners.all,
      .n_listeners = setup->listeners.n,
      .allow = config->allow,
      .admin = config->admin,
      .restore = left,
      .restore_until = setup->start_by,
      .watchdog = {.interval_ms = watchdog_interval_ms(), .alive = tell_alive},
      .drain_watch = {.begun = tell_draining},
      .reactor = remotes_thread(setup->remotes),
  };
}

/* Serves until a signal comes, on threads that run already.  Returns what is
 * then left to free. */
static struct reloader *serve_until_stopped(const struct options *options,
                                            struct config *config,
                                            struct setup *setup,
                                            struct server *s) {
  struct pressure *pressure = shrink_on_pressure(config, s);
  struct monitor *monitor = start_monitor(setup, s);
  struct reloader *reloader =
      reload_on_hangup(options, config, &setup->listeners, setup->directories,
                       setup->remotes, s);
  announce_ready(config, setup, config_workers(config));
  sandbox_enter(SANDBOX_MAIN);
  server_serve(s);
  limit_stop(STOP_MS);
  signal(SIGHUP, SIG_IGN);
  reloader_stop(reloader);
  pressure_stop(pressure);
  monitor_stop(monitor);
  sd_notify(0, "STOPPING=1");
  log_event(LEVEL_INFO, "stopping", LOG_NUMBER("images", setup->n_images));
  return reloader;
}

static int serve(const struct options *options, struct config *config,
                 struct setup *setup) {
  char reason[512];
  const struct restore_fds left = {.address = getenv("NOTIFY_SOCKET"),
                                   .fds = setup->inherited.fds,
                                   .names = setup->inherited.names,
                                   .n = setup->inherited.n};
  struct server_config server_config = describe_server(config, setup, &left);
  struct server *s;
  if (fit_limits(&server_config, count_remote(config), setup->metrics,
                 &server_config.limits) < 0) {
    setup_drop(setup);
    return fail_start("the limit of open files (ulimit -n) is too low");
  }
  if (server_new(&server_config, &s, reason, sizeof reason) < 0) {
    listener_unref(setup->metrics);
    return fail_start(reason);
  }
  server_set_drain_timeout(s, (int)config->drain_timeout_s * 1000);
  catch_signals(s);
  struct reloader *reloader = NULL;
  int status = EXIT_SUCCESS;
  int r = server_start(s);
  if (r < 0) {
    snprintf(reason, sizeof reason, "start threads: %s", strerror(-r));
    status = fail_start(reason);
    listener_unref(setup->metrics);
  } else {
    reloader = serve_until_stopped(options, config, setup, s);
  }
  server_shutdown(s); /* first: a reload may hang in an open of a file */
  reloader_free(reloader);
  /* Before the server is freed: a signal handler must not use it any more. */
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

/* Locks the code that makes room into memory: when memory is short, the kernel
 * must not have to read it from the disk first. */
static void keep_code(void) {
  int r = locked_code_keep();
  if (r < 0)
    log_event(LEVEL_WARN, "code-not-locked", LOG_TEXT("reason", strerror(-r)),
              LOG_TEXT("advice",
                       "raise the limit of locked memory (ulimit -l, "
                       "LimitMEMLOCK=): without its code the daemon can be "
                       "slow to shrink the cache"));
}

static int open_and_serve(struct options *options, struct config *config) {
  struct setup setup = {.config = config, .start_by = clock_after_ms(START_MS)};
  warn_if_root();
  tell_of_machine(config);
  tell_of_memory();
  if (config->shrinks)
    keep_code();
  int status = adopt_listeners(config, &setup);
  if (status == 0)
    status = check_listeners(config, &setup);
  if (status == 0)
    status = start_remotes(&setup);
  if (status == 0)
    status = open_images(config, &setup);
  if (status == 0)
    status = open_directories(config, &setup);
  if (status == 0)
    status = check_images(&setup);
  if (status == 0)
    status = open_listeners(config, &setup);
  if (status == 0)
    status = open_metrics(config, &setup);
  if (status == 0) {
    process_leave_directory();
    status = serve(options, config, &setup);
  } else {
    setup_drop(&setup);
  }
  listeners_fini(&setup.listeners);
  directories_free(setup.directories);
  remotes_free(setup.remotes);
  inherited_fini(&setup.inherited);
  free(setup.images);
  return status;
}

static void confine_log(void) { sandbox_enter(SANDBOX_LOG); }

static int run(struct options *options, struct config *config) {
  char reason[128];
  options->fitted_size = config->cache_size; /* for reloads */
  log_set_level(config->log_level);
  process_init();
  barrier_register(); /* first: with a second thread it takes milliseconds */
  sandbox_enable();
  int r = log_start(confine_log);
  if (r < 0) {
    snprintf(reason, sizeof reason, "start the log's thread: %s", strerror(-r));
    return fail_start(reason);
  }
  int status = open_and_serve(options, config);
  log_stop(LOG_STOP_MS);
  limit_stop(0);
  return status;
}

/* One line for a configuration that has no mistakes. */
static int say_right(const struct config *config) {
  char line[128];
  snprintf(line, sizeof line,
           "the configuration is right: %zu files read, %zu images\n",
           config->n_files, config->n_images);
  return say(line);
}

/* Of the files that the configuration names it opens only those for TLS, also
 * if no address is for TLS, because systemd may pass a socket that is.  Another
 * user than the daemon's may run the check, without rights for images and
 * sockets. */
static int check(const struct config *config, struct config_errors *errors) {
  certificates_check(config, NULL, errors);
  return config_errors_any(errors) ? fail_config(errors, "")
                                   : say_right(config);
}

static int load_and_run(struct options *options) {
  bool checks = options->action == OPTIONS_CHECK_CONFIG;
  struct config config;
  struct config_errors errors;
  int status;
  int r = options_load(options, &config, &errors);
  if (r == 0) {
    certificates_check_module(&config, &errors);
    image_sources_check_module(&config, &errors);
  }
  if (config_errors_any(&errors))
    status = fail_config(&errors, checks ? "" : "cachetd: ");
  else
    status = checks ? check(&config, &errors) : run(options, &config);
  if (r == 0)
    config_fini(&config);
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
    options.kinds = source_kinds;
    status = load_and_run(&options);
  }
  options_fini(&options);
  return status;
}
