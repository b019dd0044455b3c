// The backward of tanh_grid.h. With t = tanh(alpha·x), which is computed again,
//
//   dx = alpha·weight·dy·(1 − t²),  dweight = Σdy·t,  dbias = Σdy,  dalpha = Σweight·dy·(1 − t²)·x.

#include "family.h"
#include "tanh_grid.h"

namespace normwright::NORMWRIGHT_ISA {

namespace {

// Where a run begins in each tensor.
template <class T>
struct RunOfTanh {
  const T *dy, *x;
  T* dx;

  const T* leader() const { return dx ? dx : x; }
  RunOfTanh on(std::int64_t step) const { return {dy + step, x + step, dx ? dx + step : nullptr}; }
};

template <class T>
inline RunOfTanh<T> run_at(const TanhBackward& call, std::int64_t offset) {
  const RunOfTanh<T> all{static_cast<const T*>(call.dy), static_cast<const T*>(call.x), static_cast<T*>(call.dx)};
  return all.on(offset);
}

template <class T>
inline bool is_aligned(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % (kLanes<Compute<T>> * sizeof(T)) == 0;
}

template <class C>
struct GradientOfTanh {
  Pack<C> dy, x, t, dz;  // dz = dy·(1 − t²)
};

template <class T, class Lanes>
NORMWRIGHT_INLINE inline GradientOfTanh<Compute<T>> gradient_at(const RunOfTanh<T>& run, Pack<Compute<T>> alpha,
                                                               std::int64_t j, std::int64_t ahead, Lanes lanes) {
  using C = Compute<T>;
  const Pack<C> dy = load(run.dy + j, lanes), x = load(run.x + j, lanes);
  fetch(run.dy + j + ahead);
  fetch(run.x + j + ahead);
  const Pack<C> t = tanh(x * alpha);
  return {dy, x, t, dy * multiply_add(-t, t, broadcast(C{1}))};
}

// Σdy·(1 − t²)·x, Σdy·t and Σdy of a channel, or a part of them.
struct TanhSums {
  double alpha = 0, weight = 0, bias = 0;

  void add(const TanhSums& other) {
    alpha += other.alpha;
    weight += other.weight;
    bias += other.bias;
  }
};

// Channels are kept in turn.
void keep(const TanhBackward& call, std::int64_t channel, const TanhSums& sums, double weight) {
  if (call.dalpha) *call.dalpha += sums.alpha * weight;
  if (call.dweight) call.dweight[channel] = sums.weight;
  if (call.dbias) call.dbias[channel] = sums.bias;
}

// ---- Runs of one channel

template <class T>
inline TanhSums backward_run(const TanhBackward& call, std::int64_t offset, std::int64_t n, double weight) {
  using C = Compute<T>;
  const RunOfTanh<T> run = run_at<T>(call, offset);
  const Pack<C> alpha = broadcast(static_cast<C>(call.alpha)), none{};
  const Pack<C> slope = broadcast(static_cast<C>(call.alpha * weight));
  // A first pack that is a part, so that the rest is aligned, would change the order of the sums.
  const bool streams = call.stream && is_aligned(run.dx);
  Wide<C> of_alpha{}, of_weight{}, of_bias{};
  for_packs<C>(n, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
    const GradientOfTanh<C> at = gradient_at(run, alpha, j, kRunsAhead, lanes);
    if (run.dx) put(run.dx + j, at.dz * slope, streams, lanes);
    const Wide<C> dy = widen(at.dy);
    of_bias.add(dy);
    of_weight.add_product(dy, widen(keep_or<C>(at.t, none, lanes)));
    of_alpha.add_product(widen(keep_or<C>(at.dz, none, lanes)), widen(at.x));
  });
  return {of_alpha.total(), of_weight.total(), of_bias.total()};
}

template <class T>
void backward_by_runs(const Channels& shape, const TanhBackward& call, const Parallel& parallel) {
  const Slabs runs = all_runs(shape);
  const SlabPieces pieces(runs);
  const std::int64_t chunks = pieces.chunks();
  const auto weight = [&](std::int64_t channel) { return parameter_at<Compute<T>>(call.weight, channel, 1); };
  const Scratch<TanhSums> sums(shape.outer * shape.channels * chunks);
  for_each_index(parallel, pieces.count(), Order::forwards, [&](std::int64_t piece) {
    pieces.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      sums[run * chunks + pieces.chunk_of(first)] =
          backward_run<T>(call, run * shape.inner + first, n, weight(run % shape.channels));
    });
  });
  for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
    TanhSums total;
    for (std::int64_t outer = 0; outer < shape.outer; ++outer) {
      const std::int64_t run = outer * shape.channels + channel;
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total.add(sums[run * chunks + chunk]);
    }
    keep(call, channel, total, weight(channel));
  }
}

// ---- Rows of all channels

// Rows that are added to the columns' sums at once, so that these are loaded and stored less often.
constexpr int kRowsOfTanh = 4;

// The sums of each column of a tile, for each piece.
class TanhColumnSums {
 public:
  TanhColumnSums(std::int64_t pieces, std::int64_t padded) : padded_(padded), values_(3 * pieces * padded) {}

  double* alpha(std::int64_t piece) const { return values_.get() + 3 * piece * padded_; }
  double* weight(std::int64_t piece) const { return alpha(piece) + padded_; }
  double* bias(std::int64_t piece) const { return weight(piece) + padded_; }
  void clear(std::int64_t piece) const {
    for (std::int64_t j = 0; j < 3 * padded_; ++j) alpha(piece)[j] = 0;
  }
  // Piece 0 becomes the sum over all pieces, in order.
  void gather(std::int64_t pieces) const {
    for (std::int64_t piece = 1; piece < pieces; ++piece) {
      for (std::int64_t j = 0; j < 3 * padded_; ++j) alpha(0)[j] += alpha(piece)[j];
    }
  }

 private:
  std::int64_t padded_;
  Scratch<double> values_;
};

template <class C>
inline void add_to(double* sums, Pack<C> terms) {
  Wide<C> value = load_wide<C>(sums);
  value.add(widen(terms));
  store_wide<C>(sums, value);
}

template <class T>
class BackwardColumns {
 public:
  using C = Compute<T>;

  BackwardColumns(const Columns& shape, const ColumnGrid& grid, const TanhBackward& call, std::int64_t index)
      : shape_(shape),
        grid_(grid),
        call_(call),
        tile_(shape, grid, index),
        slopes_(grid.padded()),
        sums_(grid.pieces(), grid.padded()) {
    for (std::int64_t c = 0; c < tile_.channels; ++c) {
      const C slope = static_cast<C>(call.alpha * weight(c));
      for_columns_of(shape, tile_, c, [&](std::int64_t j) { slopes_.of(0)[j] = slope; });
    }
  }

  void partial(std::int64_t piece) const {
    sums_.clear(piece);
    const auto visit = [&](const RowOfTile& row, auto count) { add_rows<count()>(row, piece); };
    // Together rows are stored around the cache only where they begin alike.
    if (grid_.row_length() % kLanes<C> == 0) {
      visit_rows<kRowsOfTanh>(shape_, grid_, tile_, piece, visit);
    } else {
      visit_rows<1>(shape_, grid_, tile_, piece, visit);
    }
  }

  void finish() const {
    sums_.gather(grid_.pieces());
    for (std::int64_t c = 0; c < tile_.channels; ++c) {
      TanhSums total;
      for_columns_of(shape_, tile_, c, [&](std::int64_t j) {
        total.add({sums_.alpha(0)[j], sums_.weight(0)[j], sums_.bias(0)[j]});
      });
      keep(call_, tile_.first_channel + c, total, weight(c));
    }
  }

 private:
  double weight(std::int64_t c) const { return parameter_at<C>(call_.weight, tile_.first_channel + c, 1); }

  template <int rows>
  void add_rows(const RowOfTile& row, std::int64_t piece) const {
    const Pack<C> alpha = broadcast(static_cast<C>(call_.alpha)), none{};
    const C* const slopes = slopes_.of(0);
    const std::int64_t ahead = grid_.rows_ahead();
    const bool streams = call_.stream;
    double *const of_alpha = sums_.alpha(piece), *const of_weight = sums_.weight(piece);
    double* const of_bias = sums_.bias(piece);
    const RunOfTanh<T> first = run_at<T>(call_, row.offset);
    for_packs_of(first.leader(), 0, row.columns, streams, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
      const Pack<C> slope = load(slopes + j, Full{});
      Wide<C> alpha_sum = load_wide<C>(of_alpha + j);
      Pack<C> weight_sum{}, bias_sum{};
      for (int i = 0; i < rows; ++i) {
        const RunOfTanh<T> run = first.on(i * row.step);
        const GradientOfTanh<C> at = gradient_at(run, alpha, j, ahead, lanes);
        if (run.dx) put(run.dx + j, at.dz * slope, streams, lanes);
        weight_sum = multiply_add(at.dy, at.t, weight_sum);
        bias_sum += at.dy;
        // What lies past the last, incomplete row belongs to other channels.
        alpha_sum.add_product(widen(keep_or<C>(at.dz, none, lanes)), widen(at.x));
      }
      store_wide<C>(of_alpha + j, alpha_sum);
      add_to<C>(of_weight + j, keep_or<C>(weight_sum, none, lanes));
      add_to<C>(of_bias + j, bias_sum);
    });
  }

  const Columns& shape_;
  const ColumnGrid& grid_;
  const TanhBackward& call_;
  Tile tile_;
  Coefficients<C, 1> slopes_;
  TanhColumnSums sums_;
};

void without_elements(const Channels& shape, const TanhBackward& call) {
  for (std::int64_t c = 0; call.dweight && c < shape.channels; ++c) call.dweight[c] = 0;
  for (std::int64_t c = 0; call.dbias && c < shape.channels; ++c) call.dbias[c] = 0;
}

}  // namespace

void channel_tanh_backward(const Channels& shape, const TanhBackward& call, const Parallel& parallel) {
  if (call.dalpha) *call.dalpha = 0;
  if (elements_of(shape) == 0) return without_elements(shape, call);
  const Parallel threads = threads_for(parallel, elements_of(shape));
  with_type(call.dtype, [&]<class T>() {
    if (has_long_runs(shape)) return backward_by_runs<T>(shape, call, threads);
    const Columns columns = all_columns(shape);
    const ColumnGrid grid(columns, true);
    sweep_once(threads, grid.tiles(), grid.pieces(),
               [&](std::int64_t index) { return BackwardColumns<T>(columns, grid, call, index); });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
