// One sweep of sums over a run, from which come its moments: see moments.h.

#pragma once

#include "moments.h"

namespace normwright::NORMWRIGHT_ISA {

// Adds Σ(x − shift) and Σ(x − shift)² over a run; asks for what lies `ahead` elements on, if that is not 0.
template <class C>
inline void add_shifted(WideSums<C>& sums, const auto* x, std::int64_t n, double shift, std::int64_t ahead) {
  const Pack<C> fill = broadcast(static_cast<C>(shift));  // exact: the shift is an element of x, or both are double
  const Wide<C> wide_shift = widen(fill);
  WideSums<C> own = sums;
  for_packs<C>(n, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
    if (ahead) fetch(x + j + ahead);
    Wide<C> t = widened(x + j, fill, lanes);
    t.subtract(wide_shift);
    own.first.add(t);
    own.second.add_product(t, t);
  });
  sums = own;
}

template <class C>
inline Sums shifted_sums(const auto* x, std::int64_t n, double shift) {
  WideSums<C> sums;
  add_shifted(sums, x, n, shift, 0);
  return sums.total();
}

template <class T>
inline double first_element(const T* x) {
  return static_cast<double>(load(x, Part{1})[0]);
}

}  // namespace normwright::NORMWRIGHT_ISA
