// Dynamic tanh,  y = tanh(alpha·x)·weight + bias,  takes no moment: each way is one sweep over x as it lies in memory.
//
// x is swept in runs of one channel where these are long, with scalar coefficients, and in rows of all channels where
// they are short (column_grid.h), with a coefficient for each column.

#pragma once

#include <vector>

#include "column_grid.h"
#include "slab_grid.h"

namespace normwright::NORMWRIGHT_ISA {

inline bool has_long_runs(const Channels& shape) { return shape.inner >= kLongRun; }

inline std::int64_t elements_of(const Channels& shape) { return shape.outer * shape.channels * shape.inner; }

// All runs as those of one slab: run r is of channel r mod channels.
inline Slabs all_runs(const Channels& shape) {
  const std::int64_t runs = shape.outer * shape.channels;
  return {1, runs, shape.inner, runs * shape.inner, shape.inner, 1, true, true};
}

inline Columns all_columns(const Channels& shape) {
  return {1, shape.outer, shape.channels, shape.inner, shape.channels, true};
}

// What a sweep of runs asks for ahead, in elements.
constexpr std::int64_t kRunsAhead = 1024;

// Spreads each channel's weight and bias over the columns of a tile.
template <class C>
inline void fill_weights(const Columns& shape, const Tile& tile, const void* weight, const void* bias,
                         const Coefficients<C, 2>& values) {
  for (std::int64_t c = 0; c < tile.channels; ++c) {
    const RunMap<C> map = run_map<C>(weight, bias, 0, 1, tile.first_channel + c);
    for_columns_of(shape, tile, c, [&](std::int64_t j) {
      values.of(0)[j] = map.scale;
      values.of(1)[j] = map.shift;
    });
  }
}

// Runs `partial` for every piece of every block, on all threads, and `finish` for every block. `make(b)` returns
// block b.
template <class Make>
inline void sweep_once(const Parallel& parallel, std::int64_t blocks, std::int64_t pieces, const Make& make) {
  std::vector<decltype(make(0))> all;
  all.reserve(static_cast<std::size_t>(blocks));
  for (std::int64_t b = 0; b < blocks; ++b) all.push_back(make(b));
  for_each_index(parallel, blocks * pieces, Order::forwards,
                 [&](std::int64_t i) { all[static_cast<std::size_t>(i / pieces)].partial(i % pieces); });
  for (auto& block : all) block.finish();
}

}  // namespace normwright::NORMWRIGHT_ISA
