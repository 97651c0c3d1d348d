// Processes that read an image of a daemon, each with a handle of its own.
#ifndef TESTS_SUPPORT_READERS_H
#define TESTS_SUPPORT_READERS_H

#include <cachet/cachet.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

// Runs `n` of them, which all begin at once; the test fails unless `read` says
// true in each.  Beside them the calling process has one thread.
void RunReaders(const std::string &uri, int n,
                const std::function<bool(cachet *c, int reader)> &read);

// Whether the range has the bytes of `image`; if it cannot be read, it says
// why.
bool ReadsRight(cachet *c, const std::vector<uint8_t> &image, uint64_t addr,
                size_t len);

// Whether `n` random ranges do, of up to `max_len` bytes.
bool ReadsRandomRangesRight(cachet *c, const std::vector<uint8_t> &image,
                            uint64_t seed, int n, size_t max_len);

#endif
