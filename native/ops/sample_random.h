// Random numbers as a function of seed and position: Philox 4x32-10 (Salmon et al., SC11).
#pragma once

#include <algorithm>
#include <cstdint>

namespace quipu {

constexpr uint32_t kXtcStream = 1; // tokens are drawn from stream 0

// 64 random bits; key = seed, counter = (position, stream).
inline uint64_t random_word(uint64_t seed, uint64_t position, uint32_t stream = 0) {
    uint32_t c[4] = {uint32_t(position), uint32_t(position >> 32), stream, 0};
    uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t product0 = uint64_t(0xD2511F53u) * c[0], product1 = uint64_t(0xCD9E8D57u) * c[2];
        const uint32_t next[4] = {uint32_t(product1 >> 32) ^ c[1] ^ key0, uint32_t(product1),
                                  uint32_t(product0 >> 32) ^ c[3] ^ key1, uint32_t(product0)};
        std::copy(next, next + 4, c);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return uint64_t(c[0]) << 32 | c[1];
}

// From 0 to below 1, in steps of 2^-53.
inline double random_fraction(uint64_t seed, uint64_t position, uint32_t stream) {
    return double(random_word(seed, position, stream) >> 11) * 0x1p-53;
}

} // namespace quipu
