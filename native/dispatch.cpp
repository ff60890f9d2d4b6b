// Which instruction sets exist in this build, and which one this processor gets.
#include <string_view>

#include "kernels.h"

namespace quipu {

namespace scalar {
extern const Kernels kernels;
}
#ifdef QUIPU_X86
namespace avx2 {
extern const Kernels kernels;
}
#endif

const Kernels *select_kernels(const char *requested) {
    const std::string_view name = requested ? requested : "";
#ifdef QUIPU_X86
    const bool has_avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (has_avx2 && (name.empty() || name == "avx2"))
        return &avx2::kernels;
#endif
    return name.empty() || name == "scalar" ? &scalar::kernels : nullptr;
}

} // namespace quipu
