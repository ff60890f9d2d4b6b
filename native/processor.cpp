#include "processor.h"

#include <algorithm>
#include <ctime>
#include <thread>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace quipu {

#if defined(__x86_64__)

namespace {

struct Leaf {
    uint32_t a = 0, b = 0, c = 0, d = 0;
};

// Zeros where the processor has no such leaf.
Leaf query(uint32_t leaf, uint32_t subleaf) {
    Leaf result;
    __get_cpuid_count(leaf, subleaf, &result.a, &result.b, &result.c, &result.d);
    return result;
}

bool bit(uint32_t word, int index) {
    return (word >> index) & 1u;
}

// XCR0: which registers the operating system saves. Only where cpuid says that it may be read.
uint64_t enabled_state() {
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t(high) << 32 | low;
}

constexpr uint64_t kVectorState = 0x6, kMaskState = 0xE0, kTileState = 0x60000;

// Linux gives a process the matrix registers on request; threads started later have them too.
bool permit_tiles() {
#if defined(__linux__)
    constexpr long kRequestPermission = 0x1023, kTileData = 18; // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

} // namespace

Processor detect_processor() {
    Processor cpu;
    const Leaf basic = query(1, 0), extended = query(7, 0), more = query(7, 1);
    const bool readable = bit(basic.c, 27); // OSXSAVE
    const uint64_t state = readable ? enabled_state() : 0;
    const bool vectors = (state & kVectorState) == kVectorState;
    const bool masks = vectors && (state & kMaskState) == kMaskState;
    const bool tiles = masks && (state & kTileState) == kTileState && bit(extended.d, 24) && permit_tiles();
    cpu.fma = vectors && bit(basic.c, 12);
    cpu.f16c = vectors && bit(basic.c, 29);
    cpu.avx2 = vectors && bit(extended.b, 5);
    cpu.avxvnni = vectors && bit(more.a, 4);
    cpu.avx512f = masks && bit(extended.b, 16);
    cpu.avx512dq = masks && bit(extended.b, 17);
    cpu.avx512bw = masks && bit(extended.b, 30);
    cpu.avx512vl = masks && bit(extended.b, 31);
    cpu.avx512vnni = masks && bit(extended.c, 11);
    cpu.avx512bf16 = masks && bit(more.a, 5);
    cpu.amx_tile = tiles;
    cpu.amx_int8 = tiles && bit(extended.d, 25);
    cpu.amx_bf16 = tiles && bit(extended.d, 22);
    return cpu;
}

#elif defined(__aarch64__) && defined(__linux__)

Processor detect_processor() {
    constexpr unsigned long kDotProducts = 1ul << 20, kInt8Products = 1ul << 13; // HWCAP_ASIMDDP, HWCAP2_I8MM
    Processor cpu;
    cpu.dotprod = getauxval(AT_HWCAP) & kDotProducts;
    cpu.i8mm = getauxval(AT_HWCAP2) & kInt8Products;
    return cpu;
}

#elif defined(__aarch64__) && defined(__APPLE__)

Processor detect_processor() {
    const auto has = [](const char *name) {
        int value = 0;
        size_t size = sizeof(value);
        return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
    };
    Processor cpu;
    cpu.dotprod = has("hw.optional.arm.FEAT_DotProd");
    cpu.i8mm = has("hw.optional.arm.FEAT_I8MM");
    return cpu;
}

#else

Processor detect_processor() {
    return {};
}

#endif

std::vector<std::string> feature_names(const Processor &cpu) {
    const struct {
        bool present;
        const char *name;
    } features[] = {
        {cpu.avx2, "avx2"},
        {cpu.fma, "fma"},
        {cpu.f16c, "f16c"},
        {cpu.avxvnni, "avx_vnni"},
        {cpu.avx512f, "avx512f"},
        {cpu.avx512bw, "avx512bw"},
        {cpu.avx512dq, "avx512dq"},
        {cpu.avx512vl, "avx512vl"},
        {cpu.avx512vnni, "avx512_vnni"},
        {cpu.avx512bf16, "avx512_bf16"},
        {cpu.amx_tile, "amx_tile"},
        {cpu.amx_int8, "amx_int8"},
        {cpu.amx_bf16, "amx_bf16"},
        {cpu.dotprod, "asimddp"},
        {cpu.i8mm, "i8mm"},
    };
    std::vector<std::string> names;
    for (const auto &feature : features)
        if (feature.present)
            names.emplace_back(feature.name);
    return names;
}

int usable_processors() {
#if defined(__linux__)
    cpu_set_t allowed; // 1024 processors; the call fails where there are more, and all of them count
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0)
        return std::max(1, CPU_COUNT(&allowed));
#endif
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

int64_t involuntary_switches() {
#if defined(__linux__)
    rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) == 0)
        return usage.ru_nivcsw;
#endif
    static thread_local int64_t calls = 0;
    return ++calls;
}

int64_t thread_nanoseconds() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time); // cannot fail: every thread has this clock
    return int64_t(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

} // namespace quipu
