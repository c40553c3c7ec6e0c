// Threads that the caller asked for, and no others.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace trackserve {

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

// Call work(chunk, thread) for every chunk in [0, chunks), in any order, on this many threads.
template <class Work>
void parallel_for(int threads, int64_t chunks, const Work& work) {
    threads = static_cast<int>(std::min<int64_t>(threads, chunks));
    if (threads <= 1) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) work(chunk, 0);
        return;
    }
    std::atomic<int64_t> next{0};
    std::vector<std::exception_ptr> failures(threads);
    Crew::of(threads - 1).run([&](int thread) {
        try {
            for (int64_t chunk; (chunk = next++) < chunks;) work(chunk, thread);
        } catch (...) {
            failures[thread] = std::current_exception();
        }
    });
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

}  // namespace trackserve
