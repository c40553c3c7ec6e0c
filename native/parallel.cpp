#include "parallel.h"

#include <map>
#include <unistd.h>

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

}  // namespace

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

}  // namespace trackserve
