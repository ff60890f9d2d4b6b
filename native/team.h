// A persistent team of threads that executes one job at a time. The caller takes part as worker 0.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace quipu {

// Where a waiting thread is: it spins for a moment, then yields, then sleeps in the kernel. Never a pure spin, so that
// a busy neighbour or a processor quota costs a delay and not a collapse.
class Waiter {
  public:
    // One more look was in vain. Returns true when it is time to sleep.
    bool pause() {
        looks_++;
        if (looks_ < kSpins) {
#if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
#elif defined(__aarch64__)
            asm volatile("yield");
#endif
            return false;
        }
        if (looks_ < kSpins + kYields) {
            std::this_thread::yield();
            return false;
        }
        return true;
    }

  private:
    static constexpr int kSpins = 2000; // about 40 microseconds
    static constexpr int kYields = 100;
    int looks_ = 0;
};

class Barrier {
  public:
    explicit Barrier(int count) : count_(count) {}

    void arrive_and_wait() {
        const uint32_t phase = phase_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            phase_.notify_all(); // free of a system call unless somebody sleeps
            return;
        }
        Waiter waiter;
        while (phase_.load(std::memory_order_acquire) == phase)
            if (waiter.pause())
                phase_.wait(phase, std::memory_order_acquire);
    }

  private:
    const int count_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> phase_{0};
};

class Team {
  public:
    explicit Team(int num_threads) : num_threads_(num_threads), done_(num_threads) {
        threads_.reserve(num_threads - 1);
        for (int index = 1; index < num_threads; index++)
            threads_.emplace_back([this, index] { serve(index); });
    }

    ~Team() {
        job_ = nullptr;
        start();
        for (std::thread &thread : threads_)
            thread.join();
    }

    Team(const Team &) = delete;
    Team &operator=(const Team &) = delete;

    int num_threads() const { return num_threads_; }

    // Runs job(worker index) on every worker and returns when all are done. Not reentrant. The job must not throw.
    void run(const std::function<void(int)> &job) {
        job_ = &job;
        start();
        job(0);
        done_.arrive_and_wait();
    }

  private:
    void start() {
        epoch_.fetch_add(1, std::memory_order_release);
        epoch_.notify_all();
    }

    void serve(int index) {
        uint32_t seen = 0;
        for (;;) {
            Waiter waiter;
            while (epoch_.load(std::memory_order_acquire) == seen)
                if (waiter.pause())
                    epoch_.wait(seen, std::memory_order_acquire);
            seen++;
            if (!job_)
                return;
            (*job_)(index);
            done_.arrive_and_wait();
        }
    }

    const int num_threads_;
    const std::function<void(int)> *job_ = nullptr;
    alignas(64) std::atomic<uint32_t> epoch_{0};
    Barrier done_;
    std::vector<std::thread> threads_;
};

} // namespace quipu
