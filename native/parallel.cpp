#include "parallel.h"

#include "budget.h"

#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace trackserve {
namespace {

constexpr int LOOKS =
    60000;  // at what is waited for, about a millisecond: waking a core takes a part of that

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

// Wait until the number is another one, and return it.
uint32_t another(const std::atomic<uint32_t>& number, uint32_t than) {
    for (int look = 0; look < LOOKS; ++look) {
        const uint32_t now = number.load(std::memory_order_acquire);
        if (now != than) return now;
        pause();
    }
    number.wait(than, std::memory_order_acquire);
    return number.load(std::memory_order_acquire);
}

// Threads that wait for the next piece of work of the thread that made them: an event has dozens of such
// pieces, some of them shorter than starting a thread takes. There are as many as a piece has ever asked for.
class Crew {
  public:
    static constexpr uint32_t MOST = 0xfff;

    Crew() = default;
    ~Crew();
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;

    // Call work(thread) on `others` of these threads, from 1 on, and as thread 0 here; return when all have.
    void run(uint32_t others, const std::function<void(int)>& work);

    // The calling thread's own crew.
    static Crew& own();

  private:
    static constexpr uint32_t NEXT = MOST + 1;
    std::atomic<uint32_t> round_{0};  // in steps of NEXT, and in it how many threads work: read as one
    std::atomic<uint32_t> left_{0};   // of these
    std::atomic<bool> dismissed_{false};
    const std::function<void(int)>* work_ = nullptr;
    std::vector<std::thread> threads_;

    void wait_for_work(uint32_t thread, uint32_t seen);
    void begin_round(uint32_t others);
};

Crew::~Crew() {
    dismissed_ = true;
    begin_round(0);
    for (std::thread& thread : threads_) thread.join();
}

void Crew::begin_round(uint32_t others) {
    const uint32_t now = round_.load(std::memory_order_relaxed);
    round_.store((now & ~MOST) + NEXT + others, std::memory_order_release);
    round_.notify_all();
}

void Crew::wait_for_work(uint32_t thread, uint32_t seen) {
    for (;;) {
        seen = another(round_, seen);
        if (dismissed_) return;
        if (thread > (seen & MOST)) continue;
        (*work_)(thread);
        if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) left_.notify_one();
    }
}

void Crew::run(uint32_t others, const std::function<void(int)>& work) {
    while (threads_.size() < others)
        threads_.emplace_back(&Crew::wait_for_work, this, threads_.size() + 1, round_.load());
    work_ = &work;
    left_ = others;
    begin_round(others);
    work(0);
    for (uint32_t left; (left = left_.load(std::memory_order_acquire)) != 0;) another(left_, left);
}

Crew& Crew::own() {
    // A process that was forked has none of its parent's threads; their crew must not be waited for.
    struct Own {
        pid_t process = getpid();
        Crew crew;
    };
    thread_local std::unique_ptr<Own> own;
    if (own && own->process != getpid()) (void)own.release();
    if (!own) own = std::make_unique<Own>();
    return own->crew;
}

}  // namespace

void for_each_chunk(int threads, int64_t chunks, void (*work)(const void*, int64_t, int), const void* about) {
    const Deadline::Time end = Deadline::own();
    threads = static_cast<int>(std::min<int64_t>({threads, chunks, Crew::MOST + 1}));
    if (threads <= 1) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            Deadline::check(end);
            work(about, chunk, 0);
        }
        return;
    }
    std::atomic<int64_t> next{0};
    std::vector<std::exception_ptr> failures(threads);
    Crew::own().run(threads - 1, [&](int thread) {
        try {
            for (int64_t chunk; (chunk = next++) < chunks;) {
                Deadline::check(end);
                work(about, chunk, thread);
            }
        } catch (...) {
            failures[thread] = std::current_exception();
        }
    });
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

}  // namespace trackserve
