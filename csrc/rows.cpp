// Rows: moments over contiguous trailing elements.

#include "elements.h"
#include "family.h"
#include "slabs.h"

namespace normwright::NORMWRIGHT_ISA {

namespace {

bool has_long_runs(const Rows& shape) { return shape.segment >= kLongRun; }

Slabs slabs_of(const Rows& shape) {
  const std::int64_t runs = shape.length / shape.segment;
  return {shape.rows, runs, shape.segment, shape.length, shape.segment, shape.sets, true, shape.center};
}

}  // namespace

void rows_forward(const Rows& shape, const Forward& call, const Parallel& parallel) {
  if (shape.rows == 0 || shape.length == 0) return without_elements(call, shape.rows);
  if (has_long_runs(shape)) return slabs_forward(slabs_of(shape), call, MomentsOf::batch, parallel);
  elements_forward(shape, call, parallel);
}

void rows_backward(const Rows& shape, const Backward& call, const Parallel& parallel) {
  if (shape.rows == 0 || shape.length == 0) {
    // An empty segment does not say how many there are of it.
    return without_elements(call, shape.segment ? shape.sets * shape.length / shape.segment : 0);
  }
  if (has_long_runs(shape)) return slabs_backward(slabs_of(shape), call, MomentsOf::batch, parallel);
  elements_backward(shape, call, parallel);
}

}  // namespace normwright::NORMWRIGHT_ISA
