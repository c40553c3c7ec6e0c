// A server's failures as this library's errors. No network here.
#pragma once

#include <set>
#include <string>

#include <grpcpp/support/status_code_enum.h>

#include "trackserve/errors.h"

namespace trackserve {

// Whether a server says that it has no such model: it may also be stopping.
bool is_without_model(grpc::StatusCode code, const std::string& message);

// Throw what an answer of a server, or of gRPC in its place, means. `timeout` (s) was the attempt's.
[[noreturn]] void raise_failure(grpc::StatusCode code, const std::string& message,
                                const std::string& url, double timeout);

// Throw the error for a server that has other models; one that lists the model is stopping.
[[noreturn]] void raise_without_model(const std::string& url, const std::string& model,
                                      const std::set<std::string>& has);

// Throw the error for a server that has a model no more, or does not list those that it has.
[[noreturn]] void raise_stopping(const std::string& url, const std::string& model);

}  // namespace trackserve
