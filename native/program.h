// A recorded program, ready to replay: a list of steps over value buffers, executed by a team in one call.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"
#include "team.h"

namespace quipu {

// Memory with a fixed alignment, for buffers that vectors read. Pages stay unmapped until they are first written.
class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(int64_t num_bytes);
    uint8_t *data() const { return memory_.get(); }

  private:
    struct Free {
        void operator()(uint8_t *p) const;
    };
    std::unique_ptr<uint8_t[], Free> memory_;
};

// The memory of a paged KV cache: for each layer all K pages, then all V pages.
class KvCache {
  public:
    KvCache(int num_layers, const KvLayer &shape, int64_t num_pages);
    KvLayer layer(int index) const;
    int num_layers() const { return num_layers_; }
    int64_t num_pages() const { return num_pages_; }
    const KvLayer &shape() const { return shape_; }

  private:
    int num_layers_;
    KvLayer shape_;
    int64_t num_pages_, k_bytes_, v_bytes_; // bytes per layer
    AlignedBuffer memory_;
};

// The arguments of one run; see `Batch` in quipu.backends.program for shapes and meaning.
struct RunArguments {
    int num_tokens, num_sequences, num_outputs, table_width;
    const int32_t *token_ids, *positions, *query_starts, *kv_lengths, *page_tables, *output_rows;
    const int32_t *token_types; // or nullptr: all 0
    const KvCache *kv;
};

// A buffer of the program: [num_tokens or num_outputs][width] floats, rows one after another.
struct ValueBuffer {
    float *data = nullptr;
    int width = 0;
    bool per_output = false; // rows are outputs, not tokens

    int num_rows(const RunArguments &run) const { return per_output ? run.num_outputs : run.num_tokens; }
    float *row(int64_t r) const { return data + r * width; }
};

// What a step may use of the worker that executes it.
struct Worker {
    int index;
    uint8_t *tile_scratch; // kTileScratchBytes
    float *scratch;        // scratch_floats of the program
};

class Step {
  public:
    virtual ~Step() = default;
    // Independent units of work in this run; workers draw them dynamically.
    virtual int num_units(const RunArguments &run) const = 0;
    virtual void execute(int unit, const RunArguments &run, const Worker &worker) const = 0;
    // Floats of worker scratch it needs in runs of up to max_tokens.
    virtual int64_t scratch_floats(int /*max_tokens*/) const { return 0; }
    // Asks for the memory that a unit reads first, so that it is there when the unit is executed. A hint: it may do
    // nothing, and `unit` may be past the last one.
    virtual void prefetch(int /*unit*/, const RunArguments & /*run*/) const {}
    // Whether one thread does it sooner than all of them meet at a barrier.
    virtual bool is_short(const RunArguments & /*run*/) const { return false; }

    bool waits = true; // a barrier before this step: it reads what an earlier step since the last barrier wrote
};

// Up to so many tokens, going over their values takes no longer than a barrier of a few threads.
constexpr int kShortTokens = 2;

// A step that goes once over the values of each token.
class RowStep : public Step {
  public:
    bool is_short(const RunArguments &run) const final { return run.num_tokens <= kShortTokens; }
};

// What several steps derive from the arguments of a run, worked out once before it.
class RunPlan {
  public:
    virtual ~RunPlan() = default;
    virtual void prepare(const RunArguments &run) = 0;
};

// Replays steps in stages: consecutive steps without a barrier between them, whose units the workers draw together, and
// the short steps behind, which the worker that finishes the last unit executes alone. Between stages is a barrier.
class Program {
  public:
    Program(std::shared_ptr<Team> team, const Kernels &kernels, int max_tokens)
        : team_(std::move(team)), kernels_(kernels), max_tokens_(max_tokens) {}

    const Kernels &kernels() const { return kernels_; }
    int max_tokens() const { return max_tokens_; }
    int num_threads() const { return team_->num_threads(); }
    int num_steps() const { return static_cast<int>(steps_.size()); }

    // Reserves memory that lives as long as the program.
    uint8_t *allocate(int64_t num_bytes);
    void append(std::unique_ptr<Step> step, bool waits);
    void append_plan(std::shared_ptr<RunPlan> plan) { plans_.push_back(std::move(plan)); }
    // Allocates worker scratch; no step may be appended afterwards.
    void seal();
    void run(const RunArguments &run);

  private:
    // The steps [begin, end_shared) of a stage are shared by all workers, [end_shared, end) are short.
    struct Stage {
        size_t begin, end_shared, end;
    };
    Stage stage_from(size_t begin, const RunArguments &run) const;
    void work(int index, const RunArguments &run);
    bool share(const Stage &stage, const Worker &worker, const RunArguments &run);

    std::shared_ptr<Team> team_;
    const Kernels &kernels_;
    const int max_tokens_;
    std::vector<std::unique_ptr<Step>> steps_;
    std::vector<std::shared_ptr<RunPlan>> plans_;
    std::vector<AlignedBuffer> buffers_;
    std::vector<Worker> workers_;
    std::unique_ptr<std::atomic<int>[]> next_unit_;      // per step
    std::unique_ptr<std::atomic<int>[]> finished_units_; // per stage, at the index of its first step
    std::unique_ptr<Barrier> barrier_;
};

} // namespace quipu
