// Which kernels this processor can run.

#include "kernels.h"

namespace normwright {

// table.cpp, compiled for each instruction set.
namespace x86_64_v4 {
extern const Kernels kernels;
}
namespace x86_64_v3 {
extern const Kernels kernels;
}
namespace baseline {
extern const Kernels kernels;
}

const Kernels* const* available_kernels() {
#if defined(__x86_64__)
  static const Kernels* const v3[] = {&x86_64_v3::kernels, &baseline::kernels, nullptr};
#if !defined(NORMWRIGHT_WITHOUT_X86_64_V4)
  static const Kernels* const v4[] = {&x86_64_v4::kernels, v3[0], v3[1], nullptr};
  if (__builtin_cpu_supports("x86-64-v4")) return v4;
#endif
  return __builtin_cpu_supports("x86-64-v3") ? v3 : v3 + 1;
#else
  static const Kernels* const all[] = {&baseline::kernels, nullptr};
  return all;
#endif
}

}  // namespace normwright
