// The tokens in play on a row's way through a chain: the whole row, or a list that an earlier step left. Each step is
// defined in quipu/engine/sampling_reference.py, with which this agrees bit for bit; here they are arranged so that the
// vocabulary is read two or three times and never sorted.
//
// Tokens at -infinity count as being in play, but need not be in the list: nothing ever chooses them.
#pragma once

#include <cfloat>
#include <cmath>
#include <limits>
#include <optional>
#include <span>

#include "ops/sample_cut.h"
#include "ops/sample_row.h"

namespace quipu {

constexpr double kLowestTemperature = 1e-6;

// The smallest float that is not below x.
inline float float_from(double x) {
    const float nearest = float(x);
    return double(nearest) < x ? std::nextafter(nearest, INFINITY) : nearest;
}

// A logit that was changed, within the limits; -infinity stays.
inline float limited(float value) {
    return value == -INFINITY ? value : std::max(std::min(value, kLargestLogit), -kLargestLogit);
}

class SamplePlay {
  public:
    SamplePlay(const SampleScans &scans, SampleRow &row) : scans_(scans), row_(row), cut_(scans) {}

    void start() {
        is_whole_ = true;
        scale_ = 1.0f;
        size_ = row_.vocab_size();
        forget();
    }

    bool is_whole() const { return is_whole_; }
    int size() const { return size_; }
    float scale() const { return scale_; }
    const SampleRow &row() const { return row_; }
    const TokenList &list() const { return list_; }

    float largest() {
        if (!largest_)
            largest_ = is_whole_ ? row_.largest() * scale_ : scans_.largest(list_.values.data(), list_.padded_count());
        return *largest_;
    }

    // The id of the best token, the lowest of equal ones.
    int best() {
        if (is_whole_) {
            apply_scale(); // it may make equal what was not
            return row_.find(row_.largest());
        }
        return list_.ids[size_t(std::find(list_.values.begin(), list_.values.end(), largest()) - list_.values.begin())];
    }

    uint64_t total_mass() {
        uint64_t total = 0;
        const float most = largest();
        for_each_run([&](const float *x, int count, float scale) { total += scans_.mass(x, count, scale, most); });
        return total;
    }

    // The mean of distances from the largest, weighted by probability, and the logarithm of the sum of e^distance.
    struct MeanDistance {
        double mean, log_sum;
    };
    MeanDistance mean_distance() {
        WeightedDistance sums = {};
        const float most = largest();
        for_each_run([&](const float *x, int count, float scale) {
            const WeightedDistance part = scans_.weighted_distance(x, count, scale, most);
            sums.weight += part.weight;
            sums.product += part.product;
        });
        return {-(double(sums.product) / double(sums.weight)) / 32768.0, std::log(double(sums.weight) / 1073741824.0)};
    }

    // --- changing logits ---

    // Replaces the logit of a token by change(logit); nothing happens to one that is not in play.
    template <class Change> void change(int id, Change change) {
        if (is_whole_) {
            apply_scale();
            const float value = row_.at(id);
            if (value != -INFINITY)
                row_.set(id, limited(change(value)));
        } else {
            const auto end = list_.ids.begin() + list_.count, place = std::lower_bound(list_.ids.begin(), end, id);
            if (place != end && *place == id) {
                float &value = list_.values[size_t(place - list_.ids.begin())];
                value = value == -INFINITY ? value : limited(change(value));
            }
        }
        forget();
    }

    void divide_by(double temperature) {
        const float factor = float(1.0 / temperature);
        if (is_whole_) {
            apply_scale();
            scale_ = factor;
        } else {
            for (int i = 0; i < list_.count; i++)
                list_.values[size_t(i)] *= factor;
        }
        forget();
    }

    void divide_by_entropy(double lowest, double highest, double exponent) {
        if (size_ == 1)
            return;
        const MeanDistance distance = mean_distance();
        const double part = (distance.log_sum - distance.mean) / std::log(double(size_)),
                     inside = std::min(std::max(part, 0.0), 1.0);
        divide_by(std::max(lowest + (highest - lowest) * std::pow(inside, exponent), kLowestTemperature));
    }

    // --- taking tokens out of play ---

    void keep_within_sigmas(double n) {
        const float most = largest();
        float least = INFINITY;
        for_each_run([&](const float *x, int count,
                         float scale) { least = std::min(least, scans_.smallest_finite(x, count) * scale); },
                     -INFINITY);
        const double widest = double(-(least - most));
        double deviation = 0.0;
        if (widest > 0.0) {
            int exponent;
            std::frexp(widest, &exponent);
            const double steps_per_unit = std::ldexp(1.0, 20 - exponent);
            SpreadSums sums = {};
            for_each_run(
                [&](const float *x, int count, float scale) {
                    const SpreadSums part = scans_.spread(x, count, scale, most, steps_per_unit);
                    sums.count += part.count;
                    sums.sum += part.sum;
                    sums.squares += part.squares;
                },
                -INFINITY);
            using Wide = unsigned __int128;
            const Wide variance = Wide(sums.count) * sums.squares - Wide(sums.sum) * sums.sum;
            deviation = std::sqrt(double(variance)) / double(sums.count) / steps_per_unit;
        }
        keep_from(float_from(double(most) - n * deviation)); // the others stay in play at -infinity
    }

    // What has a logit of `lowest` or more; the others stay in play as if they were forbidden.
    void keep_from(float lowest) {
        if (is_whole_)
            take_list([&](TokenList &list) { row_.collect(scale_, lowest, INFINITY, list); });
        else
            keep_if(list_, [=](float x, int32_t) { return x >= lowest; });
        forget();
    }

    void keep_largest(int64_t count) {
        if (count >= size_)
            return;
        size_ = int(count);
        if (is_whole_)
            take_list([&](TokenList &list) { gather_largest(size_, list); });
        else
            cut_.keep_largest(list_, size_);
        forget();
    }

    void keep_likely(double log_p, int64_t min_keep) {
        const float lowest = float_from(double(largest()) + log_p);
        if (is_whole_) {
            row_.collect(scale_, lowest, INFINITY, spare_);
            if (spare_.count < min_keep)
                return keep_largest(min_keep);
            take_list([](TokenList &) {});
        } else {
            const auto end = list_.values.begin() + list_.count;
            if (std::count_if(list_.values.begin(), end, [=](float x) { return x >= lowest; }) < min_keep)
                return keep_largest(min_keep);
            keep_if(list_, [=](float x, int32_t) { return x >= lowest; });
        }
        size_ = list_.count;
        forget();
    }

    // The fewest of the most likely tokens whose mass reaches p of the whole.
    void keep_nucleus(double p, int64_t min_keep) {
        const float most = largest();
        keep_smallest(p, min_keep, {-most, false}, [](float x) { return -x; });
    }

    // The fewest of the tokens whose distance from the largest logit is nearest to the mean distance.
    void keep_typical(double p, int64_t min_keep) {
        const float most = largest(), mean = float(mean_distance().mean);
        keep_smallest(p, min_keep, {most + mean, true}, [=](float x) { return std::abs((x - most) - mean); });
    }

    // Of the tokens with a certain probability only the last stays.
    void exclude_top(double threshold, int64_t min_keep) {
        const double needed = threshold * double(total_mass());
        const float most = largest();
        // Only a bound: rounding makes the distance of a large logit uncertain.
        const double lowest =
            double(most) + std::log(std::max(needed, 0.5) / kMassOfOne) - (0.01 + 1e-6 * std::abs(double(most)));
        if (is_whole_)
            row_.collect(scale_, float(lowest), INFINITY, spare_);
        else
            spare_ = list_;
        weigh(spare_, most, masses_);
        int taken = 0;
        for (int i = 0; i < spare_.count; i++)
            if (masses_[size_t(i)] > 0 && double(masses_[size_t(i)]) >= needed) {
                spare_.values[size_t(taken)] = spare_.values[size_t(i)];
                spare_.ids[size_t(taken++)] = spare_.ids[size_t(i)];
            }
        if (taken < 2 || size_ - (taken - 1) < min_keep)
            return;
        int last = 0;
        for (int i = 1; i < taken; i++)
            if (spare_.values[size_t(i)] <= spare_.values[size_t(last)])
                last = i;
        const auto first = spare_.ids.begin(), end = std::remove(first, first + taken, spare_.ids[size_t(last)]);
        if (is_whole_)
            std::for_each(first, end, [&](int32_t id) { row_.set(id, -INFINITY); });
        else
            keep_if(list_, [&](float, int32_t id) { return !std::binary_search(first, end, id); });
        size_ -= taken - 1;
        forget();
    }

    // Only tokens for which is_kept(value, id); makes a list of what is in play.
    template <class IsKept> void keep(IsKept is_kept) {
        make_list();
        keep_if(list_, is_kept);
        size_ = list_.count;
        forget();
    }

    void keep_only(int32_t id, float value) {
        take_list([&](TokenList &list) {
            list.reserve(1);
            list.count = 1;
            list.values[0] = value;
            list.ids[0] = id;
            list.pad();
        });
        size_ = 1;
        forget();
    }

    // A list of all that is in play and not forbidden.
    void make_list() {
        if (is_whole_)
            take_list([&](TokenList &list) { row_.collect(scale_, -FLT_MAX, INFINITY, list); });
    }

    // --- looking ---

    // The `count` best of all in play, in ascending order of ids.
    void gather_largest(int count, TokenList &out) {
        if (!is_whole_) {
            out = list_;
            return cut_.keep_largest(out, count);
        }
        if (count < row_.num_blocks()) {
            // Each of the `count` best blocks has a token that is not below the last of their largest ones.
            ranks_ = row_.maxima();
            std::nth_element(ranks_.begin(), ranks_.begin() + (count - 1), ranks_.end(), std::greater<>());
            const float lowest = ranks_[size_t(count - 1)] * scale_;
            row_.collect(scale_, std::max(lowest, -FLT_MAX), INFINITY, out);
        } else {
            const float most = largest();
            float reach = 4.0f;
            do {
                const float lowest = reach < kWidestReach ? most - reach : -FLT_MAX;
                row_.collect(scale_, lowest, INFINITY, out);
                reach *= 2.0f;
            } while (out.count < count && reach <= 2.0f * kWidestReach);
        }
        cut_.keep_largest(out, count);
    }

    // The masses of a list's tokens.
    void weigh(const TokenList &list, float most, std::vector<uint64_t> &masses) const {
        masses.resize(size_t(list.padded_count()));
        scans_.masses(list.values.data(), list.padded_count(), 1.0f, most, masses.data());
        masses.resize(size_t(list.count));
    }

    // Runs body(logits, count, scale) over everything in play that is within `reach` of the largest.
    template <class Body> void for_each_run(Body body, float reach = kLowestDistance) {
        if (!is_whole_) {
            if (list_.count > 0)
                body(list_.values.data(), list_.padded_count(), 1.0f);
            return;
        }
        const float most = largest();
        for (int number = 0; number < row_.num_blocks(); number++)
            if (row_.maximum(number) * scale_ - most >= reach)
                body(row_.block(number), kSampleBlock, scale_);
    }

  private:
    static constexpr float kWidestReach = 64.0f; // beyond, everything is taken
    static constexpr float kSureReach = 8.0f;

    // What a key grows from: the largest logit (negated) or a middle, then to both sides.
    struct KeyOrigin {
        float value;
        bool is_middle;
    };

    void forget() { largest_.reset(); }

    // Multiplies the row by what its values were to be multiplied by when they are read.
    void apply_scale() {
        if (scale_ != 1.0f)
            row_.multiply(scale_);
        scale_ = 1.0f;
    }

    // Lets fill(spare list) say what is in play from now on.
    template <class Fill> void take_list(Fill fill) {
        fill(spare_);
        std::swap(list_, spare_);
        is_whole_ = false;
        scale_ = 1.0f;
    }

    template <class Key> void keep_smallest(double p, int64_t min_keep, KeyOrigin origin, Key key) {
        const float most = largest();
        const uint64_t target = target_mass(p, total_mass());
        float reach = !is_whole_ ? INFINITY : is_sure() ? kSureReach : estimate_reach(p, origin, key);
        for (;; reach = reach < kWidestReach ? 2.0f * reach + 1.0f : INFINITY) {
            const bool is_everything = !(reach < kWidestReach);
            TokenList &list = is_whole_ ? spare_ : list_;
            if (is_whole_)
                collect_within(origin, is_everything ? INFINITY : reach, spare_);
            keys_.resize(size_t(list.padded_count()));
            for (int i = 0; i < list.padded_count(); i++)
                keys_[size_t(i)] = key(list.values[size_t(i)]);
            weigh(list, most, masses_);
            const TokenCut cut = cut_.find(keys_, list.ids, masses_, lowest_key(origin), target, min_keep);
            // Keys near the border of what was collected may be rounded to either side of it.
            const float margin = origin.is_middle ? 1e-6f * (std::abs(origin.value) + std::abs(most) + reach) : 0.0f;
            const bool is_inside = cut.is_found && !(origin.is_middle && cut.key >= reach - margin);
            if (!is_inside && !is_everything)
                continue;
            if (is_whole_)
                take_list([](TokenList &) {});
            cut_.keep(list_, keys_, cut);
            size_ = std::max(list_.count, int(std::min<int64_t>(min_keep, size_)));
            return forget();
        }
    }

    static float lowest_key(KeyOrigin origin) { return origin.is_middle ? 0.0f : origin.value; }

    void collect_within(KeyOrigin origin, float reach, TokenList &list) {
        const float middle = origin.is_middle ? origin.value : -origin.value;
        row_.collect(scale_, std::max(middle - reach, -FLT_MAX), origin.is_middle ? middle + reach : INFINITY, list);
    }

    // Whether few blocks hold tokens that are likely at all, so that collecting them costs next to nothing.
    bool is_sure() {
        const float lowest = (largest() - kSureReach) / scale_;
        const auto is_near = [=](float maximum) { return maximum >= lowest; };
        return std::count_if(row_.maxima().begin(), row_.maxima().end(), is_near) < row_.num_blocks() / 8;
    }

    // How far keys reach that hold a good part more than p of all mass: from the blocks with the largest logits, and a
    // few of the others. An estimate, which saves work and decides nothing.
    template <class Key> float estimate_reach(double p, KeyOrigin origin, Key key) {
        constexpr int kNumBest = 16, kStride = 32;
        if (row_.num_blocks() < 4 * kNumBest)
            return INFINITY;
        ranks_ = row_.maxima();
        std::nth_element(ranks_.begin(), ranks_.begin() + kNumBest, ranks_.end(), std::greater<>());
        const float best = ranks_[kNumBest], most = largest();
        uint64_t masses[kSampleBlock], mass_of_bucket[kKeyBuckets] = {}, total = 0;
        float keys[kSampleBlock];
        int32_t buckets[kSampleBlock];
        for (int number = 0; number < row_.num_blocks(); number++) {
            const bool is_best = row_.maximum(number) > best;
            if (!is_best && number % kStride != 0)
                continue;
            const float *x = row_.block(number);
            for (int i = 0; i < kSampleBlock; i++)
                keys[i] = key(x[i] * scale_);
            scans_.buckets(keys, kSampleBlock, lowest_key(origin), buckets);
            scans_.masses(x, kSampleBlock, scale_, most, masses);
            for (int i = 0; i < kSampleBlock; i++) {
                const uint64_t mass = (masses[i] >> 8) * (is_best ? 1 : kStride);
                mass_of_bucket[buckets[i]] += mass;
                total += mass;
            }
        }
        const double wanted = (p + 0.3 * (1.0 - p)) * double(total);
        double sum = 0.0;
        for (int bucket = 0; bucket < kKeyBuckets - 1; bucket++) {
            sum += double(mass_of_bucket[bucket]);
            if (sum >= wanted)
                return float(bucket + 1) / kKeyBucketsPerUnit;
        }
        return INFINITY;
    }

    const SampleScans &scans_;
    SampleRow &row_;
    TokenCutter cut_;
    bool is_whole_ = true;
    float scale_ = 1.0f; // of the row's values
    int size_ = 0;       // tokens in play
    std::optional<float> largest_;
    TokenList list_, spare_;
    std::vector<uint64_t> masses_;
    std::vector<float> keys_, ranks_;
};

} // namespace quipu
