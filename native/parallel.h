// Threads that the caller asked for, and no others.
#pragma once

#include <cstdint>

namespace trackserve {

// What parallel_for does, with the work as a plain function of what it is about.
void for_each_chunk(int threads, int64_t chunks, void (*work)(const void* about, int64_t chunk, int thread),
                    const void* about);

// Call work(chunk, thread) for every chunk in [0, chunks), in any order, on this many threads; the calling
// thread is thread 0. What a call throws is thrown here, after the others.
template <class Work>
void parallel_for(int threads, int64_t chunks, const Work& work) {
    const auto call = [](const void* about, int64_t chunk, int thread) {
        (*static_cast<const Work*>(about))(chunk, thread);
    };
    for_each_chunk(threads, chunks, call, &work);
}

}  // namespace trackserve
