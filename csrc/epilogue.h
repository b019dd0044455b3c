// What the sweeps over a run have in common: masks, stores around the cache, reading ahead, and for what their loops
// are compiled.

#pragma once

#include "activation_runs.h"

namespace normwright::NORMWRIGHT_ISA {

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
NORMWRIGHT_INLINE inline void put(T* p, Pack<Compute<T>> v, bool stream_it, Full) {
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

// Calls step(j, lanes) for `n` elements from `first` on; whole packs begin where p + j is aligned, if `streams`.
template <class T, class Step>
NORMWRIGHT_INLINE inline void for_packs_of(const T* p, std::int64_t first, std::int64_t n, bool streams,
                                           Step&& step) {
  const auto from_first = [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE { step(first + j, lanes); };
  if (streams) {
    for_aligned_packs<T>(p + first, n, from_first);
  } else {
    for_packs<Compute<T>>(n, from_first);
  }
}

// ---- Reading ahead

// How many elements on lies what is asked for while a run is swept, or 0: so that reading it overlaps with the
// arithmetic and the storing. The processor fetches ahead by itself, but not past the end of a page or a run.
struct Ahead {
  std::int64_t x;         // and dy
  std::int64_t residual;
};

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
