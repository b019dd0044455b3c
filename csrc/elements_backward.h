// The backward of elements.h.
//
// Where the parameters fit in the first caches, a thread takes several rows from end to end and adds each to
// the gradients of its own; these are added up in order. Longer rows are swept twice: first all rows for the
// sums that dx needs, then, tile of columns by tile, down all rows.

#pragma once

#include "elements.h"

namespace normwright::NORMWRIGHT_ISA {

template <class T>
class RowGradients {
 public:
  using C = Compute<T>;

  RowGradients(const Rows& shape, const Backward& call)
      : shape_(shape), call_(call), parameters_(shape, call.weight, call.bias) {}

  // Σg and Σg·t over columns first … first + n of a row, with g = weight·dz.
  template <Kind kind>
  Sums sums(std::int64_t row, std::int64_t first, std::int64_t n) const {
    const BackwardRun<T> run = run_at(row, first);
    const RowMap<C> map = map_at(row, first);
    Wide<C> sum, products;
    for_packs<C>(n, [&](std::int64_t j, auto lanes) {
      const Gradient<C> gradient = gradient_at<kind>(run, map, j, lanes);
      const Wide<C> g = widen(keep_or<C>(gradient.dz * load(map.weight + j, lanes), Pack<C>{}, lanes));
      sum.add(g);
      products.add_product(g, widen(keep_or<C>(gradient.t, Pack<C>{}, lanes)));
    });
    return {sum.total(), products.total()};
  }

  // dx and dresidual of these columns; adds dz·x̂ and dz to the gradients of the parameters, if given.
  template <Kind kind>
  void apply(std::int64_t row, std::int64_t first, std::int64_t n, const Sums& row_sums, double* dweight,
             double* dbias) const {
    const RowMap<C> map = map_at(row, first);
    const RowSlope<C> slope = slope_at(row, first, row_sums);
    if (!dweight) {
      backward_run<kind>(run_at(row, first), n, map, slope, Nothing{});
      return;
    }
    backward_run<kind>(run_at(row, first), n, map, slope, [&](const Gradient<C>& gradient, std::int64_t j, auto lanes) {
      Wide<C> of_weight = load_wide<C>(dweight + j), of_bias = load_wide<C>(dbias + j);
      // What lies past a part belongs to the next set.
      const Pack<C> product = gradient.dz * (gradient.t * map.rstd + map.low);
      of_weight.add(widen(keep_or<C>(product, Pack<C>{}, lanes)));
      of_bias.add(widen(keep_or<C>(gradient.dz, Pack<C>{}, lanes)));
      store_wide<C>(dweight + j, of_weight);
      store_wide<C>(dbias + j, of_bias);
    });
  }

 private:
  double mean(std::int64_t row) const { return shape_.center ? call_.mean[row] : 0; }

  BackwardRun<T> run_at(std::int64_t row, std::int64_t first) const {
    const std::int64_t offset = row * shape_.length + first;
    const auto at = [&](const void* p) { return p ? static_cast<const T*>(p) + offset : nullptr; };
    const auto out = [&](void* p) { return p ? static_cast<T*>(p) + offset : nullptr; };
    const std::uint8_t* const mask = call_.mask ? call_.mask + row * quotient_up(shape_.length, 8) + first / 8 : nullptr;
    return {at(call_.dy),  at(call_.x),          at(call_.residual), mask,
            out(call_.dx), out(call_.dresidual), call_.activation,   call_.stream};
  }

  RowMap<C> map_at(std::int64_t row, std::int64_t first) const {
    const SplitMean<C> split(mean(row));
    const std::int64_t set = row % shape_.sets;
    return {split.high, static_cast<C>(call_.rstd[row]), static_cast<C>(-split.low * call_.rstd[row]),
            parameters_.weight(set) + first, parameters_.bias(set) + first};
  }

  RowSlope<C> slope_at(std::int64_t row, std::int64_t first, const Sums& sums) const {
    const double rstd = call_.rstd[row], low = SplitMean<C>(mean(row)).low;
    const double count = static_cast<double>(shape_.length);
    const double product = (sums.second - low * sums.first) * rstd;  // Σg·x̂
    const double from_x = -rstd * product / count;
    const double from_mean = shape_.center ? -rstd * sums.first / count : 0;
    return {static_cast<C>(rstd), static_cast<C>(from_x), static_cast<C>(from_mean - from_x * low * rstd),
            parameters_.weight(row % shape_.sets) + first};
  }

  const Rows& shape_;
  const Backward& call_;
  ElementParameters<C> parameters_;
};

// ---- Parameter gradients of every element, in double, summed for blocks of rows

class ElementGradients {
 public:
  ElementGradients(std::int64_t blocks, std::int64_t elements)
      : blocks_(blocks), elements_(elements), padded_(elements + 16), values_(2 * blocks * padded_) {}

  void clear(std::int64_t block) const {
    for (std::int64_t i = 0; i < 2 * padded_; ++i) dweight(block)[i] = 0;
  }
  double* dweight(std::int64_t block) const { return values_.get() + 2 * block * padded_; }
  double* dbias(std::int64_t block) const { return dweight(block) + padded_; }

  // Over the blocks in order, and over the elements that share a parameter.
  void gather(std::int64_t segment, double* dweight_out, double* dbias_out) const {
    for (std::int64_t block = 1; block < blocks_; ++block) {
      for (std::int64_t i = 0; i < 2 * padded_; ++i) dweight(0)[i] += dweight(block)[i];
    }
    collect(dweight(0), segment, dweight_out);
    collect(dbias(0), segment, dbias_out);
  }

 private:
  void collect(const double* elements, std::int64_t segment, double* out) const {
    for (std::int64_t p = 0; out && p < elements_ / segment; ++p) {
      double sum = 0;
      for (std::int64_t i = 0; i < segment; ++i) sum += elements[p * segment + i];
      out[p] = sum;
    }
  }

  std::int64_t blocks_, elements_, padded_;
  Scratch<double> values_;
};

// Rows from end to end. Without parameter gradients every row is by itself.
template <class T, Kind kind>
void rows_end_to_end(const Rows& shape, const Backward& call, const Parallel& parallel) {
  constexpr std::int64_t kElements = 1 << 14, kMostBlocks = 64;
  const RowGradients<T> gradients(shape, call);
  const bool wanted = call.dweight || call.dbias;
  const std::int64_t elements = shape.sets * shape.length;
  // In whole rounds of the sets, so that a block has the gradients of each.
  const std::int64_t rounds = quotient_up(shape.rows, shape.sets);
  const std::int64_t by_size = quotient_up(kElements, elements), by_count = quotient_up(rounds, kMostBlocks);
  const std::int64_t rows_per_block = (by_size > by_count ? by_size : by_count) * shape.sets;
  const std::int64_t blocks = quotient_up(shape.rows, rows_per_block);
  const ElementGradients sums(wanted ? blocks : 0, elements);
  for_each_index(parallel, blocks, Order::forwards, [&](std::int64_t block) {
    if (wanted) sums.clear(block);
    const std::int64_t end = (block + 1) * rows_per_block;
    for (std::int64_t row = block * rows_per_block; row < end && row < shape.rows; ++row) {
      const std::int64_t first = row % shape.sets * shape.length;
      gradients.template apply<kind>(row, 0, shape.length, gradients.template sums<kind>(row, 0, shape.length),
                                     wanted ? sums.dweight(block) + first : nullptr,
                                     wanted ? sums.dbias(block) + first : nullptr);
    }
  });
  if (wanted) sums.gather(shape.segment, call.dweight, call.dbias);
}

// All rows for their sums, then down all rows, tile by tile.
template <class T, Kind kind>
void rows_by_tiles(const Rows& shape, const Backward& call, const Parallel& parallel) {
  constexpr std::int64_t kTile = 2048;
  const RowGradients<T> gradients(shape, call);
  const std::int64_t pieces = pieces_of(shape), tiles = quotient_up(shape.length, kTile);
  const Scratch<Sums> piece_sums(shape.rows * pieces), row_sums(shape.rows);
  for_each_index(parallel, shape.rows * pieces, Order::forwards, [&](std::int64_t i) {
    const std::int64_t first = i % pieces * kRowPiece, rest = shape.length - first;
    piece_sums[i] = gradients.template sums<kind>(i / pieces, first, rest < kRowPiece ? rest : kRowPiece);
  });
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    row_sums[row] = {};
    for (std::int64_t piece = 0; piece < pieces; ++piece) row_sums[row].add(piece_sums[row * pieces + piece]);
  }
  const bool wanted = call.dweight || call.dbias;
  const std::int64_t elements = shape.sets * shape.length;
  const ElementGradients sums(wanted ? 1 : 0, elements);
  if (wanted) sums.clear(0);
  for_each_index(parallel, shape.sets * tiles, Order::backwards, [&](std::int64_t i) {
    const std::int64_t set = i / tiles, first = i % tiles * kTile, rest = shape.length - first;
    const std::int64_t n = rest < kTile ? rest : kTile;
    alignas(64) double dweight[kTile], dbias[kTile];
    for (std::int64_t j = 0; j < kTile; ++j) dweight[j] = dbias[j] = 0;
    for (std::int64_t row = set; row < shape.rows; row += shape.sets) {
      gradients.template apply<kind>(row, first, n, row_sums[row], wanted ? dweight : nullptr, wanted ? dbias : nullptr);
    }
    if (!wanted) return;
    std::memcpy(sums.dweight(0) + set * shape.length + first, dweight, static_cast<std::size_t>(n) * sizeof(double));
    std::memcpy(sums.dbias(0) + set * shape.length + first, dbias, static_cast<std::size_t>(n) * sizeof(double));
  });
  if (wanted) sums.gather(shape.segment, call.dweight, call.dbias);
}

inline void elements_backward(const Rows& shape, const Backward& call, const Parallel& parallel) {
  constexpr std::int64_t kMostParameters = 1 << 13;  // two gradients in double, 128 KiB
  const Parallel threads = threads_for(parallel, shape.rows * shape.length);
  const bool few_rows = shape.rows < 64 && shape.length > kRowPiece;
  const bool wanted = call.dweight || call.dbias;
  const bool tiled = few_rows || (wanted && shape.sets * shape.length > kMostParameters);
  with_type(call.dtype, [&]<class T>() {
    with_kind(call.activation, [&]<Kind kind>() {
      if (tiled) {
        rows_by_tiles<T, kind>(shape, call, threads);
      } else {
        rows_end_to_end<T, kind>(shape, call, threads);
      }
    });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
