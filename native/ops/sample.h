// Sampling: tokens for rows of logits, by the chains of requests. Logits are not changed.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "ops/sample_chain.h"

namespace quipu {

// What is to be chosen for one sequence; see Draw in quipu/engine/sampler.py.
struct SampleDraw {
    const SamplerChain *chain;
    SamplerState *state;
    std::span<const int32_t> history;
    uint64_t seed;
    int64_t position;
    std::span<const int32_t> drafts;
    const int32_t *masks; // [drafts + 1, ceil(vocab / 32)], or nullptr
    int num_logprobs;     // negative: none
};

struct SampleDrawn {
    std::vector<int32_t> ids;
    std::vector<Logprobs> logprobs;
};

// Samples one row after another; keeps its buffers between rows.
class RowSampler {
  public:
    explicit RowSampler(int vocab_size);
    ~RowSampler();

    int vocab_size() const;
    // The tokens for logits [drafts + 1, vocab_size]; the state advances with each.
    SampleDrawn sample(const SampleDraw &draw, const float *logits);
    // The model's own log probability of a token, for finite logits [vocab_size], and of the num_top most likely ones.
    Logprobs model_logprobs(const float *logits, int32_t id, int num_top);

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

// Row samplers that nobody uses at the moment. Their buffers are as large as a row; new ones would cost page faults.
class RowSamplerPool {
  public:
    std::unique_ptr<RowSampler> take(int vocab_size);
    void give_back(std::unique_ptr<RowSampler> sampler);

  private:
    static constexpr size_t kMostKept = 4;
    std::mutex mutex_;
    std::vector<std::unique_ptr<RowSampler>> idle_;
};

} // namespace quipu
