#include "description.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <span>

#include "format.h"

namespace trackserve {

namespace {

using google::protobuf::Value;

std::vector<std::string> strings(const Value& value) {
  std::vector<std::string> list;
  for (const Value& each : value.list_value().values()) list.push_back(each.string_value());
  return list;
}

}  // namespace

Description read_description(const std::map<std::string, std::string>& parameters,
                             const std::string& url) {
  const auto get = [&](const std::string& name) {
    const auto found = parameters.find(name);
    Value value;
    if (found == parameters.end() ||
        !google::protobuf::util::JsonStringToMessage(found->second, &value).ok()) {
      throw ServerError("the model 'track_finding' at " + url +
                        " is not one of trackserve: its parameter '" + name +
                        "' is missing or no JSON");
    }
    return value;
  };
  Description description;
  description.columns = strings(get("columns"));
  const Value absent = get("absent");
  for (const auto& [name, value] : absent.struct_value().fields()) {
    description.absent[name] = value.number_value();
  }
  description.features = strings(get("features"));
  const Value scales = get("scales");
  for (const Value& scale : scales.list_value().values()) {
    description.scales.push_back(scale.number_value());
  }
  description.max_hits = static_cast<std::int64_t>(get("max_hits").number_value());
  description.max_queue = static_cast<std::int64_t>(get("max_queue").number_value());
  description.bundle = get("bundle").string_value();
  description.detector = get("detector").string_value();
  description.digest = get("digest").string_value();
  // What older servers do not state.
  if (parameters.contains("track_columns")) {
    description.track_columns = strings(get("track_columns"));
  }
  if (parameters.contains("min_quality")) {
    const Value quality = get("min_quality");
    if (quality.has_number_value()) description.min_quality = quality.number_value();
  }
  if (parameters.contains("compact")) {
    description.compact = static_cast<std::int64_t>(get("compact").number_value());
  }
  return description;
}

std::vector<float> select_columns(std::span<const float> values,
                                  const std::vector<std::string>& columns,
                                  const Description& description) {
  const std::size_t given = columns.size();
  const std::size_t taken = description.columns.size();
  if (given == 0 || values.size() % given != 0) {
    throw InputError("hits are " + std::to_string(values.size()) + " numbers; expected rows of " +
                     std::to_string(given) + (given == 0 ? " columns" : ": " + joined(columns)));
  }
  const std::size_t hits = values.size() / given;
  std::vector<float> table(hits * taken);
  for (std::size_t column = 0; column < taken; ++column) {
    const std::string& name = description.columns[column];
    const auto found = std::find(columns.begin(), columns.end(), name);
    const auto absent = description.absent.find(name);
    if (found == columns.end() && absent == description.absent.end()) {
      throw InputError("these hits have no " + name + ", which the bundle " + description.bundle +
                       " needs");
    }
    const auto source = static_cast<std::size_t>(found - columns.begin());
    for (std::size_t hit = 0; hit < hits; ++hit) {
      table[hit * taken + column] = found != columns.end() ? values[hit * given + source]
                                                           : static_cast<float>(absent->second);
    }
  }
  return table;
}

}  // namespace trackserve
