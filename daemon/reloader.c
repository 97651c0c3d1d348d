#include "daemon/reloader.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "daemon/certificates.h"
#include "daemon/config_check.h"
#include "daemon/config_errors.h"
#include "daemon/image_sources.h"
#include "daemon/log.h"
#include "daemon/missing.h"
#include "daemon/sandbox.h"

#define EVENT_FAILED "reload-failed"

struct reloader {
  const struct options *options;
  struct config *config;       /* its thread's, until reloader_free() */
  struct listeners *listeners; /* likewise */
  struct directories *directories;
  struct remotes *remotes;
  struct server *server;
  bool had_directories; /* at the start, which kept descriptors for them */
  pthread_t thread;
  sem_t asked;
  sem_t turn; /* for a change of what is served: a reload waits for it, a
                 change that a peer asks for is refused */
  atomic_bool ends;
};

/* Which images a reload adds and replaces. */
struct plan {
  const struct config_image **fresh; /* to add, and then to replace */
  struct server_image *opened;       /* of each, once it is open */
  size_t n_add, n_fresh;
  size_t n_removed, n_added, n_replaced; /* so far */
};

/* ---- Comparing ----------------------------------------------------------- */

static const struct config_image *find(const struct config *config,
                                       const char *name) {
  return config_find_image((struct config *)config, name);
}

/* Whether an image is served as it was.  What it is called is the same. */
static bool is_same(const struct config *before, const struct config_image *a,
                    const struct config *now, const struct config_image *b) {
  return config_image_is_same(a, b) &&
         config_shares(before, a) == config_shares(now, b);
}

static enum config_due what_is_due(const struct config *before,
                                   const struct config *now,
                                   const struct config_image *image) {
  const struct config_image *old = find(before, image->name);
  if (!old || old->due == DUE_ADD)
    return DUE_ADD;
  return old->due == DUE_REPLACE || !is_same(before, old, now, image)
             ? DUE_REPLACE
             : DUE_NOTHING;
}

static void plan_take(struct plan *plan, const struct config *before,
                      const struct config *now, enum config_due due) {
  for (size_t i = 0; i < now->n_images; i++)
    if (what_is_due(before, now, &now->images[i]) == due)
      plan->fresh[plan->n_fresh++] = &now->images[i];
}

static int plan_init(struct plan *plan, const struct config *before,
                     const struct config *now) {
  *plan = (struct plan){
      .fresh = calloc(now->n_images + 1, sizeof(const struct config_image *)),
      .opened = calloc(now->n_images + 1, sizeof *plan->opened)};
  if (!plan->fresh || !plan->opened)
    return -ENOMEM;
  plan_take(plan, before, now, DUE_ADD);
  plan->n_add = plan->n_fresh;
  plan_take(plan, before, now, DUE_REPLACE);
  return 0;
}

static void plan_fini(struct plan *plan) {
  free(plan->fresh);
  free(plan->opened);
}

/* Whether each image that replaces another can be opened. */
static bool replacements_are_there(const struct plan *plan) {
  for (size_t i = plan->n_add; i < plan->n_fresh; i++)
    if (plan->opened[i].missing && plan->opened[i].missing != EINPROGRESS) {
      log_event(LEVEL_ERROR, EVENT_FAILED,
                LOG_TEXT("image", plan->fresh[i]->name),
                LOG_TEXT("reason", "its new source cannot be opened"));
      return false;
    }
  return true;
}

/* ---- Doing --------------------------------------------------------------- */

static void remove_gone(struct reloader *r, struct plan *plan,
                        const struct config *now) {
  for (size_t i = 0; i < r->config->n_images; i++) {
    const char *name = r->config->images[i].name;
    if (!find(now, name) && server_remove_image(r->server, name)) {
      plan->n_removed++;
      log_event(LEVEL_INFO, "image-removed", LOG_TEXT("image", name));
    }
  }
}

/* Sets the rules before the sources: a peer that the new rule excludes must not
 * read the new source of an image in between. */
static int set_rules(struct reloader *r, const struct config *now) {
  struct image_rule *list = calloc(now->n_images + 1, sizeof *list);
  if (!list)
    return -ENOMEM;
  for (size_t i = 0; i < now->n_images; i++)
    list[i] = (struct image_rule){.name = now->images[i].name,
                                  .allow = now->images[i].allow};
  server_set_rules(r->server, now->allow, list, now->n_images);
  server_set_admin(r->server, now->admin);
  free(list);
  return 0;
}

/* Adds and replaces the images that were opened.  If memory is missing for one,
 * it is not served, or it is served as before, until the next reload. */
static void take_fresh(struct reloader *r, struct plan *plan,
                       struct config *now) {
  for (size_t i = 0; i < plan->n_fresh; i++) {
    const char *name = plan->fresh[i]->name;
    bool adds = i < plan->n_add;
    if (!adds && plan->opened[i].missing) { /* it has to be hashed first */
      server_remove_image(r->server, name);
      adds = true;
    }
    int e = adds ? server_add_image(r->server, &plan->opened[i])
                 : server_replace_image(r->server, &plan->opened[i]);
    if (e < 0) {
      config_find_image(now, name)->due = adds ? DUE_ADD : DUE_REPLACE;
      log_event(LEVEL_ERROR, EVENT_FAILED, LOG_TEXT("image", name),
                LOG_TEXT("reason", strerror(-e)));
      continue;
    }
    ++*(adds ? &plan->n_added : &plan->n_replaced);
    log_event(LEVEL_INFO, adds ? "image-added" : "image-replaced",
              LOG_TEXT("image", name));
  }
}

static void warn_of(const char *setting) {
  log_event(LEVEL_WARN, "reload-ignored", LOG_TEXT("setting", setting),
            LOG_TEXT("advice", "it takes a restart"));
}

/* If this fails, the daemon continues with the directories as they were.  A
 * start without any keeps few descriptors for images of directories. */
static void set_directories(struct reloader *r, const struct config *now) {
  bool differs;
  int e = directories_set(r->directories, now, &differs);
  if (e == 0 && differs)
    server_review_found(r->server, now->share);
  if (e == 0 && !r->had_directories && !r->config->n_directories &&
      now->n_directories)
    log_event(LEVEL_WARN, "few-descriptors",
              LOG_NUMBER("images", server_most_found(r->server)),
              LOG_TEXT("meaning", "no more images of directories can be open "
                                  "at once until a restart"));
  if (e < 0)
    log_event(
        LEVEL_ERROR, EVENT_FAILED, LOG_TEXT("setting", "directory"),
        LOG_TEXT("reason", e == -ENOSYS ? DIRECTORIES_NEED : strerror(-e)));
}

/* keep_fixed() has kept that of a cache which shrinks and grows by itself. */
static void set_cache_size(struct reloader *r, struct config *now) {
  int e = now->cache_size == r->config->cache_size
              ? 0
              : server_set_cache_size(r->server, now->cache_size);
  if (e == 0)
    return;
  log_event(LEVEL_ERROR, EVENT_FAILED, LOG_TEXT("setting", "size"),
            LOG_TEXT("reason", strerror(-e)));
  now->cache_size = r->config->cache_size;
}

/* An image that is served keeps its pages: its readers have them. */
static void keep_page_size(const struct config *before, struct config *now,
                           struct config_image *image) {
  const struct config_image *old = find(before, image->name);
  if (!old || old->due == DUE_ADD ||
      config_page_size(before, old) == config_page_size(now, image))
    return;
  log_event(
      LEVEL_WARN, "reload-ignored", LOG_TEXT("image", image->name),
      LOG_TEXT("setting", image->huge == old->huge ? "page-size" : "huge"),
      LOG_TEXT("advice", "it takes a restart"));
  image->page_size = config_page_size(before, old);
  image->huge = old->huge;
}

/* Before anything is opened with other pages.  0 or -EINVAL. */
static int keep_page_sizes(const struct config *before, struct config *now) {
  char why[CONFIG_WHY_LEN];
  int e = 0;
  if (before->page_size != now->page_size)
    warn_of("page-size");
  now->page_size = before->page_size;
  for (size_t i = 0; i < now->n_images; i++) {
    keep_page_size(before, now, &now->images[i]);
    if (config_check_page_size(now, &now->images[i], why) < 0) {
      log_event(LEVEL_ERROR, EVENT_FAILED, LOG_TEXT("reason", why));
      e = -EINVAL;
    }
  }
  return e;
}

/* What stays as it was until a restart; the configuration says so, too, lest
 * the next reload tells of it no more.  Before anything is compared with it. */
static void keep_fixed(const struct config *before, struct config *now) {
  if (before->n_workers != now->n_workers)
    warn_of("workers");
  if (before->metrics.len != now->metrics.len ||
      memcmp(&before->metrics.storage, &now->metrics.storage,
             now->metrics.len) != 0)
    warn_of("metrics");
  if (before->shrinks != now->shrinks)
    warn_of("shrink-on-pressure");
  if (before->shrinks && config_least_size(before) != config_least_size(now))
    warn_of("min-size");
  if (before->shrinks && now->cache_size != before->cache_size)
    warn_of("size");
  if (before->shrinks)
    now->cache_size = before->cache_size;
  now->metrics = before->metrics;
  now->shrinks = before->shrinks;
  now->min_size = before->min_size;
  now->n_workers = before->n_workers;
}

/* ---- Listeners ----------------------------------------------------------- */

static int open_listeners(struct reloader *r, const struct config *now,
                          struct listeners *out) {
  char why[512];
  int e = listeners_open(r->listeners, now, out, why, sizeof why);
  if (e < 0)
    log_event(LEVEL_ERROR, EVENT_FAILED, LOG_TEXT("reason", why));
  return e;
}

/* Logs the listeners of `a` that are not in `b`. */
static void tell_of_listeners(const char *event, const struct listeners *a,
                              const struct listeners *b) {
  for (unsigned i = 0; i < a->n; i++)
    if (!listeners_have(b, a->all[i]))
      log_event(LEVEL_INFO, event,
                LOG_TEXT("listen", listener_text(a->all[i])));
}

/* Takes `now` over, or gives it up: then the next reload tries it again. */
static void take_listeners(struct reloader *r, struct listeners *now) {
  listeners_commit(now);
  int e = server_set_listeners(r->server, now->all, now->n);
  if (e < 0) {
    log_event(LEVEL_ERROR, EVENT_FAILED, LOG_TEXT("setting", "address"),
              LOG_TEXT("reason", strerror(-e)));
    listeners_fini(now);
    return;
  }
  tell_of_listeners("listener-removed", r->listeners, now);
  tell_of_listeners("listener-added", now, r->listeners);
  listeners_fini(r->listeners);
  *r->listeners = *now;
}

/* Takes `now` over if it changes anything.  0 or a negative errno. */
static int bring_in_line(struct reloader *r, struct config *now) {
  struct plan plan;
  struct listeners listeners;
  int e = plan_init(&plan, r->config, now);
  if (e == 0) {
    keep_fixed(r->config, now);
    e = keep_page_sizes(r->config, now);
  }
  if (e == 0)
    e = image_sources_open(now, plan.fresh, plan.n_fresh,
                           IMAGE_SOURCES_CHANGE_MS, r->remotes, EVENT_FAILED,
                           plan.opened);
  if (e == 0) {
    e = replacements_are_there(&plan) ? open_listeners(r, now, &listeners)
                                      : -EINVAL;
    if (e < 0)
      image_sources_close(plan.opened, plan.n_fresh);
  }
  if (e == 0 && (e = set_rules(r, now)) < 0) {
    image_sources_close(plan.opened, plan.n_fresh);
    listeners_fini(&listeners);
  }
  if (e == 0) {
    remove_gone(r, &plan, now);
    take_fresh(r, &plan, now);
    take_listeners(r, &listeners);
    set_directories(r, now);
    set_cache_size(r, now);
    server_set_drain_timeout(r->server, (int)now->drain_timeout_s * 1000);
    log_set_level(now->log_level);
    log_event(LEVEL_INFO, "reloaded", LOG_NUMBER("images", now->n_images),
              LOG_NUMBER("added", plan.n_added),
              LOG_NUMBER("replaced", plan.n_replaced),
              LOG_NUMBER("removed", plan.n_removed));
  } else if (e == -ENOMEM) {
    log_event(LEVEL_ERROR, EVENT_FAILED, LOG_TEXT("reason", "out of memory"));
  }
  plan_fini(&plan);
  return e;
}

static void reload(struct reloader *r) {
  struct config now;
  struct config_errors errors;
  bool is_loaded = options_load(r->options, &now, &errors) == 0;
  if (is_loaded)
    certificates_check_module(&now, &errors);
  if (is_loaded && !config_errors_any(&errors))
    listeners_check(r->listeners, &now, &errors);
  for (size_t i = 0; i < errors.n; i++)
    log_event(LEVEL_ERROR, EVENT_FAILED,
              LOG_TEXT("reason", errors.messages[i]));
  if (is_loaded && (config_errors_any(&errors) || bring_in_line(r, &now) < 0)) {
    config_fini(&now);
  } else if (is_loaded) {
    config_fini(r->config);
    *r->config = now;
  }
  config_errors_fini(&errors);
}

/* ---- What peers ask for ---------------------------------------------------
 */

static bool take_turn(struct reloader *r, char *why) {
  if (sem_trywait(&r->turn) == 0)
    return true;
  snprintf(why, CHANGE_WHY_LEN, "a reload is under way; try again");
  return false;
}

/* Opens an image of r->config, and has it served. */
static int open_and_add(struct reloader *r, const struct config_image *image,
                        char *why) {
  struct server_image opened;
  if (image_sources_open(r->config, &image, 1, IMAGE_SOURCES_CHANGE_MS,
                         r->remotes, "change-failed", &opened) < 0) {
    snprintf(why, CHANGE_WHY_LEN, "it cannot be served; the log says why");
    return -EINVAL;
  }
  int e = opened.missing == EINPROGRESS ? 0 : -opened.missing;
  if (e == 0)
    e = server_add_image(r->server, &opened);
  else
    image_sources_close(&opened, 1);
  if (e < 0)
    snprintf(why, CHANGE_WHY_LEN, "%.100s: %s", image->path,
             missing_reason(-e));
  return e;
}

/* In r->config as well: so the next reload sees what it has to put back. */
static int add_parsed(struct reloader *r, struct config_image *image,
                      char *why) {
  char name[CONFIG_NAME_MAX + 1];
  memcpy(name, image->name, sizeof name);
  if (config_find_image(r->config, name)) {
    snprintf(why, CHANGE_WHY_LEN, "there is one of that name");
    return -EEXIST;
  }
  int e = config_check_page_size(r->config, image, why);
  if (e == 0)
    e = config_add_image(r->config, image, why);
  if (e < 0)
    return e;
  e = open_and_add(r, config_find_image(r->config, name), why);
  if (e < 0)
    config_remove_image(r->config, name);
  return e;
}

static int add_image(void *arg, const char *name, const char *source,
                     char why[CHANGE_WHY_LEN]) {
  struct reloader *r = arg;
  struct config_image image;
  if (!take_turn(r, why))
    return -EBUSY;
  snprintf(why, CHANGE_WHY_LEN, "out of memory");
  int e = options_parse_image(&image, r->options->kinds, name, source, why);
  if (e == 0)
    e = add_parsed(r, &image, why);
  config_image_fini(&image);
  sem_post(&r->turn);
  if (e == 0)
    log_event(LEVEL_INFO, "image-added", LOG_TEXT("image", name));
  return e;
}

/* Hidden first, lest it is found again. */
static int remove_image(void *arg, const char *name, char why[CHANGE_WHY_LEN]) {
  struct reloader *r = arg;
  if (!take_turn(r, why))
    return -EBUSY;
  int e = directories_hide(r->directories, name);
  if (e == 0 || e == -ENOENT) {
    bool was_there = server_remove_image(r->server, name);
    config_remove_image(r->config, name);
    e = was_there ? 0 : e;
  }
  sem_post(&r->turn);
  if (e == 0)
    log_event(LEVEL_INFO, "image-removed", LOG_TEXT("image", name));
  else
    snprintf(why, CHANGE_WHY_LEN, "%s",
             e == -ENOENT   ? "not served"
             : e == -ENOSPC ? "too many of directories were removed; reload"
                            : strerror(-e));
  return e;
}

struct change_maker reloader_change_maker(struct reloader *r) {
  return (struct change_maker){
      .add = add_image, .remove = remove_image, .arg = r};
}

/* sd_notify(3) asks for this from a service of Type=notify-reload. */
static void tell_manager_begin(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
             (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

/* ---- Its thread ---------------------------------------------------------- */

static void *reloader_thread(void *arg) {
  struct reloader *r = arg;
  pthread_setname_np(pthread_self(), "reloader");
  sandbox_enter(SANDBOX_RELOADER);
  for (;;) {
    while (sem_wait(&r->asked) < 0 && errno == EINTR)
      ;
    if (atomic_load(&r->ends))
      return NULL;
    while (sem_trywait(&r->asked) == 0) /* L3 */
      ;
    tell_manager_begin();
    while (sem_wait(&r->turn) < 0 && errno == EINTR)
      ;
    reload(r);
    sem_post(&r->turn);
    if (!atomic_load(&r->ends))
      sd_notify(0, "READY=1");
  }
}

struct reloader *reloader_new(const struct options *options,
                              struct config *config,
                              struct listeners *listeners,
                              struct directories *directories,
                              struct remotes *remotes, struct server *server) {
  struct reloader *r = calloc(1, sizeof *r);
  if (!r)
    return NULL;
  r->options = options;
  r->config = config;
  r->listeners = listeners;
  r->directories = directories;
  r->remotes = remotes;
  r->server = server;
  r->had_directories = config->n_directories > 0;
  sem_init(&r->asked, 0, 0);
  sem_init(&r->turn, 0, 1);
  atomic_init(&r->ends, false);
  if (pthread_create(&r->thread, NULL, reloader_thread, r) == 0)
    return r;
  sem_destroy(&r->asked);
  sem_destroy(&r->turn);
  free(r);
  return NULL;
}

void reloader_request(struct reloader *r) {
  int saved = errno; /* we may be in a signal handler */
  sem_post(&r->asked);
  errno = saved;
}

void reloader_stop(struct reloader *r) {
  if (!r)
    return;
  atomic_store(&r->ends, true);
  sem_post(&r->asked);
}

void reloader_free(struct reloader *r) {
  if (!r)
    return;
  pthread_join(r->thread, NULL);
  sem_destroy(&r->asked);
  sem_destroy(&r->turn);
  free(r);
}
