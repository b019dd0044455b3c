// What every forward and every backward do around a kernel: the shape in which a family sees x, x in an order
// of memory that the family serves, memory for the results, and the results in the likeness of what was given.

#pragma once

#include <algorithm>
#include <string>
#include <tuple>

#include "tensors.h"

namespace normwright {

using Strings = std::optional<std::string>;
using Results = std::tuple<Tensor, Tensor, Tensor, Tensor>;

inline const Kernels& kernels() {
  static const Kernels& best = *available_kernels()[0];
  return best;
}

inline Parallel parallel() {
  const auto run = [](std::int64_t count, Parallel::Task task, void* context) {
    torch::stable::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) task(context, i);
    });
  };
  return {run, static_cast<int>(torch::stable::get_num_threads())};
}

inline Activation activation_of(const Strings& name) {
  if (!name) return Activation::none;
  if (*name == "relu") return Activation::relu;
  if (*name == "leaky_relu") return Activation::leaky_relu;
  if (*name == "silu") return Activation::silu;
  if (*name == "gelu") return Activation::gelu;
  if (*name == "sigmoid") return Activation::sigmoid;
  STD_TORCH_CHECK(*name == "tanh", "normwright has no activation ", *name);
  return Activation::tanh;
}

inline double* numbers(const Tensor& t) { return static_cast<double*>(t.mutable_data_ptr()); }

// ---- The shape in which each family sees x, and x in an order of memory that it serves

struct RowsOf {
  Tensor x;
  Rows shape;
  std::vector<std::int64_t> parameter_sizes, parameter_strides;  // the order of x's rows

  MaybeTensor parameter(const MaybeTensor& given) const {
    if (!given) return std::nullopt;
    const ScalarType dtype = compute_type(dtype_of(x));
    const Tensor ordered = empty_strided(parameter_sizes, parameter_strides, dtype);
    if (given->scalar_type() == dtype && same_memory(*given, ordered)) return given;
    Tensor copy = ordered;
    return torch::stable::copy_(copy, *given);
  }
};

// x whose rows are dense, in any order of their axes: the parameters are put in that order.
inline RowsOf rows_of(const Tensor& given, const MaybeTensor& residual, std::int64_t axis_count, bool center) {
  const std::int64_t outer = given.dim() - axis_count;
  const auto in_rows = [&](const Tensor& t) {
    const auto strides = strides_of(t);
    std::vector<std::int64_t> order = axes(outer, t.dim());
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return strides[static_cast<std::size_t>(a)] > strides[static_cast<std::size_t>(b)];
    });
    const std::int64_t length = product(sizes_of(t).subspan(static_cast<std::size_t>(outer)));
    return is_dense(t, order) && is_dense(t, axes(0, outer), length);
  };
  const Tensor x = with_room_for(in_rows(given) ? given : torch::stable::contiguous(given), residual);
  const auto first = static_cast<std::size_t>(outer);
  const auto sizes = sizes_of(x), strides = strides_of(x);
  const std::int64_t length = product(sizes.subspan(first));
  return {x,
          {product(sizes.first(first)), length, 1, 1, center},
          {sizes.begin() + outer, sizes.end()},
          {strides.begin() + outer, strides.end()}};
}

// x contiguous or channels-last.
inline Tensor in_channels(const Tensor& x) {
  return is_dense(x, axes(0, x.dim())) || is_channels_last(x) ? x : torch::stable::contiguous(x);
}

inline bool channels_quickest(const Tensor& x) { return !is_dense(x, axes(0, x.dim())); }

inline Channels channels_of(const Tensor& x) {
  const auto sizes = sizes_of(x);
  const std::int64_t space = product(sizes.subspan(2));
  if (channels_quickest(x)) return {sizes[0] * space, sizes[1], 1};
  return {sizes[0], sizes[1], space};
}

inline Groups groups_of(const Tensor& x, std::int64_t groups) {
  const auto sizes = sizes_of(x);
  return {sizes[0], product(sizes.subspan(2)), sizes[1], groups};
}

inline Rows rows_of_groups(const Tensor& x, std::int64_t groups) {
  const auto sizes = sizes_of(x);
  const std::int64_t space = product(sizes.subspan(2));
  return {sizes[0] * groups, sizes[1] / groups * space, groups, space, true};
}

// ---- What every forward and every backward do

template <class Shape>
Tensor mask_for(const Shape& shape, std::int64_t elements, bool wanted) {
  const std::int64_t run = mask_run(shape);
  if (!wanted) return nothing(ScalarType::Byte);
  const std::int64_t sizes[] = {run ? elements / run : 0, (run + 7) / 8};
  return empty(sizes, ScalarType::Byte);
}

// The parts of a call that are the same for every family. `x` is in an order that the family serves, and the
// parameters are in x's order and in the dtype of its arithmetic.
class ForwardCall {
 public:
  ForwardCall(const Tensor& given, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
              const MaybeTensor& bias, const Strings& activation, double eps)
      : given_(given),
        x_(x),
        residual_(aligned_with(x, residual)),
        weight_(weight),
        bias_(bias) {
    call.dtype = dtype_of(x);
    call.activation = activation_of(activation);
    call.eps = eps;
    call.x = x.const_data_ptr();
    call.residual = data(residual_);
    call.weight = data(weight_);
    call.bias = data(bias_);
  }

  void write_to_new() {
    call.stream = true;
    y_ = result_like(x_, call.stream);
    call.y = y_.mutable_data_ptr();
  }
  // `out` may be x itself; where it is a shifted part of it, the result takes a detour.
  void write_to(const Tensor& out) {
    const bool direct = out.scalar_type() == x_.scalar_type() && same_memory(out, x_) && same_or_apart(out, x_) &&
                        (!residual_ || same_or_apart(out, *residual_));
    y_ = direct ? out : empty_strided(sizes_of(x_), strides_of(x_), x_.scalar_type());
    call.y = y_.mutable_data_ptr();
  }

  Tensor y() const { return x_.get() == given_.get() ? y_ : in_the_likeness_of(given_, y_); }
  void copy_to(Tensor out) const {
    if (y_.get() != out.get()) torch::stable::copy_(out, y_);
  }

  Forward call{};

 private:
  Tensor given_, x_;
  MaybeTensor residual_, weight_, bias_;
  Tensor y_;
};

class BackwardCall {
 public:
  BackwardCall(const Tensor& dy, const Tensor& given, const Tensor& x, const MaybeTensor& residual,
               const MaybeTensor& weight, const MaybeTensor& bias, const MaybeTensor& mask, const Strings& activation,
               const std::vector<bool>& output_mask)
      : given_(given),
        x_(x),
        dy_(aligned_with(x, dy)),
        given_residual_(residual),
        residual_(aligned_with(x, residual)),
        weight_(weight),
        bias_(bias),
        mask_(mask) {
    call.dtype = dtype_of(x);
    call.activation = activation_of(activation);
    call.dy = dy_.const_data_ptr();
    call.x = x.const_data_ptr();
    call.residual = data(residual_);
    call.weight = data(weight_);
    call.bias = data(bias_);
    call.mask = data<std::uint8_t>(mask_);
    call.stream = true;
    for (std::size_t i = 0; i < 4; ++i) wanted_[i] = output_mask[i];
    wanted_[2] = wanted_[2] && weight;
    wanted_[3] = wanted_[3] && bias;
    if (wanted_[0]) call.dx = (dx_ = result_like(x, call.stream)).mutable_data_ptr();
    if (wanted_[1]) call.dresidual = (dresidual_ = result_like(x, call.stream)).mutable_data_ptr();
  }

  // Memory for the gradients of the parameters, in the order of the kernel's.
  void sum_parameters(std::span<const std::int64_t> sizes, std::span<const std::int64_t> strides) {
    if (wanted_[2]) call.dweight = numbers(dweight_ = empty_strided(sizes, strides, ScalarType::Double));
    if (wanted_[3]) call.dbias = numbers(dbias_ = empty_strided(sizes, strides, ScalarType::Double));
  }

  Results results(const MaybeTensor& weight, const MaybeTensor& bias) const {
    const auto unwanted = [&] { return nothing(given_.scalar_type()); };
    const Tensor& residual = given_residual_ ? *given_residual_ : given_;
    return {wanted_[0] ? restored(given_, dx_) : unwanted(), wanted_[1] ? restored(residual, dresidual_) : unwanted(),
            wanted_[2] ? narrowed(*weight, dweight_) : unwanted(), wanted_[3] ? narrowed(*bias, dbias_) : unwanted()};
  }

  Backward call{};

 private:
  Tensor restored(const Tensor& model, const Tensor& gradient) const {
    const bool alike = model.scalar_type() == gradient.scalar_type() && same_memory(model, gradient);
    return alike && x_.get() == given_.get() ? gradient : in_the_likeness_of(model, gradient);
  }

  Tensor given_, x_, dy_;
  MaybeTensor given_residual_, residual_, weight_, bias_, mask_;
  Tensor dx_, dresidual_, dweight_, dbias_;
  bool wanted_[4];  // dx, dresidual, dweight, dbias
};

}  // namespace normwright
