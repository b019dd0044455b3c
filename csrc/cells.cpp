// The cell of an LSTM, one sweep each way over what else is some ten small operators. Every element is by itself.

#include "activation.h"
#include "epilogue.h"
#include "family.h"
#include "schedule.h"

namespace normwright::NORMWRIGHT_ISA {

namespace {

// Where the gates of a row begin.
template <class T>
struct Gates {
  T *i, *f, *g, *o;

  Gates(T* all, const Cells& shape, std::int64_t row) : i(all + row * 4 * shape.units) {
    f = i + shape.units;
    g = f + shape.units;
    o = g + shape.units;
  }
};

template <class T>
Gates<const T> gates_of(const void* all, const Cells& shape, std::int64_t row) {
  return {static_cast<const T*>(all), shape, row};
}
template <class T>
Gates<T> gates_of(void* all, const Cells& shape, std::int64_t row) {
  return {static_cast<T*>(all), shape, row};
}

template <class T>
void forward_row(const Cells& shape, const CellForward& call, std::int64_t row) {
  using C = Compute<T>;
  const Gates<const T> z = gates_of<T>(call.z, shape, row);
  const Gates<T> gates = gates_of<T>(call.gates, shape, row);
  const T* const before = static_cast<const T*>(call.before) + row * shape.units;
  T* const cell = static_cast<T*>(call.cell) + row * shape.units;
  for_packs<C>(shape.units, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
    const Pack<C> i = sigmoid<C>(load(z.i + j, lanes)), f = sigmoid<C>(load(z.f + j, lanes));
    const Pack<C> g = tanh(load(z.g + j, lanes)), o = sigmoid<C>(load(z.o + j, lanes));
    const Pack<C> c = multiply_add(f, load(before + j, lanes), i * g);
    store(gates.i + j, i, lanes);
    store(gates.f + j, f, lanes);
    store(gates.g + j, g, lanes);
    store(gates.o + j, o, lanes);
    store(cell + j, c, lanes);
  });
}

// dy·σ′ where y = σ.
template <class C>
NORMWRIGHT_INLINE inline Pack<C> through_sigmoid(Pack<C> dy, Pack<C> y) {
  return dy * (y * (C{1} - y));
}

template <class T>
void backward_row(const Cells& shape, const CellBackward& call, std::int64_t row) {
  using C = Compute<T>;
  const Gates<const T> gates = gates_of<T>(call.gates, shape, row);
  const Gates<T> dz = gates_of<T>(call.dz, shape, row);
  const auto in = [&](const void* p) { return static_cast<const T*>(p) + row * shape.units; };
  const T *const dh = in(call.dh), *const squashed = in(call.squashed), *const through = in(call.through);
  const T* const before = in(call.before);
  T* const dcell = static_cast<T*>(call.dcell) + row * shape.units;
  for_packs<C>(shape.units, [&](std::int64_t j, auto lanes) NORMWRIGHT_INLINE {
    const Pack<C> i = load(gates.i + j, lanes), f = load(gates.f + j, lanes);
    const Pack<C> g = load(gates.g + j, lanes), o = load(gates.o + j, lanes);
    const Pack<C> dc = load(dcell + j, lanes) + load(through + j, lanes);
    const Pack<C> of_o = load(dh + j, lanes) * load(squashed + j, lanes);
    store(dz.i + j, through_sigmoid<C>(dc * g, i), lanes);
    store(dz.f + j, through_sigmoid<C>(dc * load(before + j, lanes), f), lanes);
    store(dz.g + j, dc * i * multiply_add(-g, g, broadcast(C{1})), lanes);
    store(dz.o + j, through_sigmoid<C>(of_o, o), lanes);
    store(dcell + j, dc * f, lanes);
  });
}

Parallel threads_for_gates(const Parallel& parallel, const Cells& shape) {
  return threads_for(parallel, 4 * shape.rows * shape.units);
}

}  // namespace

void lstm_cell(const Cells& shape, const CellForward& call, const Parallel& parallel) {
  with_type(call.dtype, [&]<class T>() {
    for_each_index(threads_for_gates(parallel, shape), shape.rows, Order::forwards,
                   [&](std::int64_t row) { forward_row<T>(shape, call, row); });
  });
}

void lstm_cell_backward(const Cells& shape, const CellBackward& call, const Parallel& parallel) {
  with_type(call.dtype, [&]<class T>() {
    for_each_index(threads_for_gates(parallel, shape), shape.rows, Order::forwards,
                   [&](std::int64_t row) { backward_row<T>(shape, call, row); });
  });
}

}  // namespace normwright::NORMWRIGHT_ISA
