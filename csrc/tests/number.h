// The dtypes, bit by bit: how a number is stored in each, and read again.

#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "../kernels.h"

namespace normwright::fuzz {

// Wide enough that its own rounding, 2⁻⁶⁴, is lost beside that of the kernels, 2⁻⁵³ at best. (Where it is no
// wider than double the bounds are met all the same: they count worst cases.)
using Real = long double;

inline std::int64_t bytes_of(Dtype dtype) {
  return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

inline const char* name_of(Dtype dtype) {
  constexpr const char* kNames[] = {"float32", "float64", "bfloat16", "float16"};
  return kNames[static_cast<int>(dtype)];
}

// Half an ulp of 1 in the type that elements of a dtype are computed in.
inline Real unit_of(Dtype dtype) { return dtype == Dtype::float64 ? 0x1p-53L : 0x1p-24L; }

// Its least normal number.
inline Real least_normal_of(Dtype dtype) {
  return dtype == Dtype::float64 ? static_cast<Real>(std::numeric_limits<double>::min())
                                 : static_cast<Real>(std::numeric_limits<float>::min());
}

inline Real half_to_real(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  Real magnitude;
  if (exponent == 31) {
    magnitude = fraction ? std::numeric_limits<Real>::quiet_NaN() : std::numeric_limits<Real>::infinity();
  } else {
    magnitude = exponent ? std::ldexp(static_cast<Real>(1024 + fraction), exponent - 25)
                         : std::ldexp(static_cast<Real>(fraction), -24);
  }
  return bits & 0x8000 ? -magnitude : magnitude;
}

inline Real read(Dtype dtype, const void* values, std::int64_t i) {
  const auto* const p = static_cast<const std::byte*>(values) + i * bytes_of(dtype);
  if (dtype == Dtype::float64) {
    double value;
    std::memcpy(&value, p, sizeof value);
    return static_cast<Real>(value);
  }
  if (dtype == Dtype::float32) {
    float value;
    std::memcpy(&value, p, sizeof value);
    return static_cast<Real>(value);
  }
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  if (dtype == Dtype::float16) return half_to_real(bits);
  return static_cast<Real>(std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
}

// The nearest number of a dtype, ties to even, past the largest infinity.
inline Real rounded(Dtype dtype, Real value) {
  if (!std::isfinite(value) || value == 0) return value;
  int digits = 53, least = -1074, top = 1024;
  if (dtype == Dtype::float32) digits = 24, least = -149, top = 128;
  if (dtype == Dtype::bfloat16) digits = 8, least = -133, top = 128;
  if (dtype == Dtype::float16) digits = 11, least = -24, top = 16;
  int exponent;
  std::frexp(value, &exponent);
  const int ulp = exponent - digits > least ? exponent - digits : least;
  const Real nearest = std::ldexp(std::nearbyint(std::ldexp(value, -ulp)), ulp);
  if (std::abs(nearest) >= std::ldexp(Real{1}, top)) {
    return std::copysign(std::numeric_limits<Real>::infinity(), value);
  }
  return nearest;
}

inline void write(Dtype dtype, void* values, std::int64_t i, Real value) {
  auto* const p = static_cast<std::byte*>(values) + i * bytes_of(dtype);
  const Real nearest = rounded(dtype, value);
  if (dtype == Dtype::float64) {
    const auto stored = static_cast<double>(nearest);
    std::memcpy(p, &stored, sizeof stored);
  } else if (dtype == Dtype::float32) {
    const auto stored = static_cast<float>(nearest);
    std::memcpy(p, &stored, sizeof stored);
  } else if (dtype == Dtype::bfloat16) {
    const std::uint32_t wide = std::bit_cast<std::uint32_t>(static_cast<float>(nearest));
    const auto stored = static_cast<std::uint16_t>(std::isnan(value) ? 0x7fc0 : wide >> 16);
    std::memcpy(p, &stored, sizeof stored);
  } else {
    const Real magnitude = std::abs(nearest);
    std::uint16_t stored = 0x7e00;
    if (std::isinf(magnitude)) stored = 0x7c00;
    if (magnitude < 0x1p-14L) stored = static_cast<std::uint16_t>(std::ldexp(magnitude, 24));
    if (magnitude >= 0x1p-14L && std::isfinite(magnitude)) {
      int exponent;
      const Real fraction = std::frexp(magnitude, &exponent);
      const int steps = static_cast<int>(std::ldexp(fraction, 11)) - 1024;
      stored = static_cast<std::uint16_t>((exponent + 14) << 10 | steps);
    }
    if (std::signbit(nearest)) stored = static_cast<std::uint16_t>(stored | 0x8000);
    std::memcpy(p, &stored, sizeof stored);
  }
}

}  // namespace normwright::fuzz
