// The backward of elements.h.
//
// Where the parameters fit in the first caches, a thread takes several rows from end to end and adds each to
// gradients of the parameters that are its own; these are added up in order. Where they do not, the rows are
// swept twice.

#include "backward_run.h"
#include "elements.h"
#include "stretch_sums.h"

namespace normwright::NORMWRIGHT_ISA {

// Rows that are added to the parameters' gradients at once, so that these are loaded and stored less often.
constexpr int kRowsAtOnce = 4;

template <class T>
class RowGradients {
 public:
  using C = Compute<T>;

  RowGradients(const Rows& shape, const Backward& call, Ahead ahead)
      : shape_(shape), call_(call), parameters_(shape, call.weight, call.bias), ahead_(ahead) {}

  // Σg and Σg·x̂ over a piece of a row, with g = weight·dz. Inlined: the two that a call returns would be stored one by
  // one and loaded as a pair, which waits until they have reached the cache; of a short row that was the larger part.
  template <Kind kind>
  NORMWRIGHT_INLINE Sums sums(std::int64_t row, std::int64_t piece) const {
    const std::int64_t first = piece * kRowPiece;
    BackwardRun<T> runs[1] = {run_at<kind>(row, first)};
    const RowMap<C> map = map_at(row, first);
    Sums total;
    const std::int64_t n = least(kRowPiece, shape_.length - first);
    in_chunks<kind>(runs, n, [&](int) { return map; }, [&](std::int64_t chunk, std::int64_t m) NORMWRIGHT_INLINE {
      const auto step = [&](std::int64_t k, auto lanes, Pack<C>& product) NORMWRIGHT_INLINE {
        const std::int64_t j = chunk + k;
        const Gradient<C> gradient = gradient_at<kind>(runs[0], map, j, lanes);
        const Pack<C> g = keep_or<C>(gradient.dz * load(map.weight + j, lanes), Pack<C>{}, lanes);
        product = multiply_add(g, keep_or<C>(map.normalised(gradient.t), Pack<C>{}, lanes), product);
        return g;
      };
      total.add(stretch_sums<C, Terms::rounded>(m, step));
    });
    return total;
  }

  // dx and dresidual of columns first … first + n of a row.
  template <Kind kind>
  void apply(std::int64_t row, std::int64_t first, std::int64_t n, const Sums& sums) const {
    if (is_plain<kind>() && !call_.stream) return apply_plain<1, false>(row, first, n, &sums, nullptr, nullptr);
    backward_run<kind>(run_at<kind>(row, first), n, map_at(row, first), slope_at(row, first, sums));
  }

  // The same of `rows` rows of one set, beginning with `row`; adds Σdz·x̂ and Σdz to each column's gradients.
  template <Kind kind, int rows>
  void apply_and_add(std::int64_t row, std::int64_t first, std::int64_t n, const Sums* sums, double* dweight,
                     double* dbias) const {
    if (is_plain<kind>() && !streams_rows<rows>(row, first)) {
      return apply_plain<rows, true>(row, first, n, sums, dweight, dbias);
    }
    BackwardRun<T> runs[rows];
    RowMap<C> maps[rows];
    RowSlope<C> slopes[rows];
    bool streams = true;
    for (int i = 0; i < rows; ++i) {
      const std::int64_t at = row + i * shape_.sets;
      runs[i] = run_at<kind>(at, first);
      maps[i] = map_at(at, first);
      slopes[i] = slope_at(at, first, sums[i * shape_.sets]);
      streams = streams && runs[i].stream && is_aligned(runs[i].dx) && is_aligned(runs[i].dresidual);
    }
    const auto map_of = [&](int i) { return maps[i]; };
    in_kept_chunks<kind>(runs, n, map_of, [&](std::int64_t chunk, std::int64_t m) NORMWRIGHT_INLINE {
      for_packs_of(runs[0].x, chunk, m, false, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
        const Pack<C> weight = load(maps[0].weight + j, lanes);
        Pack<C> of_weight{}, of_bias{};
        for (int i = 0; i < rows; ++i) {
          const BackwardRun<T>& run = runs[i];
          const Gradient<C> gradient = gradient_at<kind>(run, maps[i], j, lanes);
          const Pack<C> x_hat = maps[i].normalised(gradient.t);
          fetch_ahead<kind>(run, j);
          if (run.dx) put(run.dx + j, slopes[i].dx(gradient.dz * weight, x_hat), streams, lanes);
          if (run.dresidual) put(run.dresidual + j, gradient.dz, streams, lanes);
          of_weight = multiply_add(gradient.dz, x_hat, of_weight);
          of_bias += gradient.dz;
        }
        add_to(dweight + j, of_weight);
        add_to(dbias + j, of_bias);
      });
    });
  }

 private:
  // Whether dx alone is written, and there is no activation.
  template <Kind kind>
  bool is_plain() const {
    return kind == Kind::none && call_.dx && !call_.dresidual;
  }

  // Where it is plain and stored in the cache nothing is asked on the way, and one pointer serves all rows, so that the
  // loop needs few registers.
  template <int rows, bool adds>
  NORMWRIGHT_INLINE void apply_plain(std::int64_t row, std::int64_t first, std::int64_t n, const Sums* sums,
                                     double* dweight, double* dbias) const {
    RowMap<C> maps[rows];
    RowSlope<C> slopes[rows];
    for (int i = 0; i < rows; ++i) {
      maps[i] = map_at(row + i * shape_.sets, first);
      slopes[i] = slope_at(row + i * shape_.sets, first, sums[i * shape_.sets]);
    }
    const std::int64_t stride = shape_.sets * shape_.length, offset = row * shape_.length + first;
    const T* const x = static_cast<const T*>(call_.x) + offset;
    const T* const dy = static_cast<const T*>(call_.dy) + offset;
    T* const dx = static_cast<T*>(call_.dx) + offset;
    const T *const next_x = x + ahead_.x, *const next_dy = dy + ahead_.x;
    for_packs<C>(n, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
      const Pack<C> weight = load(maps[0].weight + j, lanes);
      Pack<C> of_weight{}, of_bias{};
      std::int64_t at = j;
      for (int i = 0; i < rows; ++i, at += stride) {
        const Pack<C> dz = load(dy + at, lanes);
        const Pack<C> x_hat = maps[i].normalised(maps[i].centre(load(x + at, lanes), j, lanes));
        fetch(next_x + at);
        fetch(next_dy + at);
        store(dx + at, slopes[i].dx(dz * weight, x_hat), lanes);
        of_weight = multiply_add(dz, x_hat, of_weight);
        of_bias += dz;
      }
      if constexpr (!adds) return;
      add_to(dweight + j, of_weight);
      add_to(dbias + j, of_bias);
    });
  }

  // With gradients of the parameters a row is stored around the cache where it begins with a whole pack.
  template <int rows>
  bool streams_rows(std::int64_t row, std::int64_t first) const {
    const std::int64_t step = shape_.sets * shape_.length * static_cast<std::int64_t>(sizeof(T));
    return call_.stream && (rows == 1 || step % kPackBytes == 0) &&
           is_aligned(static_cast<const T*>(call_.dx) + row * shape_.length + first);
  }
  static bool is_aligned(const T* p) { return reinterpret_cast<std::uintptr_t>(p) % kPackBytes == 0; }

  // A whole pack, of which the lanes past a part lie in the padding.
  NORMWRIGHT_INLINE static void add_to(double* sums, Pack<C> terms) {
    Wide<C> value = load_wide<C>(sums);
    value.add(widen(terms));
    store_wide<C>(sums, value);
  }

  double mean(std::int64_t row) const { return mean_at(call_.mean, row); }

  template <Kind kind>
  NORMWRIGHT_INLINE BackwardRun<T> run_at(std::int64_t row, std::int64_t first) const {
    const bool keeps = keeps_dz<kind, T>(call_, shape_.rows * shape_.length);
    return run_of<T>(call_, row * shape_.length + first, mask_offset(shape_, row, first), ahead_, keeps);
  }

  NORMWRIGHT_INLINE RowMap<C> map_at(std::int64_t row, std::int64_t first) const {
    const SplitMean<C> split(mean(row));
    const std::int64_t set = set_of(shape_, row);
    return {split.high, static_cast<C>(call_.rstd[row]), static_cast<C>(-split.low * call_.rstd[row]),
            parameters_.weight(set) + first, parameters_.bias(set) + first};
  }

  NORMWRIGHT_INLINE RowSlope<C> slope_at(std::int64_t row, std::int64_t first, const Sums& sums) const {
    const RowMap<C> map = map_at(row, first);
    const double part = -call_.rstd[row] / static_cast<double>(shape_.length);
    const double from_mean = shape_.center ? part * sums.first : 0;
    return {map.rstd, map.low, static_cast<C>(part * sums.second), static_cast<C>(from_mean), map.weight};
  }

  const Rows& shape_;
  const Backward& call_;
  ElementParameters<C> parameters_;
  Ahead ahead_;
};

// Rows begin, begin + sets, … below end, a few at once; `sums` are those of the rows from `first_row` on.
template <Kind kind, class T>
inline void apply_down(const RowGradients<T>& gradients, const Rows& shape, std::int64_t begin, std::int64_t end,
                       std::int64_t first, std::int64_t n, const Sums* sums, std::int64_t first_row, double* dweight,
                       double* dbias) {
  std::int64_t row = begin;
  if (!dweight) {
    for (; row < end; row += shape.sets) gradients.template apply<kind>(row, first, n, sums[row - first_row]);
    return;
  }
  for (; row + (kRowsAtOnce - 1) * shape.sets < end; row += kRowsAtOnce * shape.sets) {
    gradients.template apply_and_add<kind, kRowsAtOnce>(row, first, n, sums + (row - first_row), dweight, dbias);
  }
  for (; row < end; row += shape.sets) {
    gradients.template apply_and_add<kind, 1>(row, first, n, sums + (row - first_row), dweight, dbias);
  }
}

// ---- Parameter gradients of every element, in double, summed for blocks of rows

// Each set has a stretch of whole packs, so that two threads with a set each never store to the same pack.
class ElementGradients {
 public:
  ElementGradients(const Rows& shape, std::int64_t blocks)
      : shape_(shape),
        blocks_(blocks),
        padded_(quotient_up(shape.length, kPadding) * kPadding),
        values_(blocks * per_block()) {}

  void clear(std::int64_t block) const {
    for (std::int64_t i = 0; i < per_block(); ++i) dweight(block, 0)[i] = 0;
  }
  // Where there are none at all, null.
  double* dweight(std::int64_t block, std::int64_t set) const {
    return blocks_ ? values_.get() + block * per_block() + set * padded_ : nullptr;
  }
  double* dbias(std::int64_t block, std::int64_t set) const { return dweight(block, shape_.sets + set); }

  // Over the blocks in order, and over the elements that share a parameter.
  void gather(double* dweight_out, double* dbias_out) const {
    for (std::int64_t block = 1; block < blocks_; ++block) {
      for (std::int64_t i = 0; i < per_block(); ++i) dweight(0, 0)[i] += dweight(block, 0)[i];
    }
    const std::int64_t each = shape_.length / shape_.segment;
    for (std::int64_t set = 0; set < shape_.sets; ++set) {
      collect(dweight(0, set), dweight_out ? dweight_out + set * each : nullptr);
      collect(dbias(0, set), dbias_out ? dbias_out + set * each : nullptr);
    }
  }

 private:
  static constexpr std::int64_t kPadding = 16;  // of floats, the widest pack

  std::int64_t per_block() const { return 2 * shape_.sets * padded_; }
  void collect(const double* elements, double* out) const {
    for (std::int64_t p = 0; out && p < shape_.length / shape_.segment; ++p) {
      double sum = 0;
      for (std::int64_t i = 0; i < shape_.segment; ++i) sum += elements[p * shape_.segment + i];
      out[p] = sum;
    }
  }

  const Rows& shape_;
  std::int64_t blocks_, padded_;
  Scratch<double> values_;
};

inline bool wants_parameters(const Backward& call) { return call.dweight || call.dbias; }

// Blocks of rows, each with gradients of its own; without parameters, rows.
template <Kind kind, class T>
void rows_end_to_end(const Rows& shape, const Backward& call, const Parallel& parallel) {
  constexpr std::int64_t kElements = 1 << 14, kMostBlocks = 64;
  const bool wanted = wants_parameters(call);
  const std::int64_t at_once = wanted ? kRowsAtOnce * shape.sets : rows_together(shape, parallel);
  const RowGradients<T> gradients(shape, call, next_row(shape, at_once));
  // In whole rounds of the sets, so that a block has the gradients of each.
  const std::int64_t rounds = quotient_up(shape.rows, shape.sets);
  const std::int64_t by_size = quotient_up(kElements, shape.sets * shape.length);
  const std::int64_t by_count = quotient_up(rounds, kMostBlocks);
  const std::int64_t rows_per_block = wanted ? most(by_size, by_count) * shape.sets : at_once;
  const std::int64_t blocks = quotient_up(shape.rows, rows_per_block);
  const ElementGradients parameters(shape, wanted ? blocks : 0);
  for_each_index(parallel, blocks, Order::forwards, [&](std::int64_t block) {
    if (wanted) parameters.clear(block);
    BlockScratch<Sums> sums(at_once);
    const std::int64_t end = least((block + 1) * rows_per_block, shape.rows);
    for (std::int64_t row = block * rows_per_block; row < end; row += at_once) {
      const std::int64_t last = least(row + at_once, end);
      for (std::int64_t i = row; i < last; ++i) {
        sums[i - row] = total_of(
            shape, [&](std::int64_t piece) NORMWRIGHT_INLINE { return gradients.template sums<kind>(i, piece); });
      }
      for (std::int64_t set = 0; set < least(shape.sets, last - row); ++set) {
        apply_down<kind>(gradients, shape, row + set, last, 0, shape.length, &sums[0], row,
                         parameters.dweight(block, set), parameters.dbias(block, set));
      }
    }
  });
  if (wanted) parameters.gather(call.dweight, call.dbias);
}

// The gradients of a tile are added to by every row in turn.
template <Kind kind, class T>
void rows_by_tiles(const Rows& shape, const Backward& call, const Parallel& parallel) {
  const bool wanted = wants_parameters(call);
  const std::int64_t below = (wanted ? kRowsAtOnce : 1) * shape.sets * shape.length;  // what the tile takes next
  const RowGradients<T> gradients(shape, call, {below, below});
  const ElementGradients parameters(shape, wanted ? 1 : 0);
  if (wanted) parameters.clear(0);
  const Scratch<Sums> totals = totals_of(shape, parallel, [&](std::int64_t row, std::int64_t piece) {
    return gradients.template sums<kind>(row, piece);
  });
  for_tiles(shape, parallel, [&](std::int64_t set, std::int64_t first, std::int64_t n) {
    apply_down<kind>(gradients, shape, set, shape.rows, first, n, totals.get(), 0,
                     wanted ? parameters.dweight(0, set) + first : nullptr,
                     wanted ? parameters.dbias(0, set) + first : nullptr);
  });
  if (wanted) parameters.gather(call.dweight, call.dbias);
}

void elements_backward(const Rows& shape, const Backward& call, const Parallel& parallel) {
  constexpr std::int64_t kMostParameters = 1 << 13;  // two gradients in double, 128 KiB
  const Parallel threads = threads_for(parallel, shape.rows * shape.length);
  // What is summed in which order must not depend on the threads; without parameters nothing is.
  const bool tiled =
      wants_parameters(call) ? shape.sets * shape.length > kMostParameters : !enough_rows(shape, threads);
  with_type(call.dtype, [&]<class T>() {
    with_kind(call.activation, [&]<Kind kind>() {
      if (tiled) {
        rows_by_tiles<kind, T>(shape, call, threads);
      } else {
        rows_end_to_end<kind, T>(shape, call, threads);
      }
    });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
