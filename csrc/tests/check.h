// Runs a problem on the kernels of one instruction set, and compares.

#pragma once

#include <string>

#include "problem.h"

namespace normwright::fuzz {

// What is wrong; empty where nothing is.
std::string check(const Kernels& kernels, const Problem& problem, std::uint64_t seed);

}  // namespace normwright::fuzz
