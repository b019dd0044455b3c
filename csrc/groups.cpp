// Groups: moments over the channels of a group and space, within a sample, channels-last.

#include "columns.h"
#include "family.h"

namespace normwright::NORMWRIGHT_ISA {

namespace {

bool is_empty(const Groups& shape) { return shape.samples == 0 || shape.space == 0 || shape.channels == 0; }

Columns columns_of(const Groups& shape) {
  return {shape.samples, shape.space, shape.channels, 1, shape.groups, shape.center};
}

}  // namespace

void groups_forward(const Groups& shape, const Forward& call, const Parallel& parallel) {
  if (is_empty(shape)) return without_elements(call, shape.samples * shape.groups);
  columns_forward(columns_of(shape), call, MomentsOf::batch, parallel);
}

void groups_backward(const Groups& shape, const Backward& call, const Parallel& parallel) {
  if (is_empty(shape)) return without_elements(call, shape.channels);
  columns_backward(columns_of(shape), call, MomentsOf::batch, parallel);
}

}  // namespace normwright::NORMWRIGHT_ISA
