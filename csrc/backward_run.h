// The way back through a run of consecutive elements: dz, the gradient of what the activation took, and from it dx.

#pragma once

#include "epilogue.h"
#include "maps.h"

namespace normwright::NORMWRIGHT_ISA {

template <class T>
struct BackwardRun {
  const T *dy, *x, *residual;
  const std::uint8_t* mask;
  T *dx, *dresidual;
  Activation activation;
  bool stream;
  Ahead ahead;
  Compute<T>* kept = nullptr;      // where dz is kept from the first sweep to the second, or null
  const Compute<T>* dz = nullptr;  // of the chunk that begins at element `chunk`, where it is computed apart
  std::int64_t chunk = 0;
};

// Whether a backward that sums before it writes dx keeps dz meanwhile, in the memory of dx: where dz is costly, where
// dx has its dtype, and where the cache may hold it.
template <Kind kind, class T>
inline bool keeps_dz(const Backward& call, std::int64_t elements) {
  constexpr std::int64_t kCached = std::int64_t{1} << 24;
  return kind == Kind::any && std::is_same_v<T, Compute<T>> && call.dx && !call.mask &&
         elements * static_cast<std::int64_t>(sizeof(T)) <= kCached;
}

template <class T>
NORMWRIGHT_INLINE inline BackwardRun<T> run_of(const Backward& call, std::int64_t offset, std::int64_t mask_offset,
                                               Ahead ahead, bool keeps_dz = false) {
  const auto in = [&](const void* p) { return p ? static_cast<const T*>(p) + offset : nullptr; };
  const auto out = [&](void* p) { return p ? static_cast<T*>(p) + offset : nullptr; };
  return {in(call.dy),
          in(call.x),
          in(call.residual),
          call.mask ? call.mask + mask_offset : nullptr,
          out(call.dx),
          out(call.dresidual),
          call.activation,
          call.stream && !keeps_dz,
          ahead,
          keeps_dz ? reinterpret_cast<Compute<T>*>(out(call.dx)) : nullptr};
}

template <class C>
struct Gradient {
  Pack<C> dz, t;  // t is x − the high part of the mean
};

template <Kind kind, class T, class Map, class Lanes>
NORMWRIGHT_INLINE inline Gradient<Compute<T>> gradient_at(const BackwardRun<T>& run, const Map& map, std::int64_t j,
                                                          Lanes lanes) {
  using C = Compute<T>;
  const Pack<C> t = map.centre(load(run.x + j, lanes), j, lanes);
  if constexpr (kind == Kind::any) return {load(run.dz + (j - run.chunk), lanes), t};
  const Pack<C> dy = load(run.dy + j, lanes);
  if constexpr (kind == Kind::none) return {dy, t};
  if (run.mask) {
    const unsigned bits = load_bits<C>(run.mask, j, count_of<C>(lanes));
    return {through_slope<C>(dy, lanes_of_bits<C>(bits), Activation::relu), t};
  }
  Pack<C> z = map.affine(t, j, lanes);
  if (run.residual) z += load(run.residual + j, lanes);
  return {through_activation<C>(dy, z, Activation::relu), t};
}

// dz of `n` elements from `first` on.
template <class T, class Map>
inline void differentiate(const BackwardRun<T>& run, const Map& map, std::int64_t first, std::int64_t n,
                          Chunk<Compute<T>>& dz) {
  using C = Compute<T>;
  if (run.mask) {
    for_packs<C>(n, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
      const unsigned bits = load_bits<C>(run.mask, first + j, count_of<C>(lanes));
      const Pack<C> dy = load(run.dy + first + j, lanes);
      store(dz.values + j, through_slope<C>(dy, lanes_of_bits<C>(bits), run.activation), Full{});
    });
    return;
  }
  for_packs<C>(n, [&](std::int64_t k, auto lanes) NORMWRIGHT_INLINE {
    const std::int64_t j = first + k;
    Pack<C> z = map.affine(map.centre(load(run.x + j, lanes), j, lanes), j, lanes);
    if (run.residual) z += load(run.residual + j, lanes);
    store(dz.values + k, z, Full{});
  });
  differentiate_chunk(run.activation, run.dy + first, dz.values, n);
}

// Calls sweep(first, m) for chunks of n elements, after dz of the chunk was computed for each run where it is not
// computed on the way. map_of(i) is the map of run i.
template <Kind kind, int count, class T, class MapOf, class Sweep>
NORMWRIGHT_INLINE inline void in_chunks(BackwardRun<T> (&runs)[count], std::int64_t n, const MapOf& map_of,
                                        const Sweep& sweep) {
  using C = Compute<T>;
  if constexpr (kind != Kind::any) return sweep(0, n);
  Chunk<C> dz[count];
  for (std::int64_t first = 0; first < n; first += kChunk) {
    const std::int64_t m = n - first < kChunk ? n - first : kChunk;
    for (int i = 0; i < count; ++i) {
      differentiate(runs[i], map_of(i), first, m, dz[i]);
      runs[i].dz = dz[i].values;
      runs[i].chunk = first;
      if (!runs[i].kept) continue;
      for_packs<C>(m, [&](std::int64_t j, auto lanes) {
        store(runs[i].kept + first + j, load(dz[i].values + j, Full{}), lanes);
      });
    }
    sweep(first, m);
  }
}

// The same for the second sweep, which finds what the first has kept.
template <Kind kind, int count, class T, class MapOf, class Sweep>
NORMWRIGHT_INLINE inline void in_kept_chunks(BackwardRun<T> (&runs)[count], std::int64_t n, const MapOf& map_of,
                                             const Sweep& sweep) {
  if (kind != Kind::any || !runs[0].kept) return in_chunks<kind>(runs, n, map_of, sweep);
  for (BackwardRun<T>& run : runs) run.dz = run.kept;
  sweep(0, n);
}

template <Kind kind, bool reads_x = true, class T>
inline void fetch_ahead(const BackwardRun<T>& run, std::int64_t j) {
  if (run.ahead.x) {
    if constexpr (reads_x || kind != Kind::none) fetch(run.x + j + run.ahead.x);
    fetch(run.dy + j + run.ahead.x);
  }
  if constexpr (kind != Kind::none) {
    if (run.residual) fetch(run.residual + j + run.ahead.residual);
  }
}

// dx and dresidual of a run.
template <Kind kind, class T, class Map, class Slope>
NORMWRIGHT_INLINE inline void backward_run(const BackwardRun<T> given, std::int64_t n, const Map map,
                                           const Slope slope) {
  using C = Compute<T>;
  BackwardRun<T> runs[1] = {given};
  const BackwardRun<T>& run = runs[0];
  const T* const leader = run.dx ? run.dx : run.dresidual;
  // dx and dresidual are stored around the cache together, so they must be aligned alike.
  const auto apart = reinterpret_cast<std::uintptr_t>(run.dx) - reinterpret_cast<std::uintptr_t>(run.dresidual);
  const bool alike = !run.dx || !run.dresidual || apart % kPackBytes == 0;
  const bool streams = run.stream && leader && alike && can_stream(leader, run.mask);
  const auto map_of = [&](int) { return map; };
  in_kept_chunks<kind>(runs, n, map_of, [&](std::int64_t first, std::int64_t m) NORMWRIGHT_INLINE {
    for_packs_of(leader, first, m, streams, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
      const Gradient<C> gradient = gradient_at<kind>(run, map, j, lanes);
      fetch_ahead<kind, Slope::kReadsX>(run, j);
      if (run.dx) put(run.dx + j, slope.dx(gradient.dz, gradient.t, j, lanes), streams, lanes);
      if (run.dresidual) put(run.dresidual + j, gradient.dz, streams, lanes);
    });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
