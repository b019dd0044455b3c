// Sums in double over packs, and the moments that they make.
//
// A variance is taken from one sweep of shifted sums,  Σ(x − s)² − (Σ(x − s))²/m,  where s is an element of
// x. Because s is one of the m elements, (mean − s)² is at most m times the variance, so that the difference
// loses at most a factor of m: 2⁻⁵³·m of the variance is below float32's rounding up to 10⁸ elements,
// whatever the mean. Where x is double itself, a second sweep takes the mean for s.

#pragma once

#include <cmath>

#include "pack.h"

namespace normwright::NORMWRIGHT_ISA {

// Halves are added to halves.
inline double sum_of_lanes(DoublePack v) {
#if defined(__AVX512F__)
  const __m256d quarter = _mm512_castpd512_pd256(v) + _mm512_extractf64x4_pd(v, 1);
#elif defined(__AVX2__)
  const __m256d quarter = v;
#endif
#if defined(__AVX2__)
  const __m128d pair = _mm256_castpd256_pd128(quarter) + _mm256_extractf128_pd(quarter, 1);
  return pair[0] + pair[1];
#else
  return v[0] + v[1];
#endif
}

// A pack of C in double.
template <class C>
struct Wide {
  static constexpr int kParts = kLanes<C> / kLanes<double>;
  DoublePack part[kParts];

  void subtract(const Wide& other) {
    for (int i = 0; i < kParts; ++i) part[i] -= other.part[i];
  }
  void add(const Wide& term) {
    for (int i = 0; i < kParts; ++i) part[i] += term.part[i];
  }
  void add_product(const Wide& a, const Wide& b) {
    for (int i = 0; i < kParts; ++i) part[i] = multiply_add(a.part[i], b.part[i], part[i]);
  }
  double total() const { return kParts == 1 ? sum_of_lanes(part[0]) : sum_of_lanes(part[0] + part[kParts - 1]); }
};

inline Wide<double> widen(DoublePack v) { return {{v}}; }

inline Wide<float> widen(FloatPack v) {
#if defined(__AVX512F__)
  return {{_mm512_cvtps_pd(_mm512_castps512_ps256(v)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1))}};
#elif defined(__AVX2__)
  return {{_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))}};
#else
  FloatHalfPack halves[2];
  std::memcpy(halves, &v, sizeof v);
  return {{__builtin_convertvector(halves[0], DoublePack), __builtin_convertvector(halves[1], DoublePack)}};
#endif
}

// The pack at p in double, with `other` in the lanes past a part. Half a pack of floats is widened on its way from
// memory by one operation of the arithmetic units, out of a register by two and a half.
template <class T, class Lanes>
inline Wide<Compute<T>> widened(const T* p, Pack<Compute<T>> other, Lanes lanes) {
  return widen(keep_or<Compute<T>>(load(p, lanes), other, lanes));
}
#if defined(__AVX512F__)
inline Wide<float> widened(const float* p, FloatPack, Full) {
  return {{_mm512_cvtps_pd(_mm256_loadu_ps(p)), _mm512_cvtps_pd(_mm256_loadu_ps(p + 8))}};
}
#elif defined(__AVX2__)
inline Wide<float> widened(const float* p, FloatPack, Full) {
  return {{_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4))}};
}
#endif

template <class C>
inline Wide<C> load_wide(const double* p) {
  Wide<C> value;
  for (int i = 0; i < Wide<C>::kParts; ++i) value.part[i] = load(p + i * kLanes<double>, Full{});
  return value;
}

template <class C>
inline void store_wide(double* p, const Wide<C>& value) {
  for (int i = 0; i < Wide<C>::kParts; ++i) store(p + i * kLanes<double>, value.part[i], Full{});
}

// Σt and Σt² of a forward, or Σdz and Σdz·t of a backward; of rows Σg and Σg·x̂.
struct Sums {
  double first = 0;
  double second = 0;

  void add(const Sums& other) {
    first += other.first;
    second += other.second;
  }
};

// Sums that are still one for each lane.
template <class C>
struct WideSums {
  Wide<C> first{}, second{};

  Sums total() const { return {first.total(), second.total()}; }
};

struct Moments {
  double mean = 0;
  double m2 = 0;  // the sum of squared deviations
};

// From shifted sums over `count` elements.
inline Moments moments_of(const Sums& sums, double shift, double count) {
  const double offset = sums.first / count;
  const double m2 = sums.second - sums.first * offset;
  return {shift + offset, m2 < 0 ? 0 : m2};  // a NaN stays
}

// Of sums that are not shifted, where the mean is taken as 0.
inline Moments moments_about_zero(const Sums& sums) { return {0, sums.second}; }

inline double rstd_of(double variance, double eps) { return 1 / std::sqrt(variance + eps); }

// The mean in two parts: x − high is nearly free of rounding, even where the mean is a million times the
// deviation; low, at most half an ulp of the mean, is put right afterwards.
template <class C>
struct SplitMean {
  C high;
  double low;

  explicit SplitMean(double mean) : high(static_cast<C>(mean)), low(mean - static_cast<double>(high)) {}
};

// Only the moments of a block.
template <class Block>
class MomentsOnly {
 public:
  MomentsOnly(Block block, double* mean, double* m2) : block_(static_cast<Block&&>(block)), mean_(mean), m2_(m2) {}

  void partial(std::int64_t piece) { block_.partial(piece); }
  void finish() {
    block_.finish([&](std::int64_t i, const Moments& moments) {
      mean_[i] = moments.mean;
      m2_[i] = moments.m2;
    });
  }
  void apply(std::int64_t) const {}

 private:
  Block block_;
  double *mean_, *m2_;
};

}  // namespace normwright::NORMWRIGHT_ISA
