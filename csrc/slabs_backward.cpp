// The backward of slabs.h.

#include <initializer_list>

#include "backward_run.h"
#include "slab_grid.h"
#include "stretch_sums.h"

namespace normwright::NORMWRIGHT_ISA {

// Σdz and Σdz·t over a run.
template <Kind kind, class T, class Map>
NORMWRIGHT_INLINE inline Sums gradient_sums(const BackwardRun<T> run, std::int64_t n, const Map map) {
  using C = Compute<T>;
  BackwardRun<T> runs[1] = {run};
  Sums total;
  in_chunks<kind>(runs, n, [&](int) { return map; }, [&](std::int64_t chunk, std::int64_t m) NORMWRIGHT_INLINE {
    const auto step = [&](std::int64_t k, auto lanes, Pack<C>& product) NORMWRIGHT_INLINE {
      const std::int64_t j = chunk + k;
      const Gradient<C> gradient = gradient_at<kind>(runs[0], map, j, lanes);
      fetch_ahead<kind>(run, j);
      const Pack<C> dz = keep_or<C>(gradient.dz, Pack<C>{}, lanes);
      product = multiply_add(dz, keep_or<C>(gradient.t, Pack<C>{}, lanes), product);
      if constexpr (kind == Kind::none) return widened(run.dy + j, Pack<C>{}, lanes);
      return widen(dz);
    };
    total.add(stretch_sums<C, Terms::exact>(m, step));
  });
  return total;
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
        keeps_dz_(sums.wanted && keeps_dz<kind, T>(call, shape.elements())),
        bundle_(shape, index),
        maps_(shape, bundle_),
        parts_(sums.wanted ? bundle_.slabs * shape.parameters_per_slab() * parts_per_parameter() : 0),
        slopes_(bundle_.slabs) {
    maps_.fill(call);
  }

  void partial(std::int64_t piece) {
    if (!sums_.wanted) return;
    Sums sums[kMostSlabs];
    const std::int64_t next = next_run(shape_, pieces_);
    const auto keep = [&](std::int64_t run, std::int64_t part) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
        parts(s, run)[part] = sums[s];
        sums[s] = {};
      }
    };
    pieces_.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      for (std::int64_t s = 0; s < bundle_.slabs; ++s) {
        sums[s].add(gradient_sums<kind>(chunk(s, run, first, {next, next}), n, maps_.at(s, run)));
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
    const Place at(shape_, call_.mask, bundle_.first + s, run, first);
    return run_of<T>(call_, at.offset, at.mask, ahead, keeps_dz_);
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
    const double low = SplitMean<C>(mean_at(call_.mean, slab)).low;
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
    const double from_mean = shape_.center ? -rstd * weighted.first / shape_.count() : 0;
    slopes_[s] = {from_x, from_mean - from_x * low * rstd};
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
  bool keeps_dz_;
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
