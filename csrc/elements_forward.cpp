// The forward of elements.h.

#include "elements.h"
#include "shifted_sums.h"

namespace normwright::NORMWRIGHT_ISA {

template <class T>
class RowMaps {
 public:
  using C = Compute<T>;

  RowMaps(const Rows& shape, const Forward& call)
      : shape_(shape), call_(call), parameters_(shape, call.weight, call.bias) {}

  Sums sums(std::int64_t row, std::int64_t piece) const {
    const std::int64_t first = piece * kRowPiece;
    return shifted_sums<C>(x(row) + first, least(kRowPiece, shape_.length - first), shift(row));
  }

  void set_moments(std::int64_t row, const Sums& total, double& mean, double& rstd) const {
    const Moments moments = shape_.center ? centred(row, total) : Moments{0, total.second};
    mean = moments.mean;
    rstd = rstd_of(moments.m2 / count(), call_.eps);
    if (call_.mean) call_.mean[row] = mean;
    call_.rstd[row] = rstd;
  }

  template <Kind kind>
  void apply(std::int64_t row, std::int64_t first, std::int64_t n, double mean) const {
    const std::int64_t at = row * shape_.length + first, set = row % shape_.sets;
    const SplitMean<C> split(mean);
    const double rstd = call_.rstd[row];
    const RowMap<C> map{split.high, static_cast<C>(rstd), static_cast<C>(-split.low * rstd),
                        parameters_.weight(set) + first, parameters_.bias(set) + first};
    const T* const residual = static_cast<const T*>(call_.residual);
    std::uint8_t* const mask = call_.mask ? call_.mask + row * quotient_up(shape_.length, 8) + first / 8 : nullptr;
    forward_run<kind>(ForwardRun<T>{static_cast<const T*>(call_.x) + at, residual ? residual + at : nullptr,
                                    static_cast<T*>(call_.y) + at, mask, call_.activation, call_.stream,
                                    next_row(shape_)},
                      n, map);
  }

 private:
  const T* x(std::int64_t row) const { return static_cast<const T*>(call_.x) + row * shape_.length; }
  double shift(std::int64_t row) const { return shape_.center ? first_element(x(row)) : 0; }
  double count() const { return static_cast<double>(shape_.length); }

  Moments centred(std::int64_t row, const Sums& total) const {
    const Moments once = moments_of(total, shift(row), count());
    if constexpr (!std::is_same_v<C, double>) return once;
    return moments_of(shifted_sums<C>(x(row), shape_.length, once.mean), once.mean, count());
  }

  const Rows& shape_;
  const Forward& call_;
  ElementParameters<C> parameters_;
};

template <Kind kind, class T>
void short_rows_forward(const Rows& shape, const RowMaps<T>& maps, const Parallel& parallel) {
  for_each_index(parallel, shape.rows, Order::forwards, [&](std::int64_t row) {
    double mean, rstd;
    maps.set_moments(row, maps.sums(row, 0), mean, rstd);
    maps.template apply<kind>(row, 0, shape.length, mean);
  });
}

template <Kind kind, class T>
void long_rows_forward(const Rows& shape, const RowMaps<T>& maps, const Parallel& parallel) {
  const std::int64_t pieces = pieces_of(shape);
  for_row_blocks(shape, shape.length * static_cast<std::int64_t>(sizeof(T)), [&](std::int64_t begin, std::int64_t end) {
    const Scratch<Sums> sums((end - begin) * pieces);
    const Scratch<double> means(end - begin);
    for_each_index(parallel, (end - begin) * pieces, Order::forwards,
                   [&](std::int64_t i) { sums[i] = maps.sums(begin + i / pieces, i % pieces); });
    for_each_index(parallel, end - begin, Order::forwards, [&](std::int64_t i) {
      Sums total;
      for (std::int64_t piece = 0; piece < pieces; ++piece) total.add(sums[i * pieces + piece]);
      double rstd;
      maps.set_moments(begin + i, total, means[i], rstd);
    });
    for_tiles(shape, parallel, [&](std::int64_t set, std::int64_t first, std::int64_t n) {
      for (std::int64_t row = begin + set; row < end; row += shape.sets) {
        maps.template apply<kind>(row, first, n, means[row - begin]);
      }
    });
  });
}

void elements_forward(const Rows& shape, const Forward& call, const Parallel& parallel) {
  const Parallel threads = threads_for(parallel, shape.rows * shape.length);
  with_type(call.dtype, [&]<class T>() {
    const RowMaps<T> maps(shape, call);
    with_kind(call.activation, [&]<Kind kind>() {
      if (shape.length > kRowPiece) {
        long_rows_forward<kind>(shape, maps, threads);
      } else {
        short_rows_forward<kind>(shape, maps, threads);
      }
    });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
