// What happens to a run of consecutive elements once its moments are known, and the way back.
//
// A map gives the affine map of each element,  z = affine(centre(x));  a slope gives dx from dz. Each comes
// for runs (one set of coefficients), for columns (a set for each element, in padded arrays) and for rows
// (a weight and a bias for each element, one mean and rstd).

#pragma once

#include "activation_runs.h"
#include "moments.h"

namespace normwright::NORMWRIGHT_ISA {

// Writes the moments of row, channel or group i where the call wants them.
inline void keep_moments(const Forward& call, std::int64_t i, const Moments& moments, double count) {
  const double variance = moments.m2 / count;
  if (call.mean) call.mean[i] = moments.mean;
  call.rstd[i] = rstd_of(variance, call.eps);
  if (call.variance) call.variance[i] = variance;
}

// ---- Maps

template <class C>
struct RunMap {
  C mean, scale, shift;

  template <class Lanes>
  Pack<C> centre(Pack<C> x, std::int64_t, Lanes) const {
    return x - mean;
  }
  template <class Lanes>
  Pack<C> affine(Pack<C> t, std::int64_t, Lanes) const {
    return multiply_add(t, broadcast(scale), broadcast(shift));
  }
};

template <class C>
struct ColumnMap {
  const C *mean, *scale, *shift;

  template <class Lanes>
  Pack<C> centre(Pack<C> x, std::int64_t j, Lanes) const {
    return x - load(mean + j, Full{});
  }
  template <class Lanes>
  Pack<C> affine(Pack<C> t, std::int64_t j, Lanes) const {
    return multiply_add(t, load(scale + j, Full{}), load(shift + j, Full{}));
  }
};

template <class C>
struct RowMap {
  C mean, rstd, low;  // x̂ = t·rstd + low
  const C *weight, *bias;

  template <class Lanes>
  Pack<C> centre(Pack<C> x, std::int64_t, Lanes) const {
    return x - mean;
  }
  template <class Lanes>
  Pack<C> affine(Pack<C> t, std::int64_t j, Lanes lanes) const {
    const Pack<C> x_hat = multiply_add(t, broadcast(rstd), broadcast(low));
    return multiply_add(x_hat, load(weight + j, lanes), load(bias + j, lanes));
  }
};

// Element i of weight or bias, or `none` where there is none.
template <class C>
inline double parameter_at(const void* parameters, std::int64_t i, double none) {
  return parameters ? static_cast<double>(static_cast<const C*>(parameters)[i]) : none;
}

template <class C>
inline RunMap<C> run_map(const void* weight, const void* bias, double mean, double rstd, std::int64_t parameter) {
  const SplitMean<C> split(mean);
  const double scale = rstd * parameter_at<C>(weight, parameter, 1);
  return {split.high, static_cast<C>(scale),
          static_cast<C>(parameter_at<C>(bias, parameter, 0) - split.low * scale)};
}

// ---- Slopes: dx = dz·from_dz + x̂·from_x + constant. The constant takes in what low adds to x̂.

template <class C>
struct RunSlope {
  static constexpr bool kReadsX = true;
  C from_dz, rstd, from_x, constant;

  template <class Lanes>
  Pack<C> dx(Pack<C> dz, Pack<C> t, std::int64_t, Lanes) const {
    return multiply_add(dz, broadcast(from_dz), multiply_add(t * rstd, broadcast(from_x), broadcast(constant)));
  }
};

// Where the moments are constants, x has no part in dx.
template <class C>
struct RunScale {
  static constexpr bool kReadsX = false;
  C from_dz;

  template <class Lanes>
  Pack<C> dx(Pack<C> dz, Pack<C>, std::int64_t, Lanes) const {
    return dz * from_dz;
  }
};

template <class C>
struct ColumnScale {
  static constexpr bool kReadsX = false;
  const C* from_dz;

  template <class Lanes>
  Pack<C> dx(Pack<C> dz, Pack<C>, std::int64_t j, Lanes) const {
    return dz * load(from_dz + j, Full{});
  }
};

template <class C>
struct ColumnSlope {
  static constexpr bool kReadsX = true;
  const C *from_dz, *rstd, *from_x, *constant;

  template <class Lanes>
  Pack<C> dx(Pack<C> dz, Pack<C> t, std::int64_t j, Lanes) const {
    const Pack<C> x_hat = t * load(rstd + j, Full{});
    const Pack<C> x_part = multiply_add(x_hat, load(from_x + j, Full{}), load(constant + j, Full{}));
    return multiply_add(dz, load(from_dz + j, Full{}), x_part);
  }
};

template <class C>
struct RowSlope {
  static constexpr bool kReadsX = true;
  C rstd, from_x, constant;
  const C* weight;

  template <class Lanes>
  Pack<C> dx(Pack<C> dz, Pack<C> t, std::int64_t j, Lanes lanes) const {
    const Pack<C> x_part = multiply_add(t * rstd, broadcast(from_x), broadcast(constant));
    return multiply_add(dz * load(weight + j, lanes), broadcast(rstd), x_part);
  }
};

// ---- Masks: see `mask_run` in kernels.h

template <class C>
inline unsigned load_bits(const std::uint8_t* mask, std::int64_t j, int lanes) {
  if constexpr (kLanes<C> < 8) return mask[j / 8] >> (j % 8);
  unsigned bits = mask[j / 8];
  if (kLanes<C> == 16 && lanes > 8) bits |= static_cast<unsigned>(mask[j / 8 + 1]) << 8;
  return bits;
}

template <class C>
inline void store_bits(std::uint8_t* mask, std::int64_t j, unsigned bits, int lanes) {
  if (kLanes<C> < 8 && j % 8) {
    mask[j / 8] = static_cast<std::uint8_t>(mask[j / 8] | bits << (j % 8));
    return;
  }
  mask[j / 8] = static_cast<std::uint8_t>(bits);
  if (kLanes<C> == 16 && lanes > 8) mask[j / 8 + 1] = static_cast<std::uint8_t>(bits >> 8);
}

template <class C>
constexpr int count_of(Full) {
  return kLanes<C>;
}
template <class C>
constexpr int count_of(Part part) {
  return part.lanes;
}

// ---- Storing

template <class T>
inline void put(T* p, Pack<Compute<T>> v, bool stream_it, Full) {
  if (stream_it) {
    stream(p, v);
  } else {
    store(p, v, Full{});
  }
}
template <class T>
inline void put(T* p, Pack<Compute<T>> v, bool, Part part) {
  store(p, v, part);
}

// Whether a run that begins at p can be stored around the cache: its first pack may have to be a part, so
// that the rest is aligned, but where there is a mask each pack must begin on a byte of it.
template <class T>
inline bool can_stream(const T* p, const std::uint8_t* mask) {
  constexpr std::uintptr_t bytes = kLanes<Compute<T>> * sizeof(T);
  return mask == nullptr || reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

// ---- Reading ahead

// How many elements on lies what is asked for while a run is swept, or 0: so that reading it overlaps with the
// arithmetic and the storing. The processor fetches ahead by itself, but not past the end of a page or a run.
struct Ahead {
  std::int64_t x;         // and dy
  std::int64_t residual;
};

// ---- Forward

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
inline ForwardRun<T> run_of(const Forward& call, std::int64_t offset, std::int64_t mask_offset, Ahead ahead) {
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
NORMWRIGHT_INLINE inline Pack<Compute<T>> affine_at(const ForwardRun<T>& run, const Map& map, std::int64_t j, Lanes lanes) {
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

// Calls step(j, lanes) for `n` elements from `first` on; whole packs begin where p + j is aligned, if `streams`.
template <class T, class Step>
NORMWRIGHT_INLINE inline void for_packs_of(const T* p, std::int64_t first, std::int64_t n, bool streams, Step&& step) {
  const auto from_first = [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE { step(first + j, lanes); };
  if (streams) {
    for_aligned_packs<T>(p + first, n, from_first);
  } else {
    for_packs<Compute<T>>(n, from_first);
  }
}

template <Kind kind, class T, class Map>
inline void forward_run(const ForwardRun<T> run, std::int64_t n, const Map map) {
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

// ---- Backward

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
inline BackwardRun<T> run_of(const Backward& call, std::int64_t offset, std::int64_t mask_offset, Ahead ahead,
                             bool keeps_dz = false) {
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
NORMWRIGHT_INLINE inline Gradient<Compute<T>> gradient_at(const BackwardRun<T>& run, const Map& map, std::int64_t j, Lanes lanes) {
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
inline void backward_run(const BackwardRun<T> given, std::int64_t n, const Map map, const Slope slope) {
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

// ---- Choosing the instance

template <class Function>
inline void with_kind(Activation activation, Function&& function) {
  if (activation == Activation::none) return function.template operator()<Kind::none>();
  if (activation == Activation::relu) return function.template operator()<Kind::relu>();
  function.template operator()<Kind::any>();
}

template <class Function>
inline void with_type(Dtype dtype, Function&& function) {
  switch (dtype) {
    case Dtype::float32:
      return function.template operator()<float>();
    case Dtype::float64:
      return function.template operator()<double>();
    case Dtype::bfloat16:
      return function.template operator()<BFloat16>();
    case Dtype::float16:
      return function.template operator()<Float16>();
  }
}

}  // namespace normwright::NORMWRIGHT_ISA
