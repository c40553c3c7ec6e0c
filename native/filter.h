// Network 2, as Filter of training/networks.py.
#pragma once

#include "networks.h"

namespace trackserve {

template <class Number>
std::unique_ptr<Network> make_filter(const HitColumns& columns, const Sizes& sizes, Tensors tensors);

}  // namespace trackserve
