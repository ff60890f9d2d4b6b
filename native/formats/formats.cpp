#include "formats/formats.h"

#include "blocks.h"
#include "formats/iq_quants.h"
#include "formats/k_quants.h"
#include "formats/legacy.h"
#include "formats/micro_float.h"
#include "formats/numbers.h"
#include "formats/ternary.h"

namespace quipu {
namespace {

template <class Block> void unpack_blocks(const uint8_t *bytes, float *out, int64_t num_blocks) {
    const auto *blocks = reinterpret_cast<const Block *>(bytes); // packed structs: any alignment will do
    for (int64_t i = 0; i < num_blocks; ++i)
        unpack_block(blocks[i], out + i * Block::kValues);
}

template <class Block> constexpr Format block_format(TypeId type_id, const char *name) {
    return {type_id, name, Block::kValues, int(sizeof(Block)), unpack_blocks<Block>};
}

template <class Number, float (*convert)(Number) = to_f32_number<Number>>
constexpr Format number_format(TypeId type_id, const char *name) {
    return {type_id, name, 1, int(sizeof(Number)), unpack_numbers<Number, convert>};
}

constexpr Format kFormats[] = {
    number_format<float>(kF32, "F32"),
    number_format<uint16_t, to_f32_f16>(kF16, "F16"),
    number_format<uint16_t, to_f32_bf16>(kBF16, "BF16"),
    number_format<double>(kF64, "F64"),
    number_format<int8_t>(kI8, "I8"),
    number_format<int16_t>(kI16, "I16"),
    number_format<int32_t>(kI32, "I32"),
    number_format<int64_t>(kI64, "I64"),
    block_format<BlockQ4_0>(kQ4_0, "Q4_0"),
    block_format<BlockQ4_1>(kQ4_1, "Q4_1"),
    block_format<BlockQ5_0>(kQ5_0, "Q5_0"),
    block_format<BlockQ5_1>(kQ5_1, "Q5_1"),
    block_format<BlockQ8_0>(kQ8_0, "Q8_0"),
    block_format<BlockQ2_K>(kQ2_K, "Q2_K"),
    block_format<BlockQ3_K>(kQ3_K, "Q3_K"),
    block_format<BlockQ4_K>(kQ4_K, "Q4_K"),
    block_format<BlockQ5_K>(kQ5_K, "Q5_K"),
    block_format<BlockQ6_K>(kQ6_K, "Q6_K"),
    block_format<BlockIQ1_S>(kIQ1_S, "IQ1_S"),
    block_format<BlockIQ1_M>(kIQ1_M, "IQ1_M"),
    block_format<BlockIQ2_XXS>(kIQ2_XXS, "IQ2_XXS"),
    block_format<BlockIQ2_XS>(kIQ2_XS, "IQ2_XS"),
    block_format<BlockIQ2_S>(kIQ2_S, "IQ2_S"),
    block_format<BlockIQ3_XXS>(kIQ3_XXS, "IQ3_XXS"),
    block_format<BlockIQ3_S>(kIQ3_S, "IQ3_S"),
    block_format<BlockIQ4_NL>(kIQ4_NL, "IQ4_NL"),
    block_format<BlockIQ4_XS>(kIQ4_XS, "IQ4_XS"),
    block_format<BlockTQ1_0>(kTQ1_0, "TQ1_0"),
    block_format<BlockTQ2_0>(kTQ2_0, "TQ2_0"),
    block_format<BlockMXFP4>(kMXFP4, "MXFP4"),
    block_format<BlockNVFP4>(kNVFP4, "NVFP4"),
    block_format<BlockQ1_0>(kQ1_0, "Q1_0"),
    block_format<BlockQ2_0>(kQ2_0, "Q2_0"),
};

} // namespace

const Format *find_format(int type_id) {
    for (const Format &format : kFormats)
        if (format.type_id == type_id)
            return &format;
    return nullptr;
}

} // namespace quipu
