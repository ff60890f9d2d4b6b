// What the processor offers and the operating system lets programs use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace quipu {

struct Processor {
    // x86. A flag is set only where the system saves the registers that it needs.
    bool avx2 = false, fma = false, f16c = false, avxvnni = false;
    bool avx512f = false, avx512bw = false, avx512dq = false, avx512vl = false, avx512vnni = false, avx512bf16 = false;
    bool amx_tile = false, amx_int8 = false, amx_bf16 = false;
    // 64-bit ARM.
    bool dotprod = false, i8mm = false;
};

// Asks the processor, and on Linux the kernel for permission to use the matrix registers of AMX.
Processor detect_processor();

// The names of the flags that are set, as Linux spells them where it has a name.
std::vector<std::string> feature_names(const Processor &processor);

// Hardware threads that this process may run on.
int usable_processors();

// How often the system has taken the processor from the calling thread; where it does not tell, a new number each time.
int64_t involuntary_switches();

// For how long the calling thread has run on a processor.
int64_t thread_nanoseconds();

} // namespace quipu
