// The affine map of each element, once its moments are known,  z = affine(centre(x)),  and the slope that gives dx
// from dz. Each comes for runs (one set of coefficients), for columns (a set for each element, in padded arrays) and
// for rows (a weight and a bias for each element, one mean and rstd).

#pragma once

#include "moments.h"

namespace normwright::NORMWRIGHT_ISA {

template <class C>
struct RunMap {
  C mean, scale, shift;

  template <class Lanes>
  Pack<C> centre(Pack<C> x, std::int64_t, Lanes) const {
    return x - mean;
  }
  template <class Lanes>
  Pack<C> affine(Pack<C> t, std::int64_t, Lanes) const {
    return multiply_add(t, broadcast(scale), broadcast(shift));
  }
};

template <class C>
struct ColumnMap {
  const C *mean, *scale, *shift;

  template <class Lanes>
  Pack<C> centre(Pack<C> x, std::int64_t j, Lanes) const {
    return x - load(mean + j, Full{});
  }
  template <class Lanes>
  Pack<C> affine(Pack<C> t, std::int64_t j, Lanes) const {
    return multiply_add(t, load(scale + j, Full{}), load(shift + j, Full{}));
  }
};

template <class C>
struct RowMap {
  C mean, rstd, low;
  const C *weight, *bias;

  // x̂ of t.
  Pack<C> normalised(Pack<C> t) const { return multiply_add(t, broadcast(rstd), broadcast(low)); }
  template <class Lanes>
  Pack<C> centre(Pack<C> x, std::int64_t, Lanes) const {
    return x - mean;
  }
  template <class Lanes>
  Pack<C> affine(Pack<C> t, std::int64_t j, Lanes lanes) const {
    return multiply_add(normalised(t), load(weight + j, lanes), load(bias + j, lanes));
  }
};

// Element i of weight or bias, or `none` where there is none.
template <class C>
inline double parameter_at(const void* parameters, std::int64_t i, double none) {
  return parameters ? static_cast<double>(static_cast<const C*>(parameters)[i]) : none;
}

// The i-th mean, which is 0 where means are taken as 0.
inline double mean_at(const double* means, std::int64_t i) { return means ? means[i] : 0; }

template <class C>
inline RunMap<C> run_map(const void* weight, const void* bias, double mean, double rstd, std::int64_t parameter) {
  const SplitMean<C> split(mean);
  const double scale = rstd * parameter_at<C>(weight, parameter, 1);
  return {split.high, static_cast<C>(scale),
          static_cast<C>(parameter_at<C>(bias, parameter, 0) - split.low * scale)};
}

// ---- Slopes: dx = dz·from_dz + x̂·from_x + constant. Without low, the constant takes in what that adds to x̂.

template <class C>
struct RunSlope {
  static constexpr bool kReadsX = true;
  C from_dz, rstd, from_x, constant;

  template <class Lanes>
  Pack<C> dx(Pack<C> dz, Pack<C> t, std::int64_t, Lanes) const {
    return multiply_add(dz, broadcast(from_dz), multiply_add(t * rstd, broadcast(from_x), broadcast(constant)));
  }
};

// Where the moments are constants, x has no part in dx.
template <class C>
struct RunScale {
  static constexpr bool kReadsX = false;
  C from_dz;

  template <class Lanes>
  Pack<C> dx(Pack<C> dz, Pack<C>, std::int64_t, Lanes) const {
    return dz * from_dz;
  }
};

template <class C>
struct ColumnScale {
  static constexpr bool kReadsX = false;
  const C* from_dz;

  template <class Lanes>
  Pack<C> dx(Pack<C> dz, Pack<C>, std::int64_t j, Lanes) const {
    return dz * load(from_dz + j, Full{});
  }
};

template <class C>
struct ColumnSlope {
  static constexpr bool kReadsX = true;
  const C *from_dz, *rstd, *from_x, *constant;

  template <class Lanes>
  Pack<C> dx(Pack<C> dz, Pack<C> t, std::int64_t j, Lanes) const {
    const Pack<C> x_hat = t * load(rstd + j, Full{});
    const Pack<C> x_part = multiply_add(x_hat, load(from_x + j, Full{}), load(constant + j, Full{}));
    return multiply_add(dz, load(from_dz + j, Full{}), x_part);
  }
};

template <class C>
struct RowSlope {
  static constexpr bool kReadsX = true;
  C rstd, low, from_x, constant;
  const C* weight;

  // Of dz·weight and x̂.
  Pack<C> dx(Pack<C> g, Pack<C> x_hat) const {
    return multiply_add(g, broadcast(rstd), multiply_add(x_hat, broadcast(from_x), broadcast(constant)));
  }
  template <class Lanes>
  Pack<C> dx(Pack<C> dz, Pack<C> t, std::int64_t j, Lanes lanes) const {
    return dx(dz * load(weight + j, lanes), multiply_add(t, broadcast(rstd), broadcast(low)));
  }
};

}  // namespace normwright::NORMWRIGHT_ISA
