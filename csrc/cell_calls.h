// The operators of an LSTM's cell around their kernels. They write to tensors that they are given, which may be
// the rows of one step in a tensor of all steps.

#pragma once

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

inline Cells cells_of(const Tensor& before) { return {before.size(0), before.size(1)}; }

inline void lstm_cell(const Tensor& z, const Tensor& before, const Tensor& gates, const Tensor& cell) {
  const ScalarType dtype = z.scalar_type();
  const Tensor from = dense(z, dtype), dense_before = dense(before, dtype);
  Written to(gates, dtype), dense_cell(cell, dtype);
  const CellForward call{dtype_of(z), from.const_data_ptr(), dense_before.const_data_ptr(), to.data(),
                         dense_cell.data()};
  kernels().lstm_cell(cells_of(before), call, parallel());
  to.give_back();
  dense_cell.give_back();
}

inline void lstm_cell_backward(const Tensor& dh, const Tensor& squashed, const Tensor& through, const Tensor& gates,
                               const Tensor& before, const Tensor& dcell, const Tensor& dz) {
  const ScalarType dtype = gates.scalar_type();
  const Tensor read[] = {dense(dh, dtype), dense(squashed, dtype), dense(through, dtype), dense(gates, dtype),
                         dense(before, dtype)};
  Written moved(dcell, dtype), to(dz, dtype);
  const CellBackward call{dtype_of(gates),          read[0].const_data_ptr(), read[1].const_data_ptr(),
                          read[2].const_data_ptr(), read[3].const_data_ptr(), read[4].const_data_ptr(),
                          moved.data(),             to.data()};
  kernels().lstm_cell_backward(cells_of(before), call, parallel());
  moved.give_back();
  to.give_back();
}

}  // namespace normwright
