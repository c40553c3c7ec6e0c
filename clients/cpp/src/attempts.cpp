#include "attempts.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "format.h"

namespace trackserve {

namespace {

double seconds_until(Clock::time_point when, Clock::time_point now) {
  return when <= now ? 0.0 : std::chrono::duration<double>(when - now).count();
}

Clock::duration duration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

Servers::Servers(std::size_t count)
    : random_(std::random_device{}()), servers_(count), order_(count) {
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  std::shuffle(order_.begin(), order_.end(), random_);
}

std::size_t Servers::choose() {
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  const auto rank = [&](std::size_t number) {
    const Server& server = servers_[number];
    return std::tuple(seconds_until(server.rests_until, now), server.in_flight);
  };
  const std::size_t chosen = *std::min_element(
      order_.begin(), order_.end(), [&](auto a, auto b) { return rank(a) < rank(b); });
  ++servers_[chosen].in_flight;
  return chosen;
}

double Servers::rest() const {
  const std::lock_guard lock(mutex_);
  const auto first = std::min_element(
      servers_.begin(), servers_.end(),
      [](const Server& a, const Server& b) { return a.rests_until < b.rests_until; });
  return seconds_until(first->rests_until, Clock::now());
}

void Servers::answered(std::size_t number) {
  const std::lock_guard lock(mutex_);
  Server& server = servers_[number];
  --server.in_flight;
  server.failures = 0;
  server.rests_until = Clock::time_point::min();
}

void Servers::failed(std::size_t number, const ServerError& error) {
  const std::lock_guard lock(mutex_);
  Server& server = servers_[number];
  const auto now = Clock::now();
  --server.in_flight;
  // This request was in flight when another one failed.
  if (server.rests_until > now) return;
  server.failures = std::min(server.failures + 1, 30);
  double rest = std::min(std::ldexp(kFirstRest, server.failures - 1), kLongestRest);
  rest *= uniform(0.5, 1.0);
  const auto* refused = dynamic_cast<const RefusedError*>(&error);
  if (refused != nullptr && refused->retry_after) {
    const double asked = *refused->retry_after * uniform(1.0, 1.25);
    rest = std::max(rest, std::min(asked, kLongestRest));
  }
  server.rests_until = now + duration(rest);
}

void Servers::dropped(std::size_t number) {
  const std::lock_guard lock(mutex_);
  --servers_[number].in_flight;
}

double Servers::uniform(double low, double high) {
  return std::uniform_real_distribution(low, high)(random_);
}

Attempts::Attempts(const Options& options, const Servers& servers)
    : options_(options), servers_(servers), began_(Clock::now()) {}

double Attempts::timeout() {
  ++count_;
  const double longest = std::min(options_.timeout, options_.attempt_timeout.value_or(INFINITY));
  return std::max(1e-3, std::min(longest, left()));
}

std::optional<double> Attempts::wait() const {
  const double rest = servers_.rest();
  const auto most = static_cast<std::size_t>(options_.attempts) * servers_.count();
  if (count_ >= most || rest >= left()) return std::nullopt;
  return rest;
}

std::string Attempts::summary() const {
  if (count_ == 1) return {};
  const double spent = std::chrono::duration<double>(Clock::now() - began_).count();
  return "; gave up after " + std::to_string(count_) + " attempts in " + fixed(spent, 1) + " s";
}

double Attempts::left() const {
  return options_.timeout - std::chrono::duration<double>(Clock::now() - began_).count();
}

}  // namespace trackserve
