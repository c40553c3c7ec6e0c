#include "connection.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <set>
#include <utility>

#include "compact.h"
#include "failures.h"
#include "kserve.grpc.pb.h"
#include "trackserve/errors.h"

namespace trackserve {

static_assert(std::endian::native == std::endian::little, "tensors are little endian on the wire");

namespace {

const std::string kParameters = "PARAMETERS";

grpc::ChannelArguments channel_arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // After a failure gRPC itself waits before it connects again, for up to two minutes by default.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return arguments;
}

void set_deadline(grpc::ClientContext& context, double timeout) {
  const auto length = std::chrono::microseconds(static_cast<std::int64_t>(timeout * 1e6));
  context.set_deadline(std::chrono::system_clock::now() + length);
}

inference::ModelInferRequest make_request(const Model& model, const Input& given,
                                          const Wanted& wanted, const std::string& request_id) {
  inference::ModelInferRequest request;
  request.set_model_name(model.name);
  request.set_id(request_id);
  auto* input = request.add_inputs();
  input->set_name(model.input);
  input->set_datatype(given.datatype);
  for (const std::int64_t length : given.shape) input->add_shape(length);
  request.add_outputs()->set_name(model.output);
  if (wanted.parameters) {
    request.add_outputs()->set_name(kParameters);
    (*request.mutable_parameters())["track_parameters"].set_bool_param(true);
  }
  if (wanted.min_quality) {
    (*request.mutable_parameters())["min_quality"].set_double_param(*wanted.min_quality);
  }
  request.add_raw_input_contents(given.bytes.data(), given.bytes.size());
  return request;
}

// The bytes of an output and how it is described; throws ServerError if it is missing.
std::pair<const inference::ModelInferResponse::InferOutputTensor&, const std::string&> find_output(
    const inference::ModelInferResponse& response, const Model& model, const std::string& name,
    const std::string& url) {
  for (int i = 0; i < response.outputs_size(); ++i) {
    if (response.outputs(i).name() == name && i < response.raw_output_contents_size()) {
      return {response.outputs(i), response.raw_output_contents(i)};
    }
  }
  throw ServerError("the model '" + model.name + "' at " + url + " returned no " + name);
}

std::vector<std::int64_t> read_labels(const inference::ModelInferResponse& response,
                                      const Model& model, std::size_t hits,
                                      const std::string& url) {
  const auto& [output, raw] = find_output(response, model, model.output, url);
  if (output.datatype() == "UINT8") {
    if (auto labels = decode_labels(raw, hits)) return std::move(*labels);
  }
  if (output.datatype() != "INT64" || raw.size() != hits * sizeof(std::int64_t)) {
    throw ServerError(url + " answered " + std::to_string(hits) + " hits with " +
                      std::to_string(raw.size()) + " bytes of " + output.datatype() +
                      "; expected one label for each hit");
  }
  std::vector<std::int64_t> labels(hits);
  if (hits > 0) std::memcpy(labels.data(), raw.data(), raw.size());
  return labels;
}

std::vector<TrackParameters> read_parameters(const inference::ModelInferResponse& response,
                                             const Model& model, std::size_t tracks,
                                             const std::string& url) {
  static_assert(sizeof(TrackParameters) == 14 * sizeof(float));
  const auto& [output, raw] = find_output(response, model, kParameters, url);
  if (output.datatype() != "FP32" || raw.size() != tracks * sizeof(TrackParameters)) {
    throw ServerError(url + " answered with " + std::to_string(raw.size()) + " bytes of " +
                      output.datatype() + " for " + std::to_string(tracks) +
                      " tracks; expected a row of 14 FP32 for each");
  }
  std::vector<TrackParameters> parameters(tracks);
  if (tracks > 0) std::memcpy(parameters.data(), raw.data(), raw.size());
  return parameters;
}

}  // namespace

namespace {

bool is_address(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view port = text.substr(colon + 1);
  return text.find_first_of("/ \t\n,") == std::string_view::npos && !port.empty() &&
         port.size() <= 5 && port.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

std::vector<std::string> split_servers(std::string_view servers) {
  std::vector<std::string> addresses;
  for (std::size_t begin = 0; begin <= servers.size();) {
    const std::size_t end = std::min(servers.find(',', begin), servers.size());
    const std::string_view server = servers.substr(begin, end - begin);
    std::string_view address = server;
    if (address.starts_with("grpc://")) address.remove_prefix(7);
    if (address.ends_with('/')) address.remove_suffix(1);
    if (!is_address(address)) {
      throw InputError("'" + std::string(server) +
                       "' is not a server; expected host:port or grpc://host:port");
    }
    addresses.emplace_back(address);
    begin = end + 1;
  }
  return addresses;
}

struct Connection::Stub {
  std::unique_ptr<inference::GRPCInferenceService::Stub> rpc;
};

Connection::Connection(const std::string& address)
    : url_("grpc://" + address), stub_(std::make_unique<Stub>()) {
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                           channel_arguments());
  stub_->rpc = inference::GRPCInferenceService::NewStub(channel);
}

Connection::~Connection() = default;
Connection::Connection(Connection&&) noexcept = default;

Tracks Connection::infer(const Model& model, const Input& input, const Wanted& wanted,
                         double timeout, const std::string& request_id) const {
  grpc::ClientContext context;
  set_deadline(context, timeout);
  context.AddMetadata("x-request-id", request_id);  // for a proxy
  inference::ModelInferResponse response;
  const grpc::Status status =
      stub_->rpc->ModelInfer(&context, make_request(model, input, wanted, request_id), &response);
  if (!status.ok()) raise(status.error_code(), status.error_message(), model.name, timeout);
  Tracks tracks;
  tracks.labels = read_labels(response, model, input.hits, url_);
  if (wanted.parameters) {
    tracks.parameters = read_parameters(response, model, tracks.size(), url_);
  }
  tracks.request_id = request_id;
  return tracks;
}

std::map<std::string, std::string> Connection::parameters(const std::string& model,
                                                          double timeout) const {
  grpc::ClientContext context;
  set_deadline(context, timeout);
  inference::ModelConfigRequest request;
  request.set_name(model);
  inference::ModelConfigResponse response;
  const grpc::Status status = stub_->rpc->ModelConfig(&context, request, &response);
  if (!status.ok()) raise(status.error_code(), status.error_message(), model, timeout);
  std::map<std::string, std::string> parameters;
  for (const auto& [name, value] : response.config().parameters()) {
    parameters[name] = value.string_value();
  }
  return parameters;
}

void Connection::raise(int code, const std::string& message, const std::string& model,
                       double timeout) const {
  const auto kind = static_cast<grpc::StatusCode>(code);
  if (!is_without_model(kind, message)) raise_failure(kind, message, url_, timeout);
  grpc::ClientContext context;
  set_deadline(context, timeout);
  inference::RepositoryIndexResponse response;
  const grpc::Status status = stub_->rpc->RepositoryIndex(&context, {}, &response);
  if (!status.ok()) raise_stopping(url_, model);
  std::set<std::string> names;
  for (const auto& each : response.models()) names.insert(each.name());
  raise_without_model(url_, model, names);
}

}  // namespace trackserve
