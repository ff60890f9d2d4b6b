// How many multiply-adds of 8-bit integers per second this machine can do at most, out of registers, with THREADS
// threads. Prints the number; 0 where the processor has no instruction for it. Usage: multiply_adds THREADS
//
// Built by benchmarks/machine.py with the machine's own instruction set.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace {

constexpr int num_repeats = 7;
constexpr int64_t num_multiply_rounds = 4'000'000;

double seconds_of(const std::function<void()> &work) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Runs `work(thread)` on every thread and returns the seconds of the fastest of `num_repeats` runs.
double best_seconds(int num_threads, const std::function<void(int)> &work) {
    double best = 1e30;
    for (int repeat = 0; repeat < num_repeats; ++repeat) {
        best = std::min(best, seconds_of([&] {
                            std::vector<std::thread> threads;
                            for (int thread = 0; thread < num_threads; ++thread) {
                                threads.emplace_back(work, thread);
                            }
                            for (auto &thread : threads) {
                                thread.join();
                            }
                        }));
    }
    return best;
}

// Multiply-adds of unsigned by signed bytes, 32-bit sums; eight products may be summed in 16 bits when the unsigned
// ones hold four bits. Returns how many multiply-adds one call did.
#if defined(__AVX2__)
int64_t multiply_add(uint64_t &sink) {
    constexpr int num_sums = 4;
    __m256i sums[num_sums];
    for (auto &sum : sums) {
        sum = _mm256_setzero_si256();
    }
    __m256i codes = _mm256_set1_epi8(3), activations = _mm256_set1_epi8(-5);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int64_t round = 0; round < num_multiply_rounds; ++round) {
        asm volatile("" : "+x"(codes), "+x"(activations)); // the compiler must not see through the constants
        for (auto &sum : sums) {
            __m256i products = _mm256_maddubs_epi16(codes, activations);
            for (int step = 1; step < 8; ++step) {
                asm volatile("" : "+x"(codes));
                products = _mm256_add_epi16(products, _mm256_maddubs_epi16(codes, activations));
            }
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
        }
    }
    for (const auto &sum : sums) {
        sink += static_cast<uint32_t>(_mm256_extract_epi32(sum, 0));
    }
    return num_multiply_rounds * num_sums * 8 * 32;
}
#elif defined(__ARM_FEATURE_DOTPROD)
int64_t multiply_add(uint64_t &sink) {
    constexpr int num_sums = 16;
    int32x4_t sums[num_sums];
    for (auto &sum : sums) {
        sum = vdupq_n_s32(0);
    }
    int8x16_t codes = vdupq_n_s8(3), activations = vdupq_n_s8(-5);
    for (int64_t round = 0; round < num_multiply_rounds; ++round) {
        asm volatile("" : "+w"(codes), "+w"(activations));
        for (auto &sum : sums) {
            sum = vdotq_s32(sum, codes, activations);
        }
    }
    for (const auto &sum : sums) {
        sink += static_cast<uint32_t>(vgetq_lane_s32(sum, 0));
    }
    return num_multiply_rounds * num_sums * 16;
}
#else
int64_t multiply_add(uint64_t &) {
    return 0;
}
#endif

double multiply_adds_per_second(int num_threads, uint64_t &sink) {
    std::vector<uint64_t> sinks(num_threads);
    int64_t count = 0;
    const double seconds = best_seconds(num_threads, [&](int thread) {
        const int64_t done = multiply_add(sinks[thread]);
        if (thread == 0) {
            count = done;
        }
    });
    for (const uint64_t value : sinks) {
        sink += value;
    }
    return static_cast<double>(count) * num_threads / seconds;
}

} // namespace

int main(int argc, char **argv) {
    const int num_threads = argc > 1 ? std::atoi(argv[1]) : 0;
    if (num_threads < 1) {
        std::fprintf(stderr, "usage: multiply_adds THREADS\n");
        return 2;
    }
    uint64_t sink = 0;
    const double rate = multiply_adds_per_second(num_threads, sink);
    std::printf("%.4e\n", rate);
    return sink == 1; // looked at, so that the compiler keeps the work
}
