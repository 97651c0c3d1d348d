/* eventloop: reads an image page by page from a libevent loop, sixteen loads
 * in flight.
 *
 *   eventloop URI [COUNT]
 *
 * Reads COUNT pages, by default all.  After the last page of the image it
 * continues with the first.  It prints a checksum that does not depend on the
 * order in which the loads complete.  If the image changes, it fails.  On
 * SIGINT it cancels the loads in flight and reports the result so far.
 *
 * The program has one thread.  After cachet_event_attach() the loop watches
 * the descriptor and the time-outs of the library, and each callback runs in
 * the loop. */
#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <cachet/cachet.h>
#include <cachet/libevent.h>

#define N_LANES 16

struct reader;

/* One of the loads in flight; its callback starts the next one. */
struct lane {
  struct reader *reader;
  struct cachet_request *request; /* NULL: idle */
};

struct reader {
  cachet *c;
  struct event_base *base;
  uint64_t n_pages; /* of the image */
  uint64_t n_wanted, n_started, n_read, n_failed, n_canceled;
  uint64_t checksum; /* the sum of the pages' own checksums */
  bool stopping;
  struct lane lanes[N_LANES];
};

/* FNV-1a over the page's address and its bytes, so that the sum also changes if
 * pages are exchanged. */
static uint64_t page_checksum(const struct cachet_slice *s) {
  uint64_t h = 0xcbf29ce484222325;
  for (int i = 0; i < 8; i++)
    h = (h ^ (s->offset >> (8 * i) & 0xff)) * 0x100000001b3;
  for (size_t i = 0; i < s->length; i++)
    h = (h ^ s->data[i]) * 0x100000001b3;
  return h;
}

static bool is_idle(const struct reader *r) {
  for (int i = 0; i < N_LANES; i++) {
    if (r->lanes[i].request)
      return false;
  }
  return true;
}

static void fail(struct reader *r, enum cachet_status status) {
  const char *why = cachet_errmsg(r->c);
  fprintf(stderr, "eventloop: %s\n", *why ? why : cachet_strerror(status));
  r->n_failed++;
  r->stopping = true;
}

static void lane_done(void *arg, enum cachet_status status,
                      struct cachet_slice *slice);

/* Starts the next load of a lane.  The callback never runs inside this call,
 * even if the page is cached. */
static void lane_start(struct lane *lane) {
  struct reader *r = lane->reader;
  if (!r->stopping && r->n_started < r->n_wanted) {
    uint64_t page = r->n_started % r->n_pages;
    enum cachet_status status =
        cachet_load_async(r->c, page * cachet_page_size(r->c), 0, lane_done,
                          lane, &lane->request);
    if (status == CACHET_OK)
      r->n_started++;
    else
      fail(r, status);
  }
  if (is_idle(r))
    event_base_loopbreak(r->base);
}

/* A load has completed.  The library frees the request when this returns.  On
 * CACHET_OK the slice belongs to this program: it may copy the struct and keep
 * it, and must call cachet_release(), which it does here at once. */
static void lane_done(void *arg, enum cachet_status status,
                      struct cachet_slice *slice) {
  struct lane *lane = arg;
  struct reader *r = lane->reader;
  lane->request = NULL;
  if (status == CACHET_OK) {
    r->checksum += page_checksum(slice);
    r->n_read++;
    cachet_release(r->c, slice);
  } else if (status == CACHET_E_CANCELED) {
    r->n_canceled++;
  } else {
    fail(r, status); /* also CACHET_E_CHANGED: a sum over two versions has no
                        meaning */
  }
  lane_start(lane);
}

/* SIGINT: the callbacks of cancelled loads still run. */
static void interrupt(evutil_socket_t sig, short events, void *arg) {
  (void)sig, (void)events;
  struct reader *r = arg;
  r->stopping = true;
  for (int i = 0; i < N_LANES; i++) {
    if (r->lanes[i].request)
      cachet_cancel(r->c, r->lanes[i].request);
  }
}

static int run(struct reader *r) {
  struct event *sigint = evsignal_new(r->base, SIGINT, interrupt, r);
  if (!sigint || event_add(sigint, NULL) < 0 ||
      cachet_event_attach(r->c, r->base) != CACHET_OK) {
    fprintf(stderr, "eventloop: cannot set up the event loop\n");
    if (sigint)
      event_free(sigint);
    return 1;
  }
  for (int i = 0; i < N_LANES; i++) {
    r->lanes[i].reader = r;
    lane_start(&r->lanes[i]);
  }
  if (!is_idle(r))
    event_base_dispatch(r->base);
  cachet_event_detach(r->c);
  event_free(sigint);

  printf("%" PRIu64 " pages, checksum %016" PRIx64 ", %" PRIu64
         " hits, %" PRIu64 " misses",
         r->n_read, r->checksum, cachet_hits(r->c), cachet_misses(r->c));
  if (r->n_canceled)
    printf(", %" PRIu64 " cancelled", r->n_canceled);
  printf("\n");
  return r->n_read == r->n_wanted ? 0 : 1;
}

static bool parse_count(const char *arg, uint64_t *out) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(arg, &end, 10);
  if (arg[0] < '0' || arg[0] > '9' || *end || errno)
    return false;
  *out = value;
  return true;
}

int main(int argc, char **argv) {
  struct reader r = {0};
  if (argc < 2 || argc > 3 ||
      (argc == 3 && !parse_count(argv[2], &r.n_wanted))) {
    fprintf(stderr, "usage: eventloop URI [COUNT]\n");
    return 2;
  }
  struct cachet_options options = {.struct_size = sizeof options,
                                   .flags = CACHET_ONE_EPOCH};
  struct cachet_error err;
  if (cachet_open(argv[1], &options, &r.c, &err) != CACHET_OK) {
    fprintf(stderr, "eventloop: %s\n", err.message);
    return 1;
  }
  r.n_pages = cachet_pages(r.c, 0, CACHET_TO_END);
  if (argc == 2 || r.n_pages == 0)
    r.n_wanted = r.n_pages;

  int status = 1;
  r.base = event_base_new();
  if (r.base)
    status = run(&r);
  else
    fprintf(stderr, "eventloop: cannot make an event loop\n");
  cachet_close(r.c);
  if (r.base)
    event_base_free(r.base);
  return status;
}
