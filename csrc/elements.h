// Rows with a weight and a bias for each element: layer and RMS norm, and group norm with short runs.

#pragma once

#include "epilogue.h"
#include "schedule.h"
#include "slabs.h"

namespace normwright::NORMWRIGHT_ISA {

// A long row in pieces, for when there are fewer rows than threads.
constexpr std::int64_t kRowPiece = 1 << 14;

inline std::int64_t pieces_of(const Rows& shape) { return quotient_up(shape.length, kRowPiece); }

// A weight and a bias for every element of every set, in memory, whatever the call gives.
template <class C>
class ElementParameters {
 public:
  ElementParameters(const Rows& shape, const void* weight, const void* bias)
      : length_(shape.length), weight_(spread(shape, weight, 1, own_weight_)), bias_(spread(shape, bias, 0, own_bias_)) {}

  const C* weight(std::int64_t set) const { return weight_ + set * length_; }
  const C* bias(std::int64_t set) const { return bias_ + set * length_; }

 private:
  static const C* spread(const Rows& shape, const void* given, C none, Scratch<C>& own) {
    if (given && shape.segment == 1) return static_cast<const C*>(given);
    const std::int64_t count = shape.sets * shape.length;
    own = Scratch<C>(count);
    for (std::int64_t i = 0; i < count; ++i) {
      own[i] = given ? static_cast<const C*>(given)[i / shape.segment] : none;
    }
    return own.get();
  }

  std::int64_t length_;
  Scratch<C> own_weight_, own_bias_;
  const C *weight_, *bias_;
};

// ---- Forward

template <class T, Kind kind>
class RowForward {
 public:
  using C = Compute<T>;

  RowForward(const Rows& shape, const Forward& call, const ElementParameters<C>& parameters, std::int64_t row)
      : shape_(shape), call_(call), parameters_(parameters), row_(row) {
    if (pieces_of(shape) > 1) pieces_ = Scratch<Sums>(pieces_of(shape));
  }

  void partial(std::int64_t piece) {
    const Sums sums = shifted_sums<C>(x() + piece * kRowPiece, size(piece), shift());
    if (pieces_.get()) {
      pieces_[piece] = sums;
    } else {
      only_ = sums;
    }
  }

  void finish() {
    Sums total = only_;
    for (std::int64_t piece = 0; pieces_.get() && piece < pieces_of(shape_); ++piece) total.add(pieces_[piece]);
    const Moments moments = shape_.center ? centred(total) : Moments{0, total.second};
    mean_ = moments.mean;
    rstd_ = rstd_of(moments.m2 / count(), call_.eps);
    if (call_.mean) call_.mean[row_] = mean_;
    call_.rstd[row_] = rstd_;
  }

  void apply(std::int64_t piece) const {
    const std::int64_t in_row = piece * kRowPiece, at = row_ * shape_.length + in_row, set = row_ % shape_.sets;
    const SplitMean<C> split(mean_);
    const RowMap<C> map{split.high, static_cast<C>(rstd_), static_cast<C>(-split.low * rstd_),
                        parameters_.weight(set) + in_row, parameters_.bias(set) + in_row};
    const T* const residual = static_cast<const T*>(call_.residual);
    std::uint8_t* const mask =
        call_.mask ? call_.mask + row_ * quotient_up(shape_.length, 8) + in_row / 8 : nullptr;
    forward_run<kind>(ForwardRun<T>{static_cast<const T*>(call_.x) + at, residual ? residual + at : nullptr,
                                    static_cast<T*>(call_.y) + at, mask, call_.activation, call_.stream},
                      size(piece), map);
  }

 private:
  const T* x() const { return static_cast<const T*>(call_.x) + row_ * shape_.length; }
  double shift() const { return shape_.center ? first_element(x()) : 0; }
  double count() const { return static_cast<double>(shape_.length); }
  std::int64_t size(std::int64_t piece) const {
    const std::int64_t rest = shape_.length - piece * kRowPiece;
    return rest < kRowPiece ? rest : kRowPiece;
  }

  Moments centred(const Sums& total) const {
    const Moments once = moments_of(total, shift(), count());
    if constexpr (!std::is_same_v<C, double>) return once;
    return moments_of(shifted_sums<C>(x(), shape_.length, once.mean), once.mean, count());
  }

  const Rows& shape_;
  const Forward& call_;
  const ElementParameters<C>& parameters_;
  std::int64_t row_;
  Sums only_;
  Scratch<Sums> pieces_;
  double mean_ = 0, rstd_ = 0;
};

inline void elements_forward(const Rows& shape, const Forward& call, const Parallel& parallel) {
  with_type(call.dtype, [&]<class T>() {
    const ElementParameters<Compute<T>> parameters(shape, call.weight, call.bias);
    with_kind(call.activation, [&]<Kind kind>() {
      run_blocks(threads_for(parallel, shape.rows * shape.length), shape.rows, pieces_of(shape),
                 [&](std::int64_t row) { return RowForward<T, kind>(shape, call, parameters, row); });
    });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
