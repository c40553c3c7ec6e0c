// Runs every kernel on one event with made-up networks: for sanitizers, which end the program at the first
// read or write out of bounds and at undefined behaviour.
#pragma once

#include "budget.h"

#include <cstdint>
#include <vector>

namespace trackserve {

inline constexpr int HOSTILE_COLUMNS = 4;  // r, z, phi and another

struct HostileEvent {
    int64_t hits;
    int dimensions, limit, width, threads;
    std::vector<float> embedding;  // [hits, dimensions]
    std::vector<float> features;   // [hits, HOSTILE_COLUMNS]
};

// Throws OverBudget as the kernels do.
void drive(const HostileEvent& event, const Budget& budget);

}  // namespace trackserve
