#include "daemon/serve/metrics.h"

#include <stdio.h>
#include <string.h>

#include "daemon/serve/service.h"

enum { OF_BOTH = METRIC_OF_IMAGE | METRIC_OF_DAEMON };

/* Of the page cache, the pool and the network, behind those of images. */
enum {
  SHARED_HITS = N_COUNTERS,
  SHARED_MISSES,
  FILLS,
  FILL_ERRORS,
  FILLED_PAGES,
  UNCACHED_PAGES,
  ZERO_PAGES,
  EVICTED_PAGES,
  EVICTION_BATCHES,
  EPOCHS,
  CACHE_USED,
  CACHE_SIZE,
  CACHE_ALLOCATED,
  CONNECTIONS,
  CONNECTIONS_ACCEPTED,
  CONNECTIONS_HELD,
  CLIENTS,
  ATTACHMENTS,
  POOL_THREADS,
  RINGS,
  IMAGES,
  DRAINING,
  SOURCE_REQUESTS,
  SOURCE_BYTES,
  SOURCE_RETRIES,
  SOURCE_SLOW,
  SOURCE_ERRORS,
  SOURCE_TIMEOUTS,
  SOURCE_DISCONNECTS,
  SOURCE_THROTTLED,
  SOURCE_REFUSED,
  SOURCE_MISMATCHES,
  SOURCE_UNASKED,
  SOURCE_BREAKER,
  SOURCE_WAIT_P50,
  SOURCE_WAIT_P99,
  SOURCE_FIRST_P50,
  SOURCE_FIRST_P99,
  SOURCE_LAST_P50,
  SOURCE_LAST_P99,
  SOURCE_ASKED,
  SOURCE_PART,
  N_METRICS,
};

_Static_assert((int)N_METRICS == (int)METRICS_N,
               "the header says how many there are");

const struct metric metrics_table[METRICS_N] = {
    [COUNTER_HITS] = {"hits", METRIC_COUNTER, "pages", OF_BOTH,
                      "Pages that were in the cache when a request asked the "
                      "daemon for them"},
    [COUNTER_MISSES] =
        {"misses", METRIC_COUNTER, "pages", OF_BOTH,
         "Pages that were absent, and whose read a request started"},
    [COUNTER_JOINS] =
        {"joins", METRIC_COUNTER, "pages", OF_BOTH,
         "Pages that were being read already when a request asked for them"},
    [COUNTER_REQUESTS] = {"requests", METRIC_COUNTER, "requests", OF_BOTH,
                          "Requests to read, warm, attach or invalidate"},
    [COUNTER_QUEUED] = {"queued", METRIC_COUNTER, "requests", OF_BOTH,
                        "Requests that waited because too many bytes were "
                        "being read from sources"},
    [COUNTER_ERRORS] = {"errors", METRIC_COUNTER, "requests", OF_BOTH,
                        "Requests that ended in an error"},
    [COUNTER_BYTES] = {"bytes_sent", METRIC_COUNTER, "bytes", OF_BOTH,
                       "Bytes of pages that were sent over sockets"},
    [SHARED_HITS] = {"shared_hits", METRIC_COUNTER, "pages", OF_BOTH,
                     "Pages that clients found in the cache's memory, as the "
                     "clients report"},
    [SHARED_MISSES] = {"shared_misses", METRIC_COUNTER, "pages", OF_BOTH,
                       "Pages that clients did not find in the cache's memory, "
                       "as the clients report"},
    [FILLS] = {"fills", METRIC_COUNTER, "reads", METRIC_OF_DAEMON,
               "Reads of sources, each for one run of pages"},
    [FILL_ERRORS] = {"fill_errors", METRIC_COUNTER, "reads", METRIC_OF_DAEMON,
                     "Reads of sources that failed"},
    [FILLED_PAGES] = {"filled_pages", METRIC_COUNTER, "pages", METRIC_OF_DAEMON,
                      "Pages that were read and put into the cache"},
    [UNCACHED_PAGES] =
        {"uncached_pages", METRIC_COUNTER, "pages", METRIC_OF_DAEMON,
         "Pages that were read but not cached, because the cache had no room"},
    [ZERO_PAGES] = {"zero_pages", METRIC_GAUGE, "pages", METRIC_OF_DAEMON,
                    "Pages that are known to be zeros, and take no memory"},
    [EVICTED_PAGES] = {"evicted_pages", METRIC_COUNTER, "pages",
                       METRIC_OF_DAEMON,
                       "Pages that were evicted to make room"},
    [EVICTION_BATCHES] = {"eviction_batches", METRIC_COUNTER, "batches",
                          METRIC_OF_DAEMON,
                          "Batches in which pages were evicted"},
    [EPOCHS] = {"epochs", METRIC_COUNTER, "epochs", OF_BOTH,
                "Times that an image got a new epoch"},
    [CACHE_USED] = {"cache_used", METRIC_GAUGE, "bytes", METRIC_OF_DAEMON,
                    "Memory in the cache's account"},
    [CACHE_SIZE] = {"cache_size", METRIC_GAUGE, "bytes", METRIC_OF_DAEMON,
                    "Memory that the cache may take now"},
    [CACHE_ALLOCATED] = {"cache_allocated", METRIC_GAUGE, "bytes",
                         METRIC_OF_DAEMON,
                         "Memory that the kernel has allocated for images"},
    [CONNECTIONS] = {"connections", METRIC_GAUGE, "connections",
                     METRIC_OF_DAEMON, "Connections of clients"},
    [CONNECTIONS_ACCEPTED] = {"connections_accepted", METRIC_COUNTER,
                              "connections", METRIC_OF_DAEMON,
                              "Connections that were accepted"},
    [CONNECTIONS_HELD] = {"connections_held", METRIC_GAUGE, "bytes",
                          METRIC_OF_DAEMON,
                          "Memory outside the cache that connections hold"},
    [CLIENTS] = {"clients", METRIC_GAUGE, "connections", METRIC_OF_DAEMON,
                 "Connections that have an image open"},
    [ATTACHMENTS] = {"attachments", METRIC_GAUGE, "attachments",
                     METRIC_OF_DAEMON,
                     "Pin tables of clients that read the cache's memory"},
    [POOL_THREADS] = {"pool_threads", METRIC_GAUGE, "threads", METRIC_OF_DAEMON,
                      "Threads of the pool that reads sources"},
    [RINGS] = {"rings", METRIC_GAUGE, "workers", METRIC_OF_DAEMON,
               "Workers that read files by io_uring"},
    [IMAGES] = {"images", METRIC_GAUGE, "images", METRIC_OF_DAEMON,
                "Images that are served"},
    [DRAINING] = {"draining", METRIC_GAUGE, "0 or 1", METRIC_OF_DAEMON,
                  "1 while the daemon takes no new clients, and stops when its "
                  "last client leaves"},
    [SOURCE_REQUESTS] = {"source_requests", METRIC_COUNTER, "requests",
                         METRIC_OF_SOURCE,
                         "Attempts to read from the image's remote source"},
    [SOURCE_BYTES] = {"source_bytes", METRIC_COUNTER, "bytes", METRIC_OF_SOURCE,
                      "Bytes that these attempts brought"},
    [SOURCE_RETRIES] = {"source_retries", METRIC_COUNTER, "requests",
                        METRIC_OF_SOURCE,
                        "Attempts that repeated an earlier one"},
    [SOURCE_SLOW] = {"source_slow", METRIC_COUNTER, "requests",
                     METRIC_OF_SOURCE,
                     "Attempts that took over 100 ms, whether or not they "
                     "succeeded"},
    [SOURCE_ERRORS] = {"source_errors", METRIC_COUNTER, "requests",
                       METRIC_OF_SOURCE,
                       "Attempts that failed, for any reason"},
    [SOURCE_TIMEOUTS] = {"source_timeouts", METRIC_COUNTER, "requests",
                         METRIC_OF_SOURCE,
                         "Attempts that the source did not answer in time"},
    [SOURCE_DISCONNECTS] = {"source_disconnects", METRIC_COUNTER, "requests",
                            METRIC_OF_SOURCE,
                            "Attempts that had no connection, or lost it"},
    [SOURCE_THROTTLED] = {"source_throttled", METRIC_COUNTER, "requests",
                          METRIC_OF_SOURCE,
                          "Attempts that the source asked to repeat later"},
    [SOURCE_REFUSED] =
        {"source_refused", METRIC_COUNTER, "requests", METRIC_OF_SOURCE,
         "Attempts to read an object that is forbidden or does not exist"},
    [SOURCE_MISMATCHES] = {"source_mismatches", METRIC_COUNTER, "requests",
                           METRIC_OF_SOURCE,
                           "Attempts whose bytes did not match their hash"},
    [SOURCE_UNASKED] = {"source_unasked", METRIC_COUNTER, "reads",
                        METRIC_OF_SOURCE,
                        "Reads that failed at once, because the source had not "
                        "answered for a while"},
    [SOURCE_BREAKER] = {"source_breaker", METRIC_GAUGE, "0, 1 or 2",
                        METRIC_OF_SOURCE,
                        "State of the breaker: 0 if the source is asked, 1 if "
                        "it is not, 2 if one read tests whether it is back"},
    [SOURCE_WAIT_P50] =
        {"source_wait_p50_us", METRIC_GAUGE, "microseconds", METRIC_OF_SOURCE,
         "Median time from a read's beginning to its successful attempt, of "
         "recent reads: for one of the source's connections, for other reads, "
         "and for attempts that failed with the pauses after them"},
    [SOURCE_WAIT_P99] = {"source_wait_p99_us", METRIC_GAUGE, "microseconds",
                         METRIC_OF_SOURCE, "99th percentile of that wait"},
    [SOURCE_FIRST_P50] = {"source_first_byte_p50_us", METRIC_GAUGE,
                          "microseconds", METRIC_OF_SOURCE,
                          "Median time from the request to the first byte, of "
                          "recent attempts that succeeded: it includes a new "
                          "connection, if there was none; 0 if the source "
                          "does not report it"},
    [SOURCE_FIRST_P99] = {"source_first_byte_p99_us", METRIC_GAUGE,
                          "microseconds", METRIC_OF_SOURCE,
                          "99th percentile of the time to the first byte"},
    [SOURCE_LAST_P50] =
        {"source_last_byte_p50_us", METRIC_GAUGE, "microseconds",
         METRIC_OF_SOURCE,
         "Median time from the request to the last byte of its block"},
    [SOURCE_LAST_P99] = {"source_last_byte_p99_us", METRIC_GAUGE,
                         "microseconds", METRIC_OF_SOURCE,
                         "99th percentile of the time to the last byte"},
    [SOURCE_ASKED] = {"source_asked", METRIC_COUNTER, "bytes", METRIC_OF_SOURCE,
                      "Bytes that readers of the image got: sent over sockets, "
                      "or found in the cache's memory, as clients report"},
    [SOURCE_PART] =
        {"source_fetched_part", METRIC_GAUGE, "percent", METRIC_OF_SOURCE,
         "Bytes from the source for each 100 bytes that readers got"},
};

/* Prometheus wants a unit in a name only if it is a base unit. */
static bool unit_is_base(const char *unit) {
  return strcmp(unit, "bytes") == 0;
}

void metrics_print_name(const struct metric *metric, bool of_image,
                        char name[METRICS_NAME_LEN]) {
  bool has_unit =
      !unit_is_base(metric->unit) || strstr(metric->name, metric->unit);
  snprintf(name, METRICS_NAME_LEN, "cachetd_%s%s%s%s%s",
           of_image ? "image_" : "", metric->name, has_unit ? "" : "_",
           has_unit ? "" : metric->unit,
           metric->kind == METRIC_COUNTER ? "_total" : "");
}

static uint64_t sum(const struct image_counters *each, unsigned n,
                    enum image_counter which) {
  uint64_t total = 0;
  for (unsigned i = 0; i < n; i++)
    total += image_counters_get(&each[i], which);
  return total;
}

static void put_readers(const struct reader_counts *readers,
                        uint64_t values[METRICS_N]) {
  values[SHARED_HITS] =
      atomic_load_explicit(&readers->n_hits, memory_order_relaxed);
  values[SHARED_MISSES] =
      atomic_load_explicit(&readers->n_misses, memory_order_relaxed);
}

static uint64_t percent(uint64_t part, uint64_t whole) {
  return whole ? (uint64_t)(100.0 * (double)part / (double)whole + 0.5) : 0;
}

/* Adds the counts of the source to those of the image, which are set already.
 * False: the source has none. */
static bool put_source(struct served_image *h, uint64_t values[METRICS_N]) {
  uint64_t pages = values[SHARED_HITS] + values[SHARED_MISSES];
  struct retrying_counts counts;
  if (!images_count_source(h, &counts))
    return false;
  values[SOURCE_REQUESTS] = counts.n_requests;
  values[SOURCE_BYTES] = counts.n_bytes;
  values[SOURCE_RETRIES] = counts.n_retries;
  values[SOURCE_SLOW] = counts.n_slow;
  values[SOURCE_ERRORS] = counts.n_errors;
  values[SOURCE_TIMEOUTS] = counts.n_timeouts;
  values[SOURCE_DISCONNECTS] = counts.n_disconnected;
  values[SOURCE_THROTTLED] = counts.n_throttled;
  values[SOURCE_REFUSED] = counts.n_refused;
  values[SOURCE_MISMATCHES] = counts.n_mismatches;
  values[SOURCE_UNASKED] = counts.n_broken;
  values[SOURCE_BREAKER] = counts.breaker;
  values[SOURCE_WAIT_P50] = counts.wait.p50;
  values[SOURCE_WAIT_P99] = counts.wait.p99;
  values[SOURCE_FIRST_P50] = counts.first.p50;
  values[SOURCE_FIRST_P99] = counts.first.p99;
  values[SOURCE_LAST_P50] = counts.last.p50;
  values[SOURCE_LAST_P99] = counts.last.p99;
  values[SOURCE_ASKED] =
      values[COUNTER_BYTES] + (pages << image_page_shift(h->image));
  values[SOURCE_PART] = percent(counts.n_bytes, values[SOURCE_ASKED]);
  return true;
}

unsigned metrics_of_image(struct served_image *h, uint64_t values[METRICS_N]) {
  for (int i = 0; i < N_COUNTERS; i++)
    values[i] = sum(h->counters, h->images->n_threads, (enum image_counter)i);
  put_readers(h->readers, values);
  values[EPOCHS] = atomic_load_explicit(&h->n_epochs, memory_order_relaxed);
  return put_source(h, values) ? METRIC_OF_IMAGE | METRIC_OF_SOURCE
                               : METRIC_OF_IMAGE;
}

static uint64_t sum_held(const struct server_context *context) {
  uint64_t total = 0;
  for (unsigned i = 0; i < context->n_services; i++)
    total += net_thread_held(&context->services[i]->net);
  return total;
}

void metrics_of_daemon(struct server_context *context, const struct peer *peer,
                       uint64_t values[METRICS_N]) {
  struct images *images = &context->images;
  struct page_cache_stats pc;
  page_cache_get_stats(images->cache, &pc);
  for (int i = 0; i < N_COUNTERS; i++)
    values[i] = sum(images->totals, images->n_threads, (enum image_counter)i);
  put_readers(images->readers, values);
  values[FILLS] = pc.n_fills;
  values[FILL_ERRORS] = pc.n_fill_errors;
  values[FILLED_PAGES] = pc.n_filled_pages;
  values[UNCACHED_PAGES] = pc.n_uncached_pages;
  values[ZERO_PAGES] = pc.n_zero_pages;
  values[EVICTED_PAGES] = pc.n_evicted_pages;
  values[EVICTION_BATCHES] = pc.n_batches;
  values[EPOCHS] = pc.n_epochs;
  values[CACHE_USED] = pc.used;
  values[CACHE_SIZE] = pc.budget;
  values[CACHE_ALLOCATED] = page_cache_allocated(images->cache);
  values[CONNECTIONS] = users_count(&context->users);
  values[CONNECTIONS_ACCEPTED] =
      atomic_load_explicit(&context->n_accepted, memory_order_relaxed);
  values[CONNECTIONS_HELD] = sum_held(context);
  values[CLIENTS] = drain_n_clients(&context->drain);
  values[ATTACHMENTS] = attachment_count(&context->census);
  values[POOL_THREADS] = pool_n_threads(images->pool);
  values[RINGS] = atomic_load_explicit(&context->n_rings, memory_order_relaxed);
  values[IMAGES] = images_count(images, peer);
  values[DRAINING] = drain_is_on(&context->drain);
}
