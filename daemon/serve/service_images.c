#include "daemon/serve/service_images.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/container_of.h"

struct service_image *service_images_find(const struct service_images *set,
                                          const struct served_image *h) {
  struct service_image *si = set->list[h->index];
  return si && si->reader.served == h ? si : NULL;
}

static void service_image_free(struct service_image *si) {
  struct served_image *h = si->reader.served;
  assert(si->n_uses == 0 && LIST_EMPTY(&si->subscribers));
  LIST_REMOVE(si, link);
  image_reader_fini(&si->reader);
  free(si);
  images_unref(h);
}

/* From here on nobody posts the task; but it may have been posted. */
static void leave(struct service_image *si) {
  image_reader_close(&si->reader);
  images_unlisten(si->reader.served, &si->listener);
  si->set->list[si->reader.served->index] = NULL;
  si->is_leaving = true;
}

static void task_run(struct task *task) {
  struct service_image *si =
      container_of(task, struct service_image, listener.task);
  if (si->is_leaving) {
    service_image_free(si);
    return;
  }
  si->set->changed(si);
  if (si->n_uses)
    return;
  leave(si);
  loop_post(si->set->loop, &si->listener.task);
}

struct service_image *service_images_get(struct service_images *set,
                                         struct served_image *h) {
  struct service_image *si = service_images_find(set, h);
  if (si || !(si = calloc(1, sizeof *si)))
    return si;
  if (image_reader_init(&si->reader, h, set->dispatch) < 0) {
    free(si);
    return NULL;
  }
  si->set = set;
  si->counters = &h->counters[set->number];
  images_ref(h);
  LIST_INSERT_HEAD(&set->all, si, link);
  set->list[h->index] = si;
  si->listener.loop = set->loop;
  si->listener.task.run = task_run;
  images_listen(h, &si->listener);
  /* It may have been removed just before; and it may find no user. */
  loop_post(set->loop, &si->listener.task);
  return si;
}

void service_images_use(struct service_image *si) { si->n_uses++; }

/* Pins of its reader may still be in the thread's output. */
void service_images_unuse(struct service_image *si) {
  assert(si->n_uses > 0);
  if (--si->n_uses == 0)
    loop_post(si->set->loop, &si->listener.task);
}

int service_images_init(struct service_images *set) {
  LIST_INIT(&set->all);
  set->list = calloc(IMAGES_MAX, sizeof(struct service_image *));
  return set->list ? 0 : -ENOMEM;
}

void service_images_fini(struct service_images *set) {
  struct service_image *si;
  while ((si = LIST_FIRST(&set->all))) {
    if (!si->is_leaving)
      leave(si);
    service_image_free(si);
  }
  free(set->list);
}
