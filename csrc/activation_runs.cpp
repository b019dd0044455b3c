// See activation_runs.h.

#include "activation_runs.h"

namespace normwright::NORMWRIGHT_ISA {

namespace {

// Calls loop.operator()<activation>(), so that the activation is known when the loop is compiled.
template <class Loop>
void with_activation(Activation activation, const Loop& loop) {
  switch (activation) {
    case Activation::none:
      return loop.template operator()<Activation::none>();
    case Activation::relu:
      return loop.template operator()<Activation::relu>();
    case Activation::leaky_relu:
      return loop.template operator()<Activation::leaky_relu>();
    case Activation::silu:
      return loop.template operator()<Activation::silu>();
    case Activation::gelu:
      return loop.template operator()<Activation::gelu>();
    case Activation::sigmoid:
      return loop.template operator()<Activation::sigmoid>();
    case Activation::tanh:
      return loop.template operator()<Activation::tanh>();
  }
}

template <class C>
void activate_all(Activation activation, C* z, std::int64_t n) {
  with_activation(activation, [&]<Activation known>() {
    for (std::int64_t j = 0; j < n; j += kLanes<C>) store(z + j, activate<C>(load(z + j, Full{}), known), Full{});
  });
}

template <class T>
void differentiate_all(Activation activation, const T* dy, Compute<T>* z, std::int64_t n) {
  using C = Compute<T>;
  with_activation(activation, [&]<Activation known>() {
    for_packs<C>(n, [&](std::int64_t j, auto lanes) {
      store(z + j, through_activation<C>(load(dy + j, lanes), load(z + j, Full{}), known), Full{});
    });
  });
}

}  // namespace

void activate_chunk(Activation activation, float* z, std::int64_t n) { activate_all(activation, z, n); }
void activate_chunk(Activation activation, double* z, std::int64_t n) { activate_all(activation, z, n); }

void differentiate_chunk(Activation activation, const float* dy, float* z, std::int64_t n) {
  differentiate_all(activation, dy, z, n);
}
void differentiate_chunk(Activation activation, const double* dy, double* z, std::int64_t n) {
  differentiate_all(activation, dy, z, n);
}
void differentiate_chunk(Activation activation, const BFloat16* dy, float* z, std::int64_t n) {
  differentiate_all(activation, dy, z, n);
}
void differentiate_chunk(Activation activation, const Float16* dy, float* z, std::int64_t n) {
  differentiate_all(activation, dy, z, n);
}

}  // namespace normwright::NORMWRIGHT_ISA
