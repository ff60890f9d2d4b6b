#include "ops/sample.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/sample_choice.h"
#include "ops/sample_infill.h"
#include "ops/sample_play.h"
#include "ops/sample_random.h"
#include "ops/sample_repetition.h"
#include "ops/sample_row.h"
#include "ops/sample_scans.h"

namespace quipu {

namespace {

// The last `count` tokens; negative: all.
std::span<const int32_t> last_of(std::span<const int32_t> history, double count) {
    return count < 0 || double(history.size()) <= count ? history : history.last(size_t(count));
}

} // namespace

class RowSampler::Impl {
  public:
    explicit Impl(int vocab_size)
        : scans_(choose_sample_scans()), row_(scans_, vocab_size), model_row_(scans_, vocab_size), play_(scans_, row_),
          choice_(scans_, play_), repetition_(vocab_size) {}

    int vocab_size() const { return row_.vocab_size(); }

    SampleDrawn sample(const SampleDraw &draw, const float *logits) {
        SampleDrawn drawn;
        history_.assign(draw.history.begin(), draw.history.end());
        const int vocab_size = row_.vocab_size(), mask_words = (vocab_size + 31) / 32;
        for (size_t number = 0; number <= draw.drafts.size(); number++) {
            const float *x = logits + number * size_t(vocab_size);
            const int32_t *mask = draw.masks ? draw.masks + number * size_t(mask_words) : nullptr;
            const int id = sample_row(draw, x, mask, draw.position + int64_t(number));
            drawn.ids.push_back(id);
            if (id < 0)
                break;
            if (draw.num_logprobs >= 0)
                drawn.logprobs.push_back(draw.chain->post_sampling_probs ? choice_.logprobs(id, draw.num_logprobs)
                                                                         : model_logprobs(x, id, draw.num_logprobs));
            if (number == draw.drafts.size() || id != draw.drafts[number])
                break;
            history_.push_back(id);
        }
        return drawn;
    }

    Logprobs model_logprobs(const float *logits, int32_t id, int num_top) {
        if (!model_row_.start(logits))
            return {NAN, {}};
        SamplePlay play(scans_, model_row_);
        play.start();
        const float most = play.largest();
        const double log_sum = std::log(double(play.total_mass()) / kMassOfOne);
        const auto logprob = [=](float x) { return double(x - most) - log_sum; };
        Logprobs result{logprob(model_row_.at(id)), {}};
        if (num_top == 0 || most == -INFINITY)
            return result;
        TokenList best;
        play.gather_largest(std::min(num_top, vocab_size()), best);
        std::vector<int> places(size_t(best.count));
        std::iota(places.begin(), places.end(), 0);
        std::stable_sort(places.begin(), places.end(),
                         [&](int a, int b) { return best.values[size_t(a)] > best.values[size_t(b)]; });
        for (int place : places)
            result.top.emplace_back(best.ids[size_t(place)], logprob(best.values[size_t(place)]));
        return result;
    }

  private:
    int sample_row(const SampleDraw &draw, const float *logits, const int32_t *mask, int64_t position) {
        const SamplerChain &chain = *draw.chain;
        if (!row_.start(logits))
            return kNotANumber;
        if (mask != nullptr)
            row_.mask(mask);
        for (size_t i = 0; i < chain.bias_ids.size(); i++)
            row_.set(chain.bias_ids[i], limited(row_.at(chain.bias_ids[i]) + chain.bias_values[i]));
        if (position < chain.early_end)
            for (int32_t id : chain.early_forbidden)
                row_.set(id, -INFINITY);
        play_.start();
        const int32_t end_id = allowed_end(chain);
        for (const ChainStep &step : chain.steps) {
            if (play_.largest() == -INFINITY)
                return kNothingAllowed;
            if (chooses(step.kind))
                return choice_.choose(step, *draw.state, random_word(draw.seed, uint64_t(position)));
            apply(step, end_id, draw.seed, uint64_t(position));
        }
        return kNothingAllowed;
    }

    // The first end-of-generation token that is not forbidden, for infill; negative: there is none.
    int32_t allowed_end(const SamplerChain &chain) const {
        for (const ChainStep &step : chain.steps)
            if (step.pieces != nullptr)
                for (int32_t id : step.pieces->end_ids)
                    if (id < row_.vocab_size() && row_.at(id) != -INFINITY)
                        return id;
        return -1;
    }

    void apply(const ChainStep &step, int32_t end_id, uint64_t seed, uint64_t position) {
        const double *values = step.values;
        switch (step.kind) {
        case ChainStepKind::penalties:
            return repetition_.penalize(play_, last_of(history_, values[0]), float(values[1]), float(values[2]),
                                        float(values[3]));
        case ChainStepKind::dry:
            return repetition_.penalize_repetition(play_, last_of(history_, values[0]), step.breakers, values[1],
                                                   values[2], int64_t(values[3]));
        case ChainStepKind::top_n_sigma:
            return play_.keep_within_sigmas(values[0]);
        case ChainStepKind::top_k:
            return play_.keep_largest(int64_t(values[0]));
        case ChainStepKind::typical:
            return play_.keep_typical(values[0], int64_t(values[1]));
        case ChainStepKind::top_p:
            return play_.keep_nucleus(values[0], int64_t(values[1]));
        case ChainStepKind::min_p:
            return play_.keep_likely(values[0], int64_t(values[1]));
        case ChainStepKind::xtc:
            if (play_.size() >= 2 && random_fraction(seed, position, kXtcStream) < values[0])
                play_.exclude_top(values[1], int64_t(values[2]));
            return;
        case ChainStepKind::temperature:
            return play_.divide_by(values[0]);
        case ChainStepKind::dynamic_temperature:
            return play_.divide_by_entropy(values[0], values[1], values[2]);
        case ChainStepKind::infill:
            return infill_.apply(play_, *step.pieces, end_id);
        default:
            return;
        }
    }

    const SampleScans &scans_;
    SampleRow row_, model_row_;
    SamplePlay play_;
    SampleChoice choice_;
    RepetitionPenalties repetition_;
    Infill infill_;
    std::vector<int32_t> history_;
};

RowSampler::RowSampler(int vocab_size) : impl_(std::make_unique<Impl>(vocab_size)) {}
RowSampler::~RowSampler() = default;

int RowSampler::vocab_size() const {
    return impl_->vocab_size();
}
SampleDrawn RowSampler::sample(const SampleDraw &draw, const float *logits) {
    return impl_->sample(draw, logits);
}
Logprobs RowSampler::model_logprobs(const float *logits, int32_t id, int num_top) {
    return impl_->model_logprobs(logits, id, num_top);
}

std::unique_ptr<RowSampler> RowSamplerPool::take(int vocab_size) {
    {
        const std::lock_guard lock(mutex_);
        for (auto &sampler : idle_)
            if (sampler->vocab_size() == vocab_size) {
                std::swap(sampler, idle_.back());
                auto result = std::move(idle_.back());
                idle_.pop_back();
                return result;
            }
    }
    return std::make_unique<RowSampler>(vocab_size);
}

void RowSamplerPool::give_back(std::unique_ptr<RowSampler> sampler) {
    const std::lock_guard lock(mutex_);
    if (idle_.size() < kMostKept)
        idle_.push_back(std::move(sampler));
}

} // namespace quipu
