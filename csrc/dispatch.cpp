// Which kernels this processor can run.

#include "kernels.h"

namespace normwright {

// table.cpp, compiled for each instruction set.
#if defined(NORMWRIGHT_ONLY_ISA)

namespace NORMWRIGHT_ONLY_ISA {
extern const Kernels kernels;
}

const Kernels* const* available_kernels() {
  static const Kernels* const only[] = {&NORMWRIGHT_ONLY_ISA::kernels, nullptr};
  return only;
}

#else

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
  static const Kernels* const all[] = {&x86_64_v4::kernels, &x86_64_v3::kernels, &baseline::kernels, nullptr};
  if (__builtin_cpu_supports("x86-64-v4")) return all;
  return __builtin_cpu_supports("x86-64-v3") ? all + 1 : all + 2;
}

#endif

}  // namespace normwright
