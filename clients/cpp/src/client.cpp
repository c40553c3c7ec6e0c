#include "trackserve/client.h"

#include <algorithm>
#include <mutex>
#include <random>
#include <thread>

#include "attempts.h"
#include "compact.h"
#include "connection.h"
#include "description.h"
#include "format.h"

namespace trackserve {

namespace {

// The names of models and tensors, as trackserve's contract has them (docs/wire.md).
const Model kTrackFinding{"track_finding", "HITS", "LABELS"};
const Model kTrackFindingCompact{"track_finding", "HITS_COMPACT", "LABELS_COMPACT"};
const Model kExatrkx{"exatrkx", "FEATURES", "LABELS"};
const std::vector<std::string> kPosition{"x", "y", "z"};

// A name for a request that no other one has.
std::string new_request_id() {
  thread_local std::mt19937_64 random = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  constexpr char digits[] = "0123456789abcdef";
  std::string name(16, '0');
  std::uint64_t number = random();
  for (char& digit : name) {
    digit = digits[number & 15];
    number >>= 4;
  }
  return name;
}

Options checked(const Options& options) {
  const auto check = [](const char* name, double value) {
    if (!(value > 0)) {
      throw InputError(std::string(name) + " is " + std::to_string(value) +
                       "; expected more than 0");
    }
  };
  check("timeout", options.timeout);
  check("attempt_timeout", options.attempt_timeout.value_or(1.0));
  check("attempts", options.attempts);
  check("compact", options.compact.value_or(1.0));
  if (options.compact.value_or(1.0) > kLongestStep) {
    throw InputError("compact is " + std::to_string(*options.compact) +
                     "; expected what to round positions to, at most " + fixed(kLongestStep, 0) +
                     " mm");
  }
  return options;
}

void check_wanted(const Wanted& wanted) {
  const double quality = wanted.min_quality.value_or(0.0);
  if (quality >= 0 && quality < 1) return;
  throw InputError("min_quality is " + std::to_string(quality) +
                   "; expected a number from 0 up, below 1");
}

// Rows of float32 [N, columns] as they are, without a copy.
Input plain(std::span<const float> values, std::size_t columns) {
  const std::size_t hits = values.size() / columns;
  return {"FP32",
          {static_cast<std::int64_t>(hits), static_cast<std::int64_t>(columns)},
          {reinterpret_cast<const char*>(values.data()), values.size_bytes()},
          hits};
}

}  // namespace

std::size_t Tracks::size() const {
  if (labels.empty()) return 0;
  return static_cast<std::size_t>(*std::max_element(labels.begin(), labels.end()) + 1);
}

class Client::Implementation {
 private:
  static std::vector<Connection> connect(std::string_view servers) {
    std::vector<Connection> connections;
    for (const std::string& address : split_servers(servers)) connections.emplace_back(address);
    return connections;
  }

  // What the first server that gives an answer says.
  template <typename Ask>
  auto ask(const Ask& ask) {
    Attempts attempts(options_, servers_);
    while (true) {
      const double timeout = attempts.timeout();
      const std::size_t number = servers_.choose();
      try {
        auto answer = ask(connections_[number], timeout);
        servers_.answered(number);
        return answer;
      } catch (const RefusedError& error) {
        rest(attempts, number, error);
      } catch (const UnreachableError& error) {
        rest(attempts, number, error);
      } catch (...) {
        servers_.dropped(number);
        throw;
      }
    }
  }

  // Wait for the next attempt after one that failed; throws the error if that was the last.
  template <typename Failure>
  void rest(const Attempts& attempts, std::size_t number, const Failure& error) {
    servers_.failed(number, error);
    const std::optional<double> wait = attempts.wait();
    if (!wait) {
      Failure raised(error.what() + attempts.summary());
      if constexpr (std::is_same_v<Failure, RefusedError>) raised.retry_after = error.retry_after;
      throw raised;
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(*wait));
  }

 public:
  Implementation(std::string_view servers, Options options)
      : options_(checked(options)), connections_(connect(servers)), servers_(connections_.size()) {}

  const Description& description() {
    const std::lock_guard lock(describing_);
    if (!description_) {
      description_ = ask([](const Connection& connection, double timeout) {
        return read_description(connection.parameters(kTrackFinding.name, timeout),
                                connection.url());
      });
    }
    return *description_;
  }

  Tracks find_tracks(std::span<const float> table, std::string request_id, const Wanted& wanted) {
    check_wanted(wanted);
    const std::size_t columns = description().columns.size();
    if (request_id.empty()) request_id = new_request_id();
    if (options_.compact && description().compact == kCompactVersion) {
      if (const auto data = encode_hits(table, columns, *options_.compact)) {
        const Input input{
            "UINT8", {static_cast<std::int64_t>(data->size())}, *data, table.size() / columns};
        try {
          return infer(kTrackFindingCompact, input, request_id, wanted);
        } catch (const InputError&) {
          // Bad hits, or a server older than the one that was asked what it takes: see below.
        }
      }
    }
    return infer(kTrackFinding, plain(table, columns), request_id, wanted);
  }

  Tracks infer(const Model& model, const Input& input, std::string request_id,
               const Wanted& wanted = {}) {
    if (request_id.empty()) request_id = new_request_id();
    try {
      return ask([&](const Connection& connection, double timeout) {
        return connection.infer(model, input, wanted, timeout, request_id);
      });
    } catch (Error& error) {
      error.request_id = request_id;
      throw;
    }
  }

 private:
  Options options_;
  std::vector<Connection> connections_;
  Servers servers_;
  std::mutex describing_;
  std::optional<Description> description_;
};

Client::Client(std::string_view servers, Options options)
    : implementation_(std::make_unique<Implementation>(servers, options)) {}

Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

const Description& Client::description() { return implementation_->description(); }

Tracks Client::find_tracks(std::span<const float> positions, std::string request_id,
                           const Wanted& wanted) {
  const Description& says = description();
  if (says.columns == kPosition && positions.size() % 3 == 0) {  // as they are, without a copy
    return implementation_->find_tracks(positions, std::move(request_id), wanted);
  }
  const std::vector<float> table = select_columns(positions, kPosition, says);
  return implementation_->find_tracks(table, std::move(request_id), wanted);
}

Tracks Client::find_tracks(const Hits& hits, std::string request_id, const Wanted& wanted) {
  const std::vector<float> table = select_columns(hits.values, hits.columns, description());
  return implementation_->find_tracks(table, std::move(request_id), wanted);
}

Tracks Client::find_tracks_from_features(std::span<const float> features, std::string request_id) {
  const std::size_t columns = description().features.size();
  if (columns == 0 || features.size() % columns != 0) {
    throw InputError("features are " + std::to_string(features.size()) +
                     " numbers; expected rows of " + std::to_string(columns));
  }
  return implementation_->infer(kExatrkx, plain(features, columns), std::move(request_id));
}

}  // namespace trackserve
