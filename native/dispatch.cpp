// Which instruction sets exist in this build, and which one this processor gets.
#include "kernels.h"

#include <algorithm>
#include <string_view>

#include "processor.h"

namespace quipu {

namespace scalar {
extern const Kernels kernels;
}
#ifdef QUIPU_X86
namespace avx2 {
extern const Kernels kernels;
}
namespace avxvnni {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx512bf16 {
extern const Kernels kernels;
}
namespace amx {
extern const Kernels kernels;
}
#endif
#ifdef QUIPU_ARM64
namespace neon {
extern const Kernels kernels;
}
namespace neon_dotprod {
extern const Kernels kernels;
}
namespace neon_i8mm {
extern const Kernels kernels;
}
#endif

const std::vector<InstructionSet> &instruction_sets() {
    static const std::vector<InstructionSet> sets = [] {
        const Processor cpu = detect_processor();
        std::vector<InstructionSet> found = {{&scalar::kernels, true, true}};
#ifdef QUIPU_X86
        const bool has_avx2 = cpu.avx2 && cpu.fma && cpu.f16c;
        const bool has_avx512 =
            has_avx2 && cpu.avx512f && cpu.avx512bw && cpu.avx512dq && cpu.avx512vl && cpu.avx512vnni;
        found.push_back({&avx2::kernels, has_avx2, true});
        found.push_back({&avxvnni::kernels, has_avx2 && cpu.avxvnni, true});
        found.push_back({&avx512bf16::kernels, has_avx512 && cpu.avx512bf16, false});
        found.push_back({&avx512::kernels, has_avx512, true});
        found.push_back({&amx::kernels, has_avx512 && cpu.amx_tile && cpu.amx_int8 && cpu.amx_bf16, true});
#endif
#ifdef QUIPU_ARM64
        found.push_back({&neon::kernels, true, true});
        found.push_back({&neon_dotprod::kernels, cpu.dotprod, true});
        found.push_back({&neon_i8mm::kernels, cpu.dotprod && cpu.i8mm, true});
#endif
        (void)cpu;
        return found;
    }();
    return sets;
}

const Kernels *select_kernels(const char *requested) {
    const std::string_view name = requested ? requested : "";
    const auto &sets = instruction_sets();
    const auto chosen = std::find_if(sets.rbegin(), sets.rend(), [&](const InstructionSet &set) {
        return set.supported && (name.empty() ? set.automatic : name == set.kernels->name);
    });
    return chosen == sets.rend() ? nullptr : chosen->kernels;
}

} // namespace quipu
