#include "failures.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>

#include "format.h"

namespace trackserve {

namespace {

// How a server says that it won't take a request or has dropped it: ours, other Tritons, Envoy.
constexpr std::array<std::string_view, 5> kRefusals = {
    "the queue is full", "this server's limit is", "Exceeds maximum queue size",
    "Request timeout expired", "overflow"};
// How Triton says that a model's process has died, and gRPC that a connection has.
constexpr std::array<std::string_view, 4> kBroken = {"Stub process", "RST_STREAM", "Stream removed",
                                                     "GOAWAY"};

template <typename Phrases>
bool contains_any(const std::string& text, const Phrases& phrases) {
  return std::any_of(phrases.begin(), phrases.end(), [&](std::string_view phrase) {
    return text.find(phrase) != std::string::npos;
  });
}

// The message without the decoration that Triton puts around it, its first line.
std::string bare(const std::string& message) {
  std::string_view text = message;
  while (true) {
    std::size_t end = std::string_view::npos;
    if (text.starts_with("[request id: ")) {
      end = text.find("] ");
    } else if (text.starts_with("in ensemble '")) {
      end = text.find(", ");
    }
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 2);
  }
  return std::string(text.substr(0, text.find('\n')));
}

// The number in "retry after 2.5 s", if a message has it.
std::optional<double> hint_in(const std::string& reason) {
  constexpr std::string_view phrase = "retry after ";
  const std::size_t begin = reason.find(phrase);
  if (begin == std::string::npos) return std::nullopt;
  double value = 0;
  const char* const last = reason.data() + reason.size();
  const auto [end, error] = std::from_chars(reason.data() + begin + phrase.size(), last, value);
  if (error != std::errc() || !std::string_view(end, last).starts_with(" s")) return std::nullopt;
  return value;
}

}  // namespace

bool is_without_model(grpc::StatusCode code, const std::string& message) {
  return code == grpc::StatusCode::NOT_FOUND || message.find("unknown model") != std::string::npos;
}

void raise_failure(grpc::StatusCode code, const std::string& message, const std::string& url,
                   double timeout) {
  const std::string reason = bare(message);
  if (contains_any(reason, kRefusals)) {
    RefusedError refused(url + " refused the request: " + reason);
    refused.retry_after = hint_in(reason);
    throw refused;
  }
  switch (code) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      throw UnreachableError("no answer from " + url + " within " + seconds(timeout) + " s");
    case grpc::StatusCode::INVALID_ARGUMENT:
      throw InputError(reason);
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::CANCELLED:
      throw UnreachableError(url + " can't be reached: " + reason);
    default:
      break;
  }
  if (contains_any(reason, kBroken)) {
    throw UnreachableError(url + " can't be reached: " + reason);
  }
  throw ServerError(url + " failed: " + reason);
}

void raise_without_model(const std::string& url, const std::string& model,
                         const std::set<std::string>& has) {
  if (has.contains(model)) raise_stopping(url, model);
  throw ServerError(url + " has no model '" + model + "'; it has" +
                    (has.empty() ? " none" : ": " + joined(has)));
}

void raise_stopping(const std::string& url, const std::string& model) {
  throw UnreachableError(url + " has no '" + model +
                         "' ready and no other models to name: it is stopping, or is another kind "
                         "of server; retry when it is ready");
}

}  // namespace trackserve
