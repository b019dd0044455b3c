#include "cells.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <sstream>
#include <vector>

#include "bounds.h"
#include "memory.h"
#include "random.h"
#include "threads.h"

namespace normwright::fuzz {
namespace {

// What goes in and what comes out, by the names in kernels.h. dcell is both.
enum Array { kZ, kBefore, kDh, kSquashed, kThrough, kGates, kCell, kDcell, kDz, kArrays };
constexpr const char* kNames[] = {"z", "before", "dh", "squashed", "through", "gates", "cell", "dcell", "dz"};

bool has_gates(int array) { return array == kZ || array == kGates || array == kDz; }

std::int64_t count_of(const CellProblem& problem, int array) {
  return problem.shape.rows * problem.shape.units * (has_gates(array) ? 4 : 1);
}

using Bytes = std::vector<std::byte>;

// Gates are within their range; some z are far out, where a gate is 0 or 1.
struct Inputs {
  Bytes arrays[kArrays];

  Inputs(const CellProblem& problem, Random& random) {
    const Real far = static_cast<Real>(random.magnitude(1, 200));
    for (int array = 0; array < kArrays; ++array) {
      const std::int64_t count = count_of(problem, array);
      arrays[array].resize(static_cast<std::size_t>(count * bytes_of(problem.dtype)));
      for (std::int64_t i = 0; i < count; ++i) {
        const Real value = static_cast<Real>(random.normal());
        const bool bounded = array == kGates || array == kSquashed;
        write(problem.dtype, arrays[array].data(), i, bounded ? std::tanh(value) : value * far);
      }
      if (count && random.chance(0.05)) {
        const Real none = std::numeric_limits<Real>::quiet_NaN();
        write(problem.dtype, arrays[array].data(), random.below(count), none);
      }
    }
  }
};

// One run, its arrays at alignments of their own.
class Run {
 public:
  Run(const CellProblem& problem, const Inputs& inputs, Random& random) : problem_(problem), inputs_(inputs) {
    for (int array = 0; array < kArrays; ++array) {
      const std::int64_t gap = random.chance(0.5) ? 0 : random.below(17) * bytes_of(problem.dtype);
      memory_[array] = Memory(inputs.arrays[array].size(), static_cast<std::size_t>(gap));
      if (memory_[array].bytes()) {
        std::memcpy(memory_[array].data(), inputs.arrays[array].data(), memory_[array].bytes());
      }
    }
  }

  void call(const Kernels& kernels, Schedule schedule) {
    const Parallel parallel = parallel_for(schedule);
    if (problem_.backward) {
      const CellBackward call{problem_.dtype, at(kDh), at(kSquashed), at(kThrough), at(kGates),
                              at(kBefore),    at(kDcell), at(kDz)};
      return kernels.lstm_cell_backward(problem_.shape, call, parallel);
    }
    const Array gates = problem_.in_place ? kZ : kGates, cell = problem_.in_place ? kBefore : kCell;
    kernels.lstm_cell(problem_.shape, {problem_.dtype, at(kZ), at(kBefore), at(gates), at(cell)}, parallel);
  }

  Real value(Array array, std::int64_t i) const { return read(problem_.dtype, at(array), i); }
  const void* at(Array array) const { return memory_[array].data(); }
  void* at(Array array) { return memory_[array].data(); }
  std::size_t bytes(int array) const { return memory_[array].bytes(); }

  // A write past an array, or into one that is only read.
  std::string strayed() const {
    for (int array = 0; array < kArrays; ++array) {
      const Memory& memory = memory_[array];
      if (!memory.edges_intact()) return std::string("wrote past ") + kNames[array];
      if (writes(array) || memory.bytes() == 0) continue;
      const bool same = std::memcmp(memory.data(), inputs_.arrays[array].data(), memory.bytes()) == 0;
      if (!same) return std::string("wrote into ") + kNames[array];
    }
    return "";
  }

  bool writes(int array) const {
    if (problem_.backward) return array == kDcell || array == kDz;
    return problem_.in_place ? array == kZ || array == kBefore : array == kGates || array == kCell;
  }

 private:
  const CellProblem& problem_;
  const Inputs& inputs_;
  Memory memory_[kArrays];
};

// The plain loop, at one unit of one row.
class Expected {
 public:
  Expected(const CellProblem& problem, const Inputs& inputs, std::int64_t row, std::int64_t unit)
      : problem_(problem),
        inputs_(inputs),
        u_(unit_of(problem.dtype)),
        least_(least_normal_of(problem.dtype)),
        first_gate_(4 * row * problem.shape.units + unit),
        element_(row * problem.shape.units + unit) {}

  std::int64_t gate(int which) const { return first_gate_ + which * problem_.shape.units; }
  std::int64_t element() const { return element_; }

  Estimate activated_gate(int which) const {
    return activated(which == 2 ? Activation::tanh : Activation::sigmoid, in(kZ, gate(which)), 0, u_);
  }

  // f·before + i·g, to which the products pass on the gates' errors.
  Estimate cell() const {
    const Estimate i = activated_gate(0), f = activated_gate(1), g = activated_gate(2);
    const Real before = in(kBefore, element_), kept = f.value * before, added = i.value * g.value;
    const Real passed = f.error * std::abs(before) + i.error * std::abs(g.value) + g.error * std::abs(i.value) +
                        i.error * g.error;
    return {kept + added, passed + roundings(std::abs(kept) + std::abs(added))};
  }

  Estimate dcell() const { return product({dc(), given(in(kGates, gate(1)))}); }

  Estimate dz(int which) const {
    const Real i = in(kGates, gate(0)), g = in(kGates, gate(2)), o = in(kGates, gate(3)), f = in(kGates, gate(1));
    switch (which) {
      case 0:
        return product({dc(), given(g), given(i), one_less(i)});
      case 1:
        return product({dc(), given(in(kBefore, element_)), given(f), one_less(f)});
      case 2:
        // 1 − g² in one rounding with a fused multiply-add, in two without, of values of at most 1.
        return product({dc(), given(i), {1 - g * g, 2 * u_}});
      default:
        return product({given(in(kDh, element_)), given(in(kSquashed, element_)), given(o), one_less(o)});
    }
  }

 private:
  Real in(Array array, std::int64_t i) const { return read(problem_.dtype, inputs_.arrays[array].data(), i); }
  Estimate given(Real value) const { return {value, 0}; }
  Estimate one_less(Real value) const { return {1 - value, u_ * std::abs(1 - value)}; }
  Estimate dc() const {
    const Real sum = in(kDcell, element_) + in(kThrough, element_);
    return {sum, u_ * std::abs(sum) + least_};
  }
  Real roundings(Real size) const { return 4 * u_ * size + 4 * least_; }

  // A product rounded after each factor, in any order of them: a part of it that is below the least normal number
  // loses all its digits, whatever the rest is.
  Estimate product(std::initializer_list<Estimate> factors) const {
    Real value = 1, largest = 1, rest = 1;
    for (const Estimate& factor : factors) {
      value *= factor.value;
      largest *= std::abs(factor.value) + factor.error;
      rest *= std::max(Real{1}, std::abs(factor.value) + factor.error);
    }
    const auto count = static_cast<Real>(factors.size());
    return {value, largest - std::abs(value) + count * u_ * largest + count * least_ * rest};
  }

  const CellProblem& problem_;
  const Inputs& inputs_;
  Real u_, least_;
  std::int64_t first_gate_, element_;
};

std::string compare(const CellProblem& problem, const Run& run, Array array, std::int64_t i, const Estimate& expected) {
  const Real got = run.value(array, i);
  if (acceptable(problem.dtype, got, expected)) return "";
  std::ostringstream text;
  text.precision(17);
  text << kNames[array] << "[" << i << "] is " << got << ", must be " << expected.value << " within "
       << expected.error;
  return text.str();
}

std::string compare_with_loop(const CellProblem& problem, const Inputs& inputs, const Run& run) {
  const Array gates = problem.backward ? kDz : problem.in_place ? kZ : kGates;
  const Array cell = problem.backward ? kDcell : problem.in_place ? kBefore : kCell;
  for (std::int64_t row = 0; row < problem.shape.rows; ++row) {
    for (std::int64_t unit = 0; unit < problem.shape.units; ++unit) {
      const Expected expected(problem, inputs, row, unit);
      std::string wrong = compare(problem, run, cell, expected.element(),
                                  problem.backward ? expected.dcell() : expected.cell());
      for (int which = 0; which < 4 && wrong.empty(); ++which) {
        wrong = compare(problem, run, gates, expected.gate(which),
                        problem.backward ? expected.dz(which) : expected.activated_gate(which));
      }
      if (!wrong.empty()) return wrong;
    }
  }
  return "";
}

// But for the bits of a NaN, which depend on the order of a product's factors.
std::string compare_bits(const CellProblem& problem, const Run& a, const Run& b) {
  for (int array = 0; array < kArrays; ++array) {
    const auto which = static_cast<Array>(array);
    if (a.bytes(array) == 0 || std::memcmp(a.at(which), b.at(which), a.bytes(array)) == 0) continue;
    for (std::int64_t i = 0; i < count_of(problem, array); ++i) {
      const Real of_a = a.value(which, i), of_b = b.value(which, i);
      const bool same = std::isnan(of_a) ? std::isnan(of_b) : of_a == of_b;
      if (!same) return std::string("the bits of ") + kNames[array] + " differ";
    }
  }
  return "";
}

}  // namespace

std::string CellProblem::name() const {
  return std::string(function_name()) + ": rows=" + std::to_string(shape.rows) +
         " units=" + std::to_string(shape.units) + " " + name_of(dtype) + (in_place ? " in place" : "");
}

CellProblem random_cell(std::uint64_t seed, std::int64_t most) {
  Random random(seed);
  // Most small, since these are the quickest; from 2¹⁵ elements on the kernels use threads.
  const std::int64_t elements = random.chance(0.8) ? std::min<std::int64_t>(most, 4000) : most;
  const auto length = [&](std::int64_t longest) {
    return static_cast<std::int64_t>(random.magnitude(1, static_cast<double>(longest) + 1));
  };
  const std::int64_t units = length(elements / 4);
  const std::int64_t rows = random.chance(0.02) ? 0 : length(elements / (4 * units));
  const Dtype dtype = random.one_of({Dtype::float32, Dtype::float64, Dtype::bfloat16, Dtype::float16});
  const bool backward = random.chance(0.5);
  return {{rows, units}, dtype, backward, !backward && random.chance(0.3)};
}

std::string check(const Kernels& kernels, const CellProblem& problem, std::uint64_t seed) {
  Random random(seed ^ 0x5eed);
  const Inputs inputs(problem, random);
  Run first(problem, inputs, random);
  first.call(kernels, {1, 0});
  std::string wrong = first.strayed();
  if (wrong.empty()) wrong = compare_with_loop(problem, inputs, first);
  for (int i = 0; i < 2 && wrong.empty(); ++i) {
    const Schedule schedule{random.one_of({1, 2, 3, 5}), random.bits()};
    Run again(problem, inputs, random);
    again.call(kernels, schedule);
    wrong = again.strayed();
    if (wrong.empty()) wrong = compare_bits(problem, first, again);
    if (!wrong.empty()) wrong += " with " + std::to_string(schedule.threads) + " threads, or other alignments";
  }
  return wrong;
}

}  // namespace normwright::fuzz
