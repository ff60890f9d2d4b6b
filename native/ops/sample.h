// Sampling: one token per row of logits. The steps are defined in quipu/engine/sampling_reference.py, with which this
// agrees bit for bit; here they are arranged so that the vocabulary is read two or three times and never sorted.
//
// Logits are not changed. A row is copied only where a bias or a penalty touches it.
#pragma once

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quipu {

constexpr int kNotANumber = -1;     // the logits hold a NaN or an infinity
constexpr int kNothingAllowed = -2; // every token is forbidden

enum class ChainStepKind { penalties, top_k, typical, top_p, min_p, temperature, dist, greedy };

struct ChainStep {
    ChainStepKind kind;
    double values[3];
};

struct SamplerChain {
    std::vector<ChainStep> steps;
    std::vector<int32_t> bias_ids;
    std::vector<float> bias_values;
};

// Philox 4x32-10 (Salmon et al., SC11) with the seed as key and the position as counter: 64 random bits.
inline uint64_t random_word(uint64_t seed, uint64_t position) {
    uint32_t c[4] = {uint32_t(position), uint32_t(position >> 32), 0, 0};
    uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t product0 = uint64_t(0xD2511F53u) * c[0], product1 = uint64_t(0xCD9E8D57u) * c[2];
        const uint32_t next[4] = {uint32_t(product1 >> 32) ^ c[1] ^ key0, uint32_t(product1),
                                  uint32_t(product0 >> 32) ^ c[3] ^ key1, uint32_t(product0)};
        std::copy(next, next + 4, c);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return uint64_t(c[0]) << 32 | c[1];
}

// The weight of a token is a whole number, floor(2^44 e^x): sums are exact in any order.
constexpr double kMassOfOne = 17592186044416.0; // 2^44
constexpr float kLowest = -31.0f;               // below it, a mass is 0

// e^x for x <= 0, in float operations that are the same everywhere; 0 below kLowest.
inline float exponential(float x) {
    const float inside = x < kLowest ? kLowest : x;
    const float round = 12582912.0f; // 1.5 * 2^23: adding and subtracting it rounds to a whole number
    const float power = (inside * 1.4426950408889634f + round) - round;
    const float rest = (inside - power * 0.693359375f) - power * -2.12194440054690583e-4f;
    float result = float(1.0 / 720);
    for (float coefficient : {float(1.0 / 120), float(1.0 / 24), float(1.0 / 6), 0.5f, 1.0f, 1.0f})
        result = result * rest + coefficient;
    const float scaled = result * std::bit_cast<float>((int32_t(power) + 127) << 23);
    return x < kLowest ? 0.0f : scaled;
}

inline uint64_t mass_of(float weight) {
    return uint64_t(int64_t(double(weight) * kMassOfOne));
}

// Samples one row after another; keeps its buffers between rows.
class RowSampler {
  public:
    explicit RowSampler(int vocab_size) : vocab_size_(vocab_size) {}

    // The token for logits [vocab_size], or a negative code. `history` holds the tokens that penalties count.
    int sample(const SamplerChain &chain, const float *logits, std::span<const int32_t> history, uint64_t word) {
        row_ = logits;
        is_whole_ = true;
        temperature_ = 1.0f;
        if (!find_largest())
            return kNotANumber;
        if (!chain.bias_ids.empty())
            add_bias(chain);
        for (const ChainStep &step : chain.steps) {
            if (step.kind == ChainStepKind::penalties)
                penalize(history, float(step.values[0]), float(step.values[1]), float(step.values[2]));
            if (largest_ == -INFINITY)
                return kNothingAllowed;
            const auto count = size_t(std::max(step.values[step.kind == ChainStepKind::top_k ? 0 : 1], 1.0));
            switch (step.kind) {
            case ChainStepKind::top_k:
                keep_largest(count);
                break;
            case ChainStepKind::typical:
                keep_typical(step.values[0], count);
                break;
            case ChainStepKind::top_p:
                keep_nucleus(step.values[0], count);
                break;
            case ChainStepKind::min_p:
                keep_likely(step.values[0], count);
                break;
            case ChainStepKind::temperature:
                temperature_ = float(step.values[0]);
                break;
            case ChainStepKind::dist:
                return is_whole_ ? draw_from_whole(word) : draw(word);
            case ChainStepKind::greedy:
                return int(std::find(row_, row_ + vocab_size_, largest_) - row_);
            case ChainStepKind::penalties:
                break;
            }
        }
        return kNothingAllowed;
    }

  private:
    // What is still in play: the whole row, or these, in ascending order of ids.
    struct Candidate {
        float logit;
        int32_t id;
    };
    struct Weighted {
        double key; // ascending: the smallest are kept
        uint64_t mass;
        Candidate candidate;
    };

    static constexpr int kBlock = 1024; // logits per pass of the simple loops, which the compiler vectorizes
    static constexpr int kBuckets = 512, kBucketsPerUnit = 16; // of keys: 32 units of logit, where all mass is

    static bool ranks_before(const Candidate &a, const Candidate &b) {
        return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
    }
    static bool comes_before(const Weighted &a, const Weighted &b) {
        return a.key < b.key || (a.key == b.key && a.candidate.id < b.candidate.id);
    }
    static bool has_lower_id(const Candidate &a, const Candidate &b) { return a.id < b.id; }

    // Runs body(first id, logits, count) over the row in blocks.
    template <class Body> void for_blocks(Body body) const {
        for (int begin = 0; begin < vocab_size_; begin += kBlock)
            body(begin, row_ + begin, std::min(kBlock, vocab_size_ - begin));
    }

    static float largest_of(const float *x, int count) {
        constexpr int kLanes = 16;
        float lanes[kLanes];
        std::fill(lanes, lanes + kLanes, -INFINITY);
        int i = 0;
        for (; i + kLanes <= count; i += kLanes)
            for (int lane = 0; lane < kLanes; lane++)
                lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
        for (; i < count; i++)
            lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
        return *std::max_element(lanes, lanes + kLanes);
    }

    // False if a logit is NaN or positive infinity.
    bool find_largest() {
        largest_ = -INFINITY;
        int num_bad = 0;
        for_blocks([&](int, const float *x, int count) {
            largest_ = std::max(largest_, largest_of(x, count));
            for (int i = 0; i < count; i++)
                num_bad += !(x[i] <= FLT_MAX);
        });
        return num_bad == 0;
    }

    // The row, as a copy that may be changed.
    float *own_row() {
        if (row_ != adjusted_.data()) {
            adjusted_.assign(row_, row_ + vocab_size_);
            row_ = adjusted_.data();
        }
        return adjusted_.data();
    }

    void add_bias(const SamplerChain &chain) {
        float *row = own_row();
        for (size_t i = 0; i < chain.bias_ids.size(); i++) {
            float &logit = row[chain.bias_ids[i]];
            logit = std::min(logit + chain.bias_values[i], FLT_MAX);
        }
        find_largest();
    }

    void penalize(std::span<const int32_t> history, float repeat, float frequency, float presence) {
        if (history.empty())
            return;
        float *row = own_row();
        history_.assign(history.begin(), history.end());
        std::sort(history_.begin(), history_.end());
        for (size_t begin = 0, end; begin < history_.size(); begin = end) {
            for (end = begin; end < history_.size() && history_[end] == history_[begin];)
                end++;
            float &logit = row[history_[begin]];
            const float penalty = float(end - begin) * frequency + presence;
            logit = std::min((logit <= 0 ? logit * repeat : logit / repeat) - penalty, FLT_MAX);
        }
        find_largest();
    }

    // A pool of k to some more candidates; whenever it is full, it is cut back to the k best of those seen.
    void keep_largest(size_t k) {
        if (!is_whole_) {
            cut_to_largest(k);
            std::sort(candidates_.begin(), candidates_.end(), has_lower_id);
            return;
        }
        if (k >= size_t(vocab_size_))
            return;
        const size_t limit = std::max<size_t>(4 * k, 256);
        float threshold = -INFINITY; // a later token must exceed it: of equal ones, the earlier is kept
        candidates_.clear();
        for_blocks([&](int begin, const float *x, int count) {
            constexpr int kStride = 64;
            for (int i = 0; i < count; i += kStride) {
                const int end = std::min(i + kStride, count);
                if (!(largest_of(x + i, end - i) > threshold))
                    continue;
                for (int j = i; j < end; j++)
                    if (x[j] > threshold)
                        candidates_.push_back({x[j], begin + j});
                if (candidates_.size() >= limit) {
                    cut_to_largest(k);
                    threshold = candidates_[k - 1].logit;
                }
            }
        });
        cut_to_largest(k);
        std::sort(candidates_.begin(), candidates_.end(), has_lower_id);
        is_whole_ = false;
    }

    // Leaves the k best, the last of them at the end.
    void cut_to_largest(size_t k) {
        if (candidates_.size() <= k)
            return;
        std::nth_element(candidates_.begin(), candidates_.begin() + (k - 1), candidates_.end(), ranks_before);
        candidates_.resize(k);
    }

    void keep_likely(double log_p, size_t min_keep) {
        const double threshold = double(largest_) + log_p;
        size_t num_likely = 0;
        if (is_whole_) {
            // The smallest float that passes, so that blocks can be compared in float.
            float lowest = float(threshold);
            if (double(lowest) < threshold)
                lowest = std::nextafter(lowest, INFINITY);
            for_blocks([&](int, const float *x, int count) {
                int found = 0;
                for (int i = 0; i < count; i++)
                    found += x[i] >= lowest;
                num_likely += size_t(found);
            });
            if (num_likely < min_keep)
                return keep_largest(min_keep);
            candidates_.clear();
            for_blocks([&](int begin, const float *x, int count) {
                if (largest_of(x, count) >= lowest)
                    for (int i = 0; i < count; i++)
                        if (x[i] >= lowest)
                            candidates_.push_back({x[i], begin + i});
            });
            is_whole_ = false;
            return;
        }
        const auto is_likely = [&](const Candidate &c) { return double(c.logit) >= threshold; };
        num_likely = size_t(std::count_if(candidates_.begin(), candidates_.end(), is_likely));
        if (num_likely < min_keep)
            return keep_largest(min_keep);
        std::erase_if(candidates_, [&](const Candidate &c) { return !is_likely(c); });
    }

    // The fewest of the most likely tokens whose mass reaches p of the whole.
    void keep_nucleus(double p, size_t min_keep) {
        keep_smallest([](const Candidate &c) { return -double(c.logit); }, -double(largest_), p, min_keep);
    }

    // The fewest of the tokens whose distance from the largest logit is nearest to the mean distance.
    void keep_typical(double p, size_t min_keep) {
        uint64_t total = 0;
        double weighted_sum = 0; // in the order of ids
        for_candidates([&](const Candidate &c) {
            const float distance = c.logit - largest_;
            const uint64_t mass = mass_of(exponential(distance));
            total += mass;
            if (mass)
                weighted_sum += double(mass) * double(distance);
        });
        const double mean = weighted_sum / double(total);
        const float largest = largest_;
        keep_smallest([=](const Candidate &c) { return std::abs(double(c.logit - largest) - mean); }, 0.0, p, min_keep);
        largest_ = -INFINITY; // the largest need not be typical
        for_candidates([&](const Candidate &c) { largest_ = std::max(largest_, c.logit); });
    }

    // Keeps the fewest tokens, in the order of key(candidate) >= lowest, whose mass reaches p of the whole.
    template <class Key> void keep_smallest(Key key, double lowest, double p, size_t min_keep) {
        if (is_whole_ && keep_smallest_of_whole(key, lowest, p, min_keep))
            return;
        weighted_.clear();
        uint64_t total = 0;
        for_candidates([&](const Candidate &c) {
            weighted_.push_back({key(c), mass_of(exponential(c.logit - largest_)), c});
            total += weighted_.back().mass;
        });
        const size_t count = smallest_with_mass(target_mass(p, total), min_keep);
        candidates_.clear();
        for (size_t i = 0; i < count; i++)
            candidates_.push_back(weighted_[i].candidate);
        std::sort(candidates_.begin(), candidates_.end(), has_lower_id);
        is_whole_ = false;
    }

    // The same without a list of the whole vocabulary: the tokens are counted into buckets by their keys, and only the
    // bucket in which the sum reaches p is put in order. False, and no change, if fewer than min_keep are left.
    template <class Key> bool keep_smallest_of_whole(Key key, double lowest, double p, size_t min_keep) {
        const auto bucket_of = [&](float logit, int id) {
            const double scaled = (key(Candidate{logit, id}) - lowest) * kBucketsPerUnit;
            return int32_t(scaled < kBuckets - 1 ? scaled : kBuckets - 1);
        };
        bucket_mass_.assign(kBuckets, 0);
        bucket_size_.assign(kBuckets, 0);
        uint64_t total = 0;
        float weights[kBlock];
        int32_t buckets[kBlock];
        for_blocks([&](int begin, const float *x, int count) {
            for (int i = 0; i < count; i++)
                weights[i] = exponential(x[i] - largest_);
            for (int i = 0; i < count; i++)
                buckets[i] = bucket_of(x[i], begin + i);
            for (int i = 0; i < count; i++) {
                const uint64_t mass = mass_of(weights[i]);
                bucket_mass_[buckets[i]] += mass;
                bucket_size_[buckets[i]]++;
                total += mass;
            }
        });
        const uint64_t target = target_mass(p, total);
        uint64_t before = 0; // mass of the buckets before the last one
        size_t num_before = 0;
        int last = 0;
        while (last < kBuckets - 1 && (before + bucket_mass_[last] < target || bucket_size_[last] == 0)) {
            before += bucket_mass_[last];
            num_before += bucket_size_[last++];
        }
        candidates_.clear();
        weighted_.clear();
        for_blocks([&](int begin, const float *x, int count) {
            for (int i = 0; i < count; i++)
                buckets[i] = bucket_of(x[i], begin + i);
            for (int i = 0; i < count; i++) {
                const Candidate candidate{x[i], begin + i};
                if (buckets[i] < last)
                    candidates_.push_back(candidate);
                else if (buckets[i] == last)
                    weighted_.push_back({key(candidate), mass_of(exponential(x[i] - largest_)), candidate});
            }
        });
        const size_t num_last = smallest_with_mass(target - std::min(target, before), 1);
        if (num_before + num_last < min_keep)
            return false;
        for (size_t i = 0; i < num_last; i++)
            last_candidates_.push_back(weighted_[i].candidate);
        std::sort(last_candidates_.begin(), last_candidates_.end(), has_lower_id);
        merged_.resize(candidates_.size() + last_candidates_.size());
        std::merge(candidates_.begin(), candidates_.end(), last_candidates_.begin(), last_candidates_.end(),
                   merged_.begin(), has_lower_id);
        std::swap(candidates_, merged_);
        last_candidates_.clear();
        is_whole_ = false;
        return true;
    }

    // Runs body on every token in play, in ascending order of ids.
    template <class Body> void for_candidates(Body body) const {
        if (is_whole_)
            for (int id = 0; id < vocab_size_; id++)
                body(Candidate{row_[id], id});
        else
            for (const Candidate &c : candidates_)
                body(c);
    }

    static uint64_t target_mass(double p, uint64_t total) {
        return std::min(uint64_t(std::ceil(p * double(total))), total);
    }

    // How many of `weighted_`, in order, reach the target mass, but at least min_keep; they are moved to the front.
    // Halves the range in question, each time with one partition instead of a sort.
    size_t smallest_with_mass(uint64_t target, size_t min_keep) {
        size_t low = 0, high = weighted_.size(); // the answer is in (low, high]; what is before low is in front
        uint64_t before = 0;
        while (high - low > 1) {
            const size_t middle = low + (high - low) / 2;
            std::nth_element(weighted_.begin() + low, weighted_.begin() + middle, weighted_.begin() + high,
                             comes_before);
            uint64_t mass = 0;
            for (size_t i = low; i < middle; i++)
                mass += weighted_[i].mass;
            if (before + mass >= target && middle >= min_keep) {
                high = middle;
            } else {
                before += mass;
                low = middle;
            }
        }
        return high;
    }

    // word / 2^64 of the total, rounded down.
    static uint64_t scaled(uint64_t word, uint64_t total) {
        return uint64_t(static_cast<unsigned __int128>(word) * total >> 64);
    }

    int draw(uint64_t word) {
        uint64_t total = 0;
        masses_.clear();
        for (const Candidate &c : candidates_) {
            masses_.push_back(mass_of(exponential((c.logit - largest_) / temperature_)));
            total += masses_.back();
        }
        uint64_t target = scaled(word, total);
        size_t i = 0;
        for (; masses_[i] <= target; i++)
            target -= masses_[i];
        return candidates_[i].id;
    }

    int draw_from_whole(uint64_t word) {
        masses_.clear(); // per block
        uint64_t total = 0;
        float weights[kBlock];
        const auto weigh = [&](const float *x, int count) {
            for (int i = 0; i < count; i++)
                weights[i] = exponential((x[i] - largest_) / temperature_);
        };
        for_blocks([&](int, const float *x, int count) {
            weigh(x, count);
            uint64_t mass = 0;
            for (int i = 0; i < count; i++)
                mass += mass_of(weights[i]);
            masses_.push_back(mass);
            total += mass;
        });
        uint64_t target = scaled(word, total);
        int block = 0;
        for (; masses_[size_t(block)] <= target; block++)
            target -= masses_[size_t(block)];
        const int begin = block * kBlock;
        weigh(row_ + begin, std::min(kBlock, vocab_size_ - begin));
        int i = 0;
        for (; mass_of(weights[i]) <= target; i++)
            target -= mass_of(weights[i]);
        return begin + i;
    }

    const int vocab_size_;
    const float *row_ = nullptr;
    float largest_ = 0.0f, temperature_ = 1.0f; // largest_: of what is in play
    bool is_whole_ = true;
    std::vector<Candidate> candidates_, last_candidates_, merged_;
    std::vector<Weighted> weighted_;
    std::vector<float> adjusted_;
    std::vector<int32_t> history_;
    std::vector<uint64_t> masses_, bucket_mass_;
    std::vector<size_t> bucket_size_;
};

} // namespace quipu
