// The backward of columns.h.

#include "backward_run.h"
#include "column_grid.h"

namespace normwright::NORMWRIGHT_ISA {

// Adds Σdz and Σdz·t of `rows` rows to each column's.
template <Kind kind, int rows, class T, class Map>
inline void add_gradient_sums(BackwardRun<T> (&runs)[rows], std::int64_t n, const Map map, double* first,
                              double* second) {
  using C = Compute<T>;
  in_chunks<kind>(runs, n, [&](int) { return map; }, [&](std::int64_t chunk, std::int64_t m) NORMWRIGHT_INLINE {
    for_packs_of(runs[0].x, chunk, m, false, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
      Wide<C> sum = load_wide<C>(first + j), products = load_wide<C>(second + j);
      for (const BackwardRun<T>& run : runs) {
        const Gradient<C> gradient = gradient_at<kind>(run, map, j, lanes);
        fetch_ahead<kind>(run, j);
        // What lies past the last, incomplete row belongs to other channels.
        const Wide<C> dz = widen(keep_or<C>(gradient.dz, Pack<C>{}, lanes));
        sum.add(dz);
        products.add_product(dz, widen(keep_or<C>(gradient.t, Pack<C>{}, lanes)));
      }
      store_wide<C>(first + j, sum);
      store_wide<C>(second + j, products);
    });
  });
}

// Σdz and Σdz·x̂ for each sample and channel, from which the parameters' gradients are made.
struct ChannelSums {
  Scratch<Sums> values;  // [sample][channel]
  bool wanted;

  ChannelSums(const Columns& shape, const Backward& call, MomentsOf moments)
      : values(shape.samples * shape.channels), wanted(needs_sums(call, moments)) {}
};

template <class T, Kind kind>
class ColumnBackward {
 public:
  using C = Compute<T>;

  ColumnBackward(const Columns& shape, const ColumnGrid& grid, const Backward& call, MomentsOf moments,
                 const ChannelSums& channel_sums, std::int64_t index)
      : shape_(shape),
        grid_(grid),
        call_(call),
        moments_(moments),
        channel_sums_(channel_sums),
        keeps_dz_(channel_sums.wanted && keeps_dz<kind, T>(call, shape.elements())),
        tile_(shape, grid, index),
        map_(grid.padded()),
        slope_(grid.padded()) {
    if (channel_sums.wanted) sums_ = ColumnSums(grid.pieces(), grid.padded());
    fill_map(shape_, tile_, call_.weight, call_.bias, call_.mean, call_.rstd, map_);
  }

  void partial(std::int64_t piece) {
    if (!channel_sums_.wanted) return;
    sums_.clear(piece);
    const Ahead ahead{grid_.rows_ahead(), grid_.rows_ahead()};
    visit_rows_to_sum<T>(shape_, grid_, tile_, piece, [&](const RowOfTile& row, auto count) {
      BackwardRun<T> runs[count()];
      for (int i = 0; i < count(); ++i) {
        runs[i] = run_of<T>(call_, row.offset + i * row.step, row.mask + i * row.mask_step, ahead, keeps_dz_);
      }
      add_gradient_sums<kind>(runs, row.columns, column_map(map_), sums_.first(piece), sums_.second(piece));
    });
  }

  void finish() {
    Sums* const channels = channel_sums_.values.get() + tile_.sample * shape_.channels + tile_.first_channel;
    if (channel_sums_.wanted) {
      sums_.gather(grid_.pieces());
      sums_by_channel(shape_, tile_, sums_, channels);
      for (std::int64_t c = 0; c < tile_.channels; ++c) {
        const std::int64_t group = group_of(tile_.first_channel + c);
        const double low = SplitMean<C>(mean_at(call_.mean, group)).low;
        channels[c].second = (channels[c].second - low * channels[c].first) * call_.rstd[group];
      }
    }
    if (call_.dx) fill_slope(channels);
  }

  void apply(std::int64_t piece) const {
    if (!call_.dx && !call_.dresidual) return;
    const std::int64_t soon = grid_.rows_ahead();
    if (moments_ == MomentsOf::population) return apply_with(ColumnScale<C>{slope_.of(0)}, {soon, soon}, piece);
    const ColumnSlope<C> slope{slope_.of(0), slope_.of(1), slope_.of(2), slope_.of(3)};
    apply_with(slope, {grid_.next_block(shape_, 2 * sizeof(T)), soon}, piece);
  }

 private:
  template <class Slope>
  void apply_with(const Slope slope, Ahead ahead, std::int64_t piece) const {
    visit_rows<1>(shape_, grid_, tile_, piece, [&](const RowOfTile& row, auto) {
      const BackwardRun<T> run = run_of<T>(call_, row.offset, row.mask, ahead, keeps_dz_);
      backward_run<kind>(run, row.columns, column_map(map_), slope);
    });
  }

  std::int64_t group_of(std::int64_t channel) const {
    return tile_.sample * shape_.groups + channel / shape_.channels_per_group();
  }

  // dx = rstd·(weight·dz − mean(g) − x̂·mean(g·x̂)), with g = weight·dz and the means over a group.
  void fill_slope(const Sums* channels) {
    const std::int64_t each = shape_.channels_per_group();
    Scratch<Sums> groups(quotient_up(tile_.channels, each));
    for (std::int64_t c = 0; c < tile_.channels; ++c) {
      if (c % each == 0) groups[c / each] = {};
      if (moments_ == MomentsOf::population) continue;
      const double weight = parameter_at<C>(call_.weight, tile_.first_channel + c, 1);
      groups[c / each].add({channels[c].first * weight, channels[c].second * weight});
    }
    for (std::int64_t c = 0; c < tile_.channels; ++c) {
      const std::int64_t channel = tile_.first_channel + c, group = group_of(channel);
      const double rstd = call_.rstd[group], low = SplitMean<C>(mean_at(call_.mean, group)).low;
      const double from_x = -rstd * groups[c / each].second / shape_.count();
      const double from_mean = shape_.center ? -rstd * groups[c / each].first / shape_.count() : 0;
      const double constant = from_mean - from_x * low * rstd;
      const double from_dz = rstd * parameter_at<C>(call_.weight, channel, 1);
      for_columns_of(shape_, tile_, c, [&](std::int64_t j) {
        slope_.of(0)[j] = static_cast<C>(from_dz);
        slope_.of(1)[j] = static_cast<C>(rstd);
        slope_.of(2)[j] = static_cast<C>(from_x);
        slope_.of(3)[j] = static_cast<C>(constant);
      });
    }
  }

  const Columns& shape_;
  const ColumnGrid& grid_;
  const Backward& call_;
  MomentsOf moments_;
  const ChannelSums& channel_sums_;
  bool keeps_dz_;
  Tile tile_;
  ColumnSums sums_;
  MapCoefficients<C> map_;
  Coefficients<C, 4> slope_;
};

// Over the samples, in order.
inline void columns_parameter_gradients(const Columns& shape, const Backward& call, const ChannelSums& sums) {
  for (std::int64_t c = 0; c < shape.channels; ++c) {
    Sums total;
    for (std::int64_t sample = 0; sample < shape.samples; ++sample) {
      total.add(sums.values[sample * shape.channels + c]);
    }
    if (call.dweight) call.dweight[c] = total.second;
    if (call.dbias) call.dbias[c] = total.first;
  }
}

void columns_backward(const Columns& shape, const Backward& call, MomentsOf moments, const Parallel& parallel) {
  const ColumnGrid grid(shape, folds(shape, call.mask));
  const ChannelSums sums(shape, call, moments);
  const Parallel threads = threads_for(parallel, shape.elements());
  with_type(call.dtype, [&]<class T>() {
    with_kind(call.activation, [&]<Kind kind>() {
      run_blocks(threads, shape.samples * grid.tiles(), grid.pieces(), [&](std::int64_t index) {
        return ColumnBackward<T, kind>(shape, grid, call, moments, sums, index);
      });
    });
  });
  if (call.dweight || call.dbias) columns_parameter_gradients(shape, call, sums);
}

}  // namespace normwright::NORMWRIGHT_ISA
