// Threads that the caller asked for, and no others.
#pragma once

#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace trackserve {

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
    const auto run = [&](int thread) {
        try {
            for (int64_t chunk; (chunk = next++) < chunks;) work(chunk, thread);
        } catch (...) {
            failures[thread] = std::current_exception();
        }
    };
    std::vector<std::jthread> others;  // joined on every way out
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
    run(0);
    others.clear();
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

}  // namespace trackserve
