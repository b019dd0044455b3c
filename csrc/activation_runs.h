// The activations that cost more than the rest of an inner loop, over buffers in the first cache: each in a loop of
// its own, which holds its constants in registers, and not in every inner loop that may need it.

#pragma once

#include "activation.h"

namespace normwright::NORMWRIGHT_ISA {

// Elements that are computed at a time; a multiple of 8, so that a chunk begins on a byte of a mask.
constexpr std::int64_t kChunk = 256;

// A pack that begins anywhere in the chunk can be loaded and stored whole.
template <class C>
struct Chunk {
  alignas(64) C values[kChunk + kLanes<C>];
};

// z becomes activation(z), for the first n elements.
void activate_chunk(Activation, float* z, std::int64_t n);
void activate_chunk(Activation, double* z, std::int64_t n);

// z becomes dy·activation'(z).
void differentiate_chunk(Activation, const float* dy, float* z, std::int64_t n);
void differentiate_chunk(Activation, const double* dy, double* z, std::int64_t n);
void differentiate_chunk(Activation, const BFloat16* dy, float* z, std::int64_t n);
void differentiate_chunk(Activation, const Float16* dy, float* z, std::int64_t n);

}  // namespace normwright::NORMWRIGHT_ISA
