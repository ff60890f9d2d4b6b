"""What native tests share: building weights of any type, and running one recorded program on the CPU backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from quipu.backends.cpu import CPUBackend
from quipu.backends.program import Batch, KVSpec, Program, Recorder, Value, Weight
from quipu.gguf.types import GGMLType
from quipu.quant import dequantize

# Where the float16 scales of a block lie, so that random bytes become finite weights.
SCALE_OFFSETS = {
    GGMLType.Q4_0: [0],
    GGMLType.Q4_1: [0, 2],
    GGMLType.Q5_0: [0],
    GGMLType.Q5_1: [0, 2],
    GGMLType.Q8_0: [0],
    GGMLType.Q2_K: [80, 82],
    GGMLType.Q3_K: [108],
    GGMLType.Q4_K: [0, 2],
    GGMLType.Q5_K: [0, 2],
    GGMLType.Q6_K: [208],
    GGMLType.IQ1_S: [0],
    GGMLType.IQ1_M: [],  # scattered over the top nibbles of four words
    GGMLType.IQ2_XXS: [0],
    GGMLType.IQ2_XS: [0],
    GGMLType.IQ2_S: [0],
    GGMLType.IQ3_XXS: [0],
    GGMLType.IQ3_S: [0],
    GGMLType.IQ4_NL: [0],
    GGMLType.IQ4_XS: [0],
    GGMLType.TQ1_0: [52],
    GGMLType.TQ2_0: [64],
    GGMLType.MXFP4: [],  # bytes are always finite scales, if extreme ones
    GGMLType.NVFP4: [],
    GGMLType.Q1_0: [0],
    GGMLType.Q2_0: [0],
}

# Kernels of types with blocks of 256 values multiply by integers of 8 to 14 bits: the scale of 16 or 32 weights
# times the ratio of the activations' scale to the largest of the block (native/ops/matvec_blocks.inl). What rounding
# them loses, against the largest weight of a block:
BLOCK_ERRORS = {
    GGMLType.Q2_K: 3e-4,
    GGMLType.Q3_K: 2e-4,
    GGMLType.Q4_K: 4e-4,
    GGMLType.Q5_K: 6e-4,
    GGMLType.Q6_K: 6e-4,
    GGMLType.IQ1_S: 4e-4,
    GGMLType.IQ1_M: 4e-4,
    GGMLType.IQ2_XXS: 1e-3,
    GGMLType.IQ2_XS: 1e-3,
    GGMLType.IQ2_S: 1e-3,
    GGMLType.IQ3_XXS: 6e-4,
    GGMLType.IQ3_S: 4e-4,
    GGMLType.IQ4_XS: 3e-3,
    GGMLType.TQ1_0: 5e-5,
    GGMLType.TQ2_0: 5e-5,
}


def set_scales(blocks: NDArray[np.uint8], weight_type: GGMLType, scales: NDArray[np.float16]) -> None:
    """Give blocks [..., block bytes] the float16 scales [...]; MXFP4 gets the powers of two below them."""
    for offset in SCALE_OFFSETS[weight_type]:
        blocks[..., offset : offset + 2] = scales[..., None].view(np.uint8)
    if weight_type == GGMLType.IQ1_M:
        bits = scales.view(np.uint16)
        for i in range(4):
            nibble = (bits >> (4 * i) & 15).astype(np.uint8)
            blocks[..., 49 + 2 * i] = blocks[..., 49 + 2 * i] & 15 | nibble << 4
    if weight_type == GGMLType.MXFP4:
        blocks[..., 0] = np.frexp(scales.astype(np.float32))[1] + 127


def random_weight(
    rng: np.random.Generator, name: str, weight_type: GGMLType, rows: int, cols: int
) -> tuple[Weight, NDArray[np.float32]]:
    """A weight of random valid blocks and the float32 [rows, cols] it stands for."""
    if weight_type == GGMLType.F32:
        data = rng.standard_normal((rows, cols)).astype(np.float32).view(np.uint8)
    elif weight_type == GGMLType.F16:
        data = rng.standard_normal((rows, cols)).astype(np.float16).view(np.uint8)
    elif weight_type == GGMLType.BF16:
        words = rng.standard_normal((rows, cols)).astype(np.float32).view(np.uint32) >> 16
        data = words.astype(np.uint16).view(np.uint8)
    else:
        blocks = rng.integers(0, 256, (rows, cols // weight_type.block_size, weight_type.block_bytes), dtype=np.uint8)
        set_scales(blocks, weight_type, rng.uniform(0.001, 0.01, blocks.shape[:2]).astype(np.float16))
        data = blocks.reshape(rows, -1)
    data = np.ascontiguousarray(data.reshape(rows, -1))
    return Weight(name, weight_type, (rows, cols), data), dequantize(data, weight_type)


def float_weight(name: str, values: NDArray[np.float32]) -> Weight:
    """A float32 array [rows, cols] as a weight."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    return Weight(name, GGMLType.F32, values.shape, values.view(np.uint8).reshape(len(values), -1))


def whole_batch(num_tokens: int, page_size: int = 64, pages: list[int] | None = None) -> Batch:
    """One new sequence of `num_tokens`, whose logits are all wanted."""
    count = -(-num_tokens // page_size)
    table = np.array([pages if pages is not None else range(count)], dtype=np.int32)
    tokens = np.arange(num_tokens, dtype=np.int32)
    return Batch(
        token_ids=tokens,
        positions=tokens,
        query_starts=np.array([0, num_tokens], dtype=np.int32),
        kv_lengths=np.array([num_tokens], dtype=np.int32),
        page_tables=table,
        output_rows=tokens,
    )


def run_on_rows(
    backend: CPUBackend, x: NDArray[np.float32], build: Callable[[Recorder, Value], Value]
) -> NDArray[np.float32]:
    """Feed the rows of x (through an embedding) to a graph and return its result."""
    recorder = Recorder()
    result = build(recorder, recorder.embed(float_weight("rows", x)))
    program: Program = recorder.finish(recorder.select_outputs(result))
    executable = backend.compile(program, max_tokens=max(16, len(x)))
    kv = backend.create_kv_storage(KVSpec(1, 1, 64, 64, GGMLType.F32, GGMLType.F32, 64), 8)
    return executable.run(whole_batch(len(x)), kv).copy()


@pytest.fixture(scope="session", params=[1, 2], ids=["one thread", "two threads"])
def backend(request: pytest.FixtureRequest) -> CPUBackend:
    return CPUBackend(request.param)
