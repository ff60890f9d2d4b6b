// One row of logits: read where it lies, in blocks whose largest values are known. A block is copied when a value in it
// changes, so that a few changes cost little and the caller's logits stay as they are.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "ops/sample_scans.h"

namespace quipu {

// Values and ids of tokens, in ascending order of ids. Reserves room for a vector beyond the last.
struct TokenList {
    std::vector<float> values;
    std::vector<int32_t> ids;
    int count = 0;

    void reserve(int capacity) {
        const size_t room = size_t(capacity) + 8;
        if (values.size() < room) {
            values.resize(room);
            ids.resize(room);
        }
    }
    // Lists are scanned by whole vectors: those beyond the end are as good as forbidden.
    void pad() {
        reserve(count);
        std::fill(values.begin() + count, values.begin() + count + 8, -INFINITY);
    }
    int padded_count() const { return (count + 7) / 8 * 8; }
};

class SampleRow {
  public:
    SampleRow(const SampleScans &scans, int vocab_size)
        : scans_(scans), vocab_size_(vocab_size), num_blocks_((vocab_size + kSampleBlock - 1) / kSampleBlock),
          blocks_(size_t(num_blocks_)), maxima_(size_t(num_blocks_)), own_(size_t(num_blocks_) * kSampleBlock) {
        forbidden_.fill(-INFINITY);
    }

    int vocab_size() const { return vocab_size_; }
    int num_blocks() const { return num_blocks_; }
    const float *block(int number) const { return blocks_[size_t(number)]; }
    float maximum(int number) const { return maxima_[size_t(number)]; }
    const std::vector<float> &maxima() const { return maxima_; }
    float at(int id) const { return blocks_[size_t(id / kSampleBlock)][id % kSampleBlock]; }

    // Begins with logits [vocab_size]. False if they hold a NaN, or anything beyond kLargestLogit.
    bool start(const float *logits) {
        const int num_whole = vocab_size_ / kSampleBlock;
        for (int number = 0; number < num_whole; number++)
            blocks_[size_t(number)] = logits + size_t(number) * kSampleBlock;
        bool is_valid = scans_.maxima(logits, num_whole, maxima_.data());
        if (num_whole < num_blocks_) {
            float *rest = own_.data() + size_t(num_whole) * kSampleBlock;
            const int count = vocab_size_ % kSampleBlock;
            std::copy(logits + vocab_size_ - count, logits + vocab_size_, rest);
            std::fill(rest + count, rest + kSampleBlock, -INFINITY);
            blocks_[size_t(num_whole)] = rest;
            is_valid &= scans_.maxima(rest, 1, maxima_.data() + num_whole);
        }
        const float most = largest();
        return is_valid && (most == -INFINITY || most >= -kLargestLogit);
    }

    // Of all that is not forbidden; -infinity if nothing is left.
    float largest() const {
        float result = -INFINITY;
        for (float maximum : maxima_)
            result = maximum > result ? maximum : result;
        return result;
    }

    // The first id that has this value.
    int find(float value) const {
        for (int number = 0; number < num_blocks_; number++)
            if (maximum(number) == value) {
                const float *x = block(number);
                return number * kSampleBlock + int(std::find(x, x + kSampleBlock, value) - x);
            }
        return 0;
    }

    void set(int id, float value) {
        const int number = id / kSampleBlock;
        float *x = own(number);
        const float before = std::exchange(x[id % kSampleBlock], value);
        if (value > maximum(number))
            maxima_[size_t(number)] = value;
        else if (before == maximum(number))
            maxima_[size_t(number)] = scans_.largest(x, kSampleBlock);
    }

    void multiply(float factor) {
        for (int number = 0; number < num_blocks_; number++) {
            float *x = own(number);
            for (int i = 0; i < kSampleBlock; i++)
                x[i] *= factor;
            maxima_[size_t(number)] *= factor;
        }
    }

    // Forbids the tokens whose bits are not set in words [ceil(vocab_size / 32)].
    void mask(const int32_t *words) {
        constexpr int kWords = kSampleBlock / 32;
        const int num_words = (vocab_size_ + 31) / 32;
        for (int number = 0; number < num_blocks_; number++) {
            uint32_t bits[kWords] = {};
            const int count = std::min(kWords, num_words - number * kWords);
            std::memcpy(bits, words + number * kWords, size_t(count) * sizeof(uint32_t));
            const auto is = [](uint32_t pattern) { return [=](uint32_t word) { return word == pattern; }; };
            if (std::all_of(bits, bits + kWords, is(0))) {
                blocks_[size_t(number)] = forbidden_.data();
                maxima_[size_t(number)] = -INFINITY;
            } else if (!std::all_of(bits, bits + kWords, is(~0u))) {
                float *x = own_.data() + size_t(number) * kSampleBlock;
                scans_.mask(block(number), bits, x);
                blocks_[size_t(number)] = x;
                maxima_[size_t(number)] = scans_.largest(x, kSampleBlock);
            }
        }
    }

    // Appends scale * value of those between lowest and highest to `list`.
    void collect(float scale, float lowest, float highest, TokenList &list) const {
        list.count = 0;
        for (int number = 0; number < num_blocks_; number++) {
            if (!(maximum(number) * scale >= lowest))
                continue;
            list.reserve(list.count + kSampleBlock);
            list.count += scans_.collect(block(number), number * kSampleBlock, kSampleBlock, scale, lowest, highest,
                                         list.values.data() + list.count, list.ids.data() + list.count);
        }
        list.pad();
    }

  private:
    float *own(int number) {
        float *x = own_.data() + size_t(number) * kSampleBlock;
        if (block(number) != x) {
            std::copy(block(number), block(number) + kSampleBlock, x);
            blocks_[size_t(number)] = x;
        }
        return x;
    }

    const SampleScans &scans_;
    const int vocab_size_, num_blocks_;
    std::vector<const float *> blocks_;
    std::vector<float> maxima_;
    std::vector<float> own_; // the copies, each at its place
    std::array<float, kSampleBlock> forbidden_;
};

} // namespace quipu
