// Measures the read bandwidth of the machine.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels.h"
#include "team.h"

namespace quipu {

// For each way of reading: its name and the best of `repeats` rates in bytes per second, all threads of the team
// reading their share of one buffer of `num_bytes`.
std::vector<std::pair<std::string, double>> measure_read_bandwidth(Team &team, const Kernels &kernels,
                                                                   int64_t num_bytes, int repeats);

// What a number of threads gets out of the machine.
struct ThreadRate {
    int num_threads;
    double read_bytes_per_s; // from memory, all together
    double meeting_s;        // until all have arrived and know it
};

// Measures each number of threads for `seconds_each`, after memory of num_bytes was touched, which should be beyond the
// caches. Each starts where the one before it ended, so that nobody finds its bytes in a cache.
std::vector<ThreadRate> measure_threads(Team &team, const Kernels &kernels, const std::vector<int> &counts,
                                        int64_t num_bytes, double seconds_each);

} // namespace quipu
