// The kernels of every instruction set in one table, and which of them this processor can run.

#include "kernels.h"

#define NORMWRIGHT_KERNELS_OF(isa)                                                                  \
  namespace isa {                                                                                   \
  void rows_forward(const Rows&, const Forward&, const Parallel&);                                  \
  void rows_backward(const Rows&, const Backward&, const Parallel&);                                \
  void channels_forward(const Channels&, const Forward&, const Parallel&);                          \
  void channels_backward(const Channels&, const Backward&, const Parallel&);                        \
  void channel_affine(const Channels&, const Forward&, const Parallel&);                            \
  void channel_affine_backward(const Channels&, const Backward&, const Parallel&);                  \
  void channel_moments(const Channels&, Dtype, const void*, double*, double*, const Parallel&);     \
  void groups_forward(const Groups&, const Forward&, const Parallel&);                              \
  void groups_backward(const Groups&, const Backward&, const Parallel&);                            \
  static const Kernels kernels{#isa,           rows_forward,     rows_backward,                     \
                               channels_forward, channels_backward, channel_affine,                 \
                               channel_affine_backward, channel_moments, groups_forward,            \
                               groups_backward};                                                    \
  }

namespace normwright {

#if defined(__x86_64__)
NORMWRIGHT_KERNELS_OF(x86_64_v4)
NORMWRIGHT_KERNELS_OF(x86_64_v3)
#endif
NORMWRIGHT_KERNELS_OF(baseline)

const Kernels* const* available_kernels() {
  static const Kernels* const all[] = {
#if defined(__x86_64__)
      &x86_64_v4::kernels, &x86_64_v3::kernels,
#endif
      &baseline::kernels, nullptr};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("x86-64-v4")) return all;
  if (__builtin_cpu_supports("x86-64-v3")) return all + 1;
  return all + 2;
#else
  return all;
#endif
}

}  // namespace normwright
