// The forward of slabs.h, and its moments alone.

#include "forward_run.h"
#include "shifted_sums.h"
#include "slab_grid.h"

namespace normwright::NORMWRIGHT_ISA {

// What is taken from the elements of a slab before they are summed: its first one.
template <class T>
inline double slab_shift(const Slabs& shape, const T* x, std::int64_t slab) {
  return shape.center ? first_element(x + shape.offset(slab, 0)) : 0;
}

// Of a slab, from its shifted sums.
template <class T>
inline Moments slab_moments(const Slabs& shape, const T* x, std::int64_t slab, const Sums& sums) {
  using C = Compute<T>;
  if (!shape.center) return moments_about_zero(sums);
  const Moments once = moments_of(sums, slab_shift(shape, x, slab), shape.count());
  if constexpr (!std::is_same_v<C, double>) {
    return once;
  } else {
    WideSums<C> again;
    for (std::int64_t run = 0; run < shape.runs; ++run) {
      add_shifted(again, x + shape.offset(slab, run), shape.length_of(run), once.mean, 0);
    }
    return moments_of(again.total(), once.mean, shape.count());
  }
}

// The moments of the slabs of a bundle.
template <class T>
class BundleMoments {
 public:
  using C = Compute<T>;

  BundleMoments(const Slabs& shape, const SlabPieces& pieces, const T* x, std::int64_t index)
      : shape_(shape), pieces_(pieces), x_(x), bundle_(shape, index), sums_(pieces.count() * bundle_.slabs) {}

  void partial(std::int64_t piece) {
    BundleSums<C> sums(bundle_.slabs);
    const std::int64_t ahead = next_run(shape_, pieces_);
    pieces_.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
        add_shifted(sums[s], x(s, run) + first, n, slab_shift(shape_, x_, bundle_.first + s), ahead);
      }
    });
    for (std::int64_t s = 0; s < bundle_.slabs; ++s) sums_[piece * bundle_.slabs + s] = sums[s].total();
  }

  // Calls take(slab, moments) for each.
  template <class Take>
  void finish(Take&& take) const {
    for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
      Sums total;
      for (std::int64_t piece = 0; piece < pieces_.count(); ++piece) total.add(sums_[piece * bundle_.slabs + s]);
      take(bundle_.first + s, slab_moments(shape_, x_, bundle_.first + s, total));
    }
  }

 private:
  const T* x(std::int64_t s, std::int64_t run) const { return x_ + shape_.offset(bundle_.first + s, run); }

  const Slabs& shape_;
  const SlabPieces& pieces_;
  const T* x_;
  Bundle bundle_;
  BlockScratch<Sums> sums_;
};

// The normalised runs of a bundle, once the moments are known.
template <class T, Kind kind>
class BundleMap {
 public:
  BundleMap(const Slabs& shape, const SlabPieces& pieces, const Forward& call, std::int64_t index, Ahead ahead)
      : shape_(shape), pieces_(pieces), call_(call), ahead_(ahead), bundle_(shape, index), maps_(shape, bundle_) {}

  void partial(std::int64_t) const {}
  void finish() { maps_.fill(call_); }
  void apply(std::int64_t piece) const {
    pieces_.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
        const Place at(shape_, call_.mask, bundle_.first + s, run, first);
        forward_run<kind>(run_of<T>(call_, at.offset, at.mask, ahead_), n, maps_.at(s, run));
      }
    });
  }

 private:
  const Slabs& shape_;
  const SlabPieces& pieces_;
  const Forward& call_;
  Ahead ahead_;
  Bundle bundle_;
  BundleMaps<Compute<T>> maps_;
};

template <class T, Kind kind>
class SlabForward {
 public:
  SlabForward(const Slabs& shape, const SlabPieces& pieces, const Forward& call, std::int64_t index)
      : shape_(shape),
        call_(call),
        moments_(shape, pieces, static_cast<const T*>(call.x), index),
        map_(shape, pieces, call, index, {next_block(shape, sizeof(T)), next_run(shape, pieces)}) {}

  void partial(std::int64_t piece) { moments_.partial(piece); }
  void finish() {
    moments_.finish(
        [&](std::int64_t slab, const Moments& moments) { keep_moments(call_, slab, moments, shape_.count()); });
    map_.finish();
  }
  void apply(std::int64_t piece) const { map_.apply(piece); }

 private:
  const Slabs& shape_;
  const Forward& call_;
  BundleMoments<T> moments_;
  BundleMap<T, kind> map_;
};

void slabs_forward(const Slabs& shape, const Forward& call, MomentsOf moments, const Parallel& parallel) {
  const SlabPieces pieces(shape);
  const Parallel threads = threads_for(parallel, shape.elements());
  const std::int64_t next = next_run(shape, pieces);
  with_type(call.dtype, [&]<class T>() {
    with_kind(call.activation, [&]<Kind kind>() {
      if (moments == MomentsOf::batch) {
        run_blocks(threads, bundles_of(shape), pieces.count(),
                   [&](std::int64_t index) { return SlabForward<T, kind>(shape, pieces, call, index); });
      } else {
        run_blocks(threads, bundles_of(shape), pieces.count(),
                   [&](std::int64_t index) { return BundleMap<T, kind>(shape, pieces, call, index, {next, next}); });
      }
    });
  });
}

void slabs_moments(const Slabs& shape, Dtype dtype, const void* x, double* mean, double* m2,
                   const Parallel& parallel) {
  const SlabPieces pieces(shape);
  const Parallel threads = threads_for(parallel, shape.elements());
  with_type(dtype, [&]<class T>() {
    run_blocks(threads, bundles_of(shape), pieces.count(), [&](std::int64_t index) {
      return MomentsOnly(BundleMoments<T>(shape, pieces, static_cast<const T*>(x), index), mean, m2);
    });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
