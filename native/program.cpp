#include "program.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace quipu {

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
    for (int i = 0; i < team_->num_threads(); i++)
        workers_.push_back({i, allocate(kTileScratchBytes), reinterpret_cast<float *>(allocate(scratch * 4))});
    next_unit_ = std::make_unique<std::atomic<int>[]>(steps_.size());
    finished_units_ = std::make_unique<std::atomic<int>[]>(steps_.size());
    barrier_ = std::make_unique<Barrier>(team_->num_threads());
}

void Program::run(const RunArguments &run) {
    for (const auto &plan : plans_)
        plan->prepare(run);
    for (size_t i = 0; i < steps_.size(); i++) {
        next_unit_[i].store(0, std::memory_order_relaxed);
        finished_units_[i].store(0, std::memory_order_relaxed);
    }
    team_->run([&](int index) { work(index, run); });
}

Program::Stage Program::stage_from(size_t begin, const RunArguments &run) const {
    size_t end_shared = begin + 1;
    while (end_shared < steps_.size() && !steps_[end_shared]->waits)
        end_shared++;
    size_t end = end_shared;
    while (end < steps_.size() && steps_[end]->is_short(run))
        end++;
    return {begin, end_shared, end};
}

// Executes units until none is left. Returns whether this worker finished the last one of the stage, and so sees what
// all others have written.
bool Program::share(const Stage &stage, const Worker &worker, const RunArguments &run) {
    int total = 0, done = 0;
    for (size_t i = stage.begin; i < stage.end_shared; i++) {
        const Step &step = *steps_[i];
        const int units = step.num_units(run);
        total += units;
        const auto draw = [&] { return next_unit_[i].fetch_add(1, std::memory_order_relaxed); };
        for (int unit = draw(), next; unit < units; unit = next, done++) {
            next = draw();
            if (next < units)
                step.prefetch(next, run);
            step.execute(unit, run, worker);
        }
    }
    if (total == 0)
        return worker.index == 0;
    return done > 0 && finished_units_[stage.begin].fetch_add(done, std::memory_order_acq_rel) + done == total;
}

void Program::work(int index, const RunArguments &run) {
    const Worker &worker = workers_[index];
    for (size_t begin = 0; begin < steps_.size();) {
        const Stage stage = stage_from(begin, run);
        if (begin > 0) {
            steps_[begin]->prefetch(index, run);
            barrier_->arrive_and_wait();
        }
        if (share(stage, worker, run))
            for (size_t i = stage.end_shared; i < stage.end; i++)
                for (int unit = 0, units = steps_[i]->num_units(run); unit < units; unit++)
                    steps_[i]->execute(unit, run, worker);
        begin = stage.end;
    }
}

} // namespace quipu
