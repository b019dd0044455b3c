// See slabs.h.

#include "slabs.h"

#include <initializer_list>

#include "epilogue.h"
#include "schedule.h"
#include "shifted_sums.h"

namespace normwright::NORMWRIGHT_ISA {

// A slab in pieces of about 16 Ki elements: several runs, or a chunk of one.
class SlabPieces {
 public:
  explicit SlabPieces(const Slabs& shape)
      : runs_(shape.runs),
        length_(shape.length),
        chunks_(quotient_up(shape.length, kElements)),
        runs_per_piece_(chunks_ > 1 ? 1 : kElements / shape.length) {}

  std::int64_t chunks() const { return chunks_; }
  std::int64_t chunk_of(std::int64_t first) const { return first / kElements; }
  std::int64_t count() const { return chunks_ > 1 ? runs_ * chunks_ : quotient_up(runs_, runs_per_piece_); }

  // Calls visit(run, first, length) for every chunk of a piece.
  template <class Visit>
  void visit(std::int64_t piece, Visit&& visit) const {
    if (chunks_ > 1) {
      const std::int64_t first = piece % chunks_ * kElements;
      visit(piece / chunks_, first, least(kElements, length_ - first));
      return;
    }
    const std::int64_t end = least((piece + 1) * runs_per_piece_, runs_);
    for (std::int64_t run = piece * runs_per_piece_; run < end; ++run) visit(run, 0, length_);
  }

 private:
  static constexpr std::int64_t kElements = 1 << 14;  // a multiple of 8: a chunk begins on a byte of the mask
  std::int64_t runs_, length_, chunks_, runs_per_piece_;
};

// Neighbouring slabs that are swept together, so that what is read at a time is long enough to stream.
inline std::int64_t bundle_of(const Slabs& shape) {
  constexpr std::int64_t kElements = 1024, kMost = 8;
  if (shape.slab_stride != shape.length || shape.runs == 1) return 1;
  return least(quotient_up(kElements, shape.length), kMost);
}

// Where the mask of a chunk of a run begins: runs stand in it in the order of x.
inline std::int64_t mask_offset(const Slabs& shape, std::int64_t slab, std::int64_t run, std::int64_t first) {
  return shape.offset(slab, run) / shape.length * quotient_up(shape.length, 8) + first / 8;
}

// The slabs of one block.
struct Bundle {
  std::int64_t first, slabs;

  Bundle(const Slabs& shape, std::int64_t index)
      : first(index * bundle_of(shape)),
        slabs(least(bundle_of(shape), shape.slabs - first)) {}
};

// How far ahead the next block lies, where the second cache holds it beside this one; else 0.
inline std::int64_t next_block(const Slabs& shape, std::int64_t bytes_per_element) {
  const std::int64_t slabs = bundle_of(shape), bytes = slabs * shape.runs * shape.length * bytes_per_element;
  return 2 * bytes <= kSecondCache ? slabs * shape.slab_stride : 0;
}

// How far ahead the run lies that is summed next.
inline std::int64_t next_run(const Slabs& shape) { return shape.length <= 1 << 14 ? shape.run_stride : 1024; }

inline std::int64_t bundles_of(const Slabs& shape) { return quotient_up(shape.slabs, bundle_of(shape)); }

// ---- Forward

// Of the slab that begins at x, from its shifted sums.
template <class T>
inline Moments slab_moments(const Slabs& shape, const T* x, const Sums& sums) {
  using C = Compute<T>;
  const Moments once = moments_of(sums, first_element(x), shape.count());
  if constexpr (!std::is_same_v<C, double>) {
    return once;
  } else {
    Sums again;
    for (std::int64_t run = 0; run < shape.runs; ++run) {
      again.add(shifted_sums<C>(x + run * shape.run_stride, shape.length, once.mean));
    }
    return moments_of(again, once.mean, shape.count());
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
    Sums* const sums = &sums_[piece * bundle_.slabs];
    for (std::int64_t s = 0; s < bundle_.slabs; ++s) sums[s] = {};
    pieces_.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
        sums[s].add(shifted_sums<C>(x(s, run) + first, n, first_element(x(s, 0)), next_run(shape_)));
      }
    });
  }

  // Calls take(slab, moments) for each.
  template <class Take>
  void finish(Take&& take) const {
    for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
      Sums total;
      for (std::int64_t piece = 0; piece < pieces_.count(); ++piece) total.add(sums_[piece * bundle_.slabs + s]);
      take(bundle_.first + s, slab_moments(shape_, x(s, 0), total));
    }
  }

 private:
  const T* x(std::int64_t s, std::int64_t run) const { return x_ + shape_.offset(bundle_.first + s, run); }

  const Slabs& shape_;
  const SlabPieces& pieces_;
  const T* x_;
  Bundle bundle_;
  Scratch<Sums> sums_;
};

// The normalised runs of a bundle, once the moments are known.
template <class T, Kind kind>
class BundleMap {
 public:
  using C = Compute<T>;

  BundleMap(const Slabs& shape, const SlabPieces& pieces, const Forward& call, std::int64_t index, std::int64_t ahead)
      : shape_(shape), pieces_(pieces), call_(call), bundle_(shape, index), ahead_(ahead) {}

  void partial(std::int64_t) const {}
  void finish() const {}
  void apply(std::int64_t piece) const {
    pieces_.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) apply_run(bundle_.first + s, run, first, n);
    });
  }

 private:
  void apply_run(std::int64_t slab, std::int64_t run, std::int64_t first, std::int64_t n) const {
    const RunMap<C> map =
        run_map<C>(call_.weight, call_.bias, call_.mean[slab], call_.rstd[slab], shape_.parameter(slab, run));
    forward_run<kind>(
        run_of<T>(call_, shape_.offset(slab, run) + first, mask_offset(shape_, slab, run, first), ahead_), n, map);
  }

  const Slabs& shape_;
  const SlabPieces& pieces_;
  const Forward& call_;
  Bundle bundle_;
  std::int64_t ahead_;
};

template <class T, Kind kind>
class SlabForward {
 public:
  SlabForward(const Slabs& shape, const SlabPieces& pieces, const Forward& call, std::int64_t index)
      : shape_(shape),
        call_(call),
        moments_(shape, pieces, static_cast<const T*>(call.x), index),
        map_(shape, pieces, call, index, next_block(shape, sizeof(T))) {}

  void partial(std::int64_t piece) { moments_.partial(piece); }
  void finish() const {
    moments_.finish(
        [&](std::int64_t slab, const Moments& moments) { keep_moments(call_, slab, moments, shape_.count()); });
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
  with_type(call.dtype, [&]<class T>() {
    with_kind(call.activation, [&]<Kind kind>() {
      if (moments == MomentsOf::batch) {
        run_blocks(threads, bundles_of(shape), pieces.count(),
                   [&](std::int64_t index) { return SlabForward<T, kind>(shape, pieces, call, index); });
      } else {
        run_blocks(threads, bundles_of(shape), pieces.count(),
                   [&](std::int64_t index) { return BundleMap<T, kind>(shape, pieces, call, index, next_run(shape)); });
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

// ---- Backward

// Σdz and Σdz·t over a run.
template <Kind kind, class T, class Map>
inline Sums gradient_sums(const BackwardRun<T> run, std::int64_t n, const Map map) {
  using C = Compute<T>;
  Wide<C> first, second;
  for_packs<C>(n, [&](std::int64_t j, auto lanes) {
    const Gradient<C> gradient = gradient_at<kind>(run, map, j, lanes);
    if (run.ahead) {
      fetch(run.x + j + run.ahead);
      fetch(run.dy + j + run.ahead);
    }
    const Wide<C> dz = widen(keep_or<C>(gradient.dz, Pack<C>{}, lanes));
    first.add(dz);
    second.add_product(dz, widen(keep_or<C>(gradient.t, Pack<C>{}, lanes)));
  });
  return {first.total(), second.total()};
}

// Where the sums over each run are kept until the parameters' gradients are made of them, and whether there
// is anything to sum for at all.
struct BackwardSums {
  Scratch<Sums> runs;  // [slab][run]
  bool wanted;

  BackwardSums(const Slabs& shape, const Backward& call, MomentsOf moments)
      : runs(shape.slabs * shape.runs), wanted(needs_sums(call, moments)) {}
};

template <class T, Kind kind>
class SlabBackward {
 public:
  using C = Compute<T>;

  SlabBackward(const Slabs& shape, const SlabPieces& pieces, const Backward& call, MomentsOf moments,
               const BackwardSums& sums, std::int64_t index)
      : shape_(shape),
        pieces_(pieces),
        call_(call),
        moments_(moments),
        run_sums_(sums),
        bundle_(shape, index),
        chunk_sums_(sums.wanted ? bundle_.slabs * shape.runs * pieces.chunks() : 0),
        slopes_(bundle_.slabs) {}

  void partial(std::int64_t piece) {
    if (!run_sums_.wanted) return;
    pieces_.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
        const std::int64_t slab = bundle_.first + s;
        chunk_sums(s, run)[pieces_.chunk_of(first)] =
            gradient_sums<kind>(run_at(slab, run, first, next_run(shape_)), n, map(slab, run));
      }
    });
  }

  void finish() {
    for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
      slopes_[s] = {0, 0};
      if (run_sums_.wanted) finish_slab(bundle_.first + s, chunk_sums(s, 0), slopes_[s]);
    }
  }

  void apply(std::int64_t piece) const {
    if (!call_.dx && !call_.dresidual) return;
    pieces_.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) apply_run(s, run, first, n);
    });
  }

 private:
  // What the moments' dependence on x takes from dx: dx = rstd·weight·dz + from_x·x̂ + constant.
  struct Slope {
    double from_x, constant;
  };

  void apply_run(std::int64_t s, std::int64_t run, std::int64_t first, std::int64_t n) const {
    const std::int64_t slab = bundle_.first + s;
    if (moments_ == MomentsOf::population) {
      const RunScale<C> scale{slope(s, run).from_dz};
      return backward_run<kind>(run_at(slab, run, first, next_run(shape_)), n, map(slab, run), scale);
    }
    const std::int64_t ahead = next_block(shape_, 2 * sizeof(T));
    backward_run<kind>(run_at(slab, run, first, ahead), n, map(slab, run), slope(s, run));
  }

  Sums* chunk_sums(std::int64_t s, std::int64_t run) const {
    return &chunk_sums_[(s * shape_.runs + run) * pieces_.chunks()];
  }

  RunMap<C> map(std::int64_t slab, std::int64_t run) const {
    return run_map<C>(call_.weight, call_.bias, call_.mean[slab], call_.rstd[slab], shape_.parameter(slab, run));
  }

  BackwardRun<T> run_at(std::int64_t slab, std::int64_t run, std::int64_t first, std::int64_t ahead) const {
    return run_of<T>(call_, shape_.offset(slab, run) + first, mask_offset(shape_, slab, run, first), ahead);
  }

  void finish_slab(std::int64_t slab, const Sums* chunks, Slope& slope) {
    const double rstd = call_.rstd[slab];
    const double low = SplitMean<C>(call_.mean[slab]).low;
    Sums weighted;  // Σg and Σg·x̂
    for (std::int64_t run = 0; run < shape_.runs; ++run) {
      Sums sums;
      for (std::int64_t chunk = 0; chunk < pieces_.chunks(); ++chunk) sums.add(chunks[run * pieces_.chunks() + chunk]);
      sums.second = (sums.second - low * sums.first) * rstd;
      run_sums_.runs[slab * shape_.runs + run] = sums;
      const double weight = parameter_at<C>(call_.weight, shape_.parameter(slab, run), 1);
      weighted.add({sums.first * weight, sums.second * weight});
    }
    if (moments_ == MomentsOf::population) return;
    slope.from_x = -rstd * weighted.second / shape_.count();
    slope.constant = -rstd * weighted.first / shape_.count() - slope.from_x * low * rstd;
  }

  RunSlope<C> slope(std::int64_t s, std::int64_t run) const {
    const std::int64_t slab = bundle_.first + s;
    const double weight = parameter_at<C>(call_.weight, shape_.parameter(slab, run), 1);
    return {static_cast<C>(call_.rstd[slab] * weight), static_cast<C>(call_.rstd[slab]),
            static_cast<C>(slopes_[s].from_x), static_cast<C>(slopes_[s].constant)};
  }

  const Slabs& shape_;
  const SlabPieces& pieces_;
  const Backward& call_;
  MomentsOf moments_;
  const BackwardSums& run_sums_;
  Bundle bundle_;
  Scratch<Sums> chunk_sums_;
  Scratch<Slope> slopes_;
};

// The gradient of each parameter is summed over the slabs of its set, in order.
inline void slabs_parameter_gradients(const Slabs& shape, const Backward& call, const BackwardSums& sums) {
  const std::int64_t parameters = shape.sets * (shape.parameter_per_run ? shape.runs : 1);
  for (double* gradient : {call.dweight, call.dbias}) {
    for (std::int64_t p = 0; gradient && p < parameters; ++p) gradient[p] = 0;
  }
  for (std::int64_t slab = 0; slab < shape.slabs; ++slab) {
    for (std::int64_t run = 0; run < shape.runs; ++run) {
      const Sums& of_run = sums.runs[slab * shape.runs + run];
      const std::int64_t p = shape.parameter(slab, run);
      if (call.dweight) call.dweight[p] += of_run.second;
      if (call.dbias) call.dbias[p] += of_run.first;
    }
  }
}

void slabs_backward(const Slabs& shape, const Backward& call, MomentsOf moments, const Parallel& parallel) {
  const SlabPieces pieces(shape);
  const BackwardSums sums(shape, call, moments);
  with_type(call.dtype, [&]<class T>() {
    with_kind(call.activation, [&]<Kind kind>() {
      run_blocks(threads_for(parallel, shape.elements()), bundles_of(shape), pieces.count(), [&](std::int64_t index) {
        return SlabBackward<T, kind>(shape, pieces, call, moments, sums, index);
      });
    });
  });
  if (call.dweight || call.dbias) slabs_parameter_gradients(shape, call, sums);
}

}  // namespace normwright::NORMWRIGHT_ISA
