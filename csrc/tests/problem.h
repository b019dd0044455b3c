// One call of one function, with inputs drawn from a seed.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "number.h"
#include "shape.h"

namespace normwright::fuzz {

enum class Function {
  rows_forward,
  rows_backward,
  channels_forward,
  channels_backward,
  channel_affine,
  channel_affine_backward,
  channel_moments,
  parts_forward,
  parts_backward,
  groups_forward,
  groups_backward,
  channel_tanh,
  channel_tanh_backward
};
constexpr int kFunctions = static_cast<int>(Function::channel_tanh_backward) + 1;

const char* name_of(Function function);

// An array of one dtype.
class Values {
 public:
  Values() = default;
  Values(Dtype dtype, std::int64_t count)
      : dtype_(dtype), count_(count), bytes_(static_cast<std::size_t>(count * bytes_of(dtype))) {}

  Dtype dtype() const { return dtype_; }
  std::int64_t count() const { return count_; }
  Real operator[](std::int64_t i) const { return read(dtype_, bytes_.data(), i); }
  void set(std::int64_t i, Real value) { write(dtype_, bytes_.data(), i, value); }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  // One of `parts` equal parts.
  Values part(std::int64_t index, std::int64_t parts) const {
    Values values(dtype_, count_ / parts);
    for (std::int64_t i = 0; i < values.count_; ++i) values.set(i, (*this)[index * values.count_ + i]);
    return values;
  }

 private:
  Dtype dtype_ = Dtype::float32;
  std::int64_t count_ = 0;
  std::vector<std::byte> bytes_;
};

struct Problem {
  Function function;
  Shape shape;
  Dtype dtype;
  Activation activation;
  double eps;
  double alpha;  // of channel_tanh
  bool stream, in_place;

  Values x;
  std::optional<Values> residual, weight, bias;
  Values dy;                               // of a backward
  Values mean, rstd;                       // of a backward, and of channel_affine
  std::optional<std::vector<std::byte>> mask;  // of a backward

  bool wants_mask, wants_variance;                             // of a forward
  bool wants_dx, wants_dresidual, wants_dweight, wants_dbias;  // of a backward
  bool wants_dalpha;                                           // of channel_tanh_backward

  bool backward() const;
  bool known_moments() const;  // mean and rstd are given, and constants
  bool without_moments() const;
  std::string name() const;
};

// The problem of one of its samples alone.
Problem sample_of(const Problem& problem, std::int64_t index);

// `most` bounds the elements.
Problem random_problem(std::uint64_t seed, std::int64_t most);

}  // namespace normwright::fuzz
