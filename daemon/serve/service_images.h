/* An image at one service: how its thread reads it, what it may fetch of it,
 * and which sessions opened it.
 *
 *   M1  It is there while a session has a subscription to the image, or a
 *       request for it waits; and then for as long as it takes to run its task.
 *       Fills that nobody waits for, ahead of a reader, may end later.
 *   M2  It keeps the image alive.
 *
 * The service's thread only. */
#ifndef DAEMON_SERVE_SERVICE_IMAGES_H
#define DAEMON_SERVE_SERVICE_IMAGES_H

#include <stdbool.h>
#include <sys/queue.h>

#include "daemon/engine/image_reader.h"
#include "daemon/engine/images.h"
#include "daemon/serve/image_quota.h"

struct service_image;
struct subscription;

LIST_HEAD(subscription_list, subscription);
LIST_HEAD(service_image_list, service_image);

/* Those of one service. */
struct service_images {
  struct loop *loop;
  struct fill_dispatch *dispatch;
  unsigned number;               /* of the service: its counters' in an image */
  struct image_counters *totals; /* the thread's, of all images */

  /* The image has a new epoch, or was removed; or neither.  The image here may
   * lose its last user. */
  void (*changed)(struct service_image *si);

  struct service_image **list; /* IMAGES_MAX, by the image's index */
  struct service_image_list all;
};

struct service_image {
  struct image_listener listener; /* its task is posted for all that changes */
  struct service_images *set;
  struct image_reader reader; /* of the image, which is referenced */
  struct image_quota quota;
  struct image_counters *counters;      /* the thread's, in the image */
  struct subscription_list subscribers; /* by of_image */
  unsigned n_uses;                      /* M1 */
  bool is_leaving; /* it is no listener, and goes when its task runs */
  LIST_ENTRY(service_image) link;
};

/* For a thread; all members down to `changed` are set.  0 or -ENOMEM; either
 * way the second is due, when the thread has ended or never began, and nothing
 * uses any. */
int service_images_init(struct service_images *set);
void service_images_fini(struct service_images *set);

/* That of an image; NULL: there is none, or, from the second, no memory. */
struct service_image *service_images_find(const struct service_images *set,
                                          const struct served_image *h);
struct service_image *service_images_get(struct service_images *set,
                                         struct served_image *h);

/* One user more, or less. */
void service_images_use(struct service_image *si);
void service_images_unuse(struct service_image *si);

#endif
