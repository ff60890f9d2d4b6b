"""Random weights of every tensor type, with scales that make them look like a trained model's in size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from quipu.gguf import GGMLType
from quipu.quant import QUANT_TYPES, dequantize

WEIGHT_STD = 0.02  # as in the published initialisation of Llama and Qwen

# A prime number of blocks: rows that start every b blocks all differ until this many of them have been taken.
_NUM_BLOCKS = 262_147
_SAMPLE_BLOCKS = 4096

# Types with a minimum beside the scale: the minimum as a multiple of the scale that centres the values on zero, which is
# half of the largest code.
_MINIMUM_PER_SCALE = {
    GGMLType.Q4_1: ("m", -7.5),
    GGMLType.Q5_1: ("m", -15.5),
    GGMLType.Q2_K: ("dmin", 1.5),
    GGMLType.Q4_K: ("dmin", 7.5),
    GGMLType.Q5_K: ("dmin", 15.5),
}
# Types whose scale is one byte, an exponent or a small float: its field, and the largest value that is finite.
_BYTE_SCALES = {GGMLType.MXFP4: ("e", 254), GGMLType.NVFP4: ("d", 126)}


class RandomBlocks:
    """An endless supply of valid blocks of one type: a pool of random ones, handed out round and round."""

    def __init__(self, tensor_type: GGMLType, rng: np.random.Generator) -> None:
        """
        Args:
            tensor_type: any type that stores weights.
            rng: where the bits come from.
        """
        self.type = tensor_type
        self._pool = _random_bytes(tensor_type, rng)
        self._next_byte = 0

    def take(self, num_bytes: int) -> Iterator[NDArray[np.uint8]]:
        """The next `num_bytes`, a whole number of blocks, as views of the pool: uint8 pieces, not copied."""
        while num_bytes:
            piece = self._pool[self._next_byte : self._next_byte + num_bytes]
            self._next_byte = (self._next_byte + len(piece)) % len(self._pool)
            num_bytes -= len(piece)
            yield piece


def _random_bytes(tensor_type: GGMLType, rng: np.random.Generator) -> NDArray[np.uint8]:
    if tensor_type.block_size == 1:
        return _random_floats(tensor_type, rng)
    layout = np.dtype(list(QUANT_TYPES[tensor_type].layout.items()))
    blocks = rng.integers(0, 256, _NUM_BLOCKS * tensor_type.block_bytes, dtype=np.uint8).view(layout)
    if tensor_type in _BYTE_SCALES:
        _set_byte_scales(blocks, tensor_type)
    else:
        spread = rng.uniform(0.7, 1.3, _NUM_BLOCKS)
        _set_scales(blocks[:_SAMPLE_BLOCKS], tensor_type, spread[:_SAMPLE_BLOCKS])
        std = float(dequantize(blocks[:_SAMPLE_BLOCKS].view(np.uint8), tensor_type).std())
        _set_scales(blocks, tensor_type, spread * (WEIGHT_STD / std))
    return blocks.view(np.uint8)


def _random_floats(tensor_type: GGMLType, rng: np.random.Generator) -> NDArray[np.uint8]:
    values = rng.standard_normal(_NUM_BLOCKS, dtype=np.float32) * np.float32(WEIGHT_STD)
    if tensor_type == GGMLType.BF16:
        return np.ascontiguousarray(values.view(np.uint16)[1::2]).view(np.uint8)
    dtypes = {GGMLType.F32: np.float32, GGMLType.F16: np.float16, GGMLType.F64: np.float64}
    return values.astype(dtypes[tensor_type]).view(np.uint8)


def _set_scales(blocks: NDArray[np.void], tensor_type: GGMLType, scales: NDArray[np.float64]) -> None:
    """Write the float16 scale of each block, and its minimum where the type has one."""
    halves = scales.astype("<f2")
    if tensor_type == GGMLType.IQ1_M:  # the half is spread over the top four bits of four words, lowest bits first
        shifts = np.arange(0, 16, 4, dtype=np.uint16)
        nibbles = halves.view(np.uint16)[:, np.newaxis] >> shifts & np.uint16(0xF)
        blocks["scales"] = blocks["scales"] & np.uint16(0x0FFF) | nibbles << np.uint16(12)
        return
    blocks["d"] = halves
    if tensor_type in _MINIMUM_PER_SCALE:
        name, ratio = _MINIMUM_PER_SCALE[tensor_type]
        blocks[name] = (halves.astype(np.float64) * ratio).astype("<f2")


def _set_byte_scales(blocks: NDArray[np.void], tensor_type: GGMLType) -> None:
    """Give all blocks the one byte whose values come closest to the wanted size."""
    name, largest = _BYTE_SCALES[tensor_type]
    sample = blocks[:64].copy()

    def distance(code: int) -> float:
        sample[name] = code
        return abs(float(dequantize(sample.view(np.uint8), tensor_type).astype(np.float64).std()) - WEIGHT_STD)

    blocks[name] = min(range(1, largest + 1), key=distance)
