// The activations in wide arithmetic, and how far a careful evaluation in a narrower type may be off.
//
// u is half an ulp of 1 in the type that the elements are computed in. The constants count roundings; they
// were not fitted to what the kernels do.

#pragma once

#include "number.h"

namespace normwright::fuzz {

struct Estimate {
  Real value;
  Real error;  // the most that a kernel's value may be off
};

// a(z), with z known to within `z_error`.
Estimate activated(Activation activation, Real z, Real z_error, Real u);

// dy·a′(z), with z known to within `z_error`.
Estimate through_activation(Activation activation, Real dy, Real z, Real z_error, Real u);

// dy times slope 1, or the other slope of relu and leaky_relu.
Estimate through_slope(Activation activation, Real dy, bool slope_is_one, Real u);

// Whether relu's or leaky_relu's slope is 1 at z. A NaN has slope 1 in relu, as in PyTorch.
bool slope_is_one(Activation activation, Real z);

// Whether a kernel may have stored `value`: the nearest number in the dtype to something within the bound.
// What is not finite must be not finite in both. Where infinity went into it there may be no bound, as where z
// is infinite, or dy and z may be either side of relu's corner.
bool acceptable(Dtype dtype, Real value, const Estimate& expected);

// How many values that has been asked of, for the report: a bound that is none would hide much.
struct Compared {
  std::int64_t values = 0, unbounded = 0;
};
extern Compared compared;

}  // namespace normwright::fuzz
