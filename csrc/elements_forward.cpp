// The forward of elements.h.

#include "elements.h"
#include "forward_run.h"
#include "shifted_sums.h"

namespace normwright::NORMWRIGHT_ISA {

template <class T>
class RowMaps {
 public:
  using C = Compute<T>;

  RowMaps(const Rows& shape, const Forward& call, Ahead ahead)
      : shape_(shape), call_(call), parameters_(shape, call.weight, call.bias), ahead_(ahead) {}

  Sums sums(std::int64_t row, std::int64_t piece) const {
    const std::int64_t first = piece * kRowPiece;
    return shifted_sums<C>(x(row) + first, least(kRowPiece, shape_.length - first), shift(row));
  }

  // Keeps the moments of a row, of which `total` are the sums; returns its mean.
  double set_moments(std::int64_t row, const Sums& total) const {
    const Moments moments = shape_.center ? centred(row, total) : moments_about_zero(total);
    keep_moments(call_, row, moments, count());
    return moments.mean;
  }

  template <Kind kind>
  void apply(std::int64_t row, std::int64_t first, std::int64_t n, double mean) const {
    const std::int64_t set = set_of(shape_, row);
    const SplitMean<C> split(mean);
    const double rstd = call_.rstd[row];
    const RowMap<C> map{split.high, static_cast<C>(rstd), static_cast<C>(-split.low * rstd),
                        parameters_.weight(set) + first, parameters_.bias(set) + first};
    forward_run<kind>(run_of<T>(call_, row * shape_.length + first, mask_offset(shape_, row, first), ahead_), n, map);
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
  Ahead ahead_;
};

template <Kind kind, class T>
void rows_end_to_end(const Rows& shape, const RowMaps<T>& maps, const Parallel& parallel) {
  const std::int64_t at_once = rows_together(shape, parallel);
  for_each_index(parallel, quotient_up(shape.rows, at_once), Order::forwards, [&](std::int64_t group) {
    const std::int64_t begin = group * at_once, end = least(begin + at_once, shape.rows);
    double means[kTogether];
    for (std::int64_t row = begin; row < end; ++row) {
      const Sums total = total_of(shape, [&](std::int64_t piece) { return maps.sums(row, piece); });
      means[row - begin] = maps.set_moments(row, total);
    }
    for (std::int64_t row = begin; row < end; ++row) {
      maps.template apply<kind>(row, 0, shape.length, means[row - begin]);
    }
  });
}

template <Kind kind, class T>
void rows_by_tiles(const Rows& shape, const RowMaps<T>& maps, const Parallel& parallel) {
  const Scratch<Sums> totals = totals_of(
      shape, parallel, [&](std::int64_t row, std::int64_t piece) { return maps.sums(row, piece); });
  const Scratch<double> means(shape.rows);
  for (std::int64_t row = 0; row < shape.rows; ++row) means[row] = maps.set_moments(row, totals[row]);
  for_tiles(shape, parallel, [&](std::int64_t set, std::int64_t first, std::int64_t n) {
    for (std::int64_t row = set; row < shape.rows; row += shape.sets) {
      maps.template apply<kind>(row, first, n, means[row]);
    }
  });
}

void elements_forward(const Rows& shape, const Forward& call, const Parallel& parallel) {
  const Parallel threads = threads_for(parallel, shape.rows * shape.length);
  with_type(call.dtype, [&]<class T>() {
    const RowMaps<T> maps(shape, call, next_row(shape, rows_together(shape, threads)));
    with_kind(call.activation, [&]<Kind kind>() {
      if (enough_rows(shape, threads)) {
        rows_end_to_end<kind>(shape, maps, threads);
      } else {
        rows_by_tiles<kind>(shape, maps, threads);
      }
    });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
