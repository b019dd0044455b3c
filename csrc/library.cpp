// The operators that backends/schema.py defines, served on the CPU by the kernels. Here alone PyTorch and the
// kernels meet, through PyTorch's stable interface.

#include <cmath>

#include "calls.h"
#include "running.h"

namespace normwright {
namespace {

// ---- Rows

Results rows_forward(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                     const Sizes& normalized_shape, bool center, double eps, const Strings& activation,
                     bool save_mask) {
  const RowsOf rows(x, residual, weight, bias, normalized_shape.size(), center);
  ForwardCall forward(rows.inputs, activation, eps);
  forward.write_to_new();
  const Tensor mean = center ? empty(rows.outer(), ScalarType::Double) : nothing(ScalarType::Double);
  const Tensor rstd = empty(rows.outer(), ScalarType::Double);
  forward.keep_moments(center ? numbers(mean) : nullptr, numbers(rstd));
  forward.keep_mask(rows.shape, save_mask);
  run_forward(rows.shape, forward.call);
  return {forward.y(), mean, rstd, forward.mask()};
}

Tensor rows_inference(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                      const Sizes& normalized_shape, bool center, double eps, const Strings& activation) {
  const RowsOf rows(x, residual, weight, bias, normalized_shape.size(), center);
  ForwardCall forward(rows.inputs, activation, eps);
  forward.write_to_new();
  forward.forget_moments(rows.shape.rows, center);
  run_forward(rows.shape, forward.call);
  return forward.y();
}

void rows_inference_out(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, const Sizes& normalized_shape, bool center, double eps,
                        const Strings& activation, const Tensor& out) {
  const RowsOf rows(x, residual, weight, bias, normalized_shape.size(), center);
  ForwardCall forward(rows.inputs, activation, eps);
  forward.write_to(out);
  forward.forget_moments(rows.shape.rows, center);
  run_forward(rows.shape, forward.call);
  forward.copy_to(out);
}

Results rows_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                      const MaybeTensor& bias, const MaybeTensor& mask, const Tensor& mean, const Tensor& rstd,
                      const Sizes& normalized_shape, bool center, const Strings& activation,
                      const Wanted& output_mask) {
  const RowsOf rows(x, residual, weight, bias, normalized_shape.size(), center);
  BackwardCall backward(rows.inputs, dy, mask, activation, output_mask, rows.parameters());
  backward.read_moments(mean, rstd);
  run_backward(rows.shape, backward.call);
  return backward.results(weight, bias);
}

// ---- Groups

Results groups_forward(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                       const MaybeTensor& bias, std::int64_t groups, double eps, const Strings& activation,
                       bool save_mask) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to_new();
  const std::int64_t moments[] = {x.size(0), groups};
  const Tensor mean = empty(moments, ScalarType::Double), rstd = empty(moments, ScalarType::Double);
  forward.keep_moments(numbers(mean), numbers(rstd));
  with_groups(inputs.x, groups, [&](const auto& shape) {
    forward.keep_mask(shape, save_mask);
    run_forward(shape, forward.call);
  });
  return {forward.y(), mean, rstd, forward.mask()};
}

void run_inference(const Inputs& inputs, std::int64_t groups, ForwardCall& forward) {
  forward.forget_moments(inputs.x.size(0) * groups, true);
  with_groups(inputs.x, groups, [&](const auto& shape) { run_forward(shape, forward.call); });
}

Tensor groups_inference(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, std::int64_t groups, double eps, const Strings& activation) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to_new();
  run_inference(inputs, groups, forward);
  return forward.y();
}

void groups_inference_out(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                          const MaybeTensor& bias, std::int64_t groups, double eps, const Strings& activation,
                          const Tensor& out) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to(out);
  run_inference(inputs, groups, forward);
  forward.copy_to(out);
}

Results groups_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, const MaybeTensor& mask, const Tensor& mean, const Tensor& rstd,
                        std::int64_t groups, const Strings& activation, const Wanted& output_mask) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  BackwardCall backward(inputs, dy, mask, activation, output_mask, channel_parameters(x));
  backward.read_moments(mean, rstd);
  with_groups(inputs.x, groups, [&](const auto& shape) { run_backward(shape, backward.call); });
  return backward.results(weight, bias);
}

// ---- Channels

Results channels_forward(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                         const MaybeTensor& bias, const MaybeTensor& running_mean, const MaybeTensor& running_var,
                         const MaybeTensor& num_batches_tracked, std::optional<double> momentum, double eps,
                         const Strings& activation, bool save_mask) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to_new();
  const Channels shape = channels_of(inputs.x);
  const auto moments = sizes_of(x).subspan(1, 1);
  const Tensor mean = empty(moments, ScalarType::Double), rstd = empty(moments, ScalarType::Double);
  const Numbers variance(shape.channels);
  forward.keep_moments(numbers(mean), numbers(rstd));
  forward.keep_mask(shape, save_mask);
  forward.call.variance = variance.get();
  kernels().channels_forward(shape, forward.call, parallel());

  std::int64_t batches = 0;
  if (num_batches_tracked) batches = raise(*num_batches_tracked);
  if (x.numel() && running_mean && running_var) {
    const bool half = x.element_size() == 2;
    const BatchMoments batch{numbers(mean), variance.get(), shape.channels, shape.outer * shape.inner, half};
    move_running(*running_mean, *running_var, batch, momentum, batches);
  }
  return {forward.y(), mean, rstd, forward.mask()};
}

Results channels_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                          const MaybeTensor& bias, const MaybeTensor& mask, const Tensor& mean, const Tensor& rstd,
                          const Strings& activation, const Wanted& output_mask) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  BackwardCall backward(inputs, dy, mask, activation, output_mask, channel_parameters(x));
  backward.read_moments(mean, rstd);
  kernels().channels_backward(channels_of(inputs.x), backward.call, parallel());
  return backward.results(weight, bias);
}

// ---- Channels with known moments

// As the kernels take them.
struct Population {
  std::vector<double> mean, rstd;

  Population(const Tensor& means, const Tensor& variances, double eps)
      : mean(doubles_of(means)), rstd(doubles_of(variances)) {
    for (double& value : rstd) value = 1 / std::sqrt(value + eps);
  }
};

void run_affine(const Inputs& inputs, ForwardCall& forward, Population population) {
  forward.keep_moments(population.mean.data(), population.rstd.data());
  kernels().channel_affine(channels_of(inputs.x), forward.call, parallel());
}

Tensor channel_affine(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                      const Tensor& mean, const Tensor& variance, double eps, const Strings& activation) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to_new();
  run_affine(inputs, forward, {mean, variance, eps});
  return forward.y();
}

void channel_affine_out(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, const Tensor& mean, const Tensor& variance, double eps,
                        const Strings& activation, const Tensor& out) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to(out);
  run_affine(inputs, forward, {mean, variance, eps});
  forward.copy_to(out);
}

Results channel_affine_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual,
                                const MaybeTensor& weight, const MaybeTensor& bias, const Tensor& mean,
                                const Tensor& variance, double eps, const Strings& activation,
                                const Wanted& output_mask) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  BackwardCall backward(inputs, dy, std::nullopt, activation, output_mask, channel_parameters(x));
  const Population population(mean, variance, eps);
  backward.call.mean = population.mean.data();
  backward.call.rstd = population.rstd.data();
  kernels().channel_affine_backward(channels_of(inputs.x), backward.call, parallel());
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
  library.impl("rows_inference", TORCH_BOX(&rows_inference));
  library.impl("rows_inference_out", TORCH_BOX(&rows_inference_out));
  library.impl("rows_backward", TORCH_BOX(&rows_backward));
  library.impl("groups_forward", TORCH_BOX(&groups_forward));
  library.impl("groups_inference", TORCH_BOX(&groups_inference));
  library.impl("groups_inference_out", TORCH_BOX(&groups_inference_out));
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
