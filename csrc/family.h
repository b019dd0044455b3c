// The kernels of one instruction set, as `kernels.h` describes them; and what they do with no elements.

#pragma once

#include <initializer_list>
#include <limits>

#include "kernels.h"

namespace normwright::NORMWRIGHT_ISA {

void rows_forward(const Rows&, const Forward&, const Parallel&);
void rows_backward(const Rows&, const Backward&, const Parallel&);
void channels_forward(const Channels&, const Forward&, const Parallel&);
void channels_backward(const Channels&, const Backward&, const Parallel&);
void channel_affine(const Channels&, const Forward&, const Parallel&);
void channel_affine_backward(const Channels&, const Backward&, const Parallel&);
void channel_moments(const Channels&, Dtype, const void* x, double* mean, double* m2, const Parallel&);
void parts_forward(const Parts&, const Forward&, const Parallel&);
void parts_backward(const Parts&, const Backward&, const Parallel&);
void channel_tanh(const Channels&, const TanhForward&, const Parallel&);
void channel_tanh_backward(const Channels&, const TanhBackward&, const Parallel&);
void groups_forward(const Groups&, const Forward&, const Parallel&);
void groups_backward(const Groups&, const Backward&, const Parallel&);
void lstm_cell(const Cells&, const CellForward&, const Parallel&);
void lstm_cell_backward(const Cells&, const CellBackward&, const Parallel&);

extern const Kernels kernels;  // table.cpp

// The moments of nothing are not a number.
inline void without_elements(const Forward& call, std::int64_t moments) {
  for (double* values : {call.mean, call.rstd, call.variance}) {
    for (std::int64_t i = 0; values && i < moments; ++i) values[i] = std::numeric_limits<double>::quiet_NaN();
  }
}

inline void without_elements(const Backward& call, std::int64_t parameters) {
  for (double* values : {call.dweight, call.dbias}) {
    for (std::int64_t i = 0; values && i < parameters; ++i) values[i] = 0;
  }
}

}  // namespace normwright::NORMWRIGHT_ISA
