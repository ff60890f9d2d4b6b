// The steps that touch the KV cache, and the plan of which threads attend to what.
#include <algorithm>

#include "steps.h"

namespace quipu {

namespace {

constexpr int kChunkKeys = 256; // keys of a unit for up to kChunkQueries new tokens
constexpr int kChunkQueries = 16;

int sequence_of(const RunArguments &run, int token) {
    return static_cast<int>(std::upper_bound(run.query_starts, run.query_starts + run.num_sequences + 1, token) -
                            run.query_starts) -
           1;
}

class KvWrite final : public RowStep {
  public:
    KvWrite(const Kernels &kernels, ValueBuffer k, ValueBuffer v, int layer)
        : kernels_(kernels), k_(k), v_(v), layer_(layer) {}
    int num_units(const RunArguments &run) const override { return run.num_tokens; }
    void execute(int token, const RunArguments &run, const Worker &) const override {
        const KvLayer layer = run.kv->layer(layer_);
        const int position = run.positions[token];
        const int64_t page =
            run.page_tables[int64_t(sequence_of(run, token)) * run.table_width + position / layer.page_size];
        for (int head = 0; head < layer.num_kv_heads; head++)
            kernels_.kv_write(layer, k_.row(token) + head * layer.key_length, v_.row(token) + head * layer.value_length,
                              page, position % layer.page_size, head);
    }

  private:
    const Kernels &kernels_;
    ValueBuffer k_, v_;
    int layer_;
};

class Attention final : public Step {
  public:
    Attention(const Kernels &kernels, ValueBuffer q, int layer, const AttentionShape &shape,
              std::shared_ptr<AttentionPlan> plan, ValueBuffer out)
        : kernels_(kernels), q_(q), out_(out), layer_(layer), shape_(shape), plan_(std::move(plan)) {
        plan_->reserve(shape.num_kv_heads,
                       int64_t(shape.num_kv_heads) * shape.group_size * partial_row_floats(shape.value_length));
    }

    int num_units(const RunArguments &) const override {
        return static_cast<int>(plan_->units().size()) * shape_.num_kv_heads;
    }

    int64_t scratch_floats(int) const override { return attention_scratch_floats(shape_); }

    void execute(int index, const RunArguments &run, const Worker &worker) const override {
        const int head = index % shape_.num_kv_heads;
        const AttentionPlan::Unit &unit = plan_->units()[index / shape_.num_kv_heads];
        const KvLayer layer = run.kv->layer(layer_);
        const int64_t part_floats =
            int64_t(unit.num_queries) * shape_.group_size * partial_row_floats(shape_.value_length);
        // Parts of a query block lie chunk by chunk, in each chunk head by head.
        const int64_t stride = part_floats * shape_.num_kv_heads;
        float *scratch = worker.scratch, *first_part = scratch;
        if (unit.num_chunks == 1)
            scratch += part_floats;
        else
            first_part = plan_->partials(unit.partial_rows) + head * part_floats;
        kernels_.attention(shape_, layer,
                           {.q = q_.row(unit.first_token) + int64_t(head) * shape_.group_size * shape_.key_length,
                            .q_stride = q_.width,
                            .num_queries = unit.num_queries,
                            .first_position = unit.first_position,
                            .key_begin = unit.key_begin,
                            .key_end = unit.key_end,
                            .kv_head = head,
                            .page_table = run.page_tables + int64_t(unit.sequence) * run.table_width},
                           scratch, first_part + unit.chunk * stride);
        if (unit.num_chunks > 1) {
            // Whoever finishes last merges, in the order of the chunks.
            std::atomic<int> &finished = plan_->finished(unit.query_block, head);
            if (finished.fetch_add(1, std::memory_order_acq_rel) + 1 < unit.num_chunks)
                return;
            finished.store(0, std::memory_order_relaxed);
        }
        kernels_.merge_attention(shape_, head, first_part, unit.num_chunks, stride, unit.num_queries,
                                 out_.row(unit.first_token) + int64_t(head) * shape_.group_size * shape_.value_length,
                                 out_.width);
    }

  private:
    const Kernels &kernels_;
    ValueBuffer q_, out_;
    int layer_;
    AttentionShape shape_;
    std::shared_ptr<AttentionPlan> plan_;
};

} // namespace

void AttentionPlan::reserve(int num_kv_heads, int64_t floats_per_query) {
    max_kv_heads_ = std::max(max_kv_heads_, num_kv_heads);
    floats_per_query_ = std::max(floats_per_query_, floats_per_query);
}

void AttentionPlan::prepare(const RunArguments &run) {
    units_.clear();
    num_blocks_ = 0;
    partial_rows_ = 0;
    const int block_size = queries_per_unit(group_size_);
    for (int s = 0; s < run.num_sequences; s++) {
        const int begin = run.query_starts[s], num_new = run.query_starts[s + 1] - begin;
        const int chunk_size = kChunkKeys * ((num_new + kChunkQueries - 1) / kChunkQueries);
        // Later blocks see more keys: the longest come first, so that the tail of the step is short.
        for (int first = (num_new - 1) / block_size * block_size; first >= 0; first -= block_size)
            append_block(s, begin + first, std::min(block_size, num_new - first),
                         causal_ ? run.kv_lengths[s] - num_new + first : run.kv_lengths[s] - 1, chunk_size);
    }
    if (partial_rows_ > allocated_rows_) {
        // Not initialized: every part is written before it is read.
        partials_ = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(partial_rows_ * floats_per_query_));
        allocated_rows_ = partial_rows_;
    }
    if (num_blocks_ > counted_blocks_) {
        finished_ = std::make_unique<std::atomic<int>[]>(static_cast<size_t>(num_blocks_) * max_kv_heads_);
        counted_blocks_ = num_blocks_;
    }
}

void AttentionPlan::append_block(int sequence, int first_token, int num_queries, int first_position, int chunk_size) {
    const int end = causal_ ? first_position + num_queries : first_position + 1,
              begin = window_ ? std::max(0, first_position + 1 - window_) : 0;
    const int first_chunk = begin / chunk_size, num_chunks = (end - 1) / chunk_size + 1 - first_chunk;
    for (int c = 0; c < num_chunks; c++)
        units_.push_back({.sequence = sequence,
                          .first_token = first_token,
                          .num_queries = num_queries,
                          .first_position = first_position,
                          .key_begin = std::max(begin, (first_chunk + c) * chunk_size),
                          .key_end = std::min(end, (first_chunk + c + 1) * chunk_size),
                          .query_block = num_blocks_,
                          .chunk = c,
                          .num_chunks = num_chunks,
                          .partial_rows = partial_rows_});
    num_blocks_++;
    if (num_chunks > 1)
        partial_rows_ += int64_t(num_chunks) * num_queries;
}

std::unique_ptr<Step> make_kv_write(const Kernels &kernels, ValueBuffer k, ValueBuffer v, int layer) {
    return std::make_unique<KvWrite>(kernels, k, v, layer);
}

std::unique_ptr<Step> make_attention(const Kernels &kernels, ValueBuffer q, int layer, const AttentionShape &shape,
                                     std::shared_ptr<AttentionPlan> plan, ValueBuffer out) {
    return std::make_unique<Attention>(kernels, q, layer, shape, std::move(plan), out);
}

} // namespace quipu
