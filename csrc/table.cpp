// The kernels of one instruction set in one table, for dispatch.cpp.

#include "family.h"

namespace normwright::NORMWRIGHT_ISA {

#define NORMWRIGHT_QUOTED(name) #name
#define NORMWRIGHT_NAME(macro) NORMWRIGHT_QUOTED(macro)

const Kernels kernels{
    NORMWRIGHT_NAME(NORMWRIGHT_ISA),
    rows_forward,
    rows_backward,
    channels_forward,
    channels_backward,
    channel_affine,
    channel_affine_backward,
    channel_moments,
    parts_forward,
    parts_backward,
    channel_tanh,
    channel_tanh_backward,
    groups_forward,
    groups_backward,
    lstm_cell,
    lstm_cell_backward,
};

}  // namespace normwright::NORMWRIGHT_ISA
