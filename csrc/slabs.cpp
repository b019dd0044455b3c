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
constexpr std::int64_t kMostSlabs = 8;

inline std::int64_t bundle_of(const Slabs& shape) {
  constexpr std::int64_t kElements = 1024;
  if (shape.slab_stride != shape.length || shape.runs == 1) return 1;
  return least(quotient_up(kElements, shape.length), kMostSlabs);
}

// A chunk of a run of a forward or a backward. Runs stand in the mask in the order of x.
template <class T, class Call>
inline auto chunk_of(const Slabs& shape, const Call& call, std::int64_t slab, std::int64_t run, std::int64_t first,
                     Ahead ahead) {
  const std::int64_t offset = shape.offset(slab, run);
  const std::int64_t mask = call.mask ? offset / shape.length * quotient_up(shape.length, 8) + first / 8 : 0;
  return run_of<T>(call, offset + first, mask, ahead);
}

// The slabs of one block.
struct Bundle {
  std::int64_t first, slabs;

  Bundle(const Slabs& shape, std::int64_t index)
      : first(index * bundle_of(shape)),
        slabs(least(bundle_of(shape), shape.slabs - first)) {}
};

// The next run, which a sweep that reads from memory asks for; within a run that is cut into chunks, 4 KiB on.
inline std::int64_t next_run(const Slabs& shape, const SlabPieces& pieces) {
  return pieces.chunks() > 1 ? 1024 : shape.run_stride;
}

// The next block, where the second cache holds it beside this one.
inline std::int64_t next_block(const Slabs& shape, std::int64_t bytes_per_element) {
  const std::int64_t slabs = bundle_of(shape), bytes = slabs * shape.runs * shape.length * bytes_per_element;
  return 2 * bytes <= kSecondCache ? slabs * shape.slab_stride : 0;
}

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
    WideSums<C> again;
    for (std::int64_t run = 0; run < shape.runs; ++run) {
      add_shifted(again, x + run * shape.run_stride, shape.length, once.mean, 0);
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
    WideSums<C> sums[kMostSlabs];
    const std::int64_t ahead = next_run(shape_, pieces_);
    pieces_.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
        add_shifted(sums[s], x(s, run) + first, n, first_element(x(s, 0)), ahead);
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
      take(bundle_.first + s, slab_moments(shape_, x(s, 0), total));
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

// The map of every parameter of a bundle.
template <class C>
class BundleMaps {
 public:
  BundleMaps(const Slabs& shape, const Bundle& bundle)
      : shape_(shape), bundle_(bundle), maps_(bundle.slabs * shape.parameters_per_slab()) {}

  template <class Call>
  void fill(const Call& call) {
    for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
      const std::int64_t slab = bundle_.first + s;
      for (std::int64_t p = 0; p < shape_.parameters_per_slab(); ++p) {
        maps_[s * shape_.parameters_per_slab() + p] =
            run_map<C>(call.weight, call.bias, call.mean[slab], call.rstd[slab], shape_.parameter(slab, p));
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
        forward_run<kind>(chunk_of<T>(shape_, call_, bundle_.first + s, run, first, ahead_), n, maps_.at(s, run));
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

// ---- Backward

// Adds Σdz and Σdz·t over a run.
template <Kind kind, class T, class Map>
inline void add_gradients(WideSums<Compute<T>>& sums, const BackwardRun<T> run, std::int64_t n, const Map map) {
  using C = Compute<T>;
  WideSums<C> own = sums;
  for_packs<C>(n, [&](std::int64_t j, auto lanes) {
    const Gradient<C> gradient = gradient_at<kind>(run, map, j, lanes);
    fetch_ahead<kind>(run, j);
    const Wide<C> dz = widen(keep_or<C>(gradient.dz, Pack<C>{}, lanes));
    own.first.add(dz);
    own.second.add_product(dz, widen(keep_or<C>(gradient.t, Pack<C>{}, lanes)));
  });
  sums = own;
}

// Where the sums over the elements of each parameter are kept until the parameters' gradients are made of them,
// and whether there is anything to sum for at all.
struct BackwardSums {
  Scratch<Sums> values;  // [slab][parameter of the slab]
  bool wanted;

  BackwardSums(const Slabs& shape, const Backward& call, MomentsOf moments)
      : values(shape.slabs * shape.parameters_per_slab()), wanted(needs_sums(call, moments)) {}
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
        sums_(sums),
        bundle_(shape, index),
        maps_(shape, bundle_),
        parts_(sums.wanted ? bundle_.slabs * shape.parameters_per_slab() * parts_per_parameter() : 0),
        slopes_(bundle_.slabs) {
    maps_.fill(call);
  }

  void partial(std::int64_t piece) {
    if (!sums_.wanted) return;
    WideSums<C> sums[kMostSlabs];
    const std::int64_t next = next_run(shape_, pieces_);
    const auto keep = [&](std::int64_t run, std::int64_t part) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
        parts(s, run)[part] = sums[s].total();
        sums[s] = {};
      }
    };
    pieces_.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
        add_gradients<kind>(sums[s], chunk(s, run, first, {next, next}), n, maps_.at(s, run));
      }
      if (shape_.parameter_per_run) keep(run, pieces_.chunk_of(first));
    });
    if (!shape_.parameter_per_run) keep(0, piece);
  }

  void finish() {
    for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
      slopes_[s] = {0, 0};
      if (sums_.wanted) finish_slab(s);
    }
  }

  void apply(std::int64_t piece) const {
    if (!call_.dx && !call_.dresidual) return;
    const std::int64_t next = next_run(shape_, pieces_);
    const bool constant = moments_ == MomentsOf::population;
    const Ahead ahead{constant ? next : next_block(shape_, 2 * sizeof(T)), next};
    pieces_.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
        const BackwardRun<T> at = chunk(s, run, first, ahead);
        const RunSlope<C> along = slope(s, run);
        if (constant) {
          backward_run<kind>(at, n, maps_.at(s, run), RunScale<C>{along.from_dz});
        } else {
          backward_run<kind>(at, n, maps_.at(s, run), along);
        }
      }
    });
  }

 private:
  // What the moments' dependence on x takes from dx: dx = rstd·weight·dz + from_x·x̂ + constant.
  struct Slope {
    double from_x, constant;
  };

  BackwardRun<T> chunk(std::int64_t s, std::int64_t run, std::int64_t first, Ahead ahead) const {
    return chunk_of<T>(shape_, call_, bundle_.first + s, run, first, ahead);
  }

  // The sums over the elements of one parameter come in parts: the chunks of its run, or the pieces of its slab.
  std::int64_t parts_per_parameter() const {
    return shape_.parameter_per_run ? pieces_.chunks() : pieces_.count();
  }
  Sums* parts(std::int64_t s, std::int64_t parameter) {
    return &parts_[(s * shape_.parameters_per_slab() + parameter) * parts_per_parameter()];
  }

  void finish_slab(std::int64_t s) {
    const std::int64_t slab = bundle_.first + s;
    const double rstd = call_.rstd[slab];
    const double low = SplitMean<C>(call_.mean[slab]).low;
    Sums weighted;  // Σg and Σg·x̂
    for (std::int64_t p = 0; p < shape_.parameters_per_slab(); ++p) {
      Sums sums;
      for (std::int64_t part = 0; part < parts_per_parameter(); ++part) sums.add(parts(s, p)[part]);
      sums.second = (sums.second - low * sums.first) * rstd;
      sums_.values[slab * shape_.parameters_per_slab() + p] = sums;
      const double weight = parameter_at<C>(call_.weight, shape_.parameter(slab, p), 1);
      weighted.add({sums.first * weight, sums.second * weight});
    }
    if (moments_ == MomentsOf::population) return;
    const double from_x = -rstd * weighted.second / shape_.count();
    slopes_[s] = {from_x, -rstd * weighted.first / shape_.count() - from_x * low * rstd};
  }

  RunSlope<C> slope(std::int64_t s, std::int64_t run) const {
    return {maps_.at(s, run).scale, static_cast<C>(call_.rstd[bundle_.first + s]), static_cast<C>(slopes_[s].from_x),
            static_cast<C>(slopes_[s].constant)};
  }

  const Slabs& shape_;
  const SlabPieces& pieces_;
  const Backward& call_;
  MomentsOf moments_;
  const BackwardSums& sums_;
  Bundle bundle_;
  BundleMaps<C> maps_;
  BlockScratch<Sums> parts_;
  BlockScratch<Slope> slopes_;
};

// The gradient of each parameter is summed over the slabs of its set, in order.
inline void slabs_parameter_gradients(const Slabs& shape, const Backward& call, const BackwardSums& sums) {
  const std::int64_t each = shape.parameters_per_slab();
  for (double* gradient : {call.dweight, call.dbias}) {
    for (std::int64_t p = 0; gradient && p < shape.sets * each; ++p) gradient[p] = 0;
  }
  for (std::int64_t slab = 0; slab < shape.slabs; ++slab) {
    for (std::int64_t p = 0; p < each; ++p) {
      const Sums& total = sums.values[slab * each + p];
      const std::int64_t parameter = shape.parameter(slab, p);
      if (call.dweight) call.dweight[parameter] += total.second;
      if (call.dbias) call.dbias[parameter] += total.first;
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
