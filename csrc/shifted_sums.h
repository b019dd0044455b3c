// One sweep of sums over a run, from which come its moments: see moments.h.

#pragma once

#include "moments.h"

namespace normwright::NORMWRIGHT_ISA {

template <class C>
inline Sums shifted_sums(const auto* x, std::int64_t n, double shift, std::int64_t ahead = 0) {
  Wide<C> first, second;
  const Pack<C> fill = broadcast(static_cast<C>(shift));  // exact: the shift is an element of x, or both are double
  const Wide<C> wide_shift = widen(fill);
  for_packs<C>(n, [&](std::int64_t j, auto lanes) {
    if (ahead) fetch(x + j + ahead);
    Wide<C> t = widen(keep_or<C>(load(x + j, lanes), fill, lanes));
    t.subtract(wide_shift);
    first.add(t);
    second.add_product(t, t);
  });
  return {first.total(), second.total()};
}

template <class T>
inline double first_element(const T* x) {
  return static_cast<double>(load(x, Part{1})[0]);
}

}  // namespace normwright::NORMWRIGHT_ISA
