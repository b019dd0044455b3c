// The operators that backends/schema.py defines, served on the CPU by the kernels. Here alone PyTorch and the
// kernels meet, through PyTorch's stable interface.

#include <cmath>

#include "calls.h"
#include "running.h"

namespace normwright {
namespace {

// ---- Rows

ForwardCall rows_call(const Tensor& x, const RowsOf& rows, const MaybeTensor& residual, const MaybeTensor& weight,
                      const MaybeTensor& bias, double eps, const Strings& activation) {
  return {x, rows.x, residual, rows.parameter(weight), rows.parameter(bias), activation, eps};
}

Results rows_forward(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                     const std::vector<std::int64_t>& normalized_shape, bool center, double eps,
                     const Strings& activation, bool save_mask) {
  const RowsOf rows = rows_of(x, residual, static_cast<std::int64_t>(normalized_shape.size()), center);
  ForwardCall forward = rows_call(x, rows, residual, weight, bias, eps, activation);
  forward.write_to_new();
  const auto outer = sizes_of(x).first(sizes_of(x).size() - normalized_shape.size());
  const Tensor rstd = empty(outer, ScalarType::Double);
  const Tensor mean = center ? empty(outer, ScalarType::Double) : nothing(ScalarType::Double);
  const Tensor mask = mask_for(rows.shape, x.numel(), save_mask);
  forward.call.rstd = numbers(rstd);
  if (center) forward.call.mean = numbers(mean);
  if (save_mask) forward.call.mask = static_cast<std::uint8_t*>(mask.mutable_data_ptr());
  kernels().rows_forward(rows.shape, forward.call, parallel());
  return {forward.y(), mean, rstd, mask};
}

void rows_forward_out(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                      const std::vector<std::int64_t>& normalized_shape, bool center, double eps,
                      const Strings& activation, const Tensor& out) {
  const RowsOf rows = rows_of(x, residual, static_cast<std::int64_t>(normalized_shape.size()), center);
  ForwardCall forward = rows_call(x, rows, residual, weight, bias, eps, activation);
  forward.write_to(out);
  const std::int64_t count[] = {rows.shape.rows};
  const Tensor rstd = empty(count, ScalarType::Double);
  forward.call.rstd = numbers(rstd);
  kernels().rows_forward(rows.shape, forward.call, parallel());
  forward.copy_to(out);
}

Results rows_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                      const MaybeTensor& bias, const MaybeTensor& mask, const Tensor& mean, const Tensor& rstd,
                      const std::vector<std::int64_t>& normalized_shape, bool center, const Strings& activation,
                      const std::vector<bool>& output_mask) {
  const RowsOf rows = rows_of(x, residual, static_cast<std::int64_t>(normalized_shape.size()), center);
  BackwardCall backward(dy, x, rows.x, residual, rows.parameter(weight), rows.parameter(bias), mask, activation,
                        output_mask);
  const MaybeTensor means = vector_of(mean, ScalarType::Double), rstds = vector_of(rstd, ScalarType::Double);
  backward.call.mean = data<double>(means);
  backward.call.rstd = data<double>(rstds);
  backward.sum_parameters(rows.parameter_sizes, rows.parameter_strides);
  kernels().rows_backward(rows.shape, backward.call, parallel());
  return backward.results(weight, bias);
}

// ---- Groups: rows where x is contiguous

Results groups_forward(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                       const MaybeTensor& bias, std::int64_t groups, double eps, const Strings& activation,
                       bool save_mask) {
  const Tensor ordered = with_room_for(in_channels(x), residual);
  const ScalarType compute = compute_type(dtype_of(ordered));
  ForwardCall forward(x, ordered, residual, vector_of(weight, compute), vector_of(bias, compute), activation, eps);
  forward.write_to_new();
  const std::int64_t moments[] = {x.size(0), groups};
  const Tensor mean = empty(moments, ScalarType::Double), rstd = empty(moments, ScalarType::Double);
  forward.call.mean = numbers(mean);
  forward.call.rstd = numbers(rstd);
  const auto finish = [&](const auto& shape, auto kernel) -> Results {
    const Tensor mask = mask_for(shape, x.numel(), save_mask);
    if (save_mask) forward.call.mask = static_cast<std::uint8_t*>(mask.mutable_data_ptr());
    kernel(shape, forward.call, parallel());
    return {forward.y(), mean, rstd, mask};
  };
  if (channels_quickest(ordered)) return finish(groups_of(ordered, groups), kernels().groups_forward);
  return finish(rows_of_groups(ordered, groups), kernels().rows_forward);
}

void groups_forward_out(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, std::int64_t groups, double eps, const Strings& activation,
                        const Tensor& out) {
  const Tensor ordered = with_room_for(in_channels(x), residual);
  const ScalarType compute = compute_type(dtype_of(ordered));
  ForwardCall forward(x, ordered, residual, vector_of(weight, compute), vector_of(bias, compute), activation, eps);
  forward.write_to(out);
  const std::int64_t moments[] = {x.size(0), groups};
  const Tensor mean = empty(moments, ScalarType::Double), rstd = empty(moments, ScalarType::Double);
  forward.call.mean = numbers(mean);
  forward.call.rstd = numbers(rstd);
  if (channels_quickest(ordered)) {
    kernels().groups_forward(groups_of(ordered, groups), forward.call, parallel());
  } else {
    kernels().rows_forward(rows_of_groups(ordered, groups), forward.call, parallel());
  }
  forward.copy_to(out);
}

constexpr std::int64_t kStep[] = {1};

Results groups_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, const MaybeTensor& mask, const Tensor& mean, const Tensor& rstd,
                        std::int64_t groups, const Strings& activation, const std::vector<bool>& output_mask) {
  const Tensor ordered = with_room_for(in_channels(x), residual);
  const ScalarType compute = compute_type(dtype_of(ordered));
  BackwardCall backward(dy, x, ordered, residual, vector_of(weight, compute), vector_of(bias, compute), mask,
                        activation, output_mask);
  const MaybeTensor means = vector_of(mean, ScalarType::Double), rstds = vector_of(rstd, ScalarType::Double);
  backward.call.mean = data<double>(means);
  backward.call.rstd = data<double>(rstds);
  backward.sum_parameters(sizes_of(x).subspan(1, 1), kStep);
  if (channels_quickest(ordered)) {
    kernels().groups_backward(groups_of(ordered, groups), backward.call, parallel());
  } else {
    kernels().rows_backward(rows_of_groups(ordered, groups), backward.call, parallel());
  }
  return backward.results(weight, bias);
}

// ---- Channels

Results channels_forward(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                         const MaybeTensor& bias, const MaybeTensor& running_mean, const MaybeTensor& running_var,
                         const MaybeTensor& num_batches_tracked, std::optional<double> momentum, double eps,
                         const Strings& activation, bool save_mask) {
  const Tensor ordered = with_room_for(in_channels(x), residual);
  const ScalarType compute = compute_type(dtype_of(ordered));
  ForwardCall forward(x, ordered, residual, vector_of(weight, compute), vector_of(bias, compute), activation, eps);
  forward.write_to_new();
  const Channels shape = channels_of(ordered);
  const auto moments = sizes_of(x).subspan(1, 1);
  const Tensor mean = empty(moments, ScalarType::Double), rstd = empty(moments, ScalarType::Double);
  const Tensor mask = mask_for(shape, x.numel(), save_mask);
  std::vector<double> variance(static_cast<std::size_t>(shape.channels));
  forward.call.mean = numbers(mean);
  forward.call.rstd = numbers(rstd);
  forward.call.variance = variance.data();
  if (save_mask) forward.call.mask = static_cast<std::uint8_t*>(mask.mutable_data_ptr());
  kernels().channels_forward(shape, forward.call, parallel());

  std::int64_t batches = 0;
  if (num_batches_tracked) batches = raise(*num_batches_tracked);
  if (x.numel() && running_mean && running_var) {
    const bool half = x.element_size() == 2;
    const BatchMoments batch{numbers(mean), variance.data(), shape.channels, shape.outer * shape.inner, half};
    move_running(*running_mean, *running_var, batch, momentum, batches);
  }
  return {forward.y(), mean, rstd, mask};
}

Results channels_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                          const MaybeTensor& bias, const MaybeTensor& mask, const Tensor& mean, const Tensor& rstd,
                          const Strings& activation, const std::vector<bool>& output_mask) {
  const Tensor ordered = with_room_for(in_channels(x), residual);
  const ScalarType compute = compute_type(dtype_of(ordered));
  BackwardCall backward(dy, x, ordered, residual, vector_of(weight, compute), vector_of(bias, compute), mask,
                        activation, output_mask);
  const MaybeTensor means = vector_of(mean, ScalarType::Double), rstds = vector_of(rstd, ScalarType::Double);
  backward.call.mean = data<double>(means);
  backward.call.rstd = data<double>(rstds);
  backward.sum_parameters(sizes_of(x).subspan(1, 1), kStep);
  kernels().channels_backward(channels_of(ordered), backward.call, parallel());
  return backward.results(weight, bias);
}

// Known moments as the kernels take them.
struct Population {
  std::vector<double> mean, rstd;

  Population(const Tensor& means, const Tensor& variances, double eps)
      : mean(doubles_of(means)), rstd(doubles_of(variances)) {
    for (double& value : rstd) value = 1 / std::sqrt(value + eps);
  }
};

void run_affine(ForwardCall& forward, const Tensor& ordered, Population& population) {
  forward.call.mean = population.mean.data();
  forward.call.rstd = population.rstd.data();
  kernels().channel_affine(channels_of(ordered), forward.call, parallel());
}

Tensor channel_affine(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                      const Tensor& mean, const Tensor& variance, double eps, const Strings& activation) {
  const Tensor ordered = with_room_for(in_channels(x), residual);
  const ScalarType compute = compute_type(dtype_of(ordered));
  ForwardCall forward(x, ordered, residual, vector_of(weight, compute), vector_of(bias, compute), activation, eps);
  forward.write_to_new();
  Population population(mean, variance, eps);
  run_affine(forward, ordered, population);
  return forward.y();
}

void channel_affine_out(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, const Tensor& mean, const Tensor& variance, double eps,
                        const Strings& activation, const Tensor& out) {
  const Tensor ordered = with_room_for(in_channels(x), residual);
  const ScalarType compute = compute_type(dtype_of(ordered));
  ForwardCall forward(x, ordered, residual, vector_of(weight, compute), vector_of(bias, compute), activation, eps);
  forward.write_to(out);
  Population population(mean, variance, eps);
  run_affine(forward, ordered, population);
  forward.copy_to(out);
}

Results channel_affine_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual,
                                const MaybeTensor& weight, const MaybeTensor& bias, const Tensor& mean,
                                const Tensor& variance, double eps, const Strings& activation,
                                const std::vector<bool>& output_mask) {
  const Tensor ordered = with_room_for(in_channels(x), residual);
  const ScalarType compute = compute_type(dtype_of(ordered));
  BackwardCall backward(dy, x, ordered, residual, vector_of(weight, compute), vector_of(bias, compute), std::nullopt,
                        activation, output_mask);
  const Population population(mean, variance, eps);
  backward.call.mean = population.mean.data();
  backward.call.rstd = population.rstd.data();
  backward.sum_parameters(sizes_of(x).subspan(1, 1), kStep);
  kernels().channel_affine_backward(channels_of(ordered), backward.call, parallel());
  return backward.results(weight, bias);
}

std::tuple<Tensor, Tensor, Tensor> channel_moments(const Tensor& x) {
  const Tensor ordered = in_channels(x);
  const Channels shape = channels_of(ordered);
  const auto sizes = sizes_of(x).subspan(1, 1);
  const Tensor count = empty({}, ScalarType::Double), mean = empty(sizes, ScalarType::Double),
               m2 = empty(sizes, ScalarType::Double);
  *numbers(count) = static_cast<double>(shape.outer * shape.inner);
  kernels().channel_moments(shape, dtype_of(ordered), ordered.const_data_ptr(), numbers(mean), numbers(m2), parallel());
  return {count, mean, m2};
}

}  // namespace
}  // namespace normwright

STABLE_TORCH_LIBRARY_IMPL(normwright, CPU, library) {
  using namespace normwright;
  library.impl("rows_forward", TORCH_BOX(&rows_forward));
  library.impl("rows_forward_out", TORCH_BOX(&rows_forward_out));
  library.impl("rows_backward", TORCH_BOX(&rows_backward));
  library.impl("groups_forward", TORCH_BOX(&groups_forward));
  library.impl("groups_forward_out", TORCH_BOX(&groups_forward_out));
  library.impl("groups_backward", TORCH_BOX(&groups_backward));
  library.impl("channels_forward", TORCH_BOX(&channels_forward));
  library.impl("channels_backward", TORCH_BOX(&channels_backward));
  library.impl("channel_affine", TORCH_BOX(&channel_affine));
  library.impl("channel_affine_out", TORCH_BOX(&channel_affine_out));
  library.impl("channel_affine_backward", TORCH_BOX(&channel_affine_backward));
  library.impl("channel_moments", TORCH_BOX(&channel_moments));
}

// For the message of `normwright.backends()`.
extern "C" __attribute__((visibility("default"))) const char* normwright_instruction_set() {
  return normwright::available_kernels()[0]->instruction_set;
}
