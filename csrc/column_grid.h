// How columns.h cuts its work, and the sums and coefficients that it keeps for each column.

#pragma once

#include "columns.h"
#include "epilogue.h"
#include "maps.h"
#include "schedule.h"

namespace normwright::NORMWRIGHT_ISA {

// How a sample's matrix is cut: into tiles of columns and pieces of rows, several ranges or a chunk of one. A tile holds
// whole groups.
class ColumnGrid {
 public:
  // `folds` allows several rows to be taken as one.
  ColumnGrid(const Columns& shape, bool folds) : width_(shape.width()) {
    const bool narrow = folds && width_ > 0 && width_ < kNarrow && shape.longest > 1;
    std::int64_t wanted = narrow ? quotient_up(kNarrow, width_) : 1;
    // So that every row begins on a pack of x where the first does.
    if (wanted * width_ % 16) wanted = quotient_up(wanted, 16) * 16;
    if (!narrow) wanted = 1;
    fold_ = most(1, least(wanted, shape.longest));
    rows_ = shape.rows / fold_;
    // Short runs of many channels make rows of any length: whole channels, and whole bytes of the mask.
    const std::int64_t channels = kTile / shape.inner / 8 * 8;
    const bool tiled = shape.inner > 1 && shape.groups == shape.channels && fold_ == 1;
    tile_ = most(1, tiled ? most(channels, 8) * shape.inner : fold_ * width_);
    const std::int64_t by_size = quotient_up(kElements, tile_), by_count = quotient_up(rows_, kMostPieces);
    rows_per_piece_ = most(most(by_size, by_count), kFewestRows);
    const std::int64_t longest = most(1, shape.longest / fold_);
    ranges_ = shape.ranges;
    chunks_ = quotient_up(longest, rows_per_piece_);
    ranges_per_piece_ = chunks_ > 1 ? 1 : rows_per_piece_ / longest;
  }

  std::int64_t fold() const { return fold_; }
  std::int64_t row_length() const { return fold_ * width_; }
  std::int64_t tiles() const { return quotient_up(row_length(), tile_); }
  std::int64_t pieces() const { return quotient_up(ranges_, ranges_per_piece_) * chunks_; }

  std::int64_t first_column(std::int64_t tile) const { return tile * tile_; }
  std::int64_t columns(std::int64_t tile) const { return least(tile_, row_length() - tile * tile_); }
  // Arrays over a tile's columns are this long: whole packs, and one more for a step that begins late.
  std::int64_t padded() const { return quotient_up(least(tile_, row_length()), 16) * 16 + 16; }

  // Calls visit(range, first row, end, rest) for every range of a piece, or the chunk of it: the rows, counted in folded
  // ones, and the columns of the incomplete row that follows the last of the range.
  template <class Visit>
  void visit(const Columns& shape, std::int64_t piece, Visit&& visit) const {
    const std::int64_t chunk = piece % chunks_, first = chunk * rows_per_piece_;
    const std::int64_t from = piece / chunks_ * ranges_per_piece_, end = least(from + ranges_per_piece_, ranges_);
    for (std::int64_t i = from; i < end; ++i) {
      const Span range = shape.range(i);
      const std::int64_t rows = range.length / fold_, last = least(rows / rows_per_piece_, chunks_ - 1);
      const std::int64_t rest = chunk == last ? range.length % fold_ * width_ : 0;
      visit(range, first, least(first + rows_per_piece_, rows), rest);
    }
  }

  // Some rows on, 4 KiB or more, which a sweep that reads from memory asks for.
  std::int64_t rows_ahead() const { return row_length() * quotient_up(1024, least(tile_, row_length())); }
  // The next block, where the second cache holds it beside this one.
  std::int64_t next_block(const Columns& shape, std::int64_t bytes_per_element) const {
    if (2 * rows_ * tile_ * bytes_per_element > kSecondCache) return rows_ahead();
    return tiles() > 1 ? tile_ : shape.samples > 1 ? shape.rows * shape.width() : 0;
  }

 private:
  static constexpr std::int64_t kNarrow = 256, kTile = 512, kElements = 1 << 14, kMostPieces = 64, kFewestRows = 64;
  std::int64_t width_, fold_, rows_, tile_, rows_per_piece_, ranges_, chunks_, ranges_per_piece_;
};

// One block: the columns of a tile of a sample.
struct Tile {
  std::int64_t sample, first, columns;
  std::int64_t first_channel, channels;

  Tile(const Columns& shape, const ColumnGrid& grid, std::int64_t index)
      : sample(index / grid.tiles()),
        first(grid.first_column(index % grid.tiles())),
        columns(grid.columns(index % grid.tiles())),
        first_channel(first / shape.inner % shape.channels),
        channels(grid.fold() > 1 ? shape.channels : columns / shape.inner) {}
};

// Calls visit(column) for every column of a channel of the tile, the channel counted from the tile's first.
template <class Visit>
inline void for_columns_of(const Columns& shape, const Tile& tile, std::int64_t channel, Visit&& visit) {
  for (std::int64_t first = channel * shape.inner; first < tile.columns; first += tile.channels * shape.inner) {
    for (std::int64_t j = first; j < first + shape.inner; ++j) visit(j);
  }
}

// ---- Sums

// Two sums for each column of a tile, for each piece.
class ColumnSums {
 public:
  ColumnSums() = default;
  ColumnSums(std::int64_t pieces, std::int64_t padded) : padded_(padded), values_(2 * pieces * padded) {}

  double* first(std::int64_t piece) const { return values_.get() + 2 * piece * padded_; }
  double* second(std::int64_t piece) const { return first(piece) + padded_; }
  void clear(std::int64_t piece) const {
    for (std::int64_t j = 0; j < 2 * padded_; ++j) first(piece)[j] = 0;
  }
  // Piece 0 becomes the sum over all pieces, in order.
  void gather(std::int64_t pieces) const {
    for (std::int64_t piece = 1; piece < pieces; ++piece) {
      for (std::int64_t j = 0; j < 2 * padded_; ++j) first(0)[j] += first(piece)[j];
    }
  }

 private:
  std::int64_t padded_ = 0;
  Scratch<double> values_;
};

// The sums of each channel of a tile, over its columns.
inline void sums_by_channel(const Columns& shape, const Tile& tile, const ColumnSums& sums, Sums* channels) {
  for (std::int64_t c = 0; c < tile.channels; ++c) {
    Sums total;
    for_columns_of(shape, tile, c, [&](std::int64_t j) { total.add({sums.first(0)[j], sums.second(0)[j]}); });
    channels[c] = total;
  }
}

// Moments of a group from those of its channels, which all have the same count.
inline Moments merge_equal(const Moments* channels, std::int64_t count, double elements_each) {
  Moments group;
  for (std::int64_t c = 0; c < count; ++c) group.mean += channels[c].mean - channels[0].mean;
  group.mean = channels[0].mean + group.mean / static_cast<double>(count);
  if (count == 1) return channels[0];
  for (std::int64_t c = 0; c < count; ++c) {
    const double distance = channels[c].mean - group.mean;
    group.m2 += channels[c].m2 + elements_each * distance * distance;
  }
  return group;
}

// A row of a tile: where it begins in x and in the mask, how far on the next one does, and how many columns it has.
struct RowOfTile {
  std::int64_t offset, mask, step, mask_step, columns;
};

constexpr int kRowsTogether = 2;

template <int count>
using Count = std::integral_constant<int, count>;

// Calls visit(row, number of rows) for the rows of a piece, `together` at a time and the rest one by one. Always
// upwards: a processor that fetches ahead follows rows that go down badly.
template <int together, class Visit>
inline void visit_rows(const Columns& shape, const ColumnGrid& grid, const Tile& tile, std::int64_t piece,
                       Visit&& visit) {
  const std::int64_t mask_bytes = quotient_up(shape.width(), 8), mask_step = grid.fold() * mask_bytes;
  const std::int64_t matrix = tile.sample * shape.rows * shape.width() + tile.first;
  const std::int64_t mask = tile.sample * shape.rows * mask_bytes + tile.first / 8;
  grid.visit(shape, piece, [&](Span range, std::int64_t row, std::int64_t end, std::int64_t rest) NORMWRIGHT_INLINE {
    const std::int64_t from = matrix + range.first * shape.width(), mask_from = mask + range.first * mask_bytes;
    const auto row_at = [&](std::int64_t i, std::int64_t columns) {
      return RowOfTile{from + i * grid.row_length(), mask_from + i * mask_step, grid.row_length(), mask_step, columns};
    };
    for (; row + together <= end; row += together) visit(row_at(row, tile.columns), Count<together>{});
    for (; row < end; ++row) visit(row_at(row, tile.columns), Count<1>{});
    if (rest) visit(row_at(range.length / grid.fold(), rest), Count<1>{});
  });
}

// The same to add to sums: two rows at a time where x may be in the cache, so that the sums are loaded and stored
// less often (a backward of 3 MB took 0.6 times as long); from memory that reads 5 % slower.
template <class T, class Visit>
inline void visit_rows_to_sum(const Columns& shape, const ColumnGrid& grid, const Tile& tile, std::int64_t piece,
                              Visit&& visit) {
  constexpr std::int64_t kCached = std::int64_t{1} << 24;
  if (shape.elements() * static_cast<std::int64_t>(sizeof(T)) > kCached) {
    return visit_rows<1>(shape, grid, tile, piece, visit);
  }
  visit_rows<kRowsTogether>(shape, grid, tile, piece, visit);
}

// Coefficients for each column of a tile.
template <class C, int kinds>
class Coefficients {
 public:
  explicit Coefficients(std::int64_t padded) : padded_(padded), values_(kinds * padded) {
    for (std::int64_t i = 0; i < kinds * padded; ++i) values_[i] = 0;
  }
  C* of(int kind) const { return values_.get() + kind * padded_; }

 private:
  std::int64_t padded_;
  Scratch<C> values_;
};

template <class C>
using MapCoefficients = Coefficients<C, 3>;

template <class C>
inline ColumnMap<C> column_map(const MapCoefficients<C>& values) {
  return {values.of(0), values.of(1), values.of(2)};
}

// Spreads each channel's map over its columns. mean and rstd are those of the groups of the sample.
template <class C>
inline void fill_map(const Columns& shape, const Tile& tile, const void* weight, const void* bias, const double* mean,
                     const double* rstd, const MapCoefficients<C>& values) {
  for (std::int64_t c = 0; c < tile.channels; ++c) {
    const std::int64_t channel = tile.first_channel + c;
    const std::int64_t group = tile.sample * shape.groups + channel / shape.channels_per_group();
    const RunMap<C> map = run_map<C>(weight, bias, mean_at(mean, group), rstd[group], channel);
    for_columns_of(shape, tile, c, [&](std::int64_t j) {
      values.of(0)[j] = map.mean;
      values.of(1)[j] = map.scale;
      values.of(2)[j] = map.shift;
    });
  }
}

inline bool folds(const Columns& shape, const void* mask) { return !mask || shape.width() % 8 == 0; }

}  // namespace normwright::NORMWRIGHT_ISA
