// Penalties on what was said before. Defined in quipu/engine/sampling_repetition.py.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/sample_chain.h"
#include "ops/sample_play.h"

namespace quipu {

class RepetitionPenalties {
  public:
    explicit RepetitionPenalties(int vocab_size) : numbers_(size_t(vocab_size), kUnseen) {}

    // Repeat (arXiv:1909.05858), frequency and presence penalties.
    void penalize(SamplePlay &play, std::span<const int32_t> history, float repeat, float frequency, float presence) {
        for (int32_t id : history)
            note(id, numbers_[size_t(id)] == kUnseen ? 1 : numbers_[size_t(id)] + 1);
        for_each_seen([&](int32_t id, int32_t count) {
            const float penalty = float(count) * frequency + presence;
            play.change(id, [&](float x) { return (x <= 0 ? x * repeat : x / repeat) - penalty; });
        });
    }

    // DRY: tokens that would prolong a repetition.
    void penalize_repetition(SamplePlay &play, std::span<const int32_t> history, const SequenceBreakers &breakers,
                             double multiplier, double base, int64_t allowed_length) {
        const auto count = int64_t(history.size());
        if (count <= allowed_length)
            return;
        const int64_t limit = repetition_limit(history, breakers);
        if (limit < allowed_length)
            return;
        find_repeated(history);
        for (int64_t back = 1; back < count; back++) { // the token that stands `back` places from the end
            const auto length = int32_t(std::min<int64_t>(repeated_[size_t(back)], limit));
            const int32_t id = history[size_t(count - back)];
            note(id, std::max(numbers_[size_t(id)], length));
        }
        const double largest_power = base > 1.000001 ? std::floor(88.7228391 / std::log(base)) : 0.0;
        for_each_seen([&](int32_t id, int32_t length) {
            if (length < allowed_length || is_breaker(id, breakers))
                return;
            const double power = double(length - allowed_length),
                         within = largest_power > 0.0 ? std::min(power, largest_power) : power;
            const auto penalty = float(std::min(multiplier * std::pow(base, within), double(kLargestLogit)));
            play.change(id, [&](float x) { return x - penalty; });
        });
    }

  private:
    static constexpr int32_t kUnseen = -1;

    void note(int32_t id, int32_t number) {
        if (numbers_[size_t(id)] == kUnseen)
            seen_.push_back(id);
        numbers_[size_t(id)] = number;
    }

    // Runs body(id, number) for every token noted, and forgets them.
    template <class Body> void for_each_seen(Body body) {
        for (int32_t id : seen_)
            body(id, std::exchange(numbers_[size_t(id)], kUnseen));
        seen_.clear();
    }

    // How many tokens follow the last complete sequence breaker; all, if there is none.
    static int64_t repetition_limit(std::span<const int32_t> history, const SequenceBreakers &breakers) {
        const auto count = int64_t(history.size());
        for (int64_t after = 0; after < count && !breakers.empty(); after++) {
            const auto *place = history.data() + (count - 1 - after);
            const auto found = breakers.find(*place);
            if (found == breakers.end())
                continue;
            int64_t longest = -1;
            for (const std::vector<int32_t> &tail : found->second)
                if (int64_t(tail.size()) <= after && std::equal(tail.begin(), tail.end(), place + 1))
                    longest = std::max(longest, int64_t(tail.size()));
            if (longest >= 0)
                return after - longest;
        }
        return count;
    }

    static bool is_breaker(int32_t id, const SequenceBreakers &breakers) {
        const auto found = breakers.find(id);
        return found != breakers.end() && std::any_of(found->second.begin(), found->second.end(),
                                                      [](const std::vector<int32_t> &tail) { return tail.empty(); });
    }

    // repeated_[k]: how many of the last tokens are found again k places earlier. The Z function of the reversed text,
    // in linear time: within a match already known, the answer is known from its copy.
    void find_repeated(std::span<const int32_t> history) {
        const auto count = int64_t(history.size());
        const auto from_end = [&](int64_t i) { return history[size_t(count - 1 - i)]; };
        repeated_.assign(size_t(count), 0);
        int64_t begin = 0, end = 0; // the match that reaches furthest
        for (int64_t k = 1; k < count; k++) {
            int64_t length = k < end ? std::min<int64_t>(end - k, repeated_[size_t(k - begin)]) : 0;
            while (k + length < count && from_end(length) == from_end(k + length))
                length++;
            repeated_[size_t(k)] = int32_t(length);
            if (k + length > end) {
                begin = k;
                end = k + length;
            }
        }
    }

    std::vector<int32_t> numbers_; // by token
    std::vector<int32_t> seen_;
    std::vector<int32_t> repeated_;
};

} // namespace quipu
