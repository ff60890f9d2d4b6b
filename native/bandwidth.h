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

} // namespace quipu
