// A `Parallel` whose threads take the tasks in an order of our choosing.

#pragma once

#include <cstdint>

#include "../kernels.h"

namespace normwright::fuzz {

// How tasks are run: the bits may depend on neither.
struct Schedule {
  int threads;
  std::uint64_t order;  // 0: as they come; otherwise shuffled by this seed
};

// One at a time: it holds until the next call.
Parallel parallel_for(Schedule schedule);

}  // namespace normwright::fuzz
