// The operators that backends/schema.py defines, served on the CPU by the kernels. Here alone PyTorch and the
// kernels meet, through PyTorch's stable interface.

#include <cmath>

#include "calls.h"
#include "cell_calls.h"
#include "parts_of.h"
#include "running.h"
#include "tanh_calls.h"

namespace normwright {
namespace {

// ---- Rows

Normalised normalise_rows(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                          const MaybeTensor& bias, std::int64_t axes, bool center, double eps,
                          const Strings& activation, bool masked) {
  const RowsOf rows(x, residual, weight, bias, axes, center);
  ForwardCall forward(rows.inputs, activation, eps);
  forward.write_to_new();
  forward.keep_moments(rows.outer(), center);
  if (masked) forward.keep_mask(rows.shape);
  run_forward(rows.shape, forward.call);
  return forward.results();
}

Results rows_forward(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                     std::int64_t axes, bool center, double eps, const Strings& activation) {
  return normalise_rows(x, residual, weight, bias, axes, center, eps, activation, false);
}

MaskedResults rows_forward_masked(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                                  const MaybeTensor& bias, std::int64_t axes, bool center, double eps,
                                  const Strings& activation) {
  return normalise_rows(x, residual, weight, bias, axes, center, eps, activation, true);
}

Tensor rows_inference(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                      std::int64_t axes, bool center, double eps, const Strings& activation) {
  const RowsOf rows(x, residual, weight, bias, axes, center);
  ForwardCall forward(rows.inputs, activation, eps);
  forward.write_to_new();
  forward.forget_moments(rows.shape.rows, center);
  run_forward(rows.shape, forward.call);
  return forward.y();
}

void rows_inference_out(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, std::int64_t axes, bool center, double eps,
                        const Strings& activation, const Tensor& out) {
  const RowsOf rows(x, residual, weight, bias, axes, center);
  ForwardCall forward(rows.inputs, activation, eps);
  forward.write_to(out);
  forward.forget_moments(rows.shape.rows, center);
  run_forward(rows.shape, forward.call);
  forward.copy_to(out);
}

Gradients rows_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                      const MaybeTensor& bias, const MaybeTensor& mask, const Tensor& moments, std::int64_t axes,
                      bool center, const Strings& activation, std::int64_t wanted) {
  const RowsOf rows(x, residual, weight, bias, axes, center);
  BackwardCall backward(rows.inputs, dy, activation, wanted, rows.parameters());
  backward.read_moments(moments, center ? 2 : 1, rows.outer());
  backward.read_mask(mask, rows.shape);
  run_backward(rows.shape, backward.call);
  return backward.results(weight, bias);
}

// ---- Groups

Normalised normalise_groups(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                            const MaybeTensor& bias, std::int64_t groups, bool center, double eps,
                            const Strings& activation, bool masked) {
  const Inputs inputs = group_inputs(x, residual, weight, bias, groups);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to_new();
  const std::int64_t moments[] = {x.size(0), groups};
  forward.keep_moments(moments, center);
  with_groups(inputs.x, groups, center, [&](const auto& shape) {
    if (masked) forward.keep_mask(shape);
    run_forward(shape, forward.call);
  });
  return forward.results();
}

Results groups_forward(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                       const MaybeTensor& bias, std::int64_t groups, bool center, double eps,
                       const Strings& activation) {
  return normalise_groups(x, residual, weight, bias, groups, center, eps, activation, false);
}

MaskedResults groups_forward_masked(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                                    const MaybeTensor& bias, std::int64_t groups, bool center, double eps,
                                    const Strings& activation) {
  return normalise_groups(x, residual, weight, bias, groups, center, eps, activation, true);
}

void run_inference(const Inputs& inputs, std::int64_t groups, bool center, ForwardCall& forward) {
  forward.forget_moments(inputs.x.size(0) * groups, center);
  with_groups(inputs.x, groups, center, [&](const auto& shape) { run_forward(shape, forward.call); });
}

Tensor groups_inference(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, std::int64_t groups, bool center, double eps,
                        const Strings& activation) {
  const Inputs inputs = group_inputs(x, residual, weight, bias, groups);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to_new();
  run_inference(inputs, groups, center, forward);
  return forward.y();
}

void groups_inference_out(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                          const MaybeTensor& bias, std::int64_t groups, bool center, double eps,
                          const Strings& activation, const Tensor& out) {
  const Inputs inputs = group_inputs(x, residual, weight, bias, groups);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to(out);
  run_inference(inputs, groups, center, forward);
  forward.copy_to(out);
}

Gradients groups_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, const MaybeTensor& mask, const Tensor& moments, std::int64_t groups,
                        bool center, const Strings& activation, std::int64_t wanted) {
  const Inputs inputs = group_inputs(x, residual, weight, bias, groups);
  BackwardCall backward(inputs, dy, activation, wanted, channel_parameters(x));
  const std::int64_t each[] = {x.size(0), groups};
  backward.read_moments(moments, center ? 2 : 1, each);
  with_groups(inputs.x, groups, center, [&](const auto& shape) {
    backward.read_mask(mask, shape);
    run_backward(shape, backward.call);
  });
  return backward.results(weight, bias);
}

// ---- Channels

Normalised normalise_channels(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                              const MaybeTensor& bias, const Running& running, double eps, const Strings& activation,
                              bool masked) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  check_running(running, channel_sizes(x));
  ForwardCall forward(inputs, activation, eps);
  forward.write_to_new();
  const Channels shape = channels_of(inputs.x);
  const Numbers variance(shape.channels);
  forward.keep_moments(channel_sizes(x));
  if (masked) forward.keep_mask(shape);
  forward.call.variance = variance.get();
  kernels().channels_forward(shape, forward.call, parallel());
  const bool half = x.element_size() == 2;
  move_running(running, {forward.call.mean, variance.get(), shape.channels, shape.outer * shape.inner, half});
  return forward.results();
}

Results channels_forward(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                         const MaybeTensor& bias, const MaybeTensor& running_mean, const MaybeTensor& running_var,
                         const MaybeTensor& num_batches_tracked, std::optional<double> momentum, double eps,
                         const Strings& activation) {
  const Running running{running_mean, running_var, num_batches_tracked, momentum};
  return normalise_channels(x, residual, weight, bias, running, eps, activation, false);
}

MaskedResults channels_forward_masked(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                                      const MaybeTensor& bias, const MaybeTensor& running_mean,
                                      const MaybeTensor& running_var, const MaybeTensor& num_batches_tracked,
                                      std::optional<double> momentum, double eps, const Strings& activation) {
  const Running running{running_mean, running_var, num_batches_tracked, momentum};
  return normalise_channels(x, residual, weight, bias, running, eps, activation, true);
}

Gradients channels_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                          const MaybeTensor& bias, const MaybeTensor& mask, const Tensor& moments,
                          const Strings& activation, std::int64_t wanted) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  BackwardCall backward(inputs, dy, activation, wanted, channel_parameters(x));
  const Channels shape = channels_of(inputs.x);
  backward.read_moments(moments, 2, channel_sizes(x));
  backward.read_mask(mask, shape);
  kernels().channels_backward(shape, backward.call, parallel());
  return backward.results(weight, bias);
}

// ---- Parts

Results parts_forward(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                      const Tensor& spans, std::int64_t parts, double eps, const Strings& activation) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  const PartsOf of(channels_of(inputs.x), spans, parts);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to_new();
  if (!of.cover_all()) forward.clear();
  const std::int64_t sizes[] = {3, parts, x.size(1)}, each = parts * x.size(1);
  const Tensor moments = empty(sizes, ScalarType::Double);
  forward.call.mean = numbers(moments);
  forward.call.rstd = forward.call.mean + each;
  forward.call.variance = forward.call.rstd + each;
  kernels().parts_forward(of.shape(), forward.call, parallel());
  return {forward.y(), moments};
}

Gradients parts_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                         const MaybeTensor& bias, const Tensor& moments, const Tensor& spans, std::int64_t parts,
                         const Strings& activation, std::int64_t wanted) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  const PartsOf of(channels_of(inputs.x), spans, parts);
  BackwardCall backward(inputs, dy, activation, wanted, channel_parameters(x));
  if (!of.cover_all()) backward.clear();
  const std::int64_t each[] = {parts, x.size(1)};
  backward.read_moments(moments, 3, each);
  kernels().parts_backward(of.shape(), backward.call, parallel());
  return backward.results(weight, bias);
}

// ---- Channels with known moments

// As the kernels take them.
struct Population {
  std::vector<double> mean, rstd;

  Population(const Tensor& means, const Tensor& variances, double eps, Sizes channels) {
    check_vector("mean", means, channels);
    check_vector("variance", variances, channels);
    mean = doubles_of(means);
    rstd = doubles_of(variances);
    for (double& value : rstd) value = 1 / std::sqrt(value + eps);
  }
};

void run_affine(const Inputs& inputs, ForwardCall& forward, Population population) {
  forward.call.mean = population.mean.data();
  forward.call.rstd = population.rstd.data();
  kernels().channel_affine(channels_of(inputs.x), forward.call, parallel());
}

Tensor channel_affine(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight, const MaybeTensor& bias,
                      const Tensor& mean, const Tensor& variance, double eps, const Strings& activation) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to_new();
  run_affine(inputs, forward, {mean, variance, eps, channel_sizes(x)});
  return forward.y();
}

void channel_affine_out(const Tensor& x, const MaybeTensor& residual, const MaybeTensor& weight,
                        const MaybeTensor& bias, const Tensor& mean, const Tensor& variance, double eps,
                        const Strings& activation, const Tensor& out) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  ForwardCall forward(inputs, activation, eps);
  forward.write_to(out);
  run_affine(inputs, forward, {mean, variance, eps, channel_sizes(x)});
  forward.copy_to(out);
}

Gradients channel_affine_backward(const Tensor& dy, const Tensor& x, const MaybeTensor& residual,
                                const MaybeTensor& weight, const MaybeTensor& bias, const Tensor& mean,
                                const Tensor& variance, double eps, const Strings& activation, std::int64_t wanted) {
  const Inputs inputs = channel_inputs(x, residual, weight, bias);
  BackwardCall backward(inputs, dy, activation, wanted, channel_parameters(x));
  const Population population(mean, variance, eps, channel_sizes(x));
  backward.call.mean = population.mean.data();
  backward.call.rstd = population.rstd.data();
  kernels().channel_affine_backward(channels_of(inputs.x), backward.call, parallel());
  return backward.results(weight, bias);
}

std::tuple<Tensor, Tensor, Tensor> channel_moments(const Tensor& x) {
  check_channels(x);
  const Tensor ordered = in_channels(x);
  const Channels shape = channels_of(ordered);
  const Sizes sizes = channel_sizes(x);
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
  library.impl("rows_forward_masked", TORCH_BOX(&rows_forward_masked));
  library.impl("rows_inference", TORCH_BOX(&rows_inference));
  library.impl("rows_inference_out", TORCH_BOX(&rows_inference_out));
  library.impl("rows_backward", TORCH_BOX(&rows_backward));
  library.impl("groups_forward", TORCH_BOX(&groups_forward));
  library.impl("groups_forward_masked", TORCH_BOX(&groups_forward_masked));
  library.impl("groups_inference", TORCH_BOX(&groups_inference));
  library.impl("groups_inference_out", TORCH_BOX(&groups_inference_out));
  library.impl("groups_backward", TORCH_BOX(&groups_backward));
  library.impl("channels_forward", TORCH_BOX(&channels_forward));
  library.impl("channels_forward_masked", TORCH_BOX(&channels_forward_masked));
  library.impl("channels_backward", TORCH_BOX(&channels_backward));
  library.impl("parts_forward", TORCH_BOX(&parts_forward));
  library.impl("parts_backward", TORCH_BOX(&parts_backward));
  library.impl("channel_affine", TORCH_BOX(&channel_affine));
  library.impl("channel_affine_out", TORCH_BOX(&channel_affine_out));
  library.impl("channel_affine_backward", TORCH_BOX(&channel_affine_backward));
  library.impl("channel_tanh", TORCH_BOX(&channel_tanh));
  library.impl("channel_tanh_backward", TORCH_BOX(&channel_tanh_backward));
  library.impl("channel_moments", TORCH_BOX(&channel_moments));
  library.impl("lstm_cell", TORCH_BOX(&lstm_cell));
  library.impl("lstm_cell_backward", TORCH_BOX(&lstm_cell_backward));
}

// For the message of `normwright.backends()`.
extern "C" __attribute__((visibility("default"))) const char* normwright_instruction_set() {
  return normwright::available_kernels()[0]->instruction_set;
}
