#include "bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "program.h"

namespace quipu {

std::vector<std::pair<std::string, double>> measure_read_bandwidth(Team &team, const Kernels &kernels,
                                                                   int64_t num_bytes, int repeats) {
    const int threads = team.num_threads();
    const int64_t share = num_bytes / threads / 4096 * 4096;
    AlignedBuffer buffer(share * threads + 8192); // prefetches run past the end
    team.run([&](int index) { std::memset(buffer.data() + index * share, index + 1, share); });

    using Read = uint8_t (*)(const uint8_t *, int64_t);
    const std::pair<const char *, Read> methods[] = {{"sequential", kernels.read_sequential},
                                                     {"prefetched", kernels.read_prefetched},
                                                     {"four streams", kernels.read_streams}};
    std::vector<std::pair<std::string, double>> rates;
    std::atomic<uint8_t> sink{0};
    for (const auto &[name, read] : methods) {
        double best = 0.0;
        for (int i = 0; i < repeats; i++) {
            const auto begin = std::chrono::steady_clock::now();
            team.run([&, read = read](int index) { sink.fetch_or(read(buffer.data() + index * share, share)); });
            const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
            best = std::max(best, double(share * threads) / elapsed.count());
        }
        rates.emplace_back(name, best);
    }
    return rates;
}

} // namespace quipu
