// Reading what a model says about itself, and the hits in the columns that it takes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "trackserve/client.h"

namespace trackserve {

// Read a description from the parameters of a model at `url`; throws ServerError if it is not one
// of trackserve's.
Description read_description(const std::map<std::string, std::string>& parameters,
                             const std::string& url);

// The rows [N, C] in the model's columns, filled with the bundle's values where the hits lack a
// column; throws InputError for hits that cannot be used.
std::vector<float> select_columns(std::span<const float> values,
                                  const std::vector<std::string>& columns,
                                  const Description& description);

}  // namespace trackserve
