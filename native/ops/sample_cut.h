// Where to cut a list of tokens in the order of some key, without putting it in that order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/sample_row.h"

namespace quipu {

// The mass that is p of the whole.
inline uint64_t target_mass(double p, uint64_t total) {
    const double target = std::ceil(p * double(total));
    return target < double(total) ? uint64_t(target) : total;
}

template <class IsKept> void keep_if(TokenList &list, IsKept is_kept) {
    int kept = 0;
    for (int i = 0; i < list.count; i++) {
        const float value = list.values[size_t(i)];
        const int32_t id = list.ids[size_t(i)];
        list.values[size_t(kept)] = value;
        list.ids[size_t(kept)] = id;
        kept += is_kept(value, id) ? 1 : 0;
    }
    list.count = kept;
    list.pad();
}

// The last token that is kept: those with smaller keys are, and those with the same key and no larger id.
struct TokenCut {
    float key;
    int32_t id;
    bool is_found; // false: the list does not reach the mass, or the count; all of it is kept
};

class TokenCutter {
  public:
    explicit TokenCutter(const SampleScans &scans) : scans_(scans) {}

    void keep_largest(TokenList &list, int count) {
        if (list.count <= count)
            return;
        members_.clear();
        for (int i = 0; i < list.count; i++)
            members_.push_back({-list.values[size_t(i)], list.ids[size_t(i)], 0});
        std::nth_element(members_.begin(), members_.begin() + (count - 1), members_.end(), comes_before);
        const Member last = members_[size_t(count - 1)];
        keep_if(list, [&](float value, int32_t id) { return !comes_before(last, Member{-value, id, 0}); });
    }

    // The fewest tokens, in the order of keys and then of ids, whose masses reach the target; at least min_keep. Keys
    // are lowest_key or more, and padded to whole vectors.
    TokenCut find(const std::vector<float> &keys, const std::vector<int32_t> &ids, std::span<const uint64_t> masses,
                  float lowest_key, uint64_t target, int64_t min_keep) {
        const int count = int(masses.size());
        uint64_t mass_before = 0;
        int64_t num_before = 0;
        members_.clear();
        if (count <= kFew) {
            for (int i = 0; i < count; i++)
                members_.push_back({keys[size_t(i)], ids[size_t(i)], masses[size_t(i)]});
        } else {
            const int last = find_bucket(keys, masses, lowest_key, target, min_keep, mass_before, num_before);
            for (int i = 0; i < count; i++)
                if (buckets_[size_t(i)] == last)
                    members_.push_back({keys[size_t(i)], ids[size_t(i)], masses[size_t(i)]});
        }
        if (members_.empty())
            return {INFINITY, INT32_MAX, false};
        const uint64_t rest = target - std::min(target, mass_before);
        const int64_t least = std::max<int64_t>(min_keep - num_before, 1);
        uint64_t mass = 0;
        for (const Member &member : members_)
            mass += member.mass;
        if (mass < rest || int64_t(members_.size()) < least)
            return {INFINITY, INT32_MAX, false};
        const Member last = last_needed(rest, least);
        return {last.key, last.id, true};
    }

    void keep(TokenList &list, const std::vector<float> &keys, const TokenCut &cut) {
        const float *key = keys.data();
        keep_if(list, [&](float, int32_t id) {
            const float value = *key++;
            return (value < cut.key) | ((value == cut.key) & (id <= cut.id)); // no branch that nobody could predict
        });
    }

  private:
    static constexpr int kFew = 1024;

    struct Member {
        float key;
        int32_t id;
        uint64_t mass;
    };
    static bool comes_before(const Member &a, const Member &b) {
        return a.key < b.key || (a.key == b.key && a.id < b.id);
    }

    // The bucket of keys in which both goals are reached; the last one if none does.
    int find_bucket(const std::vector<float> &keys, std::span<const uint64_t> masses, float lowest_key, uint64_t target,
                    int64_t min_keep, uint64_t &mass_before, int64_t &num_before) {
        buckets_.resize(keys.size());
        scans_.buckets(keys.data(), int(keys.size()), lowest_key, buckets_.data());
        // Neighbours count into different tables, so that none waits for the one before.
        uint64_t mass[4][kKeyBuckets] = {};
        int32_t number[4][kKeyBuckets] = {};
        for (size_t i = 0; i < masses.size(); i++)
            mass[i % 4][buckets_[i]] += masses[i];
        if (min_keep > 1)
            for (size_t i = 0; i < masses.size(); i++)
                number[i % 4][buckets_[i]]++;
        for (int bucket = 0;; bucket++) {
            const uint64_t its_mass = mass[0][bucket] + mass[1][bucket] + mass[2][bucket] + mass[3][bucket];
            const int its_number = number[0][bucket] + number[1][bucket] + number[2][bucket] + number[3][bucket];
            // With nothing to count, a bucket without mass is as good as empty.
            const bool is_enough =
                mass_before + its_mass >= target &&
                (min_keep > 1 ? its_number > 0 && num_before + its_number >= min_keep : its_mass > 0);
            if (bucket == kKeyBuckets - 1 || is_enough)
                return bucket;
            mass_before += its_mass;
            num_before += its_number;
        }
    }

    // The last of the fewest members that hold a mass, and are `least` in number. Halves the range in question, each
    // time with one partition instead of a sort.
    Member last_needed(uint64_t target, int64_t least) {
        size_t low = 0, high = members_.size(); // the answer is in (low, high]; what is before low is in front
        uint64_t before = 0;
        while (high - low > 1) {
            const size_t middle = low + (high - low) / 2;
            std::nth_element(members_.begin() + int64_t(low), members_.begin() + int64_t(middle),
                             members_.begin() + int64_t(high), comes_before);
            uint64_t mass = 0;
            for (size_t i = low; i < middle; i++)
                mass += members_[i].mass;
            if (before + mass >= target && int64_t(middle) >= least) {
                high = middle;
            } else {
                before += mass;
                low = middle;
            }
        }
        return members_[high - 1];
    }

    const SampleScans &scans_;
    std::vector<Member> members_;
    std::vector<int32_t> buckets_;
};

} // namespace quipu
