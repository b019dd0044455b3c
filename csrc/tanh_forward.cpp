// The forward of tanh_grid.h.

#include "family.h"
#include "tanh_grid.h"

namespace normwright::NORMWRIGHT_ISA {

namespace {

template <class T, class Map>
inline void tanh_run(const TanhForward& call, std::int64_t offset, std::int64_t n, std::int64_t ahead, const Map map) {
  using C = Compute<T>;
  const T* const x = static_cast<const T*>(call.x) + offset;
  T* const y = static_cast<T*>(call.y) + offset;
  const Pack<C> alpha = broadcast(static_cast<C>(call.alpha));
  const bool streams = call.stream;
  for_packs_of(y, 0, n, streams, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
    fetch(x + j + ahead);
    put(y + j, map.affine(tanh(load(x + j, lanes) * alpha), j, lanes), streams, lanes);
  });
}

template <class T>
void forward_by_runs(const Channels& shape, const TanhForward& call, const Parallel& parallel) {
  const Slabs runs = all_runs(shape);
  const SlabPieces pieces(runs);
  for_each_index(parallel, pieces.count(), Order::forwards, [&](std::int64_t piece) {
    pieces.visit(piece, [&](std::int64_t run, std::int64_t first, std::int64_t n) {
      const RunMap<Compute<T>> map = run_map<Compute<T>>(call.weight, call.bias, 0, 1, run % shape.channels);
      tanh_run<T>(call, run * shape.inner + first, n, kRunsAhead, map);
    });
  });
}

template <class T>
class ForwardColumns {
 public:
  ForwardColumns(const Columns& shape, const ColumnGrid& grid, const TanhForward& call, std::int64_t index)
      : shape_(shape), grid_(grid), call_(call), tile_(shape, grid, index), weights_(grid.padded()) {
    fill_weights(shape, tile_, call.weight, call.bias, weights_);
  }

  void partial(std::int64_t piece) const {
    const ColumnMap<Compute<T>> map{nullptr, weights_.of(0), weights_.of(1)};
    visit_rows<1>(shape_, grid_, tile_, piece, [&](const RowOfTile& row, auto) {
      tanh_run<T>(call_, row.offset, row.columns, grid_.rows_ahead(), map);
    });
  }
  void finish() const {}

 private:
  const Columns& shape_;
  const ColumnGrid& grid_;
  const TanhForward& call_;
  Tile tile_;
  Coefficients<Compute<T>, 2> weights_;
};

}  // namespace

void channel_tanh(const Channels& shape, const TanhForward& call, const Parallel& parallel) {
  if (elements_of(shape) == 0) return;
  const Parallel threads = threads_for(parallel, elements_of(shape));
  with_type(call.dtype, [&]<class T>() {
    if (has_long_runs(shape)) return forward_by_runs<T>(shape, call, threads);
    const Columns columns = all_columns(shape);
    const ColumnGrid grid(columns, true);
    sweep_once(threads, grid.tiles(), grid.pieces(),
               [&](std::int64_t index) { return ForwardColumns<T>(columns, grid, call, index); });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
