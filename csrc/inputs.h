// What the kernels read of a call: x in an order of memory that a family serves, the shape in which it sees
// x, and the rest in x's order and in the dtype of its arithmetic.

#pragma once

#include <algorithm>

#include "checks.h"

namespace normwright {

struct Inputs {
  Tensor given;
  MaybeTensor given_residual;
  Tensor x;
  MaybeTensor residual, weight, bias;
};

// The order of a parameter: that of x's rows, or a vector.
struct ParameterOrder {
  std::span<const std::int64_t> sizes, strides;

  std::int64_t count() const { return product(sizes); }
  bool holds(const Tensor& parameter) const { return has_strides(parameter, strides); }
};

// What is like x, in the dtype and the memory order in which the kernels take x; itself, where it is.
inline Tensor aligned_with(const Tensor& x, const char* name, const Tensor& t) {
  check_like(x, name, t);
  if (t.scalar_type() == x.scalar_type() && same_memory(t, x)) return t;
  Tensor copy = empty_strided(sizes_of(x), strides_of(x), x.scalar_type());
  return torch::stable::copy_(copy, t);
}

inline MaybeTensor aligned_with(const Tensor& x, const char* name, const MaybeTensor& t) {
  return t ? MaybeTensor(aligned_with(x, name, *t)) : std::nullopt;
}

// Whether all rows are dense, in one order of their axes.
inline bool has_dense_rows(const Tensor& x, std::int64_t outer) {
  if (x.is_contiguous()) return true;
  const auto strides = strides_of(x);
  std::vector<std::int64_t> order = axes(outer, x.dim());
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return strides[static_cast<std::size_t>(a)] > strides[static_cast<std::size_t>(b)];
  });
  const std::int64_t length = product(sizes_of(x).subspan(static_cast<std::size_t>(outer)));
  return is_dense(x, order) && is_dense(x, axes(0, outer), length);
}

// x as rows over its last `axis_count` axes, in any order of these.
struct RowsOf {
  Inputs inputs;
  Rows shape;

  RowsOf(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
         std::int64_t axis_count, bool center)
      : axis_count_(static_cast<std::size_t>(axis_count)) {
    check_axes(x, axis_count);
    const auto outer = static_cast<std::size_t>(x.dim() - axis_count);
    const Tensor dense = has_dense_rows(x, static_cast<std::int64_t>(outer)) ? x : torch::stable::contiguous(x);
    inputs = {x, residual, with_room_for(dense, residual), {}, {}, {}};
    const auto sizes = sizes_of(inputs.x);
    inputs.residual = aligned_with(inputs.x, "residual", residual);
    inputs.weight = in_order("weight", weight);
    inputs.bias = in_order("bias", bias);
    shape = {product(sizes.first(outer)), product(sizes.subspan(outer)), 1, 1, center};
  }

  ParameterOrder parameters() const {
    return {sizes_of(inputs.x).last(axis_count_), strides_of(inputs.x).last(axis_count_)};
  }
  std::span<const std::int64_t> outer() const {
    const auto sizes = sizes_of(inputs.x);
    return sizes.first(sizes.size() - axis_count_);
  }

 private:
  MaybeTensor in_order(const char* name, const MaybeTensor& given) const {
    if (!given) return std::nullopt;
    const ScalarType dtype = compute_type(dtype_of(inputs.x));
    const ParameterOrder order = parameters();
    check_floats(name, *given, order.sizes, "that of the axes that are normalised");
    if (given->scalar_type() == dtype && order.holds(*given)) return given;
    Tensor ordered = empty_strided(order.sizes, order.strides, dtype);
    return torch::stable::copy_(ordered, *given);
  }

  std::size_t axis_count_;
};

// x contiguous or channels-last.
inline Tensor in_channels(const Tensor& x) {
  return x.is_contiguous() || is_channels_last(x) ? x : torch::stable::contiguous(x);
}

// x with a parameter for each channel.
inline Inputs channel_inputs(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                             const MaybeTensor& bias) {
  check_channels(x);
  check_vector("weight", weight, channel_sizes(x));
  check_vector("bias", bias, channel_sizes(x));
  const Tensor ordered = with_room_for(in_channels(x), residual);
  const ScalarType dtype = compute_type(dtype_of(ordered));
  return {x,      residual, ordered, aligned_with(ordered, "residual", residual), vector_of(weight, dtype),
          vector_of(bias, dtype)};
}

// The same, of whose channels groups are made.
inline Inputs group_inputs(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                           const MaybeTensor& bias, std::int64_t groups) {
  Inputs inputs = channel_inputs(x, residual, weight, bias);
  check_groups(x, groups);
  return inputs;
}

inline ParameterOrder channel_parameters(const Tensor& x) {
  static constexpr std::int64_t kStep[] = {1};
  return {channel_sizes(x), kStep};
}

inline Channels channels_of(const Tensor& x) {
  const auto sizes = sizes_of(x);
  const std::int64_t space = product(sizes.subspan(2));
  if (x.is_contiguous()) return {sizes[0], sizes[1], space};
  return {sizes[0] * space, sizes[1], 1};
}

// Calls use(shape) with x's groups: rows where x is contiguous.
template <class Use>
void with_groups(const Tensor& x, std::int64_t groups, bool center, Use&& use) {
  const auto sizes = sizes_of(x);
  const std::int64_t space = product(sizes.subspan(2));
  const std::int64_t share = groups ? sizes[1] / groups : 0;  // without channels there may be no groups
  if (x.is_contiguous()) return use(Rows{sizes[0] * groups, share * space, groups, space, center});
  use(Groups{sizes[0], space, sizes[1], groups, center});
}

}  // namespace normwright
