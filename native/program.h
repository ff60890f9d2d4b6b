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

    // A page as bytes: for each layer the keys of all heads, then the values, as they lie.
    int64_t page_bytes() const { return num_layers_ * (k_page_bytes() + v_page_bytes()); }
    void read_page(int64_t page, uint8_t *to) const;
    void write_page(int64_t page, const uint8_t *from);
    void copy_page(int64_t from, int64_t to);

  private:
    int64_t k_page_bytes() const { return shape_.num_kv_heads * shape_.k_head_bytes(); }
    int64_t v_page_bytes() const { return shape_.num_kv_heads * shape_.v_head_bytes(); }

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
// the short steps behind, which the worker that finishes the last unit executes alone. Then it opens the next stage.
//
// A stage waits for its units, not for the workers. A worker that the system has put aside between two units delays
// nobody; when it comes back it goes on with the stage that is open then, if need be in a later run. So what workers
// look at while they hold no unit is atomic and bears the number of its run.
class Program final : public Task {
  public:
    Program(std::shared_ptr<Team> team, const Kernels &kernels, int max_tokens)
        : team_(std::move(team)), kernels_(kernels), max_tokens_(max_tokens) {}
    ~Program() override { team_->retire(*this); }

    Program(const Program &) = delete;
    Program &operator=(const Program &) = delete;

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
    // Executes the steps with the first num_active workers of the team, or all where it has fewer.
    void run(const RunArguments &run, int num_active);

    void work(int index) override;

  private:
    // The steps [begin, end_shared) of a stage are shared by all workers, [end_shared, end) are short.
    struct Stage {
        uint64_t run;
        int begin, end_shared;
    };
    // Units of a step that were drawn, of how many, in which run; in one word, so that none is drawn twice or late.
    struct Draws {
        uint64_t run;
        int total, drawn;
    };
    // What a worker keeps; on cache lines of its own.
    struct alignas(64) Seat {
        Worker worker;
        CoreShare core;
        RunArguments run; // a copy, made while a unit is held
        bool has_run = false, should_rest = false;
    };

    static uint64_t pack(const Stage &stage);
    static Stage unpack_stage(uint64_t word);
    static uint64_t pack(const Draws &draws);
    static Draws unpack_draws(uint64_t word);

    int end_of_stage(int end_shared, const RunArguments &run) const;
    void open(int begin, const Worker &worker);
    int draw(int step, uint64_t run);
    bool share(const Stage &stage, Seat &seat);
    bool may_rest(Seat &seat);
    void execute_short(int begin, int end, const Worker &worker);
    void wait_for_stage(uint32_t phase, const Stage &stage, Seat &seat);

    std::shared_ptr<Team> team_;
    const Kernels &kernels_;
    const int max_tokens_;
    std::vector<std::unique_ptr<Step>> steps_;
    std::vector<std::shared_ptr<RunPlan>> plans_;
    std::vector<AlignedBuffer> buffers_;
    std::vector<Seat> seats_;
    std::unique_ptr<std::atomic<uint64_t>[]> draws_; // per step
    std::unique_ptr<std::atomic<int>[]> left_units_; // not done, per stage, at the index of its first step
    RunArguments arguments_{};
    uint64_t run_ = 0;
    std::atomic<int> num_active_{0}, num_working_{0}; // workers of the run in progress; without those that rest
    std::atomic<int64_t> last_rest_ns_{0};            // when one of them began to rest
    alignas(64) std::atomic<uint64_t> stage_{0};      // the open one; it begins at num_steps when the run is done
    std::atomic<uint32_t> phase_{0};                  // grows with every stage that is opened
};

} // namespace quipu
