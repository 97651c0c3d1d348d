/* policy_sim: how often S3-FIFO, as cache/s3fifo.h has it, misses on synthetic
 * traces and on those of programs, beside itself without its window, LRU, ARC,
 * CLOCK and Belady's optimum. */
#ifndef TESTS_BENCH_POLICY_SIM_H
#define TESTS_BENCH_POLICY_SIM_H

#include <stddef.h>
#include <stdint.h>

/* Reads of pages 0 to n_pages - 1, by way of a cache of `n_cached`. */
struct sim_trace {
  const char *name;
  uint32_t n_pages, n_cached;
  uint32_t *reads;
  size_t n_reads;
};

enum { SIM_N_TRACES = 5 };

/* Zipf; scans of three kinds beside a hot set; a loop slightly larger than the
 * cache: each of `n_reads`.  sim_traces_free() frees them. */
void sim_traces_make(struct sim_trace traces[SIM_N_TRACES], uint32_t n_cached,
                     size_t n_reads);
void sim_traces_free(struct sim_trace traces[SIM_N_TRACES]);

/* How many different pages it reads. */
uint32_t sim_count_pages(const struct sim_trace *t);

/* Each returns how many of the reads miss a cache that begins empty. */
size_t sim_s3_fifo(const struct sim_trace *t);
size_t sim_s3_fifo_without_window(const struct sim_trace *t);
size_t sim_lru(const struct sim_trace *t);
size_t sim_arc(const struct sim_trace *t);
size_t sim_clock(const struct sim_trace *t);
size_t sim_optimum(const struct sim_trace *t);

#endif
