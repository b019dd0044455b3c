// The forward of columns.h, and its moments alone.

#include "column_grid.h"
#include "forward_run.h"
#include "shifted_sums.h"

namespace normwright::NORMWRIGHT_ISA {

// Adds Σ(x − shift) and Σ(x − shift)² of `rows` rows, `step` elements apart, to each column's.
template <int rows, class T>
inline void add_shifted_sums(const T* x, std::int64_t step, std::int64_t n, const Compute<T>* shift, double* first,
                             double* second, std::int64_t ahead) {
  using C = Compute<T>;
  for_packs<C>(n, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
    const Pack<C> s = load(shift + j, Full{});
    const Wide<C> wide_shift = widen(s);
    Wide<C> sum = load_wide<C>(first + j), squares = load_wide<C>(second + j);
    for (int i = 0; i < rows; ++i) {
      const T* const at = x + i * step + j;
      fetch(at + ahead);
      Wide<C> t = widened(at, s, lanes);
      t.subtract(wide_shift);
      sum.add(t);
      squares.add_product(t, t);
    }
    store_wide<C>(first + j, sum);
    store_wide<C>(second + j, squares);
  });
}

// Σ(x − shift) and Σ(x − shift)² for each column of a tile, from which come the moments of its groups.
template <class T>
class TileMoments {
 public:
  using C = Compute<T>;

  TileMoments(const Columns& shape, const ColumnGrid& grid, const T* x, std::int64_t index)
      : shape_(shape),
        grid_(grid),
        x_(x),
        tile_(shape, grid, index),
        sums_(grid.pieces(), grid.padded()),
        shift_(grid.padded()) {
    const T* const first_row = x + (tile_.sample * shape.rows + shape.range(0).first) * shape.width() + tile_.first;
    for (std::int64_t c = 0; shape.center && c < tile_.channels; ++c) {
      set_shift(c, first_element(first_row + c * shape.inner));
    }
  }

  void partial(std::int64_t piece) const {
    sums_.clear(piece);
    visit_rows_to_sum<T>(shape_, grid_, tile_, piece, [&](const RowOfTile& row, auto count) {
      add_shifted_sums<count()>(x_ + row.offset, row.step, row.columns, shift_.of(0), sums_.first(piece),
                                sums_.second(piece), grid_.rows_ahead());
    });
  }

  // Calls take(group of the tile, moments) for each group.
  template <class Take>
  void finish(Take&& take) {
    Scratch<Moments> channels(tile_.channels);
    gather(channels.get());
    if (std::is_same_v<C, double> && shape_.center) {  // once more, shifted by the mean: see moments.h
      for (std::int64_t c = 0; c < tile_.channels; ++c) set_shift(c, channels[c].mean);
      for (std::int64_t piece = 0; piece < grid_.pieces(); ++piece) partial(piece);
      gather(channels.get());
    }
    const std::int64_t each = shape_.channels_per_group();
    for (std::int64_t group = 0; group < tile_.channels / each; ++group) {
      take(tile_.first_channel / each + group,
           merge_equal(channels.get() + group * each, each, shape_.count_per_channel()));
    }
  }

  const Tile& tile() const { return tile_; }

 private:
  void set_shift(std::int64_t channel, double shift) const {
    for_columns_of(shape_, tile_, channel, [&](std::int64_t j) { shift_.of(0)[j] = static_cast<C>(shift); });
  }
  void gather(Moments* channels) const {
    Scratch<Sums> sums(tile_.channels);
    sums_.gather(grid_.pieces());
    sums_by_channel(shape_, tile_, sums_, sums.get());
    for (std::int64_t c = 0; c < tile_.channels; ++c) {
      const double shift = static_cast<double>(shift_.of(0)[c * shape_.inner]);
      channels[c] = shape_.center ? moments_of(sums[c], shift, shape_.count_per_channel())
                                  : moments_about_zero(sums[c]);
    }
  }

  const Columns& shape_;
  const ColumnGrid& grid_;
  const T* x_;
  Tile tile_;
  ColumnSums sums_;
  Coefficients<C, 1> shift_;
};

// The normalised rows of a tile, once the moments are known.
template <class T, Kind kind>
class TileMap {
 public:
  using C = Compute<T>;

  TileMap(const Columns& shape, const ColumnGrid& grid, const Forward& call, std::int64_t index, Ahead ahead)
      : shape_(shape), grid_(grid), call_(call), ahead_(ahead), tile_(shape, grid, index), map_(grid.padded()) {}

  void partial(std::int64_t) const {}
  void finish() { fill_map(shape_, tile_, call_.weight, call_.bias, call_.mean, call_.rstd, map_); }

  void apply(std::int64_t piece) const {
    visit_rows<1>(shape_, grid_, tile_, piece, [&](const RowOfTile& row, auto) {
      forward_run<kind>(run_of<T>(call_, row.offset, row.mask, ahead_), row.columns, column_map(map_));
    });
  }

 private:
  const Columns& shape_;
  const ColumnGrid& grid_;
  const Forward& call_;
  Ahead ahead_;
  Tile tile_;
  MapCoefficients<C> map_;
};

template <class T, Kind kind>
class ColumnForward {
 public:
  ColumnForward(const Columns& shape, const ColumnGrid& grid, const Forward& call, std::int64_t index)
      : shape_(shape), call_(call), moments_(shape, grid, static_cast<const T*>(call.x), index),
        map_(shape, grid, call, index, {grid.next_block(shape, sizeof(T)), grid.rows_ahead()}) {}

  void partial(std::int64_t piece) { moments_.partial(piece); }
  void finish() {
    moments_.finish([&](std::int64_t group, const Moments& moments) {
      keep_moments(call_, moments_.tile().sample * shape_.groups + group, moments, shape_.count());
    });
    map_.finish();
  }
  void apply(std::int64_t piece) const { map_.apply(piece); }

 private:
  const Columns& shape_;
  const Forward& call_;
  TileMoments<T> moments_;
  TileMap<T, kind> map_;
};

void columns_moments(const Columns& shape, Dtype dtype, const void* x, double* mean, double* m2,
                     const Parallel& parallel) {
  const ColumnGrid grid(shape, true);
  const Parallel threads = threads_for(parallel, shape.elements());
  with_type(dtype, [&]<class T>() {
    run_blocks(threads, grid.tiles(), grid.pieces(), [&](std::int64_t index) {
      return MomentsOnly(TileMoments<T>(shape, grid, static_cast<const T*>(x), index), mean, m2);
    });
  });
}

void columns_forward(const Columns& shape, const Forward& call, MomentsOf moments, const Parallel& parallel) {
  const ColumnGrid grid(shape, folds(shape, call.mask));
  const Parallel threads = threads_for(parallel, shape.elements());
  const std::int64_t blocks = shape.samples * grid.tiles(), soon = grid.rows_ahead();
  with_type(call.dtype, [&]<class T>() {
    with_kind(call.activation, [&]<Kind kind>() {
      if (moments == MomentsOf::batch) {
        run_blocks(threads, blocks, grid.pieces(),
                   [&](std::int64_t index) { return ColumnForward<T, kind>(shape, grid, call, index); });
      } else {
        run_blocks(threads, blocks, grid.pieces(),
                   [&](std::int64_t index) { return TileMap<T, kind>(shape, grid, call, index, {soon, soon}); });
      }
    });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
