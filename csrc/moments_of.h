#pragma once

#include "kernels.h"

namespace normwright {

// Whether the moments are those of x, or known and constant, as in inference.
enum class MomentsOf { batch, population };

// Whether a backward has anything to sum: dx needs sums only where the moments depend on x.
inline bool needs_sums(const Backward& call, MomentsOf moments) {
  return (moments == MomentsOf::batch && call.dx) || call.dweight || call.dbias;
}

}  // namespace normwright
