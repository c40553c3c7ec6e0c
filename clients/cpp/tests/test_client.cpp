// What can be tested without a server: which server is asked when, messages, columns.
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <thread>

#include "attempts.h"
#include "compact.h"
#include "connection.h"
#include "description.h"
#include "failures.h"

using namespace trackserve;

namespace {

// Unlike assert it also holds in a release build.
void check(bool condition, const char* text, int line) {
  if (condition) return;
  std::cerr << __FILE__ << ':' << line << ": " << text << " is false\n";
  std::exit(1);
}
#define CHECK(condition) check(condition, #condition, __LINE__)

template <typename Kind, typename Call>
Kind raised(Call call) {
  try {
    call();
  } catch (const Kind& error) {
    return error;
  }
  std::cerr << "an error was expected and did not come\n";
  std::exit(1);
}

void a_failed_server_rests_and_another_is_asked() {
  Servers servers(2);
  const std::size_t first = servers.choose();
  servers.failed(first, UnreachableError("gone"));
  CHECK(servers.rest() == 0.0);
  const std::size_t second = servers.choose();
  CHECK(second != first);
  servers.failed(second, UnreachableError("gone"));
  CHECK(servers.rest() > 0.0);
  CHECK(servers.rest() <= kFirstRest);
  servers.answered(servers.choose());  // the first to have rested, and it answers
  CHECK(servers.rest() == 0.0);
}

void rests_double_and_hints_are_kept() {
  Servers servers(1);
  // A rest must end before a further failure counts.
  double last = 0;
  for (int i = 0; i < 4; ++i) {
    std::this_thread::sleep_for(std::chrono::duration<double>(servers.rest() + 0.001));
    servers.choose();
    servers.failed(0, UnreachableError("gone"));
    last = servers.rest();
    CHECK(last > 0.95 * std::ldexp(kFirstRest, i) / 2 && last <= std::ldexp(kFirstRest, i));
  }
  servers.choose();
  servers.failed(0, UnreachableError("gone"));  // in flight while it rests: no longer rest
  CHECK(servers.rest() <= last);
  servers.choose();
  servers.answered(0);
  servers.choose();
  RefusedError hint("full");
  hint.retry_after = 2.0;
  servers.failed(0, hint);
  CHECK(servers.rest() > 1.9 && servers.rest() <= 2.5);
  Servers patient(1);
  patient.choose();
  hint.retry_after = 1000.0;
  patient.failed(0, hint);
  CHECK(patient.rest() > 4.9 && patient.rest() <= kLongestRest);
}

void the_least_busy_server_is_asked() {
  Servers servers(3);
  bool asked[3] = {};
  for (int i = 0; i < 3; ++i) asked[servers.choose()] = true;
  CHECK(asked[0] && asked[1] && asked[2]);
}

void attempts_end_by_number_and_by_time() {
  Servers servers(1);
  Options options;
  options.attempts = 2;
  options.attempt_timeout = 3.0;
  Attempts attempts(options, servers);
  CHECK(attempts.timeout() == 3.0);
  CHECK(attempts.summary().empty());
  CHECK(attempts.wait().has_value());
  attempts.timeout();
  CHECK(!attempts.wait());
  CHECK(attempts.summary().starts_with("; gave up after 2 attempts in 0.0 s"));

  options.timeout = 0.05;
  options.attempts = 100;
  Attempts hurried(options, servers);
  CHECK(hurried.timeout() <= 0.05);
  servers.choose();
  RefusedError hint("full");
  hint.retry_after = 1.0;
  servers.failed(0, hint);
  CHECK(!hurried.wait());  // it would rest beyond the deadline
}

void servers_are_read_or_refused() {
  CHECK(split_servers("a:1,grpc://b:22") == (std::vector<std::string>{"a:1", "b:22"}));
  for (const char* bad : {"", "localhost", "http://a:1", "a:1,", "a b:1", "a:port"}) {
    const auto error = raised<InputError>([&] { split_servers(bad); });
    CHECK(std::string(error.what()).find("expected host:port") != std::string::npos);
  }
}

void failures_become_errors() {
  using grpc::StatusCode;
  const auto explain = [](StatusCode code, const char* message) {
    return [=] { raise_failure(code, message, "grpc://a:1", 0.2497); };
  };
  const auto refused = raised<RefusedError>(
      explain(StatusCode::UNAVAILABLE, "[request id: 7] the queue is full: 64 requests wait; "
                                       "retry after 2.5 s"));
  CHECK(refused.retry_after == 2.5);
  CHECK(std::string(refused.what()) ==
        "grpc://a:1 refused the request: the queue is full: 64 requests wait; retry after 2.5 s");
  const auto silent = raised<RefusedError>(
      explain(StatusCode::UNAVAILABLE, "Exceeds maximum queue size"));
  CHECK(!silent.retry_after);
  const auto late = raised<UnreachableError>(explain(StatusCode::DEADLINE_EXCEEDED, "late"));
  CHECK(std::string(late.what()) == "no answer from grpc://a:1 within 0.25 s");
  raised<UnreachableError>(explain(StatusCode::UNAVAILABLE, "connection refused"));
  raised<UnreachableError>(explain(StatusCode::INTERNAL, "Stub process 'x' is not healthy"));
  raised<InputError>(explain(StatusCode::INVALID_ARGUMENT, "hit row 3: z is nan"));
  const auto failed = raised<ServerError>(explain(StatusCode::INTERNAL, "it broke\nTraceback"));
  CHECK(std::string(failed.what()) == "grpc://a:1 failed: it broke");

  const auto other = raised<ServerError>(
      [] { raise_without_model("grpc://a:1", "track_finding", {"resnet", "vgg"}); });
  CHECK(std::string(other.what()) ==
        "grpc://a:1 has no model 'track_finding'; it has: resnet, vgg");
  raised<UnreachableError>(
      [] { raise_without_model("grpc://a:1", "track_finding", {"track_finding"}); });
}

void descriptions_are_read_and_columns_chosen() {
  std::map<std::string, std::string> parameters{
      {"columns", R"(["x", "y", "z", "volume_id"])"}, {"absent", R"({"volume_id": 8.5})"},
      {"features", R"(["r", "phi", "z"])"},           {"scales", "[1000, 3.14, 1000.0]"},
      {"max_hits", "500000"},                         {"max_queue", "64"},
      {"bundle", R"("tiny")"},                        {"detector", R"("a test's")"},
      {"digest", R"("0123abc")"}};
  const Description says = read_description(parameters, "grpc://a:1");
  CHECK(says.columns.size() == 4 && says.columns[3] == "volume_id");
  CHECK(says.scales[1] == 3.14 && says.max_hits == 500000 && says.detector == "a test's");

  const std::vector<float> filled = select_columns(std::vector<float>{1, 2, 3}, {"z", "y", "x"}, says);
  CHECK(filled == (std::vector<float>{3, 2, 1, 8.5}));
  const auto lacking = raised<InputError>(
      [&] { select_columns(std::vector<float>{1, 2}, {"x", "y"}, says); });
  CHECK(std::string(lacking.what()) == "these hits have no z, which the bundle tiny needs");
  raised<InputError>([&] { select_columns(std::vector<float>{1, 2}, {"x", "y", "z"}, says); });

  CHECK(says.compact == 0 && !says.min_quality && says.track_columns.empty());  // an older server
  parameters["compact"] = "1";
  parameters["min_quality"] = "null";
  parameters["track_columns"] = R"(["pt", "eta"])";
  const Description newer = read_description(parameters, "grpc://a:1");
  CHECK(newer.compact == 1 && !newer.min_quality && newer.track_columns.size() == 2);
  parameters["min_quality"] = "0.25";
  CHECK(read_description(parameters, "grpc://a:1").min_quality == 0.25);

  parameters["scales"] = "no JSON";
  raised<ServerError>([&] { read_description(parameters, "grpc://a:1"); });
}

void what_has_no_room_in_compact_hits_is_not_sent_in_them() {
  std::vector<float> values(300, 1.0F);
  CHECK(encode_hits(values, 3, 0.01).has_value());
  for (const float bad : {NAN, INFINITY, -INFINITY, 83886.08F, -83890.0F}) {
    values[298] = bad;
    CHECK(!encode_hits(values, 3, 0.01));
  }
  CHECK(encode_hits({}, 3, 0.01)->size() == 16);
}

void compact_labels_are_read_or_refused() {
  using Labels = std::vector<std::int64_t>;
  // Hits 0, 2 and 9 of 10 are on tracks.
  const std::string flags{"\xa0\x40", 2};
  CHECK(decode_labels(flags + std::string{"\x01\x00\x00\x80\x01\x00", 6}, 10) ==
        (Labels{1, -1, 32768, -1, -1, -1, -1, -1, -1, 1}));
  CHECK(decode_labels(flags + std::string{"\x01\0\0\0\0\0\1\0\2\0\0\0", 12}, 10) ==
        (Labels{1, -1, 65536, -1, -1, -1, -1, -1, -1, 2}));
  CHECK(decode_labels(std::string(2, '\0'), 10) == Labels(10, -1));
  CHECK(decode_labels("", 0) == Labels{});
  CHECK(!decode_labels("", 10));
  CHECK(!decode_labels(flags + "\x01", 10));
  CHECK(!decode_labels(flags + std::string(9, '\1'), 10));
  CHECK(!decode_labels(std::string(3, '\0'), 10));
}

// Print HITS_COMPACT of a file of float32 [N, columns], for a comparison with Python's.
int print_compact(const char* path, const char* columns, const char* step) {
  std::ifstream file(path, std::ios::binary);
  const std::string raw(std::istreambuf_iterator<char>(file), {});
  std::vector<float> values(raw.size() / sizeof(float));
  std::copy(raw.begin(), raw.end(), reinterpret_cast<char*>(values.data()));
  std::cout << encode_hits(values, std::stoul(columns), std::stod(step)).value_or("no room");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4) return print_compact(argv[1], argv[2], argv[3]);
  a_failed_server_rests_and_another_is_asked();
  rests_double_and_hints_are_kept();
  the_least_busy_server_is_asked();
  attempts_end_by_number_and_by_time();
  servers_are_read_or_refused();
  failures_become_errors();
  descriptions_are_read_and_columns_chosen();
  what_has_no_room_in_compact_hits_is_not_sent_in_them();
  compact_labels_are_read_or_refused();
  std::cout << "all is well\n";
}
