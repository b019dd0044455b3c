#include "bounds.h"

#include <numbers>

namespace normwright::fuzz {
namespace {

// exp is clamped where it would leave float's range (and sigmoid is 1/(1 + exp)): off by less than this.
constexpr Real kUnderflow = 1e-37L;

Real sigmoid(Real z) { return 1 / (1 + std::exp(-z)); }
Real density(Real z) { return std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi_v<Real>); }
Real distribution(Real z) { return std::erfc(-z / std::numbers::sqrt2_v<Real>) / 2; }

// Of the normal distribution: in its tail exp(−z²/2) loses z²·u through the rounding of its argument (4z²·u
// where erfc is asked, whose argument is rounded twice); the factor beside it is a polynomial, whose terms are
// up to eight times as large as what they cancel to, with four roundings each. Above 0 it is 1 less a tail.
Real distribution_error(Real z, Real u) {
  return distribution(-std::abs(z)) * (32 + 4 * z * z) * u + (z > 0 ? 2 * u : 0) + kUnderflow;
}

// The largest slope, and the largest second derivative, of an activation; both analytic.
Real largest_slope(Activation activation) {
  switch (activation) {
    case Activation::silu:
      return 1.1L;  // 1.0998 at z = 2.4
    case Activation::gelu:
      return 1.13L;  // 1.1290 at z = √2
    case Activation::sigmoid:
      return 0.25L;
    default:
      return 1;
  }
}
Real largest_bend(Activation activation) {
  switch (activation) {
    case Activation::silu:
      return 0.5L;  // at 0
    case Activation::gelu:
      return 0.8L;  // 2/√(2π) at 0
    case Activation::sigmoid:
      return 0.097L;  // 1/(6√3)
    case Activation::tanh:
      return 0.77L;  // 4/(3√3)
    default:
      return 0;
  }
}

Real value_of(Activation activation, Real z) {
  switch (activation) {
    case Activation::none:
      return z;
    case Activation::relu:
      return z <= 0 ? 0 : z;
    case Activation::leaky_relu:
      return z > 0 ? z : z * 0.01L;
    case Activation::silu:
      return z * sigmoid(z);
    case Activation::gelu:
      return z * distribution(z);
    case Activation::sigmoid:
      return sigmoid(z);
    case Activation::tanh:
      return std::tanh(z);
  }
  return z;
}

// Of evaluating at a z without error. exp is good to 3u, a quotient or product adds one: 8u covers sigmoid and
// tanh, whose two forms meet where the worse, 1 − 2/(e²ᶻ + 1), is 0.54.
Real value_error(Activation activation, Real z, Real y, Real u) {
  switch (activation) {
    case Activation::none:
    case Activation::relu:
      return 0;
    case Activation::gelu:
      return std::abs(z) * distribution_error(z, u) + 2 * u * std::abs(y);
    case Activation::silu:
      return 8 * u * std::abs(y) + kUnderflow * std::abs(z);
    default:
      return 8 * u * std::abs(y) + kUnderflow;
  }
}

Real derivative_of(Activation activation, Real z) {
  switch (activation) {
    case Activation::silu: {
      const Real s = sigmoid(z);
      return s * (1 + z * (1 - s));
    }
    case Activation::gelu:
      return distribution(z) + z * density(z);
    case Activation::sigmoid:
      return sigmoid(z) * sigmoid(-z);
    case Activation::tanh: {
      const Real cosh = std::cosh(z);
      return 1 / (cosh * cosh);
    }
    default:
      return 1;
  }
}

Real derivative_error(Activation activation, Real z, Real u) {
  switch (activation) {
    case Activation::silu:  // 1 − s is off by s's own 8u
      return 16 * u * sigmoid(z) * (1 + std::abs(z)) + kUnderflow * (1 + z * z);
    case Activation::gelu:
      return distribution_error(z, u) + std::abs(z) * density(z) * (10 + 2 * z * z) * u;
    case Activation::sigmoid:
      return 16 * u * sigmoid(z) + kUnderflow;
    case Activation::tanh:  // 1 − t²: t² is off by 17u
      return 20 * u;
    default:
      return 0;
  }
}

}  // namespace

Compared compared;

Estimate activated(Activation activation, Real z, Real z_error, Real u) {
  // −∞ times 0: a kernel may as well take the limit.
  const bool limit = activation == Activation::silu || activation == Activation::gelu;
  if (limit && std::isinf(z) && z < 0) return {0, std::numeric_limits<Real>::infinity()};
  const Real y = value_of(activation, z);
  return {y, largest_slope(activation) * z_error + value_error(activation, z, y, u)};
}

bool slope_is_one(Activation activation, Real z) { return activation == Activation::relu ? !(z <= 0) : z > 0; }

Estimate through_slope(Activation activation, Real dy, bool slope_is_one, Real u) {
  if (slope_is_one) return {dy, 0};
  if (activation == Activation::relu) return {0, 0};
  return {dy * 0.01L, 2 * u * std::abs(dy) * 0.01L};
}

Estimate through_activation(Activation activation, Real dy, Real z, Real z_error, Real u) {
  if (activation == Activation::none) return {dy, 0};
  if (activation == Activation::relu || activation == Activation::leaky_relu) {
    Estimate dz = through_slope(activation, dy, slope_is_one(activation, z), u);
    if (std::abs(z) <= z_error) dz.error = std::abs(dy);  // either slope
    return dz;
  }
  // Infinity times the density, 0: a kernel may as well take the limit.
  if (std::isinf(z)) return {0, std::numeric_limits<Real>::infinity()};
  const Real dz = dy * derivative_of(activation, z);
  const Real slope_error = largest_bend(activation) * z_error + derivative_error(activation, z, u);
  return {dz, std::abs(dy) * slope_error + 4 * u * std::abs(dz)};
}

bool acceptable(Dtype dtype, Real value, const Estimate& expected) {
  ++compared.values;
  if (!std::isfinite(expected.value)) return !std::isfinite(value);
  if (!std::isfinite(expected.error)) {
    ++compared.unbounded;
    return true;  // NaN as well
  }
  if (std::isnan(value)) return false;
  if (std::abs(value - expected.value) <= expected.error) return true;
  // Rounding is monotonic, so it suffices to round the ends.
  return value >= rounded(dtype, expected.value - expected.error) &&
         value <= rounded(dtype, expected.value + expected.error);
}

}  // namespace normwright::fuzz
