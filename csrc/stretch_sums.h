// Two sums over a run, of which the second, or both, are taken in C for a short stretch and in double from stretch to
// stretch.
//
// For terms of which each is as large as what their sum goes into: a rounding of their sum is then no more than one of
// theirs. Not for shifted sums, whose difference is far smaller than they are (moments.h), nor for dbias, whose terms
// are exact.

#pragma once

#include "moments.h"
#include "schedule.h"

namespace normwright::NORMWRIGHT_ISA {

// step(j, lanes, first, second) adds what the pack at j has to a First, Pack<C> or Wide<C>, and to a pack.
template <class C, class First, class Step>
NORMWRIGHT_INLINE inline Sums stretch_sums(std::int64_t n, const Step& step) {
  // An addition is ready some four cycles after it began. More than two of the wide would not fit in the registers.
  constexpr int kChains = std::is_same_v<First, Pack<C>> ? 4 : 2;
  constexpr std::int64_t lanes = kLanes<C>, kRound = kChains * lanes, kStretch = 64 * lanes;
  WideSums<C> total;
  for (std::int64_t begin = 0; begin < n; begin += kStretch) {
    const std::int64_t end = least(begin + kStretch, n);
    First first[kChains] = {};
    Pack<C> second[kChains] = {};
    std::int64_t j = begin;
    for (; j + kRound <= end; j += kRound) {
      for (int chain = 0; chain < kChains; ++chain) {
        step(j + chain * lanes, Full{}, first[chain], second[chain]);
      }
    }
    for_packs<C>(end - j, [&](std::int64_t k, auto part) NORMWRIGHT_INLINE { step(j + k, part, first[0], second[0]); });
    if constexpr (kChains == 4) {
      first[0] += first[2], first[1] += first[3];
      second[0] += second[2], second[1] += second[3];
    }
    first[0] += first[1];
    second[0] += second[1];
    total.first += widen(first[0]);
    total.second += widen(second[0]);
  }
  return total.total();
}

}  // namespace normwright::NORMWRIGHT_ISA
