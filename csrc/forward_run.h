// What happens to a run of consecutive elements once its moments are known.

#pragma once

#include "epilogue.h"
#include "maps.h"

namespace normwright::NORMWRIGHT_ISA {

// Writes the moments of row, channel or group i where the call wants them.
inline void keep_moments(const Forward& call, std::int64_t i, const Moments& moments, double count) {
  const double variance = moments.m2 / count;
  if (call.mean) call.mean[i] = moments.mean;
  call.rstd[i] = rstd_of(variance, call.eps);
  if (call.variance) call.variance[i] = variance;
}

template <class T>
struct ForwardRun {
  const T *x, *residual;
  T* y;
  std::uint8_t* mask;
  Activation activation;
  bool stream;
  Ahead ahead;
};

// The run that begins `offset` elements into x and `mask_offset` bytes into the mask.
template <class T>
NORMWRIGHT_INLINE inline ForwardRun<T> run_of(const Forward& call, std::int64_t offset, std::int64_t mask_offset,
                                              Ahead ahead) {
  const T* const residual = static_cast<const T*>(call.residual);
  return {static_cast<const T*>(call.x) + offset,
          residual ? residual + offset : nullptr,
          static_cast<T*>(call.y) + offset,
          call.mask ? call.mask + mask_offset : nullptr,
          call.activation,
          call.stream,
          ahead};
}

// z of one pack, and its bits of the mask.
template <bool with_mask, class T, class Map, class Lanes>
NORMWRIGHT_INLINE inline Pack<Compute<T>> affine_at(const ForwardRun<T>& run, const Map& map, std::int64_t j,
                                                    Lanes lanes) {
  using C = Compute<T>;
  Pack<C> z = map.affine(map.centre(load(run.x + j, lanes), j, lanes), j, lanes);
  if (run.ahead.x) fetch(run.x + j + run.ahead.x);
  if (run.residual) {
    z += load(run.residual + j, lanes);
    fetch(run.residual + j + run.ahead.residual);
  }
  if (with_mask && run.mask) {
    store_bits<C>(run.mask, j, lane_bits<C>(slope_is_one<C>(z, run.activation)), count_of<C>(lanes));
  }
  return z;
}

template <Kind kind, class T, class Map>
NORMWRIGHT_INLINE inline void forward_run(const ForwardRun<T> run, std::int64_t n, const Map map) {
  using C = Compute<T>;
  const bool streams = run.stream && can_stream(run.y, run.mask);
  if constexpr (kind != Kind::any) {
    for_packs_of(run.y, 0, n, streams, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
      const Pack<C> z = affine_at<kind == Kind::relu>(run, map, j, lanes);
      put(run.y + j, activate<C>(z, kind == Kind::relu ? Activation::relu : Activation::none), streams, lanes);
    });
    return;
  }
  Chunk<C> z;
  for (std::int64_t first = 0; first < n; first += kChunk) {
    const std::int64_t m = n - first < kChunk ? n - first : kChunk;
    for_packs<C>(m, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
      store(z.values + j, affine_at<true>(run, map, first + j, lanes), Full{});
    });
    activate_chunk(run.activation, z.values, m);
    for_packs_of(run.y, first, m, streams, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
      put(run.y + j, load(z.values + (j - first), Full{}), streams, lanes);
    });
  }
}

}  // namespace normwright::NORMWRIGHT_ISA
