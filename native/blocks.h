// The blocks of every quantized GGUF tensor type, byte for byte as they lie in the file (layout facts: ggml-common.h of
// llama.cpp, MIT). Field names are ggml's. Fields are little endian; `f16` marks IEEE half bits.
//
// The structs are packed because a row starts wherever the file puts it: many block sizes are odd multiples of two,
// some are odd, so no field may be assumed aligned.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

static_assert(std::endian::native == std::endian::little,
              "GGUF blocks are read in place, which needs a little-endian host");

namespace quipu {

using f16 = uint16_t;

constexpr int kSuperBlock = 256; // values per block of all K, IQ (but IQ4_NL) and TQ types

#pragma pack(push, 1)

// ---- One scale per short block. Nibble j of qs holds value j (low half) and value j + size / 2 (high half). ----

struct BlockQ4_0 { // d * (q - 8)
    static constexpr int kValues = 32;
    f16 d;
    uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

struct BlockQ4_1 { // d * q + m
    static constexpr int kValues = 32;
    f16 d;
    f16 m;
    uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

struct BlockQ5_0 { // d * (q - 16)
    static constexpr int kValues = 32;
    f16 d;
    uint8_t qh[4]; // bit j: fifth bit of value j
    uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

struct BlockQ5_1 { // d * q + m
    static constexpr int kValues = 32;
    f16 d;
    f16 m;
    uint8_t qh[4];
    uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

struct BlockQ8_0 { // d * q
    static constexpr int kValues = 32;
    f16 d;
    int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

struct BlockIQ4_NL { // d * level[q]
    static constexpr int kValues = 32;
    f16 d;
    uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

struct BlockMXFP4 { // 2^(e - 128) * (2 * E2M1)
    static constexpr int kValues = 32;
    uint8_t e; // E8M0
    uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

struct BlockNVFP4 { // four groups of 16, each like a short block
    static constexpr int kValues = 64;
    uint8_t d[4]; // UE4M3
    uint8_t qs[32];
};
static_assert(sizeof(BlockNVFP4) == 36);

struct BlockQ1_0 { // bit ? d : -d
    static constexpr int kValues = 128;
    f16 d;
    uint8_t qs[16];
};
static_assert(sizeof(BlockQ1_0) == 18);

struct BlockQ2_0 { // d * (q - 1), two bits each in order
    static constexpr int kValues = 64;
    f16 d;
    uint8_t qs[16];
};
static_assert(sizeof(BlockQ2_0) == 18);

// ---- Super-blocks of 256 values: f16 scale(s) times small integer scales of groups of 16 or 32. ----

struct BlockQ2_K {
    static constexpr int kValues = kSuperBlock;
    uint8_t scales[16]; // per 16 values: low nibble scale, high nibble minimum
    uint8_t qs[64];
    f16 d;
    f16 dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

struct BlockQ3_K {
    static constexpr int kValues = kSuperBlock;
    uint8_t hmask[32]; // third bit; clear means -4
    uint8_t qs[64];
    uint8_t scales[12]; // 16 scales of 6 bits, offset 32
    f16 d;
};
static_assert(sizeof(BlockQ3_K) == 110);

struct BlockQ4_K {
    static constexpr int kValues = kSuperBlock;
    f16 d;
    f16 dmin;
    uint8_t scales[12]; // 8 scales and 8 minima of 6 bits
    uint8_t qs[128];    // per 64 values 32 bytes: low nibbles, then high nibbles
};
static_assert(sizeof(BlockQ4_K) == 144);

struct BlockQ5_K {
    static constexpr int kValues = kSuperBlock;
    f16 d;
    f16 dmin;
    uint8_t scales[12];
    uint8_t qh[32]; // bit g of byte j: fifth bit of value 32 * g + j
    uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

struct BlockQ6_K {
    static constexpr int kValues = kSuperBlock;
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    f16 d;
};
static_assert(sizeof(BlockQ6_K) == 210);

struct BlockIQ4_XS {
    static constexpr int kValues = kSuperBlock;
    f16 d;
    uint16_t scales_h;   // two high bits of each of the 8 scales
    uint8_t scales_l[4]; // four low bits
    uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// ---- Super-blocks of 256 values that index a grid of 4 or 8 values at a time. ----

struct BlockIQ2_XXS {
    static constexpr int kValues = kSuperBlock;
    f16 d;
    uint32_t qs[16]; // per 32 values: 4 grid indices of 8 bits, then 4 sign words of 7 bits and a scale of 4
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

struct BlockIQ2_XS {
    static constexpr int kValues = kSuperBlock;
    f16 d;
    uint16_t qs[32]; // per 8 values: grid index of 9 bits, sign word of 7
    uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74);

struct BlockIQ2_S {
    static constexpr int kValues = kSuperBlock;
    f16 d;
    uint8_t qs[32]; // low 8 bits of the grid index
    uint8_t signs[32];
    uint8_t qh[8]; // two high bits of the grid index
    uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82);

struct BlockIQ3_XXS {
    static constexpr int kValues = kSuperBlock;
    f16 d;
    uint8_t qs[64];    // grid index per 4 values
    uint32_t signs[8]; // per 32 values: 4 sign words of 7 bits and a scale of 4
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

struct BlockIQ3_S {
    static constexpr int kValues = kSuperBlock;
    f16 d;
    uint8_t qs[64]; // low 8 bits of the grid index per 4 values
    uint8_t qh[8];  // ninth bit
    uint8_t signs[32];
    uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110);

struct BlockIQ1_S {
    static constexpr int kValues = kSuperBlock;
    f16 d;
    uint8_t qs[32]; // low 8 bits of the grid index per 8 values
    uint16_t qh[8]; // per 32 values: 4 x 3 high bits, a scale of 3 bits, the sign of the shift
};
static_assert(sizeof(BlockIQ1_S) == 50);

struct BlockIQ1_M {
    static constexpr int kValues = kSuperBlock;
    uint8_t qs[32];     // low 8 bits of the grid index per 8 values
    uint8_t qh[16];     // per 8 values a nibble: 3 high bits, the sign of the shift
    uint16_t scales[4]; // 16 scales of 3 bits; the four top nibbles together are the f16 scale
};
static_assert(sizeof(BlockIQ1_M) == 56);

// ---- Super-blocks of 256 ternary values. ----

struct BlockTQ1_0 {
    static constexpr int kValues = kSuperBlock;
    uint8_t qs[48]; // five base-3 digits per byte
    uint8_t qh[4];  // four base-3 digits per byte
    f16 d;
};
static_assert(sizeof(BlockTQ1_0) == 54);

struct BlockTQ2_0 {
    static constexpr int kValues = kSuperBlock;
    uint8_t qs[64];
    f16 d;
};
static_assert(sizeof(BlockTQ2_0) == 66);

#pragma pack(pop)

} // namespace quipu
