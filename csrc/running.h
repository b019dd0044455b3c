// The running statistics, moved with PyTorch's arithmetic to the bit: each operation is rounded to the dtype
// that PyTorch rounds it to, and none is contracted (this file is compiled with -ffp-contract=off).

#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

#include "checks.h"

namespace normwright {

struct BatchMoments {
  const double* mean;
  const double* variance;  // biased
  std::int64_t channels;
  std::int64_t count;
  bool half;  // of half-precision input
};

// What each running statistic moves by. S is its dtype, Wide what PyTorch computes it in.
template <class S, class Wide>
struct Share {
  Wide factor, keep;

  // momentum, or 1/batches where there is none.
  Share(std::optional<double> momentum, std::int64_t batches) {
    const S count = static_cast<S>(static_cast<Wide>(batches));
    const S share = momentum ? static_cast<S>(static_cast<Wide>(*momentum))
                             : static_cast<S>(Wide{1} / static_cast<Wide>(count));
    factor = static_cast<Wide>(share);
    keep = static_cast<Wide>(static_cast<S>(Wide{1} - factor));
  }
};

template <class S, class Wide>
void move_mean(S* mean, const BatchMoments& batch, const Share<S, Wide> share) {
  for (std::int64_t c = 0; c < batch.channels; ++c) {
    const S batch_mean = static_cast<S>(static_cast<Wide>(batch.mean[c]));
    const S from_batch = static_cast<S>(static_cast<Wide>(batch_mean) * share.factor);
    const S kept = static_cast<S>(static_cast<Wide>(mean[c]) * share.keep);
    mean[c] = static_cast<S>(static_cast<Wide>(from_batch) + static_cast<Wide>(kept));
  }
}

// PyTorch multiplies and adds the unbiased variance in float64, in float32 where the input is half-precision.
template <class S, class Wide>
void move_variance(S* variance, const BatchMoments& batch, const Share<S, Wide> share) {
  const Wide degrees = static_cast<Wide>(batch.count - 1);
  for (std::int64_t c = 0; c < batch.channels; ++c) {
    const S squares = static_cast<S>(static_cast<Wide>(batch.variance[c] * static_cast<double>(batch.count)));
    const S unbiased = static_cast<S>(static_cast<Wide>(squares) / degrees);
    const S kept = static_cast<S>(static_cast<Wide>(variance[c]) * share.keep);
    const auto moved = [&]<class Sum>(Sum factor) {
      const Sum from_batch = static_cast<Sum>(static_cast<Wide>(unbiased)) * factor;
      return static_cast<S>(static_cast<Wide>(from_batch + static_cast<Sum>(static_cast<Wide>(kept))));
    };
    const bool narrow = batch.half && !std::is_same_v<S, double>;
    variance[c] = narrow ? moved(static_cast<float>(share.factor)) : moved(static_cast<double>(share.factor));
  }
}

// Calls move.operator()<S, Wide>(elements) on the elements of a running statistic, in any dtype and strides.
template <class Move>
void in_place(const Tensor& running, const Move& move) {
  Tensor target = running;
  const Tensor dense = running.is_contiguous() ? running : torch::stable::contiguous(running);
  void* const elements = dense.mutable_data_ptr();
  switch (running.scalar_type()) {
    case ScalarType::Double:
      move.template operator()<double, double>(static_cast<double*>(elements));
      break;
    case ScalarType::BFloat16:
      move.template operator()<torch::headeronly::BFloat16, float>(static_cast<torch::headeronly::BFloat16*>(elements));
      break;
    case ScalarType::Half:
      move.template operator()<torch::headeronly::Half, float>(static_cast<torch::headeronly::Half*>(elements));
      break;
    default:
      move.template operator()<float, float>(static_cast<float*>(elements));
  }
  if (!running.is_contiguous()) torch::stable::copy_(target, dense);
}

// Raises a counter of any dtype by one and returns it.
inline std::int64_t raise(const Tensor& counter) {
  if (counter.scalar_type() == ScalarType::Long) return ++*static_cast<std::int64_t*>(counter.mutable_data_ptr());
  const Tensor raised = torch::stable::to(counter, ScalarType::Long);
  const std::int64_t value = ++*static_cast<std::int64_t*>(raised.mutable_data_ptr());
  Tensor target = counter;
  torch::stable::copy_(target, raised);
  return value;
}

// The running statistics of a call; where there is no momentum the counter gives it.
struct Running {
  const MaybeTensor &mean, &variance, &num_batches_tracked;
  std::optional<double> momentum;
};

// One that is moved in place.
inline void check_statistic(const char* name, const MaybeTensor& statistic, Sizes channels) {
  if (!statistic) return;
  check_vector(name, *statistic, channels);
  STD_TORCH_CHECK(channels[0] < 2 || strides_of(*statistic)[0] != 0, name,
                  " must have memory for each channel, as it is moved in place, but is expanded: use its clone()");
}

inline void check_running(const Running& running, Sizes channels) {
  check_statistic("running_mean", running.mean, channels);
  check_statistic("running_var", running.variance, channels);
  if (running.num_batches_tracked) {
    check_number("num_batches_tracked", *running.num_batches_tracked);
  } else {
    STD_TORCH_CHECK(running.momentum || !running.mean || !running.variance,
                    "momentum must be a number where num_batches_tracked is None, but is None");
  }
}

inline void move_running(const Running& running, const BatchMoments& batch) {
  const std::int64_t batches = running.num_batches_tracked ? raise(*running.num_batches_tracked) : 0;
  if (batch.count == 0 || !running.mean || !running.variance) return;
  in_place(*running.mean, [&]<class S, class Wide>(S* elements) {
    move_mean<S, Wide>(elements, batch, Share<S, Wide>(running.momentum, batches));
  });
  in_place(*running.variance, [&]<class S, class Wide>(S* elements) {
    move_variance<S, Wide>(elements, batch, Share<S, Wide>(running.momentum, batches));
  });
}

}  // namespace normwright
