// Ways of reading memory as fast as possible; the best of them is the machine's limit that speeds are compared with.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// The result depends on every byte, so that no read can be left out.
inline uint8_t fold(B8x32 a) {
    uint8_t bytes[32], x = 0;
    store_b8(bytes, a);
    for (uint8_t b : bytes)
        x |= b;
    return x;
}

uint8_t read_sequential(const uint8_t *p, int64_t n) {
    B8x32 acc[4] = {splat_b8(0), splat_b8(0), splat_b8(0), splat_b8(0)};
    for (int64_t i = 0; i + 128 <= n; i += 128)
        unrolled<4>([&]<int U>() { acc[U] = acc[U] | load_b8(p + i + 32 * U); });
    return fold((acc[0] | acc[1]) | (acc[2] | acc[3]));
}

uint8_t read_prefetched(const uint8_t *p, int64_t n) {
    B8x32 acc[4] = {splat_b8(0), splat_b8(0), splat_b8(0), splat_b8(0)};
    for (int64_t i = 0; i + 128 <= n; i += 128) {
        prefetch(p + i + 4096);
        prefetch(p + i + 4096 + 64);
        unrolled<4>([&]<int U>() { acc[U] = acc[U] | load_b8(p + i + 32 * U); });
    }
    return fold((acc[0] | acc[1]) | (acc[2] | acc[3]));
}

// Four places at once, each with its own page walk and hardware prefetcher.
uint8_t read_streams(const uint8_t *p, int64_t n) {
    B8x32 acc[4] = {splat_b8(0), splat_b8(0), splat_b8(0), splat_b8(0)};
    const int64_t quarter = n / 4 / 64 * 64;
    for (int64_t i = 0; i + 64 <= quarter; i += 64)
        unrolled<4>([&]<int U>() {
            const uint8_t *q = p + U * quarter + i;
            acc[U] = acc[U] | (load_b8(q) | load_b8(q + 32));
        });
    return fold((acc[0] | acc[1]) | (acc[2] | acc[3]));
}

} // namespace
} // namespace quipu::QUIPU_ISA
