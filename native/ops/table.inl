// The kernel table of one instruction set. The including file has defined QUIPU_ISA and the vector vocabulary.
#pragma once

#include "ops/inlining.h"
#include "ops/weights.inl"

#include "ops/elementwise.inl"
#include "ops/encoder.inl"
#include "ops/matvec_eights.inl"

#include "ops/matvec_blocks.inl"

#include "ops/matvec.inl"

#include "ops/matmul.inl"

#include "ops/attention_cache.inl"

#include "ops/attention.inl"
#include "ops/bandwidth.inl"

namespace quipu::QUIPU_ISA {

// Sets whose tile kernels win earlier define this smaller.
#ifndef QUIPU_MAX_ROW_TOKENS
#define QUIPU_MAX_ROW_TOKENS kMaxRowTokens
#endif
static_assert(QUIPU_MAX_ROW_TOKENS <= kMaxRowTokens);

#define QUIPU_STRING(x) QUIPU_STRING_(x)
#define QUIPU_STRING_(x) #x

extern const Kernels kernels;
const Kernels kernels = {
    .name = QUIPU_STRING(QUIPU_ISA),
    .max_row_tokens = QUIPU_MAX_ROW_TOKENS,
    .max_block_tokens = kHasDotFours ? QUIPU_MAX_ROW_TOKENS : kMaxBlockTokens,
    .tiles_blocks = !kHasDotFours,
    .rms_norm = rms_norm,
    .swiglu = swiglu,
    .add = add,
    .layer_norm = layer_norm,
    .gelu = gelu,
    .gelu_tanh = gelu_tanh,
    .tanh = tanh,
    .rope = rope,
    .quantize_row = quantize_row,
    .quantize_panel = quantize_panel,
    .float_panel = float_panel,
    .pack_tokens = pack_tokens,
    .matvec = matvec,
    .matmul_tile = matmul_tile,
    .kv_write = kv_write,
    .attention = attention,
    .merge_attention = merge_attention,
    .read_sequential = read_sequential,
    .read_prefetched = read_prefetched,
    .read_streams = read_streams,
};

} // namespace quipu::QUIPU_ISA
