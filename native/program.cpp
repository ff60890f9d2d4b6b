#include "program.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>
#include <stdexcept>

namespace quipu {

namespace {

// The fields of the words that workers share.
constexpr uint64_t kMostRuns = (1u << 24) - 1, kMostSteps = (1u << 20) - 1, kMostUnits = (1u << 20) - 1;

} // namespace

void AlignedBuffer::Free::operator()(uint8_t *p) const {
    ::operator delete[](p, std::align_val_t{64});
}

AlignedBuffer::AlignedBuffer(int64_t num_bytes)
    : memory_(static_cast<uint8_t *>(::operator new[](static_cast<size_t>(num_bytes), std::align_val_t{64}))) {}

KvCache::KvCache(int num_layers, const KvLayer &shape, int64_t num_pages)
    : num_layers_(num_layers), shape_(shape), num_pages_(num_pages),
      k_bytes_(num_pages * shape.num_kv_heads * shape.k_head_bytes()),
      v_bytes_(num_pages * shape.num_kv_heads * shape.v_head_bytes()),
      memory_(num_layers * (k_bytes_ + v_bytes_) + 64) {}

KvLayer KvCache::layer(int index) const {
    KvLayer layer = shape_;
    layer.k = memory_.data() + index * (k_bytes_ + v_bytes_);
    layer.v = layer.k + k_bytes_;
    return layer;
}

void KvCache::read_page(int64_t page, uint8_t *to) const {
    for (int i = 0; i < num_layers_; i++) {
        const KvLayer from = layer(i);
        std::memcpy(to, from.k_page(page, 0), static_cast<size_t>(k_page_bytes()));
        std::memcpy(to + k_page_bytes(), from.v_page(page, 0), static_cast<size_t>(v_page_bytes()));
        to += k_page_bytes() + v_page_bytes();
    }
}

void KvCache::write_page(int64_t page, const uint8_t *from) {
    for (int i = 0; i < num_layers_; i++) {
        const KvLayer to = layer(i);
        std::memcpy(to.k_page(page, 0), from, static_cast<size_t>(k_page_bytes()));
        std::memcpy(to.v_page(page, 0), from + k_page_bytes(), static_cast<size_t>(v_page_bytes()));
        from += k_page_bytes() + v_page_bytes();
    }
}

void KvCache::copy_page(int64_t from, int64_t to) {
    for (int i = 0; i < num_layers_; i++) {
        const KvLayer memory = layer(i);
        std::memcpy(memory.k_page(to, 0), memory.k_page(from, 0), static_cast<size_t>(k_page_bytes()));
        std::memcpy(memory.v_page(to, 0), memory.v_page(from, 0), static_cast<size_t>(v_page_bytes()));
    }
}

uint8_t *Program::allocate(int64_t num_bytes) {
    // Kernels may read one vector past the last value.
    buffers_.emplace_back(num_bytes + 64);
    return buffers_.back().data();
}

void Program::append(std::unique_ptr<Step> step, bool waits) {
    step->waits = waits;
    steps_.push_back(std::move(step));
}

void Program::seal() {
    int64_t scratch = 0;
    for (const auto &step : steps_)
        scratch = std::max(scratch, step->scratch_floats(max_tokens_));
    seats_ = std::vector<Seat>(team_->num_threads());
    for (int i = 0; i < team_->num_threads(); i++)
        seats_[i].worker = {i, allocate(kTileScratchBytes), reinterpret_cast<float *>(allocate(scratch * 4))};
    if (steps_.size() > kMostSteps)
        throw std::length_error("a program has too many steps");
    draws_ = std::make_unique<std::atomic<uint64_t>[]>(steps_.size());
    left_units_ = std::make_unique<std::atomic<int>[]>(steps_.size());
    stage_.store(pack(Stage{0, num_steps(), num_steps()}), std::memory_order_relaxed);
}

uint64_t Program::pack(const Stage &stage) {
    return stage.run << 40 | uint64_t(stage.begin) << 20 | uint64_t(stage.end_shared);
}

Program::Stage Program::unpack_stage(uint64_t word) {
    return {word >> 40, static_cast<int>(word >> 20 & kMostSteps), static_cast<int>(word & kMostSteps)};
}

uint64_t Program::pack(const Draws &draws) {
    return draws.run << 40 | uint64_t(draws.total) << 20 | uint64_t(draws.drawn);
}

Program::Draws Program::unpack_draws(uint64_t word) {
    return {word >> 40, static_cast<int>(word >> 20 & kMostUnits), static_cast<int>(word & kMostUnits)};
}

void Program::run(const RunArguments &run, int num_active) {
    for (const auto &plan : plans_)
        plan->prepare(run);
    arguments_ = run;
    run_ = (run_ + 1) & kMostRuns;
    num_active = std::clamp(num_active, 1, team_->num_threads());
    num_active_.store(num_active, std::memory_order_relaxed);
    const int64_t now = nanoseconds_now();
    const auto is_working = [now](const Seat &seat) { return !seat.core.is_resting(now); };
    num_working_.store(static_cast<int>(std::count_if(seats_.begin(), seats_.begin() + num_active, is_working)),
                       std::memory_order_relaxed);
    open(0, seats_[0].worker);
    team_->start(*this, num_active);
    work(0);
}

// Behind the short steps that begin at `end_shared`.
int Program::end_of_stage(int end_shared, const RunArguments &run) const {
    int end = end_shared;
    while (end < num_steps() && steps_[end]->is_short(run))
        end++;
    return end;
}

// Makes the units of the stage that begins there available, or of the first one behind it that has any. Called by one
// worker at a time, while no unit is left.
void Program::open(int begin, const Worker &worker) {
    Stage stage{run_, begin, begin};
    int total = 0;
    while (stage.begin < num_steps() && total == 0) {
        stage.end_shared = stage.begin;
        do {
            const int units = steps_[stage.end_shared]->num_units(arguments_);
            assert(units >= 0 && uint64_t(units) <= kMostUnits);
            draws_[stage.end_shared].store(pack(Draws{run_, units, 0}), std::memory_order_relaxed);
            total += units;
            stage.end_shared++;
        } while (stage.end_shared < num_steps() && !steps_[stage.end_shared]->waits);
        if (total > 0) {
            left_units_[stage.begin].store(total, std::memory_order_relaxed);
        } else {
            const int end = end_of_stage(stage.end_shared, arguments_);
            execute_short(stage.end_shared, end, worker);
            stage.begin = stage.end_shared = end;
        }
    }
    stage_.store(pack(stage), std::memory_order_release);
    phase_.fetch_add(1, std::memory_order_release);
    phase_.notify_all(); // free of a system call unless somebody sleeps
}

// The next unit of a step, or -1 when none is left or the run is over.
int Program::draw(int step, uint64_t run) {
    std::atomic<uint64_t> &word = draws_[step];
    uint64_t seen = word.load(std::memory_order_relaxed);
    for (;;) {
        const Draws draws = unpack_draws(seen);
        if (draws.run != run || draws.drawn == draws.total)
            return -1;
        if (word.compare_exchange_weak(seen, seen + 1, std::memory_order_relaxed))
            return draws.drawn;
    }
}

// Executes units until none is left. Returns whether this worker finished the last one of the stage, and so sees what
// all others have written.
bool Program::share(const Stage &stage, Seat &seat) {
    int done = 0;
    seat.has_run = false;
    for (int i = stage.begin; i < stage.end_shared; i++) {
        const Step &step = *steps_[i];
        int unit = draw(i, stage.run);
        if (unit >= 0 && done == 0) {
            seat.run = arguments_; // the run cannot end, nor these change, before the unit is done
            seat.has_run = true;
        }
        for (int next; unit >= 0; unit = next, done++) {
            next = draw(i, stage.run);
            if (next >= 0)
                step.prefetch(next, seat.run);
            step.execute(unit, seat.run, seat.worker);
            if (seat.core.unit_done(num_working_.load(std::memory_order_relaxed)))
                seat.should_rest = true;
        }
    }
    const bool is_last = done > 0 && left_units_[stage.begin].fetch_sub(done, std::memory_order_acq_rel) == done;
    if (is_last)
        seat.core.was_last();
    return is_last;
}

void Program::execute_short(int begin, int end, const Worker &worker) {
    for (int i = begin; i < end; i++)
        for (int unit = 0, units = steps_[i]->num_units(arguments_); unit < units; unit++)
            steps_[i]->execute(unit, arguments_, worker);
}

void Program::work(int index) {
    Seat &seat = seats_[index];
    if (seat.core.is_resting(nanoseconds_now()))
        return;
    seat.core.begin();
    for (seat.should_rest = false; !seat.should_rest || !may_rest(seat);) {
        const uint32_t phase = phase_.load(std::memory_order_acquire);
        const Stage stage = unpack_stage(stage_.load(std::memory_order_acquire));
        if (stage.begin == num_steps() || index >= num_active_.load(std::memory_order_relaxed))
            return;
        if (share(stage, seat)) {
            const int end = end_of_stage(stage.end_shared, arguments_);
            execute_short(stage.end_shared, end, seat.worker);
            open(end, seat.worker);
        } else {
            wait_for_stage(phase, stage, seat);
        }
    }
    seat.core.rest();
}

// The caller never rests, so that there is progress; of the others one at a time, so that it shows whether that is
// enough.
bool Program::may_rest(Seat &seat) {
    seat.should_rest = false;
    int64_t last = last_rest_ns_.load(std::memory_order_relaxed);
    const int64_t now = nanoseconds_now();
    return seat.worker.index > 0 && now - last >= CoreShare::kWindowNs &&
           last_rest_ns_.compare_exchange_strong(last, now, std::memory_order_relaxed);
}

void Program::wait_for_stage(uint32_t phase, const Stage &stage, Seat &seat) {
    if (seat.has_run) { // it knows the arguments
        const int next = end_of_stage(stage.end_shared, seat.run);
        if (next < num_steps())
            steps_[next]->prefetch(seat.worker.index, seat.run);
    }
    Waiter waiter(team_->owns_cores());
    while (phase_.load(std::memory_order_acquire) == phase)
        if (waiter.pause())
            phase_.wait(phase, std::memory_order_acquire);
    if (waiter.has_rested())
        seat.core.begin();
}

} // namespace quipu
