// Moments over columns: batch norm channels-last or with short runs, group norm channels-last.
//
// x is a matrix for each sample, `rows` × (channels·inner). A row is swept with a set of coefficients for
// each column; sums are kept for each column and gathered into channels, then into groups. Where a row is
// shorter than a few packs, several are taken as one. Where not every row counts, a table says which do.

#pragma once

#include "kernels.h"
#include "moments_of.h"

namespace normwright::NORMWRIGHT_ISA {

struct Columns {
  std::int64_t samples, rows, channels, inner, groups;
  bool center;                  // false takes the mean as 0
  const Span* table = nullptr;  // the ranges of rows that count, of which there are `rows`
  std::int64_t ranges = 1;
  std::int64_t longest = rows;  // range

  Span range(std::int64_t i) const { return table ? table[i] : Span{0, rows}; }
  std::int64_t width() const { return channels * inner; }
  std::int64_t elements() const { return samples * rows * width(); }
  std::int64_t channels_per_group() const { return channels / groups; }
  double count_per_channel() const { return static_cast<double>(rows) * static_cast<double>(inner); }
  double count() const { return count_per_channel() * static_cast<double>(channels_per_group()); }
};

void columns_forward(const Columns&, const Forward&, MomentsOf, const Parallel&);
void columns_backward(const Columns&, const Backward&, MomentsOf, const Parallel&);
// Mean and m2 of each channel, in one sweep.
void columns_moments(const Columns&, Dtype, const void* x, double* mean, double* m2, const Parallel&);

}  // namespace normwright::NORMWRIGHT_ISA
