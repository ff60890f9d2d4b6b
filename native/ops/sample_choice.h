// The last step of a chain: a token, and the distribution it was drawn from.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/sample_chain.h"
#include "ops/sample_play.h"
#include "ops/sample_random.h"

namespace quipu {

class SampleChoice {
  public:
    SampleChoice(const SampleScans &scans, SamplePlay &play) : scans_(scans), play_(play) {}

    int choose(const ChainStep &step, SamplerState &state, uint64_t word) {
        total_ = 0;
        switch (step.kind) {
        case ChainStepKind::greedy:
            return play_.best();
        case ChainStepKind::adaptive_p:
            return draw_near(state, step.values[0], step.values[1], word);
        case ChainStepKind::mirostat:
            keep_for_surprise(state.values[0]);
            return draw_observed(state, step.values[0], step.values[1], word);
        case ChainStepKind::mirostat_v2:
            keep_unsurprising(state.values[0]);
            return draw_observed(state, step.values[0], step.values[1], word);
        default:
            return play_.is_whole() ? draw_from_row(word) : draw_from_list(word);
        }
    }

    // Of the token chosen last, and of the most likely ones that could have been.
    Logprobs logprobs(int32_t id, int num_top) {
        if (total_ == 0) // greedy: nothing else could have been
            return {0.0, num_top > 0 ? std::vector<std::pair<int32_t, double>>{{id, 0.0}}
                                     : std::vector<std::pair<int32_t, double>>{}};
        if (play_.is_whole()) {
            const float most = play_.largest();
            play_.gather_largest(std::max(num_top, 1), best_);
            play_.weigh(best_, most, masses_);
            Logprobs result = ranked(best_.ids, best_.values, masses_, num_top);
            result.logprob = log_part(mass_of(play_.row().at(id) * play_.scale() - most));
            return result;
        }
        const TokenList &list = play_.list();
        Logprobs result = ranked(list.ids, ranks_.empty() ? list.values : ranks_, masses_, num_top);
        const auto end = list.ids.begin() + list.count;
        result.logprob = log_part(masses_[size_t(std::lower_bound(list.ids.begin(), end, id) - list.ids.begin())]);
        return result;
    }

  private:
    static constexpr double kLn2 = 0.6931471805599453;

    // word / 2^64 of the total, rounded down.
    static uint64_t scaled(uint64_t word, uint64_t total) {
        return uint64_t(static_cast<unsigned __int128>(word) * total >> 64);
    }

    uint64_t mass_of(float distance) const {
        const float distances[8] = {distance,  -INFINITY, -INFINITY, -INFINITY,
                                    -INFINITY, -INFINITY, -INFINITY, -INFINITY};
        return scans_.mass(distances, 8, 1.0f, 0.0f);
    }

    double log_part(uint64_t mass) const { return std::log(double(mass) / double(total_)); }

    Logprobs ranked(const std::vector<int32_t> &ids, const std::vector<float> &ranks,
                    const std::vector<uint64_t> &masses, int num_top) const {
        std::vector<int> places;
        for (int i = 0; i < int(masses.size()); i++)
            if (masses[size_t(i)] > 0)
                places.push_back(i);
        const auto count = std::min(num_top, int(places.size()));
        std::partial_sort(places.begin(), places.begin() + count, places.end(), [&](int a, int b) {
            return ranks[size_t(a)] > ranks[size_t(b)] || (ranks[size_t(a)] == ranks[size_t(b)] && a < b);
        });
        Logprobs result{0.0, {}};
        for (int i = 0; i < count; i++)
            result.top.emplace_back(ids[size_t(places[size_t(i)])], log_part(masses[size_t(places[size_t(i)])]));
        return result;
    }

    // The first place at which the running sum of masses exceeds the target.
    static size_t place_of(std::span<const uint64_t> masses, uint64_t target) {
        size_t place = 0;
        for (; masses[place] <= target; place++)
            target -= masses[place];
        return place;
    }

    int draw_weighed(uint64_t word) {
        total_ = 0;
        for (uint64_t mass : masses_)
            total_ += mass;
        return play_.list().ids[place_of(masses_, scaled(word, total_))];
    }

    int draw_from_list(uint64_t word) {
        play_.weigh(play_.list(), play_.largest(), masses_);
        ranks_.clear();
        return draw_weighed(word);
    }

    int draw_from_row(uint64_t word) {
        const SampleRow &row = play_.row();
        const float most = play_.largest(), scale = play_.scale();
        masses_.assign(size_t(row.num_blocks()), 0); // of blocks
        for (int number = 0; number < row.num_blocks(); number++)
            if (row.maximum(number) * scale - most >= kLowestDistance)
                masses_[size_t(number)] = scans_.mass(row.block(number), kSampleBlock, scale, most);
        for (uint64_t mass : masses_)
            total_ += mass;
        uint64_t target = scaled(word, total_);
        const size_t number = place_of(masses_, target);
        for (size_t i = 0; i < number; i++)
            target -= masses_[i];
        uint64_t masses[kSampleBlock];
        scans_.masses(row.block(int(number)), kSampleBlock, scale, most, masses);
        return int(number) * kSampleBlock + int(place_of(masses, target));
    }

    // Adaptive-p: prefer tokens whose probability is near a target, which moves against the average of what was chosen.
    int draw_near(SamplerState &state, double target, double decay, uint64_t word) {
        play_.make_list();
        const TokenList &list = play_.list();
        play_.weigh(list, play_.largest(), original_);
        uint64_t sum = 0;
        for (uint64_t mass : original_)
            sum += mass;
        const double total = double(sum);
        const auto aim = float(std::min(std::max(2.0 * target - state.values[0] / state.values[1], 0.0), 1.0));
        ranks_.assign(size_t(list.padded_count()), -INFINITY);
        // Constants of its definition in llama.cpp (MIT), pull request 17927: width, peak and sharpness.
        const float inverse_width = 1.0f / 0.3f;
        for (int i = 0; i < list.count; i++)
            if (list.values[size_t(i)] != -INFINITY) {
                const float distance = std::abs((float(double(original_[size_t(i)]) / total) - aim) * inverse_width);
                ranks_[size_t(i)] = 5.0f - 10.0f * distance * distance / (1.0f + distance);
            }
        masses_.resize(ranks_.size());
        scans_.masses(ranks_.data(), int(ranks_.size()), 1.0f, scans_.largest(ranks_.data(), int(ranks_.size())),
                      masses_.data());
        masses_.resize(size_t(list.count));
        const int id = draw_weighed(word);
        const double chosen = double(original_[place_in_list(id)]) / total;
        state.values[0] = chosen + decay * state.values[0];
        state.values[1] = 1.0 + decay * state.values[1];
        return id;
    }

    // Mirostat (arXiv:2007.14966): top-k, with k from the slope of the likeliest tokens and the surprise aimed at.
    void keep_for_surprise(double mu) {
        constexpr int kMostTokens = 100;
        play_.gather_largest(kMostTokens, best_);
        best_.values.resize(size_t(best_.count));
        std::erase(best_.values, -INFINITY);
        std::sort(best_.values.begin(), best_.values.end(), std::greater<>());
        double products = 0.0, squares = 0.0;
        for (size_t i = 0; i + 1 < best_.values.size(); i++) {
            const double step = std::log(double(i + 2) / double(i + 1));
            products += step * (double(best_.values[i]) - double(best_.values[i + 1]));
            squares += step * step;
        }
        best_ = {};
        play_.keep_largest(std::max<int64_t>(count_for(products, squares, mu), 1));
    }

    // The number of tokens whose surprise is about mu, where probabilities fall by Zipf's law.
    int64_t count_for(double products, double squares, double mu) const {
        const int vocab_size = play_.row().vocab_size();
        const double slope = squares > 0.0 ? products / squares : 0.0, excess = slope - 1.0;
        if (slope <= 0.0)
            return vocab_size;
        const double whole = 1.0 - std::pow(double(vocab_size), -excess);
        if (whole == 0.0)
            return vocab_size;
        const double log_count = (std::log(excess / whole) + mu * kLn2) / slope;
        return log_count > 20.0 ? vocab_size : int64_t(std::exp(log_count));
    }

    // Mirostat 2.0: drop what is more surprising than mu.
    void keep_unsurprising(double mu) {
        const float most = play_.largest();
        const double lowest = std::log(double(play_.total_mass()) / kMassOfOne) - mu * kLn2;
        if (lowest > 0.0)
            return play_.keep_largest(1);
        // A coarse cut first: rounding makes the distance of a large logit uncertain.
        if (play_.is_whole())
            play_.keep_from(float(double(most) + lowest - (0.01 + 1e-6 * std::abs(double(most)))));
        play_.keep([=](float value, int32_t) { return double(value - most) >= lowest; });
    }

    // Draws, and moves mu by how far the surprise was from tau.
    int draw_observed(SamplerState &state, double tau, double eta, uint64_t word) {
        play_.make_list();
        const int id = draw_from_list(word);
        const double surprise = -std::log2(double(masses_[place_in_list(id)]) / double(total_));
        state.values[0] -= eta * (surprise - tau);
        return id;
    }

    size_t place_in_list(int id) const {
        const TokenList &list = play_.list();
        return size_t(std::lower_bound(list.ids.begin(), list.ids.begin() + list.count, id) - list.ids.begin());
    }

    const SampleScans &scans_;
    SamplePlay &play_;
    uint64_t total_ = 0; // of the masses drawn from; 0 after a greedy choice
    TokenList best_;
    std::vector<uint64_t> masses_, original_; // of the list; masses_ of the row's blocks when all are in play
    std::vector<float> ranks_;                // what masses_ were computed from, where it is not the list's logits
};

} // namespace quipu
