// Packs: as many floats or doubles as one register of the instruction set holds, loaded from and stored to
// any of the four dtypes. Arithmetic is that of the compiler's vector extension.
//
// Everything here lives in a namespace per instruction set, so that the linker cannot take one set's code
// for another's.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace normwright::NORMWRIGHT_ISA {

#if defined(__AVX512F__)
constexpr int kPackBytes = 64;
#elif defined(__AVX2__)
constexpr int kPackBytes = 32;
#else
constexpr int kPackBytes = 16;
#endif

struct BFloat16 {
  std::uint16_t bits;
};
struct Float16 {
  std::uint16_t bits;
};

// Elements are computed in double where they are double, and in float otherwise.
template <class T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class C>
constexpr int kLanes = kPackBytes / static_cast<int>(sizeof(C));

typedef float FloatPack __attribute__((vector_size(kPackBytes)));
typedef double DoublePack __attribute__((vector_size(kPackBytes)));
typedef std::int32_t Int32Pack __attribute__((vector_size(kPackBytes)));
typedef std::int64_t Int64Pack __attribute__((vector_size(kPackBytes)));
typedef std::uint32_t UInt32Pack __attribute__((vector_size(kPackBytes)));
typedef std::uint16_t UInt16HalfPack __attribute__((vector_size(kPackBytes / 2)));
typedef float FloatHalfPack __attribute__((vector_size(kPackBytes / 2)));

template <class C>
using Pack = std::conditional_t<std::is_same_v<C, double>, DoublePack, FloatPack>;
template <class C>
using IntPack = std::conditional_t<std::is_same_v<C, double>, Int64Pack, Int32Pack>;

// For what an inner loop is made of, and for what makes the small structs of a short row or slab. What is not inlined
// takes its arguments from memory, and again after every store, which might have changed them; and a struct that was
// stored field by field and is loaded as a whole right after waits until the stores are in the cache: fifteen cycles.
#define NORMWRIGHT_INLINE __attribute__((always_inline))

// How many lanes of a pack hold elements: all of them, known when compiling, or the first few.
struct Full {};
struct Part {
  int lanes;
};

// ---- Conversions of half dtypes

// GCC 12 makes two halves of a conversion to packs of twice the width.
inline UInt32Pack widen_integers(UInt16HalfPack v) {
#if defined(__AVX512F__)
  return reinterpret_cast<UInt32Pack>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(v)));
#elif defined(__AVX2__)
  return reinterpret_cast<UInt32Pack>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(v)));
#else
  return __builtin_convertvector(v, UInt32Pack);
#endif
}

inline FloatPack widen_bits(const BFloat16* p) {
  UInt16HalfPack bits;
  std::memcpy(&bits, p, sizeof bits);
  return reinterpret_cast<FloatPack>(widen_integers(bits) << 16);
}

inline UInt16HalfPack narrow_bits(BFloat16, FloatPack v) {
  const UInt32Pack bits = reinterpret_cast<UInt32Pack>(v);
  const UInt32Pack rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  const UInt32Pack is_nan = reinterpret_cast<UInt32Pack>(v != v);
  const UInt32Pack quiet_nan = UInt32Pack{} + 0x7fc0;
  return __builtin_convertvector((is_nan & quiet_nan) | (~is_nan & rounded), UInt16HalfPack);
}

#if defined(__AVX512F__)
inline FloatPack widen_bits(const Float16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline UInt16HalfPack narrow_bits(Float16, FloatPack v) {
  return reinterpret_cast<UInt16HalfPack>(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif defined(__F16C__)
inline FloatPack widen_bits(const Float16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline UInt16HalfPack narrow_bits(Float16, FloatPack v) {
  return reinterpret_cast<UInt16HalfPack>(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#else
inline FloatPack widen_bits(const Float16* p) {
  FloatPack v;
  for (int lane = 0; lane < kLanes<float>; ++lane) {
    _Float16 half;
    std::memcpy(&half, p + lane, sizeof half);
    v[lane] = static_cast<float>(half);
  }
  return v;
}
inline UInt16HalfPack narrow_bits(Float16, FloatPack v) {
  UInt16HalfPack bits;
  for (int lane = 0; lane < kLanes<float>; ++lane) {
    const _Float16 half = static_cast<_Float16>(v[lane]);
    std::uint16_t lane_bits;
    std::memcpy(&lane_bits, &half, sizeof half);
    bits[lane] = lane_bits;
  }
  return bits;
}
#endif

// ---- Loads and stores

inline FloatPack load(const float* p, Full) {
  FloatPack v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline DoublePack load(const double* p, Full) {
  DoublePack v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline FloatPack load(const BFloat16* p, Full) { return widen_bits(p); }
inline FloatPack load(const Float16* p, Full) { return widen_bits(p); }

// The lanes past a part are zero.
template <class T>
inline Pack<Compute<T>> load(const T* p, Part part) {
  T lanes[kLanes<Compute<T>>] = {};
  for (int lane = 0; lane < part.lanes; ++lane) lanes[lane] = p[lane];
  return load(lanes, Full{});
}

inline void store(float* p, FloatPack v, Full) { std::memcpy(p, &v, sizeof v); }
inline void store(double* p, DoublePack v, Full) { std::memcpy(p, &v, sizeof v); }
template <class T>
  requires(sizeof(T) == 2)
inline void store(T* p, FloatPack v, Full) {
  const UInt16HalfPack bits = narrow_bits(T{}, v);
  std::memcpy(p, &bits, sizeof bits);
}

template <class T>
inline void store(T* p, Pack<Compute<T>> v, Part part) {
  T lanes[kLanes<Compute<T>>];
  store(lanes, v, Full{});
  for (int lane = 0; lane < part.lanes; ++lane) p[lane] = lanes[lane];
}

#if defined(__AVX512F__)
inline FloatPack load(const float* p, Part part) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << part.lanes) - 1), p);
}
inline DoublePack load(const double* p, Part part) {
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << part.lanes) - 1), p);
}
inline void store(float* p, FloatPack v, Part part) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << part.lanes) - 1), v);
}
inline void store(double* p, DoublePack v, Part part) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << part.lanes) - 1), v);
}
#elif defined(__AVX2__)
// Lanes that were just written one by one cannot be read as a pack until they have reached the cache. (A masked store
// is slower than one of each lane.)
inline FloatPack load(const float* p, Part part) {
  const __m256i numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(part.lanes), numbers));
}
inline DoublePack load(const double* p, Part part) {
  const __m256i numbers = _mm256_setr_epi64x(0, 1, 2, 3);
  return _mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(part.lanes), numbers));
}
#endif

// Stores around the cache. p is a multiple of the bytes that are stored.
inline void stream(float* p, FloatPack v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, v);
#elif defined(__x86_64__)
  _mm_stream_ps(p, v);
#else
  store(p, v, Full{});
#endif
}
inline void stream(double* p, DoublePack v) {
#if defined(__AVX512F__)
  _mm512_stream_pd(p, v);
#elif defined(__AVX2__)
  _mm256_stream_pd(p, v);
#elif defined(__x86_64__)
  _mm_stream_pd(p, v);
#else
  store(p, v, Full{});
#endif
}
template <class T>
  requires(sizeof(T) == 2)
inline void stream(T* p, FloatPack v) {
#if defined(__AVX512F__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(narrow_bits(T{}, v)));
#elif defined(__AVX2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), reinterpret_cast<__m128i>(narrow_bits(T{}, v)));
#else
  store(p, v, Full{});
#endif
}
inline void end_streaming() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Brings what is read soon into the second cache, one line for each pack: reading it then overlaps with the
// storing of what is ready.
template <class T>
inline void fetch(const T* p) {
  __builtin_prefetch(p, 0, 2);
}

// ---- Lanes

// Not `Pack<C>{} + value`: that addition stays in the loop, since it makes 0 of -0.
inline FloatPack broadcast(float value) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(value);
#elif defined(__AVX2__)
  return _mm256_set1_ps(value);
#else
  return FloatPack{value, value, value, value};
#endif
}
inline DoublePack broadcast(double value) {
#if defined(__AVX512F__)
  return _mm512_set1_pd(value);
#elif defined(__AVX2__)
  return _mm256_set1_pd(value);
#else
  return DoublePack{value, value};
#endif
}

// a·b + c, rounded once where the instruction set has it. The compiler, which would fuse one inlined copy of a
// loop and not another, may not choose: the bits would depend on alignment, and so on a row's place in the batch.
inline FloatPack multiply_add(FloatPack a, FloatPack b, FloatPack c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
inline DoublePack multiply_add(DoublePack a, DoublePack b, DoublePack c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_pd(a, b, c);
#else
  return a * b + c;
#endif
}

template <class C>
inline IntPack<C> lane_numbers() {
  IntPack<C> numbers{};
  for (int lane = 0; lane < kLanes<C>; ++lane) numbers[lane] = lane;
  return numbers;
}

// a in the lanes that are set (all ones), b in the others.
template <class C>
inline Pack<C> select(IntPack<C> set, Pack<C> a, Pack<C> b) {
#if defined(__AVX2__)
  return set ? a : b;
#else  // GCC 12 cannot compile that for SSE2
  using Int = IntPack<C>;
  return reinterpret_cast<Pack<C>>((set & reinterpret_cast<Int>(a)) | (~set & reinterpret_cast<Int>(b)));
#endif
}

// v, or a bound that it is past; a NaN stays.
inline FloatPack at_least(FloatPack bound, FloatPack v) {
#if defined(__AVX512F__)
  return _mm512_max_ps(bound, v);
#elif defined(__AVX2__)
  return _mm256_max_ps(bound, v);
#else
  return select<float>(v < bound, bound, v);
#endif
}
inline FloatPack at_most(FloatPack bound, FloatPack v) {
#if defined(__AVX512F__)
  return _mm512_min_ps(bound, v);
#elif defined(__AVX2__)
  return _mm256_min_ps(bound, v);
#else
  return select<float>(v > bound, bound, v);
#endif
}

// v, and `other` in the lanes past a part.
template <class C>
inline Pack<C> keep_or(Pack<C> v, Pack<C>, Full) {
  return v;
}
template <class C>
inline Pack<C> keep_or(Pack<C> v, Pack<C> other, Part part) {
#if defined(__AVX2__)
  using Int = std::conditional_t<sizeof(C) == 8, std::int64_t, std::int32_t>;
  return select<C>(lane_numbers<C>() < static_cast<Int>(part.lanes), v, other);
#else
  for (int lane = part.lanes; lane < kLanes<C>; ++lane) v[lane] = other[lane];
  return v;
#endif
}

// A bit for each lane that is set (all ones), the first lane lowest.
template <class C>
inline unsigned lane_bits(IntPack<C> set) {
#if defined(__AVX512F__)
  if constexpr (sizeof(C) == 4) {
    return _mm512_cmplt_epi32_mask(reinterpret_cast<__m512i>(set), _mm512_setzero_si512());
  } else {
    return _mm512_cmplt_epi64_mask(reinterpret_cast<__m512i>(set), _mm512_setzero_si512());
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(C) == 4) {
    return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(set)));
  } else {
    return static_cast<unsigned>(_mm256_movemask_pd(reinterpret_cast<__m256d>(set)));
  }
#else
  unsigned bits = 0;
  for (int lane = 0; lane < kLanes<C>; ++lane) bits |= set[lane] ? 1u << lane : 0u;
  return bits;
#endif
}

// All ones in the lanes whose bit is set.
template <class C>
inline IntPack<C> lanes_of_bits(unsigned bits) {
#if defined(__AVX2__)
  const IntPack<C> lane_bit = (IntPack<C>{} + 1) << lane_numbers<C>();
  return ((IntPack<C>{} + static_cast<std::int32_t>(bits)) & lane_bit) != 0;
#else
  IntPack<C> set{};
  for (int lane = 0; lane < kLanes<C>; ++lane) set[lane] = -static_cast<std::int32_t>(bits >> lane & 1);
  return set;
#endif
}

// Calls step(j, Full) for every whole pack of n elements and step(j, Part) for the rest.
template <class C, class Step>
NORMWRIGHT_INLINE inline void for_packs(std::int64_t n, Step&& step) {
  constexpr int lanes = kLanes<C>;
  std::int64_t j = 0;
  for (; j + lanes <= n; j += lanes) step(j, Full{});
  if (j < n) step(j, Part{static_cast<int>(n - j)});
}

// As `for_packs`, with p + j a multiple of a pack of T from the second step on.
template <class T, class Step>
NORMWRIGHT_INLINE inline void for_aligned_packs(const T* p, std::int64_t n, Step&& step) {
  constexpr std::int64_t lanes = kLanes<Compute<T>>;
  constexpr std::uintptr_t bytes = static_cast<std::uintptr_t>(lanes) * sizeof(T);
  const auto past = reinterpret_cast<std::uintptr_t>(p) % bytes;
  std::int64_t j = past ? static_cast<std::int64_t>((bytes - past) / sizeof(T)) : 0;
  if (j > n) j = n;
  if (j) step(std::int64_t{0}, Part{static_cast<int>(j)});
  for (; j + lanes <= n; j += lanes) step(j, Full{});
  if (j < n) step(j, Part{static_cast<int>(n - j)});
}

}  // namespace normwright::NORMWRIGHT_ISA
