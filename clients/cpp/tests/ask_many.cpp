// Ask for many events from several threads, then print the labels of each.
//
//     ask_many SERVERS REQUESTS THREADS [--compact STEP] FILE ...
//
// A file holds float32 [N, 3], x, y, z in mm, as numpy's tofile writes it; requests go through the
// files in turn, compact where a STEP (mm) is given. A line with its number reports that an event is
// answered; lines "labels NUMBER ..."
// follow when all are. At the end, on standard error, a line of JSON: the
// processor seconds of this process and the wall seconds, without reading files, connecting and a
// first request.
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <mutex>
#include <sstream>
#include <string_view>
#include <thread>

#include "trackserve/client.h"

namespace {

std::vector<float> read_positions(const char* path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::vector<float> values(static_cast<std::size_t>(file.tellg()) / sizeof(float));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(float)));
  return values;
}

double processor_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: ask_many SERVERS REQUESTS THREADS FILE ...\n";
    return 2;
  }
  int first = 4;
  trackserve::Options options{.timeout = 300.0, .attempt_timeout = {}, .attempts = 100, .compact = {}};
  if (std::string_view(argv[4]) == "--compact" && argc > 6) {
    options.compact = std::stod(argv[5]);
    first = 6;
  }
  std::vector<std::vector<float>> events;
  for (int i = first; i < argc; ++i) events.push_back(read_positions(argv[i]));
  const std::size_t requests = std::stoul(argv[2]);
  std::vector<trackserve::Tracks> answers(requests);
  trackserve::Client client(argv[1], options);
  client.find_tracks(events[0]);

  std::atomic<std::size_t> next = 0;
  std::mutex printing;
  std::atomic<bool> failed = false;
  const auto work = [&] {
    for (std::size_t i = next++; i < requests; i = next++) {
      try {
        answers[i] = client.find_tracks(events[i % events.size()]);
      } catch (const trackserve::Error& error) {
        std::cerr << error.what() << '\n';
        failed = true;
        return;
      }
      const std::lock_guard lock(printing);
      std::cout << i << std::endl;  // flushed: who reads it sees how far this is
    }
  };
  const double spent_before = processor_seconds();
  const auto began = std::chrono::steady_clock::now();
  std::vector<std::jthread> threads;
  for (unsigned long i = 0; i < std::stoul(argv[3]); ++i) threads.emplace_back(work);
  threads.clear();
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - began;
  const double spent = processor_seconds() - spent_before;

  for (std::size_t i = 0; i < requests; ++i) {
    std::cout << "labels " << i;
    for (const std::int64_t label : answers[i].labels) std::cout << ' ' << label;
    std::cout << '\n';
  }
  std::cerr << "{\"processor\": " << spent << ", \"wall\": " << wall.count() << "}\n";
  return failed ? 1 : 0;
}
