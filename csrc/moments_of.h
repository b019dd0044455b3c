#pragma once

namespace normwright {

// Whether the moments are those of x, or known and constant, as in inference.
enum class MomentsOf { batch, population };

}  // namespace normwright
