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

namespace {

constexpr int64_t kPieceBytes = 256 << 10; // drawn by one thread at a time

double seconds_since(int64_t begin_ns) {
    return static_cast<double>(nanoseconds_now() - begin_ns) * 1e-9;
}

// Bytes per second of the first num_threads workers, which draw pieces until the time is over. `next` is the piece that
// the whole measurement has come to.
double read_rate(Team &team, const Kernels &kernels, const AlignedBuffer &buffer, int64_t num_pieces,
                 std::atomic<int64_t> &next, int num_threads, double seconds) {
    std::atomic<int64_t> num_read{0};
    std::atomic<uint8_t> sink{0};
    const int64_t begin_ns = nanoseconds_now();
    team.run(
        [&](int) {
            while (seconds_since(begin_ns) < seconds) {
                const int64_t piece = next.fetch_add(1, std::memory_order_relaxed) % num_pieces;
                sink.fetch_or(kernels.read_streams(buffer.data() + piece * kPieceBytes, kPieceBytes));
                num_read.fetch_add(1, std::memory_order_relaxed);
            }
        },
        num_threads);
    return static_cast<double>(num_read.load() * kPieceBytes) / seconds_since(begin_ns);
}

// Seconds of one meeting of the first num_threads workers.
double meeting_time(Team &team, int num_threads, double seconds) {
    std::atomic<int> arrived{0};
    std::atomic<uint32_t> meeting{0};
    std::atomic<bool> over{false};
    int64_t num_meetings = 0; // written by the last to arrive
    const int64_t begin_ns = nanoseconds_now();
    team.run(
        [&](int) {
            for (uint32_t number = 0; !over.load(std::memory_order_relaxed); number++) {
                if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == num_threads) {
                    arrived.store(0, std::memory_order_relaxed);
                    num_meetings++;
                    over.store(seconds_since(begin_ns) >= seconds, std::memory_order_relaxed);
                    meeting.store(number + 1, std::memory_order_release);
                    meeting.notify_all();
                    continue;
                }
                Waiter waiter(team.owns_cores());
                while (meeting.load(std::memory_order_acquire) == number)
                    if (waiter.pause())
                        meeting.wait(number, std::memory_order_acquire);
            }
        },
        num_threads);
    return seconds_since(begin_ns) / static_cast<double>(num_meetings);
}

} // namespace

std::vector<ThreadRate> measure_threads(Team &team, const Kernels &kernels, const std::vector<int> &counts,
                                        int64_t num_bytes, double seconds_each) {
    const int64_t num_pieces = std::max<int64_t>(1, num_bytes / kPieceBytes);
    const AlignedBuffer buffer(num_pieces * kPieceBytes + 8192); // prefetches run past the end
    std::atomic<int64_t> next{0};
    team.run([&](int) {
        for (int64_t piece; (piece = next.fetch_add(1, std::memory_order_relaxed)) < num_pieces;)
            std::memset(buffer.data() + piece * kPieceBytes, 1, kPieceBytes);
    });
    next.store(0);
    std::vector<ThreadRate> rates;
    for (const int count : counts) {
        const double rate = read_rate(team, kernels, buffer, num_pieces, next, count, seconds_each * 0.8);
        rates.push_back({count, rate, meeting_time(team, count, seconds_each * 0.2)});
    }
    return rates;
}

} // namespace quipu
