// A persistent team of threads that works on one task at a time. The caller takes part as worker 0.
//
// Nobody waits for all workers: a task is done when its work is done, and a worker that the system has put aside finds
// out later what the others did without it. So a task must bear to be visited late, see Task.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "processor.h"

namespace quipu {

inline int64_t nanoseconds_now() {
    return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

// Where a waiting thread is: it spins for a moment, then yields, then sleeps in the kernel. Never a pure spin. Where
// cores are shared with others, or their time is rationed, it sleeps almost at once: time spent spinning is taken from
// those it waits for, or from its own turn later.
class Waiter {
  public:
    explicit Waiter(bool owns_cores) : spin_ns_(owns_cores ? 40'000 : 2'000), yield_ns_(owns_cores ? 100'000 : 0) {}

    // Whether other threads may have had the core meanwhile.
    bool has_rested() const { return has_rested_; }

    // One more look was in vain. Returns true when it is time to sleep.
    bool pause() {
        if (++looks_ % kLooksPerClock != 0) {
            relax();
            return false;
        }
        const int64_t now = nanoseconds_now();
        if (begin_ns_ == 0)
            begin_ns_ = now;
        const int64_t waited_ns = now - begin_ns_;
        has_rested_ = waited_ns >= spin_ns_;
        if (waited_ns >= spin_ns_ + yield_ns_) {
            looks_ = -1; // woken in vain, it looks once and sleeps again
            return true;
        }
        if (waited_ns >= spin_ns_) {
            looks_ = -1; // every look yields
            std::this_thread::yield();
        }
        return false;
    }

  private:
    static constexpr int kLooksPerClock = 16; // reading the clock takes as long as several looks

    static void relax() {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("isb"); // "yield" is a no-op on most cores
#endif
    }

    int64_t spin_ns_, yield_ns_, begin_ns_ = 0;
    int looks_ = 0;
    bool has_rested_ = false;
};

// Notices that a worker often stands still in the middle of a unit, because others use its core, while all wait for
// that unit, and says when it should rest for a while. With n workers of which one holds up the others for a share f of
// the time, the work of n (1 - f) is done; without that one, the work of n - 1. In long stages others draw what it
// leaves, and hardly wait.
class CoreShare {
  public:
    // The worker begins to work, or has waited for long. What the thread did before does not count.
    void begin() {
        last_ns_ = nanoseconds_now();
        idle_ns_ = last_ns_ - thread_nanoseconds();
    }

    // A unit is done; num_workers take part. Returns whether this worker should rest.
    bool unit_done(int num_workers) {
        const int64_t now = nanoseconds_now(), unit_ns = now - last_ns_;
        last_ns_ = now;
        stood_still_ns_[1] = std::exchange(stood_still_ns_[0], 0);
        window_ns_ += unit_ns;
        if (unit_ns > kLongUnitNs) {
            const int64_t lost_ns = now - thread_nanoseconds() - idle_ns_;
            idle_ns_ += lost_ns;
            // Waiting for a page of the file is no fault of others.
            stood_still_ns_[0] = lost_ns > kLongUnitNs && was_switched() ? lost_ns : 0;
        }
        if (window_ns_ < kWindowNs)
            return false;
        // A little earlier than the formula says: the memory gives n - 1 workers more than their part.
        const bool hinders = lost_ns_ * num_workers * 4 > window_ns_ * 3;
        window_ns_ = lost_ns_ = 0;
        if (!hinders)
            rest_ns_ = kLeastRestNs;
        return hinders;
    }

    // The last unit of a stage was this worker's: the others have waited for it and for the one that it drew with it.
    void was_last() {
        lost_ns_ += stood_still_ns_[0] + stood_still_ns_[1];
        stood_still_ns_[0] = stood_still_ns_[1] = 0;
    }

    // Begins a rest; each that follows at once is twice as long.
    void rest() {
        rest_until_ns_ = nanoseconds_now() + rest_ns_;
        rest_ns_ = std::min(2 * rest_ns_, kMostRestNs);
    }

    bool is_resting(int64_t now) const { return now < rest_until_ns_.load(std::memory_order_relaxed); }

    static constexpr int64_t kWindowNs = 24'000'000; // several turns of the system's scheduler

  private:
    // Asking for the thread's time is a system call; units that are short cannot have stood still for long.
    static constexpr int64_t kLongUnitNs = 300'000, kLeastRestNs = 100'000'000, kMostRestNs = 1'600'000'000;

    bool was_switched() {
        const int64_t before = switches_;
        switches_ = involuntary_switches();
        return switches_ != before;
    }

    int64_t last_ns_ = 0, switches_ = 0;
    int64_t idle_ns_ = 0;                 // the clock less the thread's own time, when last looked at
    int64_t stood_still_ns_[2] = {};      // in the last unit and the one before
    int64_t window_ns_ = 0, lost_ns_ = 0; // of the observation in progress; the time that others waited
    int64_t rest_ns_ = kLeastRestNs;      // of the next rest
    std::atomic<int64_t> rest_until_ns_{0};
};

// What a team works on. `work` is called with distinct indices at the same time, and may be called, or still be
// running, after the task is done: then it must find nothing to do and return.
class Task {
  public:
    virtual ~Task() = default;
    virtual void work(int index) = 0;
};

class Team {
  public:
    // owns_cores: whether each thread has a core and all of its time; otherwise threads that wait sleep at once.
    explicit Team(int num_threads, bool owns_cores)
        : num_threads_(num_threads), owns_cores_(owns_cores), visited_(num_threads) {
        threads_.reserve(num_threads - 1);
        for (int index = 1; index < num_threads; index++)
            threads_.emplace_back([this, index] { serve(index); });
    }
    explicit Team(int num_threads) : Team(num_threads, num_threads <= usable_processors()) {}

    ~Team() {
        stopping_ = true;
        open_gates(num_threads_);
        for (std::thread &thread : threads_)
            thread.join();
    }

    Team(const Team &) = delete;
    Team &operator=(const Team &) = delete;

    int num_threads() const { return num_threads_; }
    bool owns_cores() const { return owns_cores_; }

    // Has the workers 1 ... num_active - 1 visit the task. Until `retire`, the task must live.
    void start(Task &task, int num_active) {
        num_active_.store(num_active, std::memory_order_relaxed);
        task_.store(&task);
        open_gates(num_active);
    }

    // Returns when no worker is in the task nor will be.
    void retire(Task &task) {
        Task *current = &task;
        task_.compare_exchange_strong(current, nullptr);
        for (Visit &visit : visited_)
            while (visit.task.load() == &task)
                std::this_thread::yield();
    }

    // Runs job(worker index) once for each of num_active workers and returns when all are done. The job must not throw.
    void run(const std::function<void(int)> &job, int num_active) {
        Job task(job, num_active);
        start(task, num_active);
        task.work(0);
        Waiter waiter(owns_cores_);
        for (int left; (left = task.left.load(std::memory_order_acquire)) != 0;)
            if (waiter.pause())
                task.left.wait(left, std::memory_order_acquire);
        retire(task);
    }
    void run(const std::function<void(int)> &job) { run(job, num_threads_); }

  private:
    struct Job final : Task {
        Job(const std::function<void(int)> &f, int count) : function(f), left(count), begun(count) {}
        void work(int index) override {
            if (begun[index].exchange(true, std::memory_order_relaxed))
                return;
            function(index);
            if (left.fetch_sub(1, std::memory_order_acq_rel) == 1)
                left.notify_all();
        }
        const std::function<void(int)> &function;
        std::atomic<int> left;
        std::vector<std::atomic<bool>> begun;
    };

    // Workers sleep at gates of 1, 2, 4 ... of them, so that a task for a few leaves the others asleep.
    struct alignas(64) Gate {
        std::atomic<uint32_t> epoch{0};
    };
    struct alignas(64) Visit {
        std::atomic<Task *> task{nullptr};
    };
    static int gate_of(int index) { return std::bit_width(static_cast<unsigned>(index)) - 1; }

    void open_gates(int num_active) {
        for (int gate = 0; num_active > 1 && gate <= gate_of(num_active - 1); gate++) {
            gates_[gate].epoch.fetch_add(1, std::memory_order_release);
            gates_[gate].epoch.notify_all(); // free of a system call unless somebody sleeps
        }
    }

    void serve(int index) {
        std::atomic<uint32_t> &epoch = gates_[gate_of(index)].epoch;
        for (uint32_t seen = 0;;) {
            Waiter waiter(owns_cores_);
            while (epoch.load(std::memory_order_acquire) == seen)
                if (waiter.pause())
                    epoch.wait(seen, std::memory_order_acquire);
            seen = epoch.load(std::memory_order_acquire);
            if (stopping_)
                return;
            visit(index);
        }
    }

    void visit(int index) {
        std::atomic<Task *> &visited = visited_[index].task;
        for (Task *task = task_.load(); task && index < num_active_.load(std::memory_order_relaxed);) {
            visited.store(task);
            // Only a task that is still the current one after it was named here is safe from `retire`.
            Task *const current = task_.load();
            if (current == task) {
                task->work(index);
                break;
            }
            task = current;
        }
        visited.store(nullptr);
    }

    const int num_threads_;
    const bool owns_cores_;
    std::atomic<bool> stopping_{false};
    std::atomic<int> num_active_{0};
    std::atomic<Task *> task_{nullptr};
    Gate gates_[16];
    std::vector<Visit> visited_;
    std::vector<std::thread> threads_;
};

} // namespace quipu
