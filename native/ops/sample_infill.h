// llama.cpp's sampler for the middle of a text: be certain, or end. Defined in quipu/engine/sampling_reference.py.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

#include "ops/sample_chain.h"
#include "ops/sample_play.h"

namespace quipu {

class Infill {
  public:
    // `end_id`: the end-of-generation token to take where nothing else is left; negative: there is none.
    void apply(SamplePlay &play, const TokenPieces &texts, int32_t end_id) {
        constexpr int kMostTokens = 256; // among which beginnings are compared
        play.keep_largest(kMostTokens);
        play.make_list();
        rank(play, texts);
        int64_t end_mass = 0, text_mass = 0;
        for (const Token &token : tokens_)
            (token.is_end ? end_mass : text_mass) += token.mass;
        if (3 * end_mass * int64_t(tokens_.size()) > text_mass) {
            for (Token &token : tokens_)
                token.is_kept = token.is_end;
            return keep(play);
        }
        combine_beginnings();
        const int64_t num_texts = keep_likely(5);
        if (num_texts == 0) {
            const int32_t only = end_id >= 0 ? end_id : tokens_[0].id;
            return play.keep_only(only, end_id >= 0 ? 0.0f : tokens_[0].value);
        }
        keep_likely(num_texts + 1);
        keep(play);
    }

  private:
    struct Token {
        float value;
        int32_t id;
        int64_t mass;
        std::string_view text;
        bool is_end, is_kept, is_gone;
    };

    // All that has a mass, the likeliest first.
    void rank(SamplePlay &play, const TokenPieces &texts) {
        const TokenList &list = play.list();
        play.weigh(list, play.largest(), masses_);
        tokens_.clear();
        for (int i = 0; i < list.count; i++) {
            const int32_t id = list.ids[size_t(i)];
            const bool is_end = std::binary_search(texts.end_ids.begin(), texts.end_ids.end(), id);
            if (masses_[size_t(i)] > 0)
                tokens_.push_back({list.values[size_t(i)], id, int64_t(masses_[size_t(i)]),
                                   is_end ? std::string_view() : texts.piece(id), is_end, true, false});
        }
        std::stable_sort(tokens_.begin(), tokens_.end(),
                         [](const Token &a, const Token &b) { return a.value > b.value; });
    }

    // Adds the masses of tokens that begin another's text, or go on from it, to the likelier of the two.
    void combine_beginnings() {
        for (Token &first : tokens_)
            for (Token &second : tokens_) {
                if (first.is_gone)
                    break;
                if (&first == &second || second.is_gone || first.text.empty() || !second.text.starts_with(first.text))
                    continue;
                Token &to = second.mass > first.mass ? second : first,
                      &source = second.mass > first.mass ? first : second;
                to.mass += source.mass;
                source.mass = 0;
                source.is_gone = true;
            }
    }

    // Drops tokens with less than one part in `parts` of the mass that is kept. Returns how many are left that are no
    // ends.
    int64_t keep_likely(int64_t parts) {
        int64_t total = 0, num_texts = 0;
        for (const Token &token : tokens_)
            total += token.is_kept ? token.mass : 0;
        for (Token &token : tokens_) {
            token.is_kept &= token.is_end || parts * token.mass >= total;
            num_texts += token.is_kept && !token.is_end;
        }
        return num_texts;
    }

    void keep(SamplePlay &play) {
        ids_.clear();
        for (const Token &token : tokens_)
            if (token.is_kept)
                ids_.push_back(token.id);
        std::sort(ids_.begin(), ids_.end());
        play.keep([&](float, int32_t id) { return std::binary_search(ids_.begin(), ids_.end(), id); });
    }

    std::vector<Token> tokens_;
    std::vector<int32_t> ids_;
    std::vector<uint64_t> masses_;
};

} // namespace quipu
