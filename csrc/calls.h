// What every forward and every backward do around a kernel: memory for the results, and the results in the
// likeness of what was given.

#pragma once

#include <array>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "inputs.h"

namespace normwright {

using Strings = std::optional<std::string>;
using Results = std::tuple<Tensor, Tensor>;
using MaskedResults = std::tuple<Tensor, Tensor, Tensor>;
using Gradients = std::tuple<MaybeTensor, MaybeTensor, MaybeTensor, MaybeTensor>;

// What a forward returns.
struct Normalised {
  Tensor y, moments;
  MaybeTensor mask;

  operator Results() const { return {y, moments}; }
  operator MaskedResults() const { return {y, moments, *mask}; }
};

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
  STD_TORCH_CHECK(*name == "tanh", "unknown activation '", *name, "'");
  return Activation::tanh;
}

// (runs, bytes of a run) of a mask of so many elements, which undoes one of two activations.
template <class Shape>
std::array<std::int64_t, 2> mask_sizes(const Shape& shape, std::int64_t elements, Activation activation) {
  STD_TORCH_CHECK(activation == Activation::relu || activation == Activation::leaky_relu,
                  "the activation must be relu or leaky_relu where there is a mask");
  const std::int64_t run = mask_run(shape);
  return {run ? elements / run : 0, (run + 7) / 8};
}

// Of so many moments of each of these sizes.
inline std::vector<std::int64_t> moment_sizes(std::int64_t moments, Sizes sizes) {
  std::vector<std::int64_t> all{moments};
  all.insert(all.end(), sizes.begin(), sizes.end());
  return all;
}

inline double* numbers(const Tensor& t) { return static_cast<double*>(t.mutable_data_ptr()); }

inline void run_forward(const Rows& shape, const Forward& call) {
  kernels().rows_forward(shape, call, parallel());
}
inline void run_forward(const Groups& shape, const Forward& call) {
  kernels().groups_forward(shape, call, parallel());
}
inline void run_backward(const Rows& shape, const Backward& call) {
  kernels().rows_backward(shape, call, parallel());
}
inline void run_backward(const Groups& shape, const Backward& call) {
  kernels().groups_backward(shape, call, parallel());
}

// Memory for numbers that only the kernel reads. The contents are not set.
class Numbers {
 public:
  Numbers() = default;
  explicit Numbers(std::int64_t count) : values_(new double[static_cast<std::size_t>(count)]) {}
  double* get() const { return values_.get(); }

 private:
  std::unique_ptr<double[]> values_;
};

class ForwardCall {
 public:
  ForwardCall(Inputs given, const Strings& activation, double eps) : inputs_(std::move(given)) {
    call.dtype = dtype_of(inputs_.x);
    call.activation = activation_of(activation);
    call.eps = eps;
    call.x = inputs_.x.const_data_ptr();
    call.residual = data(inputs_.residual);
    call.weight = data(inputs_.weight);
    call.bias = data(inputs_.bias);
  }

  void write_to_new() {
    call.stream = true;
    y_ = result_like(inputs_.x, call.stream);
    call.y = y_->mutable_data_ptr();
  }
  // What no kernel writes to shall be 0.
  void clear() { fill_with_zeros(*y_); }
  // `out` may be x itself; where it shares memory with what is read otherwise, the result takes a detour.
  void write_to(const Tensor& out) {
    check_like(inputs_.given, "out", out);
    check_same_dtype("out", out, "x", inputs_.given);
    check_is_written("out", out);
    const Tensor& x = inputs_.x;
    const bool direct = out.scalar_type() == x.scalar_type() && same_memory(out, x) && same_or_apart(out, x) &&
                        (!inputs_.residual || same_or_apart(out, *inputs_.residual)) &&
                        (!inputs_.weight || are_apart(out, *inputs_.weight)) &&
                        (!inputs_.bias || are_apart(out, *inputs_.bias));
    y_ = direct ? out : empty_strided(sizes_of(x), strides_of(x), x.scalar_type());
    call.y = y_->mutable_data_ptr();
  }

  // mean, where it is centred, and rstd, each of these sizes, one after the other.
  void keep_moments(Sizes sizes, bool center = true) {
    moments_ = empty(moment_sizes(center ? 2 : 1, sizes), ScalarType::Double);
    point_to_moments(numbers(*moments_), product(sizes), center);
  }
  // Where no backward follows, the moments are the kernel's alone.
  void forget_moments(std::int64_t count, bool center) {
    forgotten_ = Numbers(2 * count);
    point_to_moments(forgotten_.get(), count, center);
  }
  template <class Shape>
  void keep_mask(const Shape& shape) {
    mask_ = empty(mask_sizes(shape, inputs_.x.numel(), call.activation), ScalarType::Byte);
    call.mask = static_cast<std::uint8_t*>(mask_->mutable_data_ptr());
  }

  Tensor y() const {
    const bool ordered = inputs_.x.get() != inputs_.given.get();
    return ordered ? in_the_likeness_of(inputs_.given, *y_) : *y_;
  }
  Normalised results() const { return {y(), *moments_, mask_}; }
  void copy_to(Tensor out) const {
    if (y_->get() != out.get()) torch::stable::copy_(out, *y_);
  }

  Forward call{};

 private:
  void point_to_moments(double* values, std::int64_t count, bool center) {
    call.mean = center ? values : nullptr;
    call.rstd = center ? values + count : values;
  }

  Inputs inputs_;
  MaybeTensor y_, moments_, mask_;
  Numbers forgotten_;
};

// A parameter's gradient, summed in double in the kernel's order.
class ParameterSum {
 public:
  ParameterSum() = default;
  explicit ParameterSum(ParameterOrder order) : order_(order), sum_(order.count()) {}

  double* get() const { return sum_.get(); }
  // In the likeness of `parameter`.
  Tensor gradient(const Tensor& parameter) const {
    if (parameter.scalar_type() == ScalarType::Float && parameter.is_contiguous() && order_.holds(parameter)) {
      const Tensor result = empty(sizes_of(parameter), ScalarType::Float);
      auto* const to = static_cast<float*>(result.mutable_data_ptr());
      std::transform(get(), get() + order_.count(), to, [](double value) { return static_cast<float>(value); });
      return result;
    }
    const Tensor sum = empty_strided(order_.sizes, order_.strides, ScalarType::Double);
    std::copy_n(get(), order_.count(), numbers(sum));
    return in_the_likeness_of(parameter, sum);
  }

 private:
  ParameterOrder order_{};
  Numbers sum_;
};

class BackwardCall {
 public:
  BackwardCall(Inputs given, const Tensor& dy, const Strings& activation, std::int64_t wanted,
               ParameterOrder parameters)
      : inputs_(std::move(given)), dy_(aligned_with(inputs_.x, "dy", dy)) {
    check_wanted(wanted);
    call.dtype = dtype_of(inputs_.x);
    call.activation = activation_of(activation);
    call.dy = dy_.const_data_ptr();
    call.x = inputs_.x.const_data_ptr();
    call.residual = data(inputs_.residual);
    call.weight = data(inputs_.weight);
    call.bias = data(inputs_.bias);
    call.stream = true;
    if (wanted & kDx) call.dx = (dx_ = result_like(inputs_.x, call.stream))->mutable_data_ptr();
    if (wanted & kDresidual) call.dresidual = (dresidual_ = result_like(inputs_.x, call.stream))->mutable_data_ptr();
    if (wanted & kDweight && inputs_.weight) call.dweight = (dweight_ = ParameterSum(parameters)).get();
    if (wanted & kDbias && inputs_.bias) call.dbias = (dbias_ = ParameterSum(parameters)).get();
    if (inputs_.x.numel() == 0) {  // whose shape may not tell a kernel of how many parameters
      for (double* sum : {call.dweight, call.dbias}) {
        if (sum) std::fill_n(sum, parameters.count(), 0.0);
      }
    }
  }

  // What no kernel writes to shall be 0.
  void clear() {
    for (const MaybeTensor& result : {dx_, dresidual_}) {
      if (result) fill_with_zeros(*result);
    }
  }

  // mean, rstd and what else the forward kept, each of these sizes; rstd alone where there is one.
  void read_moments(const Tensor& moments, std::int64_t number, Sizes sizes) {
    check_floats("moments", moments, moment_sizes(number, sizes), "that of its forward");
    moments_ = vector_of(moments, ScalarType::Double);
    const auto* const values = data<double>(moments_);
    call.mean = number > 1 ? values : nullptr;
    call.rstd = number > 1 ? values + product(sizes) : values;
  }
  template <class Shape>
  void read_mask(const MaybeTensor& mask, const Shape& shape) {
    if (!mask) return;
    STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Byte, "mask must be uint8, but is ", mask->scalar_type());
    check_sizes("mask", *mask, mask_sizes(shape, inputs_.x.numel(), call.activation), "that of its forward");
    mask_ = vector_of(mask, ScalarType::Byte);
    call.mask = data<std::uint8_t>(mask_);
  }

  Gradients results(const MaybeTensor& weight, const MaybeTensor& bias) const {
    const Tensor& residual = inputs_.given_residual ? *inputs_.given_residual : inputs_.given;
    Gradients all;
    if (dx_) std::get<0>(all) = restored(inputs_.given, *dx_);
    if (dresidual_) std::get<1>(all) = restored(residual, *dresidual_);
    if (call.dweight) std::get<2>(all) = dweight_.gradient(*weight);
    if (call.dbias) std::get<3>(all) = dbias_.gradient(*bias);
    return all;
  }

  Backward call{};

 private:
  Tensor restored(const Tensor& model, const Tensor& gradient) const {
    const bool alike = model.scalar_type() == gradient.scalar_type() && same_memory(model, gradient);
    return alike && inputs_.x.get() == inputs_.given.get() ? gradient : in_the_likeness_of(model, gradient);
  }

  Inputs inputs_;
  Tensor dy_;
  MaybeTensor mask_, moments_, dx_, dresidual_;
  ParameterSum dweight_, dbias_;
};

}  // namespace normwright
