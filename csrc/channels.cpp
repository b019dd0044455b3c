// Channels: moments over everything but the channel.

#include "columns.h"
#include "family.h"
#include "slabs.h"

namespace normwright::NORMWRIGHT_ISA {

namespace {

bool has_long_runs(const Channels& shape) { return shape.inner >= kLongRun; }

bool is_empty(const Channels& shape) { return shape.outer == 0 || shape.channels == 0 || shape.inner == 0; }

Slabs slabs_of(const Channels& shape) {
  const std::int64_t apart = shape.channels * shape.inner;
  return {shape.channels, shape.outer, shape.inner, shape.inner, apart, shape.channels, false, true};
}

Columns columns_of(const Channels& shape) {
  return {1, shape.outer, shape.channels, shape.inner, shape.channels, true};
}

void forward(const Channels& shape, const Forward& call, MomentsOf moments, const Parallel& parallel) {
  if (has_long_runs(shape)) return slabs_forward(slabs_of(shape), call, moments, parallel);
  columns_forward(columns_of(shape), call, moments, parallel);
}

void backward(const Channels& shape, const Backward& call, MomentsOf moments, const Parallel& parallel) {
  if (is_empty(shape)) return without_elements(call, shape.channels);
  if (has_long_runs(shape)) return slabs_backward(slabs_of(shape), call, moments, parallel);
  columns_backward(columns_of(shape), call, moments, parallel);
}

}  // namespace

void channels_forward(const Channels& shape, const Forward& call, const Parallel& parallel) {
  if (is_empty(shape)) return without_elements(call, shape.channels);
  forward(shape, call, MomentsOf::batch, parallel);
}

void channels_backward(const Channels& shape, const Backward& call, const Parallel& parallel) {
  backward(shape, call, MomentsOf::batch, parallel);
}

void channel_affine(const Channels& shape, const Forward& call, const Parallel& parallel) {
  if (!is_empty(shape)) forward(shape, call, MomentsOf::population, parallel);
}

void channel_affine_backward(const Channels& shape, const Backward& call, const Parallel& parallel) {
  backward(shape, call, MomentsOf::population, parallel);
}

void channel_moments(const Channels& shape, Dtype dtype, const void* x, double* mean, double* m2,
                     const Parallel& parallel) {
  if (is_empty(shape)) {
    for (std::int64_t c = 0; c < shape.channels; ++c) mean[c] = m2[c] = 0;
  } else if (has_long_runs(shape)) {
    slabs_moments(slabs_of(shape), dtype, x, mean, m2, parallel);
  } else {
    columns_moments(columns_of(shape), dtype, x, mean, m2, parallel);
  }
}

}  // namespace normwright::NORMWRIGHT_ISA
