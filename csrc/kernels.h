// What the kernels offer: plain pointers and shapes. Nothing here knows PyTorch.
//
// Each computes   y = activation(x̂·weight + bias + residual),  x̂ = (x − mean)·rstd,  rstd = 1/√(variance + eps)
// or its gradients. Statistics are summed in double. The work is cut by shape alone and partial results
// are merged in order, so that the bits do not depend on the number of threads.

#pragma once

#include <cstdint>

namespace normwright {

enum class Dtype : std::uint8_t { float32, float64, bfloat16, float16 };

enum class Activation : std::uint8_t { none, relu, leaky_relu, silu, gelu, sigmoid, tanh };

// Runs task(context, 0) … task(context, count − 1), in any order, on `threads` threads.
struct Parallel {
  using Task = void (*)(void* context, std::int64_t index);
  void (*run)(std::int64_t count, Task task, void* context);
  int threads;
};

// x[row][element]. The parameters of row r are those of set r mod `sets`, one for each `segment` elements
// in turn: layer and RMS norm have one set and segments of 1; group norm (contiguous) has a set for each
// group and a segment for each channel.
struct Rows {
  std::int64_t rows;
  std::int64_t length;
  std::int64_t sets;
  std::int64_t segment;
  bool center;  // false takes the mean as 0, as RMS norm does
};

// x[outer][channel][inner]: contiguous where outer is the batch, channels-last where inner is 1.
struct Channels {
  std::int64_t outer;
  std::int64_t channels;
  std::int64_t inner;
};

// Consecutive positions of Channels: its outer·inner places, numbered in the order of x.
struct Span {
  std::int64_t first, length;
};

// x as Channels has it, normalised by parts, of which each is some spans of positions and has moments of its own. The
// spans of part p stand from ends[p − 1] (of the first: 0) to ends[p]. What lies in no span is neither read nor
// written.
struct Parts {
  Channels whole;
  std::int64_t parts;
  const Span* spans;
  const std::int64_t* ends;
};

// x[sample][space][channel], channels-last, normalised by groups of channels within a sample.
struct Groups {
  std::int64_t samples;
  std::int64_t space;
  std::int64_t channels;
  std::int64_t groups;
  bool center;  // as in Rows; filter response norm does without
};

// x, residual and y have `dtype`; weight and bias are double where that is float64, float otherwise.
// mean and rstd are one per moment: row, channel, part and channel, or sample and group. Null where there is
// none.
struct Forward {
  Dtype dtype;
  Activation activation;
  double eps;
  const void* x;
  const void* residual;
  const void* weight;
  const void* bias;
  void* y;             // may be x
  double* mean;        // written, but for `channel_affine`, which reads it; null where the mean is taken as 0
  double* rstd;        // as mean
  double* variance;    // biased; written by `channels_forward` and `parts_forward` where it is not null
  std::uint8_t* mask;  // written where it is not null: see `mask_run`
  bool stream;         // y is stored around the cache: for an output that the cache would not hold
};

// Where there is a mask, the activation (relu or leaky_relu) is undone by it and residual is not read.
// dx and dresidual have `dtype`. A gradient that is null is not computed. Parameter gradients are double,
// one for each parameter.
struct Backward {
  Dtype dtype;
  Activation activation;
  const void* dy;
  const void* x;
  const void* residual;
  const void* weight;
  const void* bias;
  const double* mean;
  const double* rstd;
  const std::uint8_t* mask;
  void* dx;
  void* dresidual;
  double* dweight;
  double* dbias;
  bool stream;  // as in Forward, for dx and dresidual
};

// y = tanh(alpha·x)·weight + bias, of x as Channels. Names as above.
struct TanhForward {
  Dtype dtype;
  double alpha;
  const void* x;
  const void* weight;
  const void* bias;
  void* y;
  bool stream;
};

struct TanhBackward {
  Dtype dtype;
  double alpha;
  const void* dy;
  const void* x;
  const void* weight;
  void* dx;
  double* dalpha;  // one number
  double* dweight;
  double* dbias;
  bool stream;
};

// A step of an LSTM's cell, for `rows` sequences of `units` units. In z and its like the gates i, f, g and o stand one
// after the other in every row.
struct Cells {
  std::int64_t rows;
  std::int64_t units;
};

//   i, f, o = σ(z…),  g = tanh(z…),  c = f·before + i·g
struct CellForward {
  Dtype dtype;
  const void* z;       // (rows, 4·units)
  const void* before;  // (rows, units), c of the step before
  void* gates;         // as z, which it may be
  void* cell;          // as before, which it may be
};

// With h = o·squashed, where squashed was made of c, and dh the gradient of h:
//
//   dc = dcell + through,  dz = (dc·g·i(1 − i), dc·before·f(1 − f), dc·i·(1 − g²), dh·squashed·o(1 − o)),  dcell ← dc·f
struct CellBackward {
  Dtype dtype;
  const void* dh;  // (rows, units), as all but gates and dz
  const void* squashed;
  const void* through;  // of c, through squashed
  const void* gates;    // as `CellForward` leaves them
  const void* before;
  void* dcell;  // of c from the step after this one, then of before
  void* dz;     // (rows, 4·units)
};

// Contiguous runs from this length on are swept one by one with scalar parameters; shorter ones together,
// with the parameters spread out.
constexpr std::int64_t kLongRun = 64;

// A mask holds one bit per element, set where the activation has slope 1. Each run of elements starts on a
// byte, lowest bit first. These are the lengths of a run.
constexpr std::int64_t mask_run(const Rows& shape) {
  return shape.segment >= kLongRun ? shape.segment : shape.length;
}
constexpr std::int64_t mask_run(const Channels& shape) {
  return shape.inner >= kLongRun ? shape.inner : shape.channels * shape.inner;
}
constexpr std::int64_t mask_run(const Groups& shape) { return shape.channels; }

// The kernels built for one instruction set.
struct Kernels {
  const char* instruction_set;
  void (*rows_forward)(const Rows&, const Forward&, const Parallel&);
  void (*rows_backward)(const Rows&, const Backward&, const Parallel&);
  void (*channels_forward)(const Channels&, const Forward&, const Parallel&);
  void (*channels_backward)(const Channels&, const Backward&, const Parallel&);
  void (*channel_affine)(const Channels&, const Forward&, const Parallel&);
  void (*channel_affine_backward)(const Channels&, const Backward&, const Parallel&);
  // mean and m2, the sum of squared deviations, are one per channel.
  void (*channel_moments)(
      const Channels&, Dtype dtype, const void* x, double* mean, double* m2, const Parallel&);
  // There is no mask.
  void (*parts_forward)(const Parts&, const Forward&, const Parallel&);
  void (*parts_backward)(const Parts&, const Backward&, const Parallel&);
  void (*channel_tanh)(const Channels&, const TanhForward&, const Parallel&);
  void (*channel_tanh_backward)(const Channels&, const TanhBackward&, const Parallel&);
  void (*groups_forward)(const Groups&, const Forward&, const Parallel&);
  void (*groups_backward)(const Groups&, const Backward&, const Parallel&);
  void (*lstm_cell)(const Cells&, const CellForward&, const Parallel&);
  void (*lstm_cell_backward)(const Cells&, const CellBackward&, const Parallel&);
};

// The kernels that this processor can run, best first, ended by a null pointer.
const Kernels* const* available_kernels();

}  // namespace normwright
