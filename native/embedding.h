// Network 1, as Embedding of training/networks.py.
#pragma once

#include "networks.h"

namespace trackserve {

template <class Number>
std::unique_ptr<Network> make_embedding(const HitColumns& columns, const Sizes& sizes, Tensors tensors);

}  // namespace trackserve
