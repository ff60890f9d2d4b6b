// Writing and reading the KV cache: one trait per type says how 32 codes and their factors lie in a block of values and
// in the turned blocks of a key tile. Everything is widened to float in a small scratch, once for all query heads.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// --- float types -----------------------------------------------------------------------------------------------------

struct CacheF32 {
    using Number = float;
    static F32x8 load8(const float *p) { return load(p); }
    static void store8(float *p, F32x8 x) { store(p, x); }
};

struct CacheF16 {
    using Number = uint16_t;
    static F32x8 load8(const uint16_t *p) { return load_f16(p); }
    static void store8(uint16_t *p, F32x8 x) { store_f16(p, x); }
};

struct CacheBF16 {
    using Number = uint16_t;
    static F32x8 load8(const uint16_t *p) { return load_bf16(p); }
    static void store8(uint16_t *p, F32x8 x) {
        float values[8];
        store(values, x);
        for (int i = 0; i < 8; i++)
            p[i] = f32_to_bf16(values[i]);
    }
};

// --- quantized types -------------------------------------------------------------------------------------------------

// value = code * d + offset, where the offset is the minimum of the block or -kHalf * d. Products are exact (11 bits
// times at most 8), so one rounding remains, as in quipu.quant.dequantize.
struct CacheQ4_0 {
    using Block = BlockQ4_0;
    static constexpr float kHalf = 8.0f;
    static constexpr bool kHasMinimum = false, kHasFifthBits = false, kIsBytes = false;
    static B8x32 levels(B8x32 codes) { return codes; }
};

struct CacheQ4_1 {
    using Block = BlockQ4_1;
    static constexpr float kHalf = 0.0f;
    static constexpr bool kHasMinimum = true, kHasFifthBits = false, kIsBytes = false;
    static B8x32 levels(B8x32 codes) { return codes; }
};

struct CacheQ5_0 {
    using Block = BlockQ5_0;
    static constexpr float kHalf = 16.0f;
    static constexpr bool kHasMinimum = false, kHasFifthBits = true, kIsBytes = false;
    static B8x32 levels(B8x32 codes) { return codes; }
};

struct CacheQ5_1 {
    using Block = BlockQ5_1;
    static constexpr float kHalf = 0.0f;
    static constexpr bool kHasMinimum = true, kHasFifthBits = true, kIsBytes = false;
    static B8x32 levels(B8x32 codes) { return codes; }
};

struct CacheQ8_0 {
    using Block = BlockQ8_0;
    static constexpr float kHalf = 0.0f;
    static constexpr bool kHasMinimum = false, kHasFifthBits = false, kIsBytes = true;
};

struct CacheIQ4_NL {
    static constexpr std::array<int8_t, 16> kLevels = std::to_array(kIQ4NLLevels);
    using Block = BlockIQ4_NL;
    static constexpr float kHalf = 0.0f;
    static constexpr bool kHasMinimum = false, kHasFifthBits = false, kIsBytes = false;
    static B8x32 levels(B8x32 codes) { return lookup_levels(kLevels, codes); }
};

// Calls f with the trait of a cache type; `float_f` gets those without blocks.
template <class FloatF, class BlockF> inline auto with_cache_type(int type, FloatF float_f, BlockF block_f) {
    switch (type) {
    case kF32:
        return float_f(CacheF32{});
    case kBF16:
        return float_f(CacheBF16{});
    case kQ8_0:
        return block_f(CacheQ8_0{});
    case kQ5_1:
        return block_f(CacheQ5_1{});
    case kQ5_0:
        return block_f(CacheQ5_0{});
    case kQ4_1:
        return block_f(CacheQ4_1{});
    case kQ4_0:
        return block_f(CacheQ4_0{});
    case kIQ4_NL:
        return block_f(CacheIQ4_NL{});
    default:
        return float_f(CacheF16{});
    }
}

// The fields of 16 key blocks, one per token, behind one another in a tile.
template <class C> struct KeyTileBlock {
    static constexpr int kMinima = 2 * kKeyTile;
    static constexpr int kFifthBits = kMinima + (C::kHasMinimum ? 2 * kKeyTile : 0);
    static constexpr int kCodes = kFifthBits + (C::kHasFifthBits ? 4 * kKeyTile : 0);
    static constexpr int kCodeBytes = C::kIsBytes ? 32 : 16; // per token
    static constexpr int kBytes = kCodes + kCodeBytes * kKeyTile;
    static_assert(kBytes == kKeyTile * int(sizeof(typename C::Block)) && kBytes % 32 == 0);
};
// Where byte b of a token's fifth bits lies: bytes 0 and 2, which meet the same code bytes, are neighbours.
constexpr int kFifthBitsPlane[4] = {0, 2, 1, 3};

// --- writing ---------------------------------------------------------------------------------------------------------

// Stores `length` numbers, `stride` apart.
template <class C> void write_numbers(uint8_t *memory, const float *x, int length, int stride) {
    auto *to = reinterpret_cast<typename C::Number *>(memory);
    for (int d = 0; d < length; d += 8) {
        const int n = std::min(8, length - d);
        float values[8] = {};
        std::memcpy(values, x + d, n * sizeof(float));
        typename C::Number narrow[8];
        C::store8(narrow, load(values));
        for (int i = 0; i < n; i++)
            to[(d + i) * stride] = narrow[i];
    }
}

// One block, padded with zeros behind the end of the head.
template <class C> typename C::Block encode_padded(int type, const float *x, int left) {
    float padded[kCacheBlock] = {};
    if (left < kCacheBlock)
        x = static_cast<float *>(std::memcpy(padded, x, left * sizeof(float)));
    typename C::Block block;
    encode_block(type, x, reinterpret_cast<uint8_t *>(&block));
    return block;
}

template <class C> void write_key_blocks(int type, uint8_t *tile, int slot, const float *k, int length) {
    using Tile = KeyTileBlock<C>;
    for (int d = 0; d < length; d += kCacheBlock, tile += Tile::kBytes) {
        const typename C::Block block = encode_padded<C>(type, k + d, length - d);
        std::memcpy(tile + 2 * slot, &block.d, 2);
        if constexpr (C::kHasMinimum)
            std::memcpy(tile + Tile::kMinima + 2 * slot, &block.m, 2);
        if constexpr (C::kHasFifthBits)
            for (int b = 0; b < 4; b++)
                tile[Tile::kFifthBits + kFifthBitsPlane[b] * kKeyTile + slot] = block.qh[b];
        for (int j = 0; j < Tile::kCodeBytes; j++)
            tile[Tile::kCodes + j * kKeyTile + slot] = static_cast<uint8_t>(block.qs[j]);
    }
}

template <class C> void write_value_blocks(int type, uint8_t *row, const float *v, int length) {
    for (int d = 0; d < length; d += kCacheBlock, row += sizeof(typename C::Block)) {
        const typename C::Block block = encode_padded<C>(type, v + d, length - d);
        std::memcpy(row, &block, sizeof(block));
    }
}

void kv_write(const KvLayer &layer, const float *k, const float *v, int64_t page, int slot, int kv_head) {
    uint8_t *tile = layer.k_page(page, kv_head) + slot / kKeyTile * (kKeyTile * layer.k_row_bytes);
    uint8_t *row = layer.v_page(page, kv_head) + slot * layer.v_row_bytes;
    slot %= kKeyTile;
    with_cache_type(
        layer.k_type,
        [&]<class C>(C) { write_numbers<C>(tile + slot * sizeof(typename C::Number), k, layer.key_length, kKeyTile); },
        [&]<class C>(C) { write_key_blocks<C>(layer.k_type, tile, slot, k, layer.key_length); });
    with_cache_type(
        layer.v_type, [&]<class C>(C) { write_numbers<C>(row, v, layer.value_length, 1); },
        [&]<class C>(C) { write_value_blocks<C>(layer.v_type, row, v, layer.value_length); });
}

// --- reading ---------------------------------------------------------------------------------------------------------

// A tile of keys as floats [length][16].
template <class C> void widen_float_keys(const uint8_t *tile, int length, float *out) {
    const auto *from = reinterpret_cast<const typename C::Number *>(tile);
    for (int i = 0; i < length * kKeyTile; i += 16) {
        store(out + i, C::load8(from + i));
        store(out + i + 8, C::load8(from + i + 8));
    }
}

template <class C> void widen_key_blocks(const uint8_t *tile, int length, float *out) {
    using Tile = KeyTileBlock<C>;
    for (int d = 0; d < length; d += kCacheBlock, tile += Tile::kBytes, out += kCacheBlock * kKeyTile) {
        const auto *scales = reinterpret_cast<const uint16_t *>(tile);
        const auto *minima = reinterpret_cast<const uint16_t *>(tile + Tile::kMinima);
        const F32x8 scale[2] = {load_f16(scales), load_f16(scales + 8)};
        F32x8 offset[2];
        for (int h = 0; h < 2; h++)
            offset[h] = C::kHasMinimum ? load_f16(minima + 8 * h) : scale[h] * splat(-C::kHalf);
        const auto widen = [&](const int8_t *levels, float *to) {
            for (int h = 0; h < 2; h++) {
                const F32x8 level = load_i8_f32(levels + 8 * h);
                store(to + 8 * h,
                      C::kHasMinimum || C::kHalf != 0.0f ? fma(level, scale[h], offset[h]) : level * scale[h]);
            }
        };
        const uint8_t *codes = tile + Tile::kCodes;
        if constexpr (C::kIsBytes) {
            for (int j = 0; j < 32; j++)
                widen(reinterpret_cast<const int8_t *>(codes) + j * kKeyTile, out + j * kKeyTile);
        } else {
            // Code byte j of 16 tokens: dimension j in the low lanes, j + 16 in the high lanes. Their fifth bits are
            // bit j % 8 of byte j / 8 and of byte j / 8 + 2.
            const auto widen_pair = [&](int j, B8x32 code) {
                alignas(32) int8_t levels[32];
                store_b8(levels, C::levels(code));
                keep_in_memory(); // loads that widen are cheaper than shuffles
                widen(levels, out + j * kKeyTile);
                widen(levels + 16, out + (j + 16) * kKeyTile);
            };
            if constexpr (C::kHasFifthBits) {
                for (int byte = 0; byte < 2; byte++) {
                    const B8x32 bits = load_b8(tile + Tile::kFifthBits + 2 * byte * kKeyTile);
                    unrolled<8>([&]<int Bit>() {
                        B8x32 moved = bits;
                        if constexpr (Bit > 4)
                            moved = shift_right<Bit - 4>(bits);
                        else if constexpr (Bit < 4)
                            moved = shift_left<4 - Bit>(bits);
                        const int j = 8 * byte + Bit;
                        widen_pair(j, split_nibbles(codes + j * kKeyTile) | (moved & splat_b8(16)));
                    });
                }
            } else {
                for (int j = 0; j < 16; j++)
                    widen_pair(j, split_nibbles(codes + j * kKeyTile));
            }
        }
    }
}

using WidenKeys = void (*)(const uint8_t *tile, int length, float *out);

// nullptr for F32, whose tiles are read where they lie.
inline WidenKeys widen_keys_of(int type) {
    if (type == kF32)
        return nullptr;
    return with_cache_type(
        type, []<class C>(C) -> WidenKeys { return widen_float_keys<C>; },
        []<class C>(C) -> WidenKeys { return widen_key_blocks<C>; });
}

// 32 dimensions of `count` values as floats [count][32]. A row that ends inside is read past its end: what is made of
// the following bytes lands in lanes that nobody uses.
template <class C>
void widen_float_values(const uint8_t *rows, int64_t row_bytes, int slice, int num_vectors, int count, float *out) {
    const uint8_t *from = rows + int64_t(slice) * kValueSlice * sizeof(typename C::Number);
    for (int t = 0; t < count; t++, from += row_bytes, out += kValueSlice)
        for (int i = 0; i < num_vectors; i++)
            store(out + 8 * i, C::load8(reinterpret_cast<const typename C::Number *>(from) + 8 * i));
}

template <class C>
void widen_value_blocks(const uint8_t *rows, int64_t row_bytes, int slice, int, int count, float *out) {
    const uint8_t *from = rows + slice * sizeof(typename C::Block);
    for (int t = 0; t < count; t++, from += row_bytes, out += kValueSlice) {
        const auto &block = *reinterpret_cast<const typename C::Block *>(from);
        const float d = f16_to_f32(block.d);
        const F32x8 scale = splat(d);
        F32x8 offset = splat(-C::kHalf * d);
        if constexpr (C::kHasMinimum)
            offset = splat(f16_to_f32(block.m));
        alignas(32) int8_t buffer[32];
        const int8_t *levels = buffer;
        if constexpr (C::kIsBytes) {
            levels = block.qs;
        } else {
            B8x32 code = split_nibbles(block.qs);
            if constexpr (C::kHasFifthBits)
                code = code | expand_bits(block.qh, 16);
            store_b8(buffer, C::levels(code));
            keep_in_memory();
        }
        for (int i = 0; i < 4; i++) {
            const F32x8 level = load_i8_f32(levels + 8 * i);
            store(out + 8 * i, C::kHasMinimum || C::kHalf != 0.0f ? fma(level, scale, offset) : level * scale);
        }
    }
}

using WidenValues = void (*)(const uint8_t *rows, int64_t row_bytes, int slice, int num_vectors, int count, float *out);

inline WidenValues widen_values_of(int type) {
    return with_cache_type(
        type, []<class C>(C) -> WidenValues { return widen_float_values<C>; },
        []<class C>(C) -> WidenValues { return widen_value_blocks<C>; });
}

} // namespace
} // namespace quipu::QUIPU_ISA
