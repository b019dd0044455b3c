// Two sums over a run, in C for a short stretch and in double from stretch to stretch.
//
// For terms of which each is as large as what their sum goes into: a rounding of their sum is then no more than one of
// theirs. Not for shifted sums, whose difference is far smaller than they are (moments.h).

#pragma once

#include "moments.h"
#include "schedule.h"

namespace normwright::NORMWRIGHT_ISA {

// step(j, lanes, first, second) adds what the pack at j has to two packs.
template <class C, class Step>
NORMWRIGHT_INLINE inline Sums stretch_sums(std::int64_t n, const Step& step) {
  constexpr int kChains = 4;  // an addition is ready four cycles after it began
  constexpr std::int64_t lanes = kLanes<C>, kRound = kChains * lanes, kStretch = 16 * kRound;
  WideSums<C> total;
  for (std::int64_t begin = 0; begin < n; begin += kStretch) {
    const std::int64_t end = least(begin + kStretch, n);
    Pack<C> first[kChains] = {}, second[kChains] = {};
    std::int64_t j = begin;
    for (; j + kRound <= end; j += kRound) {
      for (int chain = 0; chain < kChains; ++chain) {
        step(j + chain * lanes, Full{}, first[chain], second[chain]);
      }
    }
    for_packs<C>(end - j, [&](std::int64_t k, auto part) NORMWRIGHT_INLINE { step(j + k, part, first[0], second[0]); });
    total.first.add(widen((first[0] + first[1]) + (first[2] + first[3])));
    total.second.add(widen((second[0] + second[1]) + (second[2] + second[3])));
  }
  return total.total();
}

}  // namespace normwright::NORMWRIGHT_ISA
