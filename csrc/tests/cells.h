// The cell of an LSTM against a plain loop: it has neither moments nor parameters, and so nothing of a Problem.

#pragma once

#include <string>

#include "number.h"

namespace normwright::fuzz {

// One call of `lstm_cell` or of its backward, drawn from a seed.
struct CellProblem {
  Cells shape;
  Dtype dtype;
  bool backward;
  bool in_place;  // of a forward

  const char* function_name() const { return backward ? "lstm_cell_backward" : "lstm_cell"; }
  std::string name() const;
};

CellProblem random_cell(std::uint64_t seed, std::int64_t most);

// What is wrong; empty where nothing is.
std::string check(const Kernels& kernels, const CellProblem& problem, std::uint64_t seed);

}  // namespace normwright::fuzz
