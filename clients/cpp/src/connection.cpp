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

#include "failures.h"
#include "kserve.grpc.pb.h"
#include "trackserve/errors.h"

namespace trackserve {

static_assert(std::endian::native == std::endian::little, "tensors are little endian on the wire");

namespace {

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

inference::ModelInferRequest make_request(const Model& model, std::span<const float> values,
                                          std::size_t columns, const std::string& request_id) {
  inference::ModelInferRequest request;
  request.set_model_name(model.name);
  request.set_id(request_id);
  auto* input = request.add_inputs();
  input->set_name(model.input);
  input->set_datatype("FP32");
  input->add_shape(static_cast<std::int64_t>(values.size() / columns));
  input->add_shape(static_cast<std::int64_t>(columns));
  request.add_outputs()->set_name(model.output);
  request.add_raw_input_contents(values.data(), values.size_bytes());
  return request;
}

std::vector<std::int64_t> read_labels(const inference::ModelInferResponse& response,
                                      const Model& model, std::size_t hits,
                                      const std::string& url) {
  for (int i = 0; i < response.outputs_size(); ++i) {
    const auto& output = response.outputs(i);
    if (output.name() != model.output || i >= response.raw_output_contents_size()) continue;
    const std::string& raw = response.raw_output_contents(i);
    if (output.datatype() != "INT64" || raw.size() != hits * sizeof(std::int64_t)) {
      throw ServerError(url + " answered " + std::to_string(hits) + " hits with " +
                        std::to_string(raw.size()) + " bytes of " + output.datatype() +
                        "; expected one INT64 label for each hit");
    }
    std::vector<std::int64_t> labels(hits);
    if (hits > 0) std::memcpy(labels.data(), raw.data(), raw.size());
    return labels;
  }
  throw ServerError("the model '" + model.name + "' at " + url + " returned no " + model.output);
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

std::vector<std::int64_t> Connection::infer(const Model& model, std::span<const float> values,
                                            std::size_t columns, double timeout,
                                            const std::string& request_id) const {
  grpc::ClientContext context;
  set_deadline(context, timeout);
  context.AddMetadata("x-request-id", request_id);  // for a proxy
  inference::ModelInferResponse response;
  const grpc::Status status =
      stub_->rpc->ModelInfer(&context, make_request(model, values, columns, request_id), &response);
  if (!status.ok()) raise(status.error_code(), status.error_message(), model.name, timeout);
  return read_labels(response, model, values.size() / columns, url_);
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
