// The operators that backends/schema.py defines, served on the CPU by the kernels. Here alone PyTorch and the
// kernels meet, through PyTorch's stable interface.

#include <algorithm>
#include <string>
#include <tuple>

#include "running.h"
#include "tensors.h"

namespace normwright {
namespace {

using Strings = std::optional<std::string>;
using Results = std::tuple<Tensor, Tensor, Tensor, Tensor>;

const Kernels& kernels() {
  static const Kernels& best = *available_kernels()[0];
  return best;
}

Parallel parallel() {
  const auto run = [](std::int64_t count, Parallel::Task task, void* context) {
    torch::stable::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) task(context, i);
    });
  };
  return {run, static_cast<int>(torch::stable::get_num_threads())};
}

Activation activation_of(const Strings& name) {
  if (!name) return Activation::none;
  if (*name == "relu") return Activation::relu;
  if (*name == "leaky_relu") return Activation::leaky_relu;
  if (*name == "silu") return Activation::silu;
  if (*name == "gelu") return Activation::gelu;
  if (*name == "sigmoid") return Activation::sigmoid;
  STD_TORCH_CHECK(*name == "tanh", "normwright has no activation ", *name);
  return Activation::tanh;
}

double* numbers(const Tensor& t) { return static_cast<double*>(t.mutable_data_ptr()); }

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
RowsOf rows_of(const Tensor& given, const MaybeTensor& residual, std::int64_t axis_count, bool center) {
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
Tensor in_channels(const Tensor& x) {
  return is_dense(x, axes(0, x.dim())) || is_channels_last(x) ? x : torch::stable::contiguous(x);
}

bool channels_quickest(const Tensor& x) { return !is_dense(x, axes(0, x.dim())); }

Channels channels_of(const Tensor& x) {
  const auto sizes = sizes_of(x);
  const std::int64_t space = product(sizes.subspan(2));
  if (channels_quickest(x)) return {sizes[0] * space, sizes[1], 1};
  return {sizes[0], sizes[1], space};
}

Groups groups_of(const Tensor& x, std::int64_t groups) {
  const auto sizes = sizes_of(x);
  return {sizes[0], product(sizes.subspan(2)), sizes[1], groups};
}

Rows rows_of_groups(const Tensor& x, std::int64_t groups) {
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
  // `out` may be x itself.
  void write_to(const Tensor& out) {
    const bool direct = out.scalar_type() == x_.scalar_type() && same_memory(out, x_);
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
    return {wanted_[0] ? restored(given_, dx_) : nothing(given_.scalar_type()),
            wanted_[1] ? restored(given_residual_ ? *given_residual_ : given_, dresidual_)
                           : nothing(given_.scalar_type()),
            wanted_[2] ? in_the_likeness_of(*weight, dweight_) : nothing(given_.scalar_type()),
            wanted_[3] ? in_the_likeness_of(*bias, dbias_) : nothing(given_.scalar_type())};
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
  if (num_batches_tracked) batches = ++*static_cast<std::int64_t*>(num_batches_tracked->mutable_data_ptr());
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

  Population(const Tensor& mean_given, const Tensor& variance, double eps) {
    const MaybeTensor means = vector_of(mean_given, ScalarType::Double);
    const MaybeTensor variances = vector_of(variance, ScalarType::Double);
    for (std::int64_t c = 0; c < mean_given.numel(); ++c) {
      mean.push_back(data<double>(means)[c]);
      rstd.push_back(1 / std::sqrt(data<double>(variances)[c] + eps));
    }
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
