/* block_trace: which blocks of a file system programs read, from what they read
 * of its files (recorder.c). */
#ifndef TESTS_BENCH_BLOCK_TRACE_H
#define TESTS_BENCH_BLOCK_TRACE_H

#include "tests/bench/policy_sim.h"

/* Does with libext2fs what the lines of `log` say, on the ext4 file system in
 * `image`, and makes a trace of the blocks that libext2fs reads for it: of
 * inodes, directories, maps of files, and files.  It keeps next to nothing in
 * memory itself; what stands for the kernel's cache of names keeps the numbers
 * of inodes.  Ends the program when something is wrong.  The caller frees
 * `reads`. */
void block_trace_make(struct sim_trace *out, const char *image,
                      const char *log);

#endif
