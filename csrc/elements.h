// Rows with a weight and a bias for each element: layer and RMS norm, and group norm with short runs.
//
// Where there are enough rows for the threads, a thread takes a row from end to end. Otherwise all rows are
// swept twice, piece by piece and then tile of columns by tile, down all rows.

#pragma once

#include "epilogue.h"
#include "maps.h"
#include "schedule.h"

namespace normwright::NORMWRIGHT_ISA {

// Elements that are summed at a time.
constexpr std::int64_t kRowPiece = 1 << 14;

inline std::int64_t pieces_of(const Rows& shape) { return quotient_up(shape.length, kRowPiece); }

// Rows that a thread takes at once, where they are short and many: the sums of one then overlap with another's.
constexpr std::int64_t kTogether = 4;
inline std::int64_t rows_together(const Rows& shape, const Parallel& parallel) {
  constexpr std::int64_t kShort = 1 << 12;
  return shape.length <= kShort && shape.rows >= 4 * kTogether * parallel.threads ? kTogether : 1;
}

// The parameters of a row. A division takes as long as a short row.
inline std::int64_t set_of(const Rows& shape, std::int64_t row) { return shape.sets == 1 ? 0 : row % shape.sets; }

inline bool enough_rows(const Rows& shape, const Parallel& parallel) {
  return parallel.threads == 1 || shape.rows >= 2 * parallel.threads;
}

// Σ of the pieces of a row, in order.
template <class SumsOf>
inline Sums total_of(const Rows& shape, SumsOf&& sums_of) {
  Sums total;
  for (std::int64_t piece = 0; piece < pieces_of(shape); ++piece) total.add(sums_of(piece));
  return total;
}

// The same of every row, on all threads, however few the rows.
template <class SumsOf>
inline Scratch<Sums> totals_of(const Rows& shape, const Parallel& parallel, SumsOf&& sums_of) {
  const std::int64_t pieces = pieces_of(shape);
  const Scratch<Sums> parts(shape.rows * pieces);
  Scratch<Sums> totals(shape.rows);
  for_each_index(parallel, shape.rows * pieces, Order::forwards,
                 [&](std::int64_t i) { parts[i] = sums_of(i / pieces, i % pieces); });
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    totals[row] = total_of(shape, [&](std::int64_t piece) { return parts[row * pieces + piece]; });
  }
  return totals;
}

// Calls visit(set, first column, columns) for every tile, on all threads; backwards, as `apply` in schedule.h.
template <class Visit>
inline void for_tiles(const Rows& shape, const Parallel& parallel, Visit&& visit) {
  constexpr std::int64_t kTile = 2048;
  const std::int64_t tiles = quotient_up(shape.length, kTile);
  for_each_index(parallel, shape.sets * tiles, Order::backwards, [&](std::int64_t i) {
    const std::int64_t first = i % tiles * kTile;
    visit(i / tiles, first, least(kTile, shape.length - first));
  });
}

// A row that a thread takes soon, where it takes `rows_at_once` of them from end to end: the next, or where rows are
// short one so far on that there is time to read it.
inline Ahead next_row(const Rows& shape, std::int64_t rows_at_once) {
  constexpr std::int64_t kSoon = 1 << 12;
  const std::int64_t together = rows_at_once * shape.length;
  const std::int64_t next = shape.length > kRowPiece ? 0 : quotient_up(kSoon, together) * together;
  return {next, next};
}

// Where the mask of a piece of a row begins.
inline std::int64_t mask_offset(const Rows& shape, std::int64_t row, std::int64_t first) {
  return row * quotient_up(shape.length, 8) + first / 8;
}

// A weight and a bias for every element of every set, in memory, whatever the call gives.
template <class C>
class ElementParameters {
 public:
  ElementParameters(const Rows& shape, const void* weight, const void* bias)
      : length_(shape.length),
        weight_(spread(shape, weight, 1, own_weight_)),
        bias_(spread(shape, bias, 0, own_bias_)) {}

  const C* weight(std::int64_t set) const { return weight_ + set * length_; }
  const C* bias(std::int64_t set) const { return bias_ + set * length_; }

 private:
  static const C* spread(const Rows& shape, const void* given, C none, Scratch<C>& own) {
    if (given && shape.segment == 1) return static_cast<const C*>(given);
    const std::int64_t count = shape.sets * shape.length;
    own = Scratch<C>(count);
    for (std::int64_t p = 0; p < count / shape.segment; ++p) {
      const C value = given ? static_cast<const C*>(given)[p] : none;
      for (std::int64_t i = 0; i < shape.segment; ++i) own[p * shape.segment + i] = value;
    }
    return own.get();
  }

  std::int64_t length_;
  Scratch<C> own_weight_, own_bias_;
  const C *weight_, *bias_;
};

void elements_forward(const Rows&, const Forward&, const Parallel&);
void elements_backward(const Rows&, const Backward&, const Parallel&);

}  // namespace normwright::NORMWRIGHT_ISA
