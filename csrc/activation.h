// The activations and their derivatives on packs. The polynomials were fitted to the functions by weighted
// least squares towards the least largest error; beside each stands what it leaves.

#pragma once

#include <cmath>

#include "kernels.h"
#include "pack.h"

namespace normwright::NORMWRIGHT_ISA {

constexpr double kLeakySlope = 0.01;

template <class C, class Function>
inline Pack<C> each_lane(Pack<C> v, Function&& function) {
  for (int lane = 0; lane < kLanes<C>; ++lane) v[lane] = function(v[lane]);
  return v;
}

inline FloatPack polynomial(FloatPack) { return FloatPack{}; }
template <class... Rest>
inline FloatPack polynomial(FloatPack x, float constant, Rest... rest) {
  if constexpr (sizeof...(rest) == 0) {
    return broadcast(constant);
  } else {
    return multiply_add(polynomial(x, rest...), x, broadcast(constant));
  }
}

// eˣ = 2ⁿ·eʳ with |r| ≤ ln(2)/2. Past its range x is taken at the end of it.
inline FloatPack exp(FloatPack x) {
  x = at_most(broadcast(88.3f), at_least(broadcast(-87.3f), x));
  const FloatPack to_integer = broadcast(12582912.0f);  // 1.5·2²³: adding it rounds to an integer
  const FloatPack shifted = multiply_add(x, broadcast(1.44269504f), to_integer);
  const FloatPack n = shifted - to_integer;
  const FloatPack high = multiply_add(n, broadcast(-0.693359375f), x);
  const FloatPack r = multiply_add(n, broadcast(2.12194440e-4f), high);  // ln 2 in two parts
  // (eʳ − 1 − r)/r², error 3.2e-9 of eʳ.
  const FloatPack p =
      polynomial(r, 5.000000096e-01f, 1.666651830e-01f, 4.166620417e-02f, 8.368953708e-03f, 1.395060030e-03f);
  const Int32Pack exponent = (reinterpret_cast<Int32Pack>(shifted) - 0x4b400000 + 127) << 23;
  return (multiply_add(p, r * r, r) + 1.0f) * reinterpret_cast<FloatPack>(exponent);
}
inline DoublePack exp(DoublePack x) {
  return each_lane<double>(x, [](double v) { return std::exp(v); });
}

template <class C>
inline Pack<C> sigmoid(Pack<C> z) {
  const Pack<C> value = C{1} / (exp(-z) + C{1});
  if constexpr (sizeof(C) == 8) return value;
  return select<C>(z < C{-88}, Pack<C>{}, value);  // where exp's range ends
}

inline FloatPack tanh(FloatPack z) {
  const FloatPack magnitude = select<float>(z < 0, -z, z);
  const FloatPack far = 1.0f - 2.0f / (exp(magnitude + magnitude) + 1.0f);
  const FloatPack s = z * z;
  // (tanh(z) − z)/z³ for |z| < 0.6, error 3.1e-9 of tanh.
  const FloatPack cubic = polynomial(s, -3.333329473e-01f, 1.333181604e-01f, -5.377315368e-02f, 2.075551268e-02f,
                                     -5.843338618e-03f);
  const FloatPack near = multiply_add(z * s, cubic, z);
  return select<float>(magnitude >= 0.6f, select<float>(z < 0, -far, far), near);
}
inline DoublePack tanh(DoublePack z) {
  return each_lane<double>(z, [](double v) { return std::tanh(v); });
}

// Φ(z), the normal distribution.
inline FloatPack normal_distribution(FloatPack z) {
  const FloatPack a = select<float>(z < 0, -z, z) * 0.707106781f;
  const FloatPack t = (3.0f - a) / (3.0f + a);
  // exp(a²)·erfc(a) for a < 10, error 1.4e-9 of it.
  const FloatPack scaled = polynomial(t, 1.790011513e-01f, 3.262335638e-01f, 2.456037986e-01f, 1.501157816e-01f,
                                      7.166584697e-02f, 2.439424463e-02f, 4.268965832e-03f, -7.158451214e-04f,
                                      -5.946888711e-04f, -2.862485486e-05f, 5.580747329e-05f);
  const FloatPack tail = exp(z * z * -0.5f) * scaled * 0.5f;
  return select<float>(z < 0, tail, 1.0f - tail);
}
inline DoublePack normal_distribution(DoublePack z) {
  return each_lane<double>(z, [](double v) { return 0.5 * std::erfc(-v * 0.70710678118654752440); });
}

template <class C>
inline Pack<C> gelu(Pack<C> z) {
  // Past 10 the distribution is 0 or 1, and its fit is not held to hold; infinity times 0 would be NaN.
  const Pack<C> value = z * normal_distribution(z);
  if constexpr (sizeof(C) == 8) return value;
  return select<C>(z < C{-13}, Pack<C>{}, select<C>(z > C{13}, z, value));
}

template <class C>
inline Pack<C> gelu_derivative(Pack<C> z) {
  const Pack<C> density = exp(z * z * C{-0.5}) * static_cast<C>(0.39894228040143267794);
  const Pack<C> value = normal_distribution(z) + z * density;
  if constexpr (sizeof(C) == 8) return value;
  return select<C>(z < C{-13}, Pack<C>{}, select<C>(z > C{13}, broadcast(C{1}), value));
}

// What the inner loops are built for: no activation, relu, and the rest, which is computed apart from them
// (activation_runs.h).
enum class Kind { none, relu, any };

template <class C>
inline Pack<C> activate(Pack<C> z, Activation activation) {
  const Pack<C> zero{};
  switch (activation) {
    case Activation::none:
      return z;
    case Activation::relu:
      return select<C>(z <= zero, zero, z);
    case Activation::leaky_relu:
      return select<C>(z > zero, z, z * static_cast<C>(kLeakySlope));
    case Activation::silu:
      return z * sigmoid<C>(z);
    case Activation::gelu:
      return gelu<C>(z);
    case Activation::sigmoid:
      return sigmoid<C>(z);
    case Activation::tanh:
      return tanh(z);
  }
  return z;
}

// Where the slope is 1. A NaN has slope 1 in relu and not in leaky_relu, as in PyTorch.
template <class C>
inline IntPack<C> slope_is_one(Pack<C> z, Activation activation) {
  const Pack<C> zero{};
  const IntPack<C> above = z > zero;
  return activation == Activation::relu ? above | (z != z) : above;
}

// dy·a'(z) of relu and leaky_relu.
template <class C>
inline Pack<C> through_slope(Pack<C> dy, IntPack<C> one, Activation activation) {
  const Pack<C> sloped = activation == Activation::relu ? Pack<C>{} : dy * static_cast<C>(kLeakySlope);
  return select<C>(one, dy, sloped);
}

// dy·a'(z).
template <class C>
inline Pack<C> through_activation(Pack<C> dy, Pack<C> z, Activation activation) {
  switch (activation) {
    case Activation::none:
      return dy;
    case Activation::relu:
    case Activation::leaky_relu:
      return through_slope<C>(dy, slope_is_one<C>(z, activation), activation);
    case Activation::silu: {
      const Pack<C> s = sigmoid<C>(z);
      return dy * s * multiply_add(z, C{1} - s, broadcast(C{1}));
    }
    case Activation::gelu:
      return dy * gelu_derivative<C>(z);
    case Activation::sigmoid: {
      const Pack<C> s = sigmoid<C>(z);
      return dy * s * (C{1} - s);
    }
    case Activation::tanh: {
      const Pack<C> t = tanh(z);
      return dy * (C{1} - t * t);
    }
  }
  return dy;
}

}  // namespace normwright::NORMWRIGHT_ISA
