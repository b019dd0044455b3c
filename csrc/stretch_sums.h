// Two sums over a run: one in double; one, of products, in C for a short stretch and in double from stretch to stretch.
//
// To widen a term costs several times what adding it does. The sum of products is off by some 2⁻²⁴ of the largest of
// them, and overflows where a lane's products of a stretch do: it becomes a slope or dweight, whose own terms are rounded
// as much. Not for shifted sums, whose difference is far smaller than they are (moments.h). Of the first sum four terms
// are added in C, and overflow together, where they may be rounded, such as weight·dz; not where they are to be exact, as
// of dbias.

#pragma once

#include "moments.h"
#include "schedule.h"

namespace normwright::NORMWRIGHT_ISA {

enum class Terms { exact, rounded };

// step(j, lanes, product) returns what the pack at j has to the first sum, in double where that is exact, and adds what
// it has to the second.
template <class C, Terms terms, class Step>
NORMWRIGHT_INLINE inline Sums stretch_sums(std::int64_t n, const Step& step) {
  constexpr std::int64_t lanes = kLanes<C>, kRound = 4 * lanes, kStretch = 64 * lanes;
  WideSums<C> total;
  // Terms come in two chains: an addition is ready some four cycles after it began; AVX2 has no registers for more.
  Wide<C> other{};
  for (std::int64_t begin = 0; begin < n; begin += kStretch) {
    const std::int64_t end = least(begin + kStretch, n);
    Pack<C> products[2] = {};
    std::int64_t j = begin;
    for (; j + kRound <= end; j += kRound) {
      const auto each = [&](int i) NORMWRIGHT_INLINE { return step(j + i * lanes, Full{}, products[i % 2]); };
      if constexpr (terms == Terms::rounded) {
        const Pack<C> pair = each(0) + each(1);
        total.first.add(widen(pair + (each(2) + each(3))));
      } else {
        for (int i = 0; i < 4; ++i) (i % 2 ? other : total.first).add(each(i));
      }
    }
    for_packs<C>(end - j, [&](std::int64_t k, auto part) NORMWRIGHT_INLINE {
      const auto rest = step(j + k, part, products[0]);
      if constexpr (terms == Terms::rounded) {
        total.first.add(widen(rest));
      } else {
        total.first.add(rest);
      }
    });
    total.second.add(widen(products[0] + products[1]));
  }
  if constexpr (terms == Terms::exact) total.first.add(other);
  return total.total();
}

}  // namespace normwright::NORMWRIGHT_ISA
