// What can go wrong, as one small tree: the same one as the Python client's.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>

namespace trackserve {

// Any failure that this library explains, in one sentence.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;

  // The request's name in the server's log; empty where no request was made.
  std::string request_id;
};

// Hits or options that cannot be used as they are.
class InputError : public Error {
 public:
  using Error::Error;
};

// A server that cannot be reached or understood, or that failed.
class ServerError : public Error {
 public:
  using Error::Error;
};

// A server that is not there, is stopping, has lost a process or did not answer in time.
class UnreachableError : public ServerError {
 public:
  using ServerError::ServerError;
};

// A server that is alive and declined this request: its queue is full or a time limit passed.
class RefusedError : public ServerError {
 public:
  using ServerError::ServerError;

  // The time (s) that the server needs for the requests that wait, if it says so.
  std::optional<double> retry_after;
};

}  // namespace trackserve
