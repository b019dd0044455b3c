// Two sums over a run: one in double; one, of products, in C for a short stretch and in double from stretch to stretch.
//
// To widen a product's factors costs several times what adding it does. The sum of products is off by some 2⁻²⁴ of the
// largest of them, and overflows where a lane's 32 products of a stretch do: it becomes a slope or dweight, whose own
// terms are rounded as much. Not for shifted sums, whose difference is far smaller than they are (moments.h), nor for
// sums of exact terms, such as dbias.

#pragma once

#include "moments.h"
#include "schedule.h"

namespace normwright::NORMWRIGHT_ISA {

// step(j, lanes, first, second) adds what the pack at j has to the two sums.
template <class C, class Step>
NORMWRIGHT_INLINE inline Sums stretch_sums(std::int64_t n, const Step& step) {
  constexpr int kChains = 2;  // an addition is ready some four cycles after it began; AVX2 has no registers for more
  constexpr std::int64_t lanes = kLanes<C>, kRound = kChains * lanes, kStretch = 64 * lanes;
  WideSums<C> total;
  for (std::int64_t begin = 0; begin < n; begin += kStretch) {
    const std::int64_t end = least(begin + kStretch, n);
    Wide<C> first[kChains] = {};
    Pack<C> second[kChains] = {};
    std::int64_t j = begin;
    for (; j + kRound <= end; j += kRound) {
      for (int chain = 0; chain < kChains; ++chain) {
        step(j + chain * lanes, Full{}, first[chain], second[chain]);
      }
    }
    for_packs<C>(end - j, [&](std::int64_t k, auto part) NORMWRIGHT_INLINE { step(j + k, part, first[0], second[0]); });
    total.first.add(first[0]);
    total.first.add(first[1]);
    total.second.add(widen(second[0] + second[1]));
  }
  return total.total();
}

}  // namespace normwright::NORMWRIGHT_ISA
