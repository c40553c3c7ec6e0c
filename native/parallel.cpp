#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <unistd.h>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace trackserve {
namespace {

constexpr int LOOKS = 60000;  // at what is waited for, about a millisecond: waking a core takes a part of that

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
// pieces, some of them shorter than starting a thread takes.
class Crew {
  public:
    explicit Crew(int others);
    ~Crew();
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;

    // Call work(thread) on each of these threads, from 1 on, and as thread 0 here; return when all have.
    void run(const std::function<void(int)>& work);

    // The calling thread's own crew of so many, made when it is first asked for.
    static Crew& of(int others);

  private:
    std::atomic<uint32_t> round_{0}, left_{0};
    std::atomic<bool> dismissed_{false};
    const std::function<void(int)>* work_ = nullptr;
    std::vector<std::thread> threads_;
};

Crew::Crew(int others) {
    for (int thread = 1; thread <= others; ++thread)
        threads_.emplace_back([this, thread] {
            for (uint32_t seen = 0;;) {
                seen = another(round_, seen);
                if (dismissed_) return;
                (*work_)(thread);
                if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) left_.notify_one();
            }
        });
}

Crew::~Crew() {
    dismissed_ = true;
    ++round_;
    round_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void Crew::run(const std::function<void(int)>& work) {
    work_ = &work;
    left_ = threads_.size();
    round_.fetch_add(1, std::memory_order_acq_rel);
    round_.notify_all();
    work(0);
    for (uint32_t left; (left = left_.load(std::memory_order_acquire)) != 0;) another(left_, left);
}

Crew& Crew::of(int others) {
    // A process that was forked has none of its parent's threads; their crew must not be waited for.
    struct Own {
        pid_t process = getpid();
        std::map<int, std::unique_ptr<Crew>> crews;
    };
    thread_local std::unique_ptr<Own> own;
    if (own && own->process != getpid()) (void)own.release();
    if (!own) own = std::make_unique<Own>();
    std::unique_ptr<Crew>& crew = own->crews[others];
    if (!crew) crew = std::make_unique<Crew>(others);
    return *crew;
}

}  // namespace

void for_each_chunk(int threads, int64_t chunks, void (*work)(const void*, int64_t, int),
                    const void* about) {
    threads = static_cast<int>(std::min<int64_t>(threads, chunks));
    if (threads <= 1) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) work(about, chunk, 0);
        return;
    }
    std::atomic<int64_t> next{0};
    std::vector<std::exception_ptr> failures(threads);
    Crew::of(threads - 1).run([&](int thread) {
        try {
            for (int64_t chunk; (chunk = next++) < chunks;) work(about, chunk, thread);
        } catch (...) {
            failures[thread] = std::current_exception();
        }
    });
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

}  // namespace trackserve
