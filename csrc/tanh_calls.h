// The operators of dynamic tanh around their kernels. The channels may be any axis of x, and x may lie in memory in
// any order of its axes.

#pragma once

#include "calls.h"

namespace normwright {

// The axes as they lie in memory, the slowest first.
inline std::vector<std::int64_t> order_in_memory(const Tensor& x) {
  const auto strides = strides_of(x);
  std::vector<std::int64_t> order = axes(0, x.dim());
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return strides[static_cast<std::size_t>(a)] > strides[static_cast<std::size_t>(b)];
  });
  return order;
}

inline double number_of(const char* name, const Tensor& t) {
  check_floating(name, t);
  check_number(name, t);
  return doubles_of(t)[0];
}

struct TanhInputs {
  Tensor given, x;
  double alpha;
  MaybeTensor weight, bias;
  ParameterOrder parameters;
  Channels shape{1, 1, 1};

  TanhInputs(const Tensor& given, const Tensor& alpha, const MaybeTensor& weight, const MaybeTensor& bias,
             std::int64_t axis)
      : given((check_axis(given, axis), given)),
        x(is_dense(given, order_in_memory(given)) ? given : torch::stable::contiguous(given)),
        alpha(number_of("alpha", alpha)),
        weight(vector_of(weight, compute_type(dtype_of(x)))),
        bias(vector_of(bias, compute_type(dtype_of(x)))) {
    static constexpr std::int64_t kStep[] = {1};
    const auto sizes = sizes_of(x);
    parameters = {sizes.subspan(static_cast<std::size_t>(axis), 1), kStep};
    check_vector("weight", weight, parameters.sizes);
    check_vector("bias", bias, parameters.sizes);
    std::int64_t* part = &shape.outer;
    for (const std::int64_t i : order_in_memory(x)) {
      if (i == axis) {
        shape.channels = sizes[static_cast<std::size_t>(i)];
        part = &shape.inner;
      } else {
        *part *= sizes[static_cast<std::size_t>(i)];
      }
    }
  }

  // A result of the kernel in the likeness of what was given.
  Tensor restored(const Tensor& result) const {
    return x.get() == given.get() ? result : in_the_likeness_of(given, result);
  }
};

inline Tensor channel_tanh(const Tensor& x, const Tensor& alpha, const MaybeTensor& weight, const MaybeTensor& bias,
                           std::int64_t axis) {
  const TanhInputs inputs(x, alpha, weight, bias, axis);
  TanhForward call{dtype_of(inputs.x),    inputs.alpha, inputs.x.const_data_ptr(), data(inputs.weight),
                   data(inputs.bias), nullptr,      true};
  const Tensor y = result_like(inputs.x, call.stream);
  call.y = y.mutable_data_ptr();
  kernels().channel_tanh(inputs.shape, call, parallel());
  return inputs.restored(y);
}

inline Gradients channel_tanh_backward(const Tensor& dy, const Tensor& x, const Tensor& alpha,
                                       const MaybeTensor& weight, const MaybeTensor& bias, std::int64_t axis,
                                       std::int64_t wanted) {
  const TanhInputs inputs(x, alpha, weight, bias, axis);
  check_wanted(wanted);
  const Tensor aligned = aligned_with(inputs.x, "dy", dy);
  TanhBackward call{};
  call.dtype = dtype_of(inputs.x);
  call.alpha = inputs.alpha;
  call.dy = aligned.const_data_ptr();
  call.x = inputs.x.const_data_ptr();
  call.weight = data(inputs.weight);
  call.stream = true;
  MaybeTensor dx;
  ParameterSum dalpha, dweight, dbias;
  if (wanted & kDx) call.dx = (dx = result_like(inputs.x, call.stream))->mutable_data_ptr();
  if (wanted & kDalpha) call.dalpha = (dalpha = ParameterSum({sizes_of(alpha), strides_of(alpha)})).get();
  if (wanted & kDweight && weight) call.dweight = (dweight = ParameterSum(inputs.parameters)).get();
  if (wanted & kDbias && bias) call.dbias = (dbias = ParameterSum(inputs.parameters)).get();
  kernels().channel_tanh_backward(inputs.shape, call, parallel());
  Gradients all;
  if (dx) std::get<0>(all) = inputs.restored(*dx);
  if (call.dalpha) std::get<1>(all) = dalpha.gradient(alpha);
  if (call.dweight) std::get<2>(all) = dweight.gradient(*weight);
  if (call.dbias) std::get<3>(all) = dbias.gradient(*bias);
  return all;
}

}  // namespace normwright
