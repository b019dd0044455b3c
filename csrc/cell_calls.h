// The operators of an LSTM's cell around their kernels. They write to tensors that they are given, which may be
// the rows of one step in a tensor of all steps.

#pragma once

#include <initializer_list>

#include "calls.h"

namespace normwright {

inline Tensor dense(const Tensor& t, ScalarType dtype) { return *vector_of(t, dtype); }

// What a kernel writes: `given` itself where it is dense, else a copy that `give_back` copies to it.
class Written {
 public:
  Written(const char* name, const Tensor& given, ScalarType dtype) : given_(given), dense_(dense(given, dtype)) {
    check_is_written(name, given);
  }

  void* data() const { return dense_.mutable_data_ptr(); }
  const Tensor& whole() const { return dense_; }
  void give_back() {
    if (dense_.get() != given_.get()) torch::stable::copy_(given_, dense_);
  }

 private:
  Tensor given_, dense_;
};

struct Named {
  const char* name;
  const Tensor& tensor;
};

// The sizes that the kernels go by, once all tensors are seen to have them.
inline Cells cells_of(const Tensor& before, std::initializer_list<Named> of_units,
                      std::initializer_list<Named> of_gates) {
  check_floating("before", before);
  STD_TORCH_CHECK(before.dim() == 2, "before must be (N, H), but has shape ", listed(sizes_of(before)));
  const Cells cells{before.size(0), before.size(1)};
  const std::int64_t units[] = {cells.rows, cells.units}, gates[] = {cells.rows, 4 * cells.units};
  const auto check = [&](std::initializer_list<Named> all, Sizes sizes, const char* why) {
    for (const auto& [name, t] : all) {
      check_sizes(name, t, sizes, why);
      check_same_dtype(name, t, "before", before);
    }
  };
  check(of_units, units, "(N, H) as before");
  check(of_gates, gates, "(N, 4·H) where before is (N, H)");
  return cells;
}

// Of what the kernel is given: what is not dense it has a copy of.
inline void check_same_or_apart(const Written& written, const Tensor& read) {
  STD_TORCH_CHECK(same_or_apart(written.whole(), read),
                  "what an LSTM's cell writes must be what it reads, or apart from it");
}

inline void check_apart(const Written& written, const Tensor& other) {
  STD_TORCH_CHECK(are_apart(written.whole(), other),
                  "gates and units that an LSTM's cell writes must be apart in memory from all others");
}

inline void lstm_cell(const Tensor& z, const Tensor& before, const Tensor& gates, const Tensor& cell) {
  const Cells cells = cells_of(before, {{"cell", cell}}, {{"z", z}, {"gates", gates}});
  const ScalarType dtype = z.scalar_type();
  const Tensor from = dense(z, dtype), dense_before = dense(before, dtype);
  Written to("gates", gates, dtype), dense_cell("cell", cell, dtype);
  check_same_or_apart(to, from);
  check_same_or_apart(dense_cell, dense_before);
  check_apart(to, dense_before);
  check_apart(to, dense_cell.whole());
  check_apart(dense_cell, from);
  const CellForward call{dtype_of(z), from.const_data_ptr(), dense_before.const_data_ptr(), to.data(),
                         dense_cell.data()};
  kernels().lstm_cell(cells, call, parallel());
  to.give_back();
  dense_cell.give_back();
}

inline void lstm_cell_backward(const Tensor& dh, const Tensor& squashed, const Tensor& through, const Tensor& gates,
                               const Tensor& before, const Tensor& dcell, const Tensor& dz) {
  const Cells cells = cells_of(
      before, {{"dh", dh}, {"squashed", squashed}, {"through", through}, {"dcell", dcell}},
      {{"gates", gates}, {"dz", dz}});
  const ScalarType dtype = gates.scalar_type();
  const Tensor read[] = {dense(dh, dtype), dense(squashed, dtype), dense(through, dtype), dense(gates, dtype),
                         dense(before, dtype)};
  Written moved("dcell", dcell, dtype), to("dz", dz, dtype);
  const Tensor& dense_gates = read[3];
  check_same_or_apart(to, dense_gates);
  check_apart(moved, dense_gates);
  check_apart(to, moved.whole());
  for (const Tensor* const t : {&read[0], &read[1], &read[2], &read[4]}) {
    check_same_or_apart(moved, *t);
    check_apart(to, *t);
  }
  const CellBackward call{dtype_of(gates),          read[0].const_data_ptr(), read[1].const_data_ptr(),
                          read[2].const_data_ptr(), read[3].const_data_ptr(), read[4].const_data_ptr(),
                          moved.data(),             to.data()};
  kernels().lstm_cell_backward(cells, call, parallel());
  moved.give_back();
  to.give_back();
}

}  // namespace normwright
