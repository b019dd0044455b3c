// Moments over long contiguous runs: batch norm (contiguous), group and instance norm (contiguous).
//
// A slab is what one moment is taken over: `runs` runs of `length` elements, each with one weight and bias.
// A run is swept with scalar coefficients. Where the runs are not all there is, a table says where each lies.

#pragma once

#include "kernels.h"
#include "moments_of.h"

namespace normwright::NORMWRIGHT_ISA {

struct Slabs {
  std::int64_t slabs, runs, length;
  std::int64_t slab_stride, run_stride;  // in elements
  std::int64_t sets;                     // slab s has parameter set s mod sets,
  bool parameter_per_run;                // which holds one for each run, or one for all
  bool center;                           // false takes the mean as 0
  const Span* table = nullptr;           // the runs of slab 0, in elements of x, each of at most `length`
  std::int64_t in_table = 0;             // the elements of all of them

  std::int64_t parameters_per_slab() const { return parameter_per_run ? runs : 1; }
  // The p-th of a slab's parameters among all.
  std::int64_t parameter(std::int64_t slab, std::int64_t p) const { return slab % sets * parameters_per_slab() + p; }
  std::int64_t offset(std::int64_t slab, std::int64_t run) const {
    return slab * slab_stride + (table ? table[run].first : run * run_stride);
  }
  std::int64_t length_of(std::int64_t run) const { return table ? table[run].length : length; }
  std::int64_t elements_per_slab() const { return table ? in_table : runs * length; }
  double count() const { return static_cast<double>(elements_per_slab()); }
  std::int64_t elements() const { return slabs * elements_per_slab(); }
};

void slabs_forward(const Slabs&, const Forward&, MomentsOf, const Parallel&);
void slabs_backward(const Slabs&, const Backward&, MomentsOf, const Parallel&);
// Mean and m2 of each slab, in one sweep.
void slabs_moments(const Slabs&, Dtype, const void* x, double* mean, double* m2, const Parallel&);

}  // namespace normwright::NORMWRIGHT_ISA
