// One server over gRPC, with its failures as this library's errors.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trackserve/client.h"

namespace trackserve {

// The host:port addresses in `servers`; throws InputError for what is none.
std::vector<std::string> split_servers(std::string_view servers);

// A model's name and those of its one input and its one output.
struct Model {
  std::string name;
  std::string input;
  std::string output;
};

// The one input of a request, ready to be sent.
struct Input {
  std::string datatype;
  std::vector<std::int64_t> shape;
  std::string_view bytes;
  std::size_t hits;
};

// For use by several threads; opened when it is first needed.
class Connection {
 public:
  explicit Connection(const std::string& address);
  ~Connection();
  Connection(Connection&&) noexcept;

  const std::string& url() const { return url_; }

  // What a model answers to its input: labels [N], plain or compact, and what else is wanted.
  Tracks infer(const Model& model, const Input& input, const Wanted& wanted, double timeout,
               const std::string& request_id) const;

  // The parameters of a model's configuration.
  std::map<std::string, std::string> parameters(const std::string& model, double timeout) const;

 private:
  struct Stub;

  [[noreturn]] void raise(int code, const std::string& message, const std::string& model,
                          double timeout) const;

  std::string url_;
  std::unique_ptr<Stub> stub_;
};

}  // namespace trackserve
