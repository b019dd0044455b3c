// What the operators ask of their arguments before a kernel takes these on trust. Who traces, exports or calls one by
// hand comes past every check of functional/. backends/checks.py asks the same for other devices, in the same words.

#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "tensors.h"

namespace normwright {

// The bits of `wanted`, the gradients that a backward is asked for.
enum Wanted : std::int64_t { kDx = 1, kDresidual = 2, kDweight = 4, kDbias = 8, kDalpha = 16, kAllWanted = 31 };

using Sizes = std::span<const std::int64_t>;

// As Python writes a list.
inline std::string listed(Sizes sizes) {
  std::string text = "[";
  for (const std::int64_t size : sizes) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

inline bool is_floating(ScalarType dtype) {
  return dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::BFloat16 ||
         dtype == ScalarType::Half;
}

// PyTorch takes None for a tensor that must be there, and passes on one without memory or sizes.
inline void check_given(const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.defined(), name, " must be a tensor, but is None");
}

inline void check_floating(const char* name, const Tensor& t) {
  check_given(name, t);
  const ScalarType dtype = t.scalar_type();
  STD_TORCH_CHECK(is_floating(dtype), name, " must be float32, float64, bfloat16 or float16, but is ", dtype);
}

inline void check_sizes(const char* name, const Tensor& t, Sizes sizes, const char* why) {
  check_given(name, t);
  STD_TORCH_CHECK(std::ranges::equal(sizes_of(t), sizes), name, " must have shape ", listed(sizes), ", ", why,
                  ", but has shape ", listed(sizes_of(t)));
}

inline void check_floats(const char* name, const Tensor& t, Sizes sizes, const char* why) {
  check_floating(name, t);
  check_sizes(name, t, sizes, why);
}

inline void check_floats(const char* name, const MaybeTensor& t, Sizes sizes, const char* why) {
  if (t) check_floats(name, *t, sizes, why);
}

inline void check_same_dtype(const char* name, const Tensor& t, const char* model_name, const Tensor& model) {
  STD_TORCH_CHECK(t.scalar_type() == model.scalar_type(), name, " must have the dtype of ", model_name, ", ",
                  model.scalar_type(), ", but is ", t.scalar_type());
}

// A tensor that is written has memory of its own for each element: an axis steps over what the quicker ones span.
inline void check_is_written(const char* name, const Tensor& t) {
  if (t.is_contiguous()) return;
  const auto sizes = sizes_of(t), strides = strides_of(t);
  std::vector<std::pair<std::int64_t, std::int64_t>> steps;
  for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
    if (sizes[axis] > 1) steps.emplace_back(strides[axis], sizes[axis]);
  }
  std::ranges::sort(steps);
  std::int64_t span = 1;
  for (const auto& [stride, size] : steps) {
    STD_TORCH_CHECK(stride >= span, name,
                    " must have memory for each element, as it is written, but is expanded or overlaps itself: use its "
                    "clone()");
    span += stride * (size - 1);
  }
}

// The gradients that are asked for: a sum of bits.
inline void check_wanted(std::int64_t wanted) {
  STD_TORCH_CHECK(wanted >= 0 && wanted <= kAllWanted, "wanted must be at least 0 and at most ", kAllWanted,
                  ", the sum of all gradients' bits, but is ", wanted);
}

// A tensor with an element for each of x's.
inline void check_like(const Tensor& x, const char* name, const Tensor& t) {
  check_floats(name, t, sizes_of(x), "that of x");
}

// x with its channels along axis 1.
inline void check_channels(const Tensor& x) {
  check_floating("x", x);
  STD_TORCH_CHECK(x.dim() >= 2, "x must be (N, C, *space), but has shape ", listed(sizes_of(x)));
}

inline Sizes channel_sizes(const Tensor& x) { return sizes_of(x).subspan(1, 1); }

// A vector with an element for each of so many channels.
template <class Vector>
void check_vector(const char* name, const Vector& t, Sizes channels) {
  check_floats(name, t, channels, "an element for each channel");
}

inline void check_axes(const Tensor& x, std::int64_t axes) {
  check_floating("x", x);
  STD_TORCH_CHECK(axes >= 1 && axes <= x.dim(), "axes must be at least 1 and at most those of x, ", x.dim(),
                  ", but is ", axes);
}

inline void check_axis(const Tensor& x, std::int64_t axis) {
  check_floating("x", x);
  STD_TORCH_CHECK(axis >= 0 && axis < x.dim(), "axis must be at least 0 and below the axes of x, ", x.dim(),
                  ", but is ", axis);
}

// Without channels there may be no groups.
inline void check_groups(const Tensor& x, std::int64_t groups) {
  const std::int64_t channels = x.size(1);
  STD_TORCH_CHECK(groups > 0 ? channels % groups == 0 : groups == 0 && channels == 0,
                  "groups must divide the channels of x, ", channels, ", but is ", groups);
}

// One number, of any dtype of numbers.
inline void check_number(const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.numel() == 1, name, " must be one number, but has shape ", listed(sizes_of(t)));
  const ScalarType dtype = t.scalar_type();
  const auto is = [dtype](ScalarType other) { return dtype == other; };
  static constexpr ScalarType kWhole[] = {ScalarType::Long, ScalarType::Int, ScalarType::Short, ScalarType::Char,
                                          ScalarType::Byte};
  STD_TORCH_CHECK(is_floating(dtype) || std::ranges::any_of(kWhole, is), name, " must be a number, but is ", dtype);
}

}  // namespace normwright
