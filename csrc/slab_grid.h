// How slabs.h cuts its work, what it asks for ahead, and the maps of its parameters.

#pragma once

#include "maps.h"
#include "schedule.h"
#include "slabs.h"

namespace normwright::NORMWRIGHT_ISA {

// A slab in pieces of about 16 Ki elements: several runs, or a chunk of one.
class SlabPieces {
 public:
  explicit SlabPieces(const Slabs& shape)
      : shape_(shape),
        chunks_(quotient_up(shape.length, kElements)),
        runs_per_piece_(chunks_ > 1 ? 1 : kElements / shape.length) {}

  std::int64_t chunks() const { return chunks_; }
  std::int64_t chunk_of(std::int64_t first) const { return first / kElements; }
  std::int64_t count() const {
    return chunks_ > 1 ? shape_.runs * chunks_ : quotient_up(shape_.runs, runs_per_piece_);
  }

  // Calls visit(run, first, length) for every chunk of a piece.
  template <class Visit>
  void visit(std::int64_t piece, Visit&& visit) const {
    if (chunks_ > 1) {
      const std::int64_t first = piece % chunks_ * kElements, rest = shape_.length_of(piece / chunks_) - first;
      if (rest > 0) visit(piece / chunks_, first, least(kElements, rest));
      return;
    }
    const std::int64_t end = least((piece + 1) * runs_per_piece_, shape_.runs);
    for (std::int64_t run = piece * runs_per_piece_; run < end; ++run) visit(run, 0, shape_.length_of(run));
  }

 private:
  static constexpr std::int64_t kElements = 1 << 14;  // a multiple of 8: a chunk begins on a byte of the mask
  const Slabs& shape_;
  std::int64_t chunks_, runs_per_piece_;
};

// Neighbouring slabs that are swept together, so that what is read at a time is long enough to stream.
constexpr std::int64_t kMostSlabs = 8;

inline std::int64_t bundle_of(const Slabs& shape) {
  constexpr std::int64_t kElements = 1024;
  if (shape.slab_stride != shape.length || shape.runs == 1) return 1;
  return least(quotient_up(kElements, shape.length), kMostSlabs);
}

// Where a chunk of a run begins in x, and in the mask, in which runs stand in the order of x.
struct Place {
  std::int64_t offset, mask;

  NORMWRIGHT_INLINE Place(const Slabs& shape, bool masked, std::int64_t slab, std::int64_t run, std::int64_t first)
      : offset(shape.offset(slab, run) + first),
        mask(masked ? shape.offset(slab, run) / shape.length * quotient_up(shape.length, 8) + first / 8 : 0) {}
};

// The slabs of one block.
struct Bundle {
  std::int64_t first, slabs;

  NORMWRIGHT_INLINE Bundle(const Slabs& shape, std::int64_t index)
      : first(index * bundle_of(shape)),
        slabs(least(bundle_of(shape), shape.slabs - first)) {}
};

// Sums of every slab of a bundle, beginning with zero.
template <class C>
class BundleSums {
 public:
  explicit BundleSums(std::int64_t slabs) {
    for (std::int64_t s = 0; s < slabs; ++s) (*this)[s] = {};
  }
  WideSums<C>& operator[](std::int64_t s) { return reinterpret_cast<WideSums<C>*>(memory_)[s]; }

 private:
  alignas(WideSums<C>) unsigned char memory_[kMostSlabs * sizeof(WideSums<C>)];  // of which few are used
};

// The next run, which a sweep that reads from memory asks for; within a run that is cut into chunks, 4 KiB on.
inline std::int64_t next_run(const Slabs& shape, const SlabPieces& pieces) {
  return pieces.chunks() > 1 ? 1024 : shape.run_stride;
}

// The next block, where the second cache holds it beside this one.
inline std::int64_t next_block(const Slabs& shape, std::int64_t bytes_per_element) {
  const std::int64_t slabs = bundle_of(shape), bytes = slabs * shape.elements_per_slab() * bytes_per_element;
  return 2 * bytes <= kSecondCache ? slabs * shape.slab_stride : 0;
}

inline std::int64_t bundles_of(const Slabs& shape) { return quotient_up(shape.slabs, bundle_of(shape)); }

// The map of every parameter of a bundle.
template <class C>
class BundleMaps {
 public:
  BundleMaps(const Slabs& shape, Bundle bundle)
      : shape_(shape), bundle_(bundle), maps_(bundle.slabs * shape.parameters_per_slab()) {}

  template <class Call>
  void fill(const Call& call) {
    for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
      const std::int64_t slab = bundle_.first + s;
      for (std::int64_t p = 0; p < shape_.parameters_per_slab(); ++p) {
        maps_[s * shape_.parameters_per_slab() + p] =
            run_map<C>(call.weight, call.bias, mean_at(call.mean, slab), call.rstd[slab], shape_.parameter(slab, p));
      }
    }
  }
  const RunMap<C>& at(std::int64_t s, std::int64_t run) const {
    return maps_[shape_.parameter_per_run ? s * shape_.runs + run : s];
  }

 private:
  const Slabs& shape_;
  Bundle bundle_;
  BlockScratch<RunMap<C>> maps_;
};

}  // namespace normwright::NORMWRIGHT_ISA
