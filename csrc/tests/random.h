// Random numbers that are the same on every machine (those of the standard library's distributions are not).

#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>

namespace normwright::fuzz {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  // SplitMix64: a counter, scrambled.
  std::uint64_t bits() {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Below `count`.
  std::int64_t below(std::int64_t count) {
    return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(count));
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  bool chance(double probability) { return uniform() < probability; }

  // Between two numbers, each order of magnitude as likely as another.
  double magnitude(double low, double high) { return low * std::exp(uniform() * std::log(high / low)); }

  // Close to normal, by the sum of four.
  double normal() { return (uniform() + uniform() + uniform() + uniform() - 2) * 1.7320508; }

  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<std::int64_t>(values.size()))];
  }

 private:
  std::uint64_t state_;
};

}  // namespace normwright::fuzz
