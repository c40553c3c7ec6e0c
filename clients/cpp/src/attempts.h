// Which server to ask when: bounded attempts, a deadline, rests that grow and vary. No network here.
#pragma once

#include <chrono>
#include <cstddef>
#include <mutex>
#include <random>
#include <vector>

#include "trackserve/client.h"

namespace trackserve {

using Clock = std::chrono::steady_clock;

// A failed server's rest (s); it doubles with each further failure, up to the longest.
constexpr double kFirstRest = 0.1;
constexpr double kLongestRest = 5.0;

// The state of all servers; for use by several threads.
class Servers {
 public:
  explicit Servers(std::size_t count);

  // Choose the server to ask now, and note that a request is in flight there: among those that are
  // awake the one with the fewest in flight, and if all rest, the first to have rested. Among equals
  // it is the first in an order drawn at the start, so that the clients of a farm spread.
  std::size_t choose();

  // How long (s) all servers will rest; 0 if one is awake.
  double rest() const;

  // Note how a request ended: answered; failed, so that the server rests; or in a way that says
  // nothing about the server.
  void answered(std::size_t number);
  void failed(std::size_t number, const ServerError& error);
  void dropped(std::size_t number);

  std::size_t count() const { return servers_.size(); }

 private:
  struct Server {
    int in_flight = 0;
    int failures = 0;
    Clock::time_point rests_until = Clock::time_point::min();
  };

  double uniform(double low, double high);

  mutable std::mutex mutex_;
  std::mt19937_64 random_;
  std::vector<Server> servers_;
  std::vector<std::size_t> order_;
};

// The attempts of one event: `timeout` before each, `wait` after one that failed.
class Attempts {
 public:
  Attempts(const Options& options, const Servers& servers);

  // How long (s) the next attempt may take.
  double timeout();

  // How long (s) to wait before the next attempt; nothing if that was the last one.
  std::optional<double> wait() const;

  // What to add to the message of the last error; nothing after a single attempt.
  std::string summary() const;

 private:
  double left() const;

  const Options& options_;
  const Servers& servers_;
  Clock::time_point began_;
  std::size_t count_ = 0;
};

}  // namespace trackserve
