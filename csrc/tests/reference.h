// The mathematics of kernels.h in plain loops over the elements, with what rounding may make of it.

#pragma once

#include <vector>

#include "bounds.h"
#include "problem.h"

namespace normwright::fuzz {

using Reals = std::vector<Real>;
using Estimates = std::vector<Estimate>;

struct MomentsOfX {
  Reals count;  // elements of each moment
  Reals mean, mean_error;    // 0 where rows are not centred
  Reals m2, m2_error;        // Σ(x − mean)²
};

// Not a number, as mean and m2, where an element is not finite.
MomentsOfX moments_of(const Shape& shape, const Values& x);

// 1/√(variance + eps).
Estimate rstd_of(const MomentsOfX& moments, std::size_t moment, Real eps);

// Before the activation, from the moments that the kernel used itself.
Estimate before_activation(const Problem& problem, const Reals& mean, const Reals& rstd, std::int64_t i);

struct Gradients {
  Estimates dx, dresidual, dweight, dbias;
};
Gradients gradients_of(const Problem& problem);

// y of channel_tanh, and its gradients.
Estimates squashed(const Problem& problem);

struct TanhGradients {
  Estimates dx, dweight, dbias;
  Estimate dalpha;
};
TanhGradients tanh_gradients_of(const Problem& problem);

}  // namespace normwright::fuzz
