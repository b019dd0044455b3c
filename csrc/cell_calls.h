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
  Written(const Tensor& given, ScalarType dtype) : given_(given), dense_(dense(given, dtype)) {}

  void* data() const { return dense_.mutable_data_ptr(); }
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

inline void check_same_or_apart(const Tensor& written, const Tensor& read) {
  STD_TORCH_CHECK(same_or_apart(written, read), "what an LSTM's cell writes must be what it reads, or apart from it");
}

inline void lstm_cell(const Tensor& z, const Tensor& before, const Tensor& gates, const Tensor& cell) {
  const Cells cells = cells_of(before, {{"cell", cell}}, {{"z", z}, {"gates", gates}});
  check_same_or_apart(gates, z);
  check_same_or_apart(cell, before);
  const ScalarType dtype = z.scalar_type();
  const Tensor from = dense(z, dtype), dense_before = dense(before, dtype);
  Written to(gates, dtype), dense_cell(cell, dtype);
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
  check_same_or_apart(dz, gates);
  for (const Tensor* t : {&before, &dh, &squashed, &through}) check_same_or_apart(dcell, *t);
  const ScalarType dtype = gates.scalar_type();
  const Tensor read[] = {dense(dh, dtype), dense(squashed, dtype), dense(through, dtype), dense(gates, dtype),
                         dense(before, dtype)};
  Written moved(dcell, dtype), to(dz, dtype);
  const CellBackward call{dtype_of(gates),          read[0].const_data_ptr(), read[1].const_data_ptr(),
                          read[2].const_data_ptr(), read[3].const_data_ptr(), read[4].const_data_ptr(),
                          moved.data(),             to.data()};
  kernels().lstm_cell_backward(cells, call, parallel());
  moved.give_back();
  to.give_back();
}

}  // namespace normwright
