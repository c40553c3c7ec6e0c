// Threads that the caller asked for, and no others.
#pragma once

#include <algorithm>
#include <cstdint>

namespace trackserve {

// What parallel_for does, with the work as a plain function of what it is about.
void for_each_chunk(int threads, int64_t chunks, void (*work)(const void* about, int64_t chunk, int thread),
                    const void* about);

// Call work(chunk, thread) for every chunk in [0, chunks), in any order, on this many threads; the calling
// thread is thread 0. What a call throws is thrown here, after the others. No call begins after the
// Deadline of the calling thread.
template <class Work>
void parallel_for(int threads, int64_t chunks, const Work& work) {
    const auto call = [](const void* about, int64_t chunk, int thread) {
        (*static_cast<const Work*>(about))(chunk, thread);
    };
    for_each_chunk(threads, chunks, call, &work);
}

// Some of many rows, [begin, end): the number of this chunk of them, and the thread that works on it.
struct Chunk {
    int64_t number, begin, end;
    int thread;
};

// The number of chunks of `at_once` rows.
inline int64_t chunks_of(int64_t rows, int64_t at_once) { return (rows + at_once - 1) / at_once; }

// Call work(chunk) for all chunks of the rows.
template <class Work>
void for_chunks(int threads, int64_t rows, int64_t at_once, const Work& work) {
    parallel_for(threads, chunks_of(rows, at_once), [&](int64_t number, int thread) {
        const int64_t begin = number * at_once;
        work(Chunk{number, begin, std::min(rows, begin + at_once), thread});
    });
}

// Call work(row) for each of the rows, `at_once` of them at a time on a thread.
template <class Work>
void for_rows(int threads, int64_t rows, int64_t at_once, const Work& work) {
    for_chunks(threads, rows, at_once, [&](const Chunk& chunk) {
        for (int64_t row = chunk.begin; row < chunk.end; ++row) work(row);
    });
}

}  // namespace trackserve
