// The running statistics, moved with PyTorch's arithmetic to the bit: each operation is rounded to the dtype
// that PyTorch rounds it to, and none is contracted (this file is compiled with -ffp-contract=off).

#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

#include "tensors.h"

namespace normwright {

struct BatchMoments {
  const double* mean;
  const double* variance;  // biased
  std::int64_t channels;
  std::int64_t count;
  bool half;  // of half-precision input
};

// momentum, or 1/batches where there is none. `Wide` is what PyTorch computes a running statistic of type S in.
template <class S, class Wide>
void move_running(S* mean, S* variance, const BatchMoments& batch, std::optional<double> momentum,
                  std::int64_t batches) {
  using VarianceType = std::conditional_t<std::is_same_v<S, double>, double, float>;
  const S share = momentum ? static_cast<S>(static_cast<Wide>(*momentum))
                           : static_cast<S>(Wide{1} / static_cast<Wide>(static_cast<S>(static_cast<Wide>(batches))));
  const Wide factor = static_cast<Wide>(share);
  const Wide keep = static_cast<Wide>(static_cast<S>(Wide{1} - factor));
  const Wide degrees = static_cast<Wide>(batch.count - 1);
  for (std::int64_t c = 0; c < batch.channels; ++c) {
    const S batch_mean = static_cast<S>(static_cast<Wide>(batch.mean[c]));
    const S from_batch = static_cast<S>(static_cast<Wide>(batch_mean) * factor);
    const S from_mean = static_cast<S>(static_cast<Wide>(mean[c]) * keep);
    mean[c] = static_cast<S>(static_cast<Wide>(from_batch) + static_cast<Wide>(from_mean));

    const S squares = static_cast<S>(static_cast<Wide>(batch.variance[c] * static_cast<double>(batch.count)));
    const S unbiased = static_cast<S>(static_cast<Wide>(squares) / degrees);
    const S from_variance = static_cast<S>(static_cast<Wide>(variance[c]) * keep);
    if (batch.half) {
      const VarianceType moved = static_cast<VarianceType>(static_cast<Wide>(unbiased)) *
                                 static_cast<VarianceType>(factor);
      variance[c] = static_cast<S>(static_cast<Wide>(moved + static_cast<VarianceType>(from_variance)));
    } else {
      const double moved = static_cast<double>(unbiased) * static_cast<double>(factor);
      variance[c] = static_cast<S>(static_cast<Wide>(moved + static_cast<double>(from_variance)));
    }
  }
}

inline void move_running(const Tensor& mean, const Tensor& variance, const BatchMoments& batch,
                         std::optional<double> momentum, std::int64_t batches) {
  const auto move = [&]<class S, class Wide>() {
    move_running<S, Wide>(static_cast<S*>(mean.mutable_data_ptr()), static_cast<S*>(variance.mutable_data_ptr()),
                          batch, momentum, batches);
  };
  switch (mean.scalar_type()) {
    case ScalarType::Double:
      return move.template operator()<double, double>();
    case ScalarType::BFloat16:
      return move.template operator()<torch::headeronly::BFloat16, float>();
    case ScalarType::Half:
      return move.template operator()<torch::headeronly::Half, float>();
    default:
      return move.template operator()<float, float>();
  }
}

}  // namespace normwright
