// What the native tests share: random data, the comparison of results, one printed line per check.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"

namespace quipu::tests {

// A counter hashed into numbers (splitmix64): the same on every machine.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t bits();
    float uniform(float low, float high);
    float normal(); // roughly: the sum of four uniform numbers, variance 1
    int below(int n) { return static_cast<int>(bits() % static_cast<uint64_t>(n)); }
    std::vector<float> normals(int64_t n);

  private:
    uint64_t state_;
};

// Memory that vectors may read at any alignment they ask for.
class AlignedBytes {
  public:
    explicit AlignedBytes(int64_t num_bytes, uint8_t fill = 0xA5);
    ~AlignedBytes();
    AlignedBytes(const AlignedBytes &) = delete;
    AlignedBytes &operator=(const AlignedBytes &) = delete;
    uint8_t *data() const { return memory_; }
    template <class T> T *as() const { return reinterpret_cast<T *>(memory_); }

  private:
    uint8_t *memory_;
};

// Counts and prints. A check is one line: ok or FAILED, the set, what was checked, the largest error seen.
class Report {
  public:
    // `error` is relative; a NaN fails.
    void check(const Kernels &kernels, const std::string &what, double error, double limit);
    void expect(const Kernels &kernels, const std::string &what, bool holds);
    int num_failed() const { return num_failed_; }
    int num_passed() const { return num_passed_; }

  private:
    int num_passed_ = 0, num_failed_ = 0;
};

// The largest difference, as a share of the largest expected magnitude. Infinity where one side alone is NaN or
// infinite.
double largest_error(const float *got, const float *expected, int64_t n);

// Runs each kernel of `kernels` beside the scalar set.
void check_elementwise(const Kernels &kernels, const Kernels &scalar, Report &report);
void check_packing(const Kernels &kernels, const Kernels &scalar, Report &report);
void check_matrices(const Kernels &kernels, const Kernels &scalar, Report &report);
void check_attention(const Kernels &kernels, const Kernels &scalar, Report &report);
void check_reads(const Kernels &kernels, const Kernels &scalar, Report &report);

} // namespace quipu::tests
